import json

import pytest

from klaudit.detectors.persistence import Persistence
from klaudit.errors import InvalidRecord


@pytest.mark.parametrize(
    ("needed", "of", "occasions", "expected"),
    [
        (2, 3, "..x.x..xx", "....x...x"),
        (1, 1, "x.x", "x.x"),
        (3, 5, "x.x.x...xxx", "....x.....x"),
        (3, 3, "xx.xxx", ".....x"),
    ],
)
def test_it_counts_the_last_occasions_and_no_others(needed: int, of: int, occasions: str, expected: str) -> None:
    persistence = Persistence(needed, of=of)
    assert "".join("x" if persistence.observe(one == "x") else "." for one in occasions) == expected


def test_what_was_cleared_does_not_count() -> None:
    persistence = Persistence(2, of=3)
    persistence.observe(True)
    persistence.clear()
    assert not persistence.observe(True)


def test_it_goes_on_from_its_state() -> None:
    persistence, other = Persistence(2, of=3), Persistence(2, of=3)
    persistence.observe(True)
    other.load_state_dict(json.loads(json.dumps(persistence.state_dict())))
    assert other.observe(False) == persistence.observe(False)
    assert other.observe(True) is True


@pytest.mark.parametrize(("needed", "of"), [(0, 3), (4, 3)])
def test_more_than_there_are_is_refused(needed: int, of: int) -> None:
    with pytest.raises(InvalidRecord, match="needed"):
        Persistence(needed, of=of)
