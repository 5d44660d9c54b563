import pytest

from klaudit.report import Report
from tests.report.invented import Invented, invent_run


@pytest.fixture
def invented() -> Invented:
    return invent_run()


@pytest.fixture
def report(invented: Invented) -> Report:
    return invented.report()
