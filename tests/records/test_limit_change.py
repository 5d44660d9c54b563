from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from klaudit.errors import InvalidRecord
from klaudit.records import BudgetTerm, KLBudget, LimitChange, list_limit_changes
from klaudit.records.limit_change import Loosening

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
REMOVED = START + timedelta(hours=5)
OLD = KLBudget(2.0, "nats_per_sequence", on="value", action="stop", id="old", created_at=START)
WINDOW = replace(OLD, scope="window", window_steps=20)


def replace_by(old: KLBudget, *others: BudgetTerm) -> list[tuple[tuple[Loosening, ...], str | None]]:
    """What is said of the removal of `old`, by Ada."""
    changes = list_limit_changes([BudgetTerm(old, REMOVED, "Ada"), *others])
    assert all((change.changed_at, change.before, change.by) == (REMOVED, old, "Ada") for change in changes if change.before is old)
    return [(change.what, None if change.after is None else change.after.id) for change in changes]


def set_after(hours: float, *, like: KLBudget = OLD, removed_after: float | None = None, **fields: Any) -> BudgetTerm:
    budget = replace(like, **{"id": "new", "created_at": REMOVED + timedelta(hours=hours), **fields})
    return BudgetTerm(budget, None if removed_after is None else REMOVED + timedelta(hours=removed_after))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"limit": 5.0}, ("limit",)),
        ({"on": "bound"}, ("on",)),
        ({"action": "alert"}, ("action",)),
        ({"scope": "window", "window_steps": 5}, ("scope",)),
        ({"limit": 5.0, "action": "save_checkpoint"}, ("limit", "action")),
    ],
)
def test_a_replacement_is_looser_in_named_respects(fields: dict[str, Any], what: tuple[str, ...]) -> None:
    assert replace_by(OLD, set_after(0.1, **fields)) == [(what, "new")]


@pytest.mark.parametrize("fields", [{}, {"limit": 1.0}, {"owner": "Grace"}])
def test_one_that_is_no_looser_is_no_change(fields: dict[str, Any]) -> None:
    assert replace_by(OLD, set_after(0.1, **fields)) == []


def test_a_removal_without_a_replacement_leaves_no_limit() -> None:
    assert replace_by(OLD) == [(("removed",), None)]
    assert replace_by(OLD, set_after(0.1, unit="nats_per_token")) == [(("removed",), None)]


def test_one_that_comes_hours_later_leaves_the_time_between_without_a_limit() -> None:
    assert replace_by(OLD, set_after(2)) == [(("removed",), None)]


def test_one_that_was_there_all_along_replaces_the_same_scope_and_no_other() -> None:
    assert replace_by(OLD, set_after(-3)) == []
    assert replace_by(OLD, set_after(-3, like=WINDOW)) == [(("removed",), None)]


def test_of_several_the_tightest_counts() -> None:
    assert replace_by(OLD, set_after(0.1, limit=9.0), set_after(0.2, limit=2.0)) == []


def test_a_shorter_window_and_single_steps_are_faster_than_a_window() -> None:
    assert replace_by(WINDOW, set_after(0.1, like=WINDOW, window_steps=5)) == []
    assert replace_by(WINDOW, set_after(0.1)) == []
    assert replace_by(WINDOW, set_after(0.1, like=WINDOW, window_steps=50)) == [(("scope",), "new")]


def test_a_chain_of_replacements_is_a_change_each() -> None:
    assert replace_by(OLD, set_after(0, limit=4.0, removed_after=1), set_after(1, limit=8.0, id="newer")) == [
        (("limit",), "new"),
        (("limit",), "newer"),
    ]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRecord, match=r"BudgetTerm\.removed_at must carry a time zone"):
        BudgetTerm(OLD, datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused here
    with pytest.raises(InvalidRecord, match=r"LimitChange\.changed_at must carry a time zone"):
        LimitChange(datetime(2026, 1, 1), OLD)  # noqa: DTZ001 - what is refused here
