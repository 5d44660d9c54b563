from pathlib import Path
from typing import Any

import pytest

from klaudit.callbacks.flat_logs import FlatLogs
from klaudit.errors import InvalidConfig, KLBudgetExceeded
from klaudit.exchange.frameworks import OPENRLHF
from klaudit.records import PRIMARY, KLBudget
from klaudit.store import Store

ARGUMENTS = {
    "algo": {"kl": {"estimator": "k1", "init_coef": 0.02}},
    "rollout": {"temperature": 1.0},
    "logger": {"wandb": {"key": "hunter2"}},
}


def make_logs(**more: Any) -> FlatLogs:
    settings: dict[str, Any] = {"framework": OPENRLHF, "arguments": ARGUMENTS, "reference": "owner/model", "batch_size": 8}
    return FlatLogs("flat", **(settings | more))


def numbers(kl: float, **more: float) -> dict[str, float]:
    return {"kl": kl, "ppo_kl": 0.001, "ppo_clip_ratio": 0.1, "reward": 0.5, **more}


@pytest.fixture(autouse=True)
def store_of_settings(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAUDIT_STORE", store_url)


def test_a_run_begins_with_its_first_step(store: Store) -> None:
    logs = make_logs(planned_steps=2)
    assert logs.run is None
    logs.close()
    assert store.runs.list() == []
    logs = make_logs(planned_steps=2)
    logs.log(1, numbers(0.1))
    assert not logs.is_complete
    logs.log(2, numbers(0.2))
    assert logs.is_complete
    logs.close()
    run = store.runs.get("flat")
    assert (run.status, run.beta, run.reference and run.reference.name) == ("finished", 0.02, "owner/model")
    assert run.series[PRIMARY].source_key == "kl"
    assert run.config["logger"] == {"wandb": {"key": "(secret, not recorded)"}}
    assert [step.kl.n_sequences for step in store.steps.list(run.id)] == [8, 8]


def test_one_step_is_recorded_once_and_what_came_later_stands_with_the_next(store: Store) -> None:
    logs = make_logs()
    logs.log(1, numbers(0.1))
    logs.log(1, numbers(0.9, late=7.0))
    logs.keep({"eval_pass1": 0.3})
    logs.log(2, numbers(0.2))
    logs.close()
    first, second = store.steps.list(store.runs.get("flat").id)
    assert (first.kl.value, second.kl.value) == (0.1, 0.2)
    assert (second.metrics["late"], second.metrics["eval_pass1"]) == (7.0, 0.3)
    assert not {"late", "eval_pass1"} & first.metrics.keys()
    assert logs.guard.failures == 0


@pytest.mark.parametrize(("first", "logging_steps", "runs"), [(1, 1, 2), (2, 1, 1), (10, 10, 2), (11, 10, 1)])
def test_a_first_step_that_is_late_goes_on_with_the_run_of_that_name(store: Store, first: int, logging_steps: int, runs: int) -> None:
    for step in (1, first):
        logs = make_logs(logging_steps=logging_steps)
        logs.log(step, numbers(0.1))
        logs.close()
    assert len(store.runs.list()) == runs


def test_a_budget_stops_the_trainer_and_the_run_is_closed(store: Store) -> None:
    store.budgets.add(KLBudget(0.5, "nats_per_token", match="flat", action="stop", on="value"))
    logs = make_logs()
    with pytest.raises(KLBudgetExceeded):
        logs.log(1, numbers(2.0))
    logs.log(2, numbers(2.0))
    assert [step.step for step in store.steps.list(store.runs.get("flat").id)] == [1]


def test_settings_that_cannot_be_read_are_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAUDIT_WEBHOOK", "no URL")
    with pytest.raises(InvalidConfig):
        make_logs()


def test_steps_that_go_down_and_things_that_are_no_numbers_cost_nothing_but_themselves(store: Store) -> None:
    logs = make_logs()
    logs.log(5, {**numbers(0.1), "text": ["a", "b"], "thing": object()})
    logs.log(4, numbers(0.1))
    logs.log(6, numbers(0.1))
    logs.close()
    logs.log(7, numbers(0.1))
    assert [step.step for step in store.steps.list(store.runs.get("flat").id)] == [5, 6]
    assert logs.guard.failures == 1
