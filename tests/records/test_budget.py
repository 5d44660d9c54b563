from datetime import datetime
from typing import Any

import pytest

from klaudit.errors import InvalidBudget, InvalidRecord
from klaudit.records import KLBudget


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), "5", None])
def test_a_limit_is_a_positive_number(limit: Any) -> None:
    with pytest.raises(InvalidBudget, match=r"KLBudget\.limit must be a positive number of nats; got"):
        KLBudget(limit, "nats_per_sequence")


def test_a_limit_without_a_unit_limits_nothing() -> None:
    with pytest.raises(InvalidBudget, match="a limit without a unit limits nothing"):
        KLBudget(1.0, "unknown")


@pytest.mark.parametrize(("field", "value"), [("unit", "bits"), ("scope", "run"), ("on", "always"), ("action", "explode")])
def test_a_word_outside_the_vocabulary_is_refused_and_named(field: str, value: str) -> None:
    fields: dict[str, Any] = {"unit": "nats_per_token", field: value}
    with pytest.raises(InvalidRecord, match=rf"KLBudget\.{field} must be one of .*; got '{value}'"):
        KLBudget(1.0, **fields)


@pytest.mark.parametrize(
    ("scope", "window"), [("window", None), ("per_step", 5), ("path", 5), ("window", 0), ("window", 2.5), ("window", "3")]
)
def test_a_window_has_a_whole_number_of_steps_and_nothing_else_has(scope: Any, window: Any) -> None:
    with pytest.raises(InvalidBudget, match=rf"window_steps .*{window!r}"):
        KLBudget(1.0, "nats_per_token", scope=scope, window_steps=window)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRecord, match=r"KLBudget\.created_at must carry a time zone"):
        KLBudget(1.0, "nats_per_token", created_at=datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused here


@pytest.mark.parametrize(
    ("budget", "covered"),
    [
        (KLBudget(1.0, "nats_per_token", run_id="id-1"), True),
        (KLBudget(1.0, "nats_per_token", run_id="id-2"), False),
        (KLBudget(1.0, "nats_per_token", match="prod-*"), True),
        (KLBudget(1.0, "nats_per_token", match="PROD-*"), False),
        (KLBudget(1.0, "nats_per_token"), True),
    ],
)
def test_a_budget_covers_its_run_or_the_names_that_match_or_every_run(budget: KLBudget, covered: bool) -> None:
    assert budget.covers("id-1", "prod-7") is covered


def test_a_label_has_limit_unit_and_scope() -> None:
    assert KLBudget(2.0, "nats_per_sequence").label == "2 nats/sequence, per step"
    assert KLBudget(0.1, "nats_per_token", scope="window", window_steps=10).label == "0.1 nats/token, EWMA over 10 steps"
