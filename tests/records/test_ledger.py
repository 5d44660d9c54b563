from datetime import datetime

import pytest

from klaudit.errors import InvalidRecord
from klaudit.records.ledger import Actor, LedgerEntry, LedgerHead


@pytest.mark.parametrize(("name", "label"), [(None, "ada@trainer-3"), ("Ada", "Ada (ada@trainer-3)")])
def test_an_actor_in_words(name: str | None, label: str) -> None:
    assert Actor("ada", "trainer-3", 7, name).label == label


def test_a_head_has_no_negative_number() -> None:
    with pytest.raises(InvalidRecord, match=r"LedgerHead\.seq must be 0 or more; got -1"):
        LedgerHead(-1, "")


def test_an_entry_needs_a_time_with_a_zone() -> None:
    at = datetime(2026, 11, 22)  # noqa: DTZ001
    with pytest.raises(InvalidRecord, match=r"LedgerEntry\.at must carry a time zone"):
        LedgerEntry(1, None, None, "steps", at, Actor("ada", "trainer-3", 7), {}, "", None, "")
