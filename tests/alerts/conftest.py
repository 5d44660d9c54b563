from collections.abc import Iterator

import pytest

from tests.alerts.receiver import Receiver, serve


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serve() as serving:
        yield serving
