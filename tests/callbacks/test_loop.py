import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import klaudit
from klaudit.errors import InvalidBudget, InvalidConfig, NotAStore
from klaudit.records import KLBudget, KLReading, KLSeries, ReferenceModel, TextSample
from klaudit.store import Store
from klaudit.workflows.stops import list_stops

K1 = KLSeries(estimator="k1", unit="nats_per_sequence")
FULL = KLSeries(estimator="full", unit="nats_per_sequence")


def test_a_loop_logs_as_the_readme_shows(store_url: str, store: Store) -> None:
    run = klaudit.start_run("my-loop", kl=K1, batch_size=64, beta=0.05, store=store_url)
    run.log(step=1, kl=0.02, beta=0.05, score=0.31, metrics={"entropy": 2.1})
    run.close()
    assert run.failures == 0
    stored = store.runs.get("my-loop")
    assert (stored.status, stored.framework, stored.batch_size, stored.beta, stored.series) == ("finished", "loop", 64, 0.05, {"kl": K1})
    (step,) = store.steps.list(stored.id)
    assert (step.step, step.beta, step.score, step.metrics) == (1, 0.05, 0.31, {"entropy": 2.1})
    assert step.kl == KLReading(K1, 0.02, None, 64)


def test_a_loop_may_give_readings_and_texts(store_url: str, store: Store) -> None:
    with klaudit.start_run("my-loop", store=store_url, reference=ReferenceModel("base"), policy_model="mine", algorithm="reinforce") as run:
        reading = KLReading(FULL, 0.5, 0.1, 16, 24.0)
        run.log(step=1, kl=reading, readings={"kl_k1": KLReading(K1, 0.4)}, samples=[TextSample(1, "p", "c", ())])
    assert run.failures == 0
    stored = store.runs.get("my-loop")
    assert (stored.series, stored.governing_key) == ({"kl": FULL, "kl_k1": K1}, "kl")
    assert (stored.reference, stored.policy, stored.algorithm) == (ReferenceModel("base"), "mine", "reinforce")
    (step,) = store.steps.list(stored.id)
    assert step.kl == reading
    assert step.readings == {"kl_k1": KLReading(K1, 0.4)}
    assert [one.completion for one in store.samples.list(stored.id)] == ["c"]


def test_a_bare_number_of_no_declared_series_is_unknown_and_stays_so(store_url: str, store: Store) -> None:
    with klaudit.start_run("my-loop", store=store_url, budget=KLBudget(0.1, "nats_per_sequence")) as run:
        run.log(step=1, kl=5.0)
        run.log(step=2, kl=KLReading(FULL, 5.0))
    stored = store.runs.get("my-loop")
    assert (stored.series["kl"].kind, stored.governing_key) == ("unknown", None)
    # The second step would have given the first one's number a meaning that nobody declared.
    assert [step.step for step in store.steps.list(stored.id)] == [1]
    assert run.failures == 1


def test_a_step_without_a_kl_is_not_a_step_with_kl_zero(store_url: str, store: Store) -> None:
    with klaudit.start_run("my-loop", kl=K1, store=store_url) as run:
        run.log(step=1, score=0.5)
        run.log(step=2, kl=0.0)
        run.log(step=3, kl=math.nan)
    first, second, third = store.steps.list(store.runs.get("my-loop").id)
    assert (first.kl.value, first.kl.not_measured) == (None, "the loop gave no kl at this step")
    assert second.kl.value == 0.0
    assert third.kl.value is not None
    assert math.isnan(third.kl.value)


def test_the_beta_of_the_run_is_that_of_a_step_that_says_none(store_url: str, store: Store) -> None:
    with klaudit.start_run("my-loop", beta=0.05, store=store_url) as run:
        run.log(step=1)
        run.log(step=2, beta=0.1)
    assert [step.beta for step in store.steps.list(store.runs.get("my-loop").id)] == [0.05, 0.1]


def test_leaving_the_block_by_an_exception_marks_the_run_as_failed(store_url: str, store: Store) -> None:
    def train() -> None:
        with klaudit.start_run("my-loop", store=store_url) as run:
            run.log(step=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert store.runs.get("my-loop").status == "failed"


def test_closing_twice_is_closing_once(store_url: str, store: Store) -> None:
    run = klaudit.start_run("my-loop", store=store_url)
    run.close(failed=True)
    run.close()
    assert store.runs.get("my-loop").status == "failed"
    assert run.failures == 0


def test_a_second_start_is_another_run_and_a_resume_goes_on(store_url: str, store: Store) -> None:
    for resumed_from_step in (None, None, 1):
        with klaudit.start_run("my-loop", kl=K1, store=store_url, resumed_from_step=resumed_from_step) as run:
            run.log(step=1 if resumed_from_step is None else 2, kl=0.1)
    assert run.record.name == "my-loop"
    assert {one.run.name: one.n_steps for one in store.runs.list()} == {"my-loop": 2, "my-loop-2": 1}


ODD: list[dict[str, Any]] = [
    {"step": -1},
    {"step": 1},
    {"step": "two"},
    {"step": 2, "kl": "high"},
    {"step": 2, "metrics": {"entropy": "low"}},
    {"step": 2, "kl": KLReading(KLSeries(estimator="k3", unit="nats_per_token"), 0.1)},
    {"step": 2, "samples": [TextSample(7, "p", "c", ())]},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_logging_never_raises_and_the_next_step_is_recorded(
    store_url: str, store: Store, capsys: pytest.CaptureFixture[str], odd: dict[str, Any]
) -> None:
    with klaudit.start_run("my-loop", kl=K1, store=store_url) as run:
        run.log(step=1, kl=0.1)
        run.log(**odd)
        run.log(**odd)
        run.log(step=3, kl=0.3)
    assert run.failures == 2
    assert [(step.step, step.kl.value) for step in store.steps.list(run.record.id)] == [(1, 0.1), (3, 0.3)]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_logging_to_a_closed_run_never_raises(store_url: str) -> None:
    run = klaudit.start_run("my-loop", store=store_url)
    run.close()
    run.log(step=1)
    run.close()


def test_a_budget_that_says_stop_ends_the_loop_with_the_step_recorded(store_url: str, store: Store) -> None:
    budget = KLBudget(1.0, "nats_per_sequence", on="value", action="stop")
    run = klaudit.start_run("my-loop", kl=FULL, store=store_url, budget=budget)

    def train() -> None:
        with run:
            for step in range(1, 10):
                run.log(step=step, kl=0.4 * step)

    with pytest.raises(klaudit.KLBudgetExceeded, match="KLA101 in run 'my-loop'"):
        train()
    stored = store.runs.get("my-loop")
    assert [step.step for step in store.steps.list(stored.id)] == [1, 2, 3]
    assert (stored.status, run.failures) == ("finished", 0)
    assert [(one.segment, one.step) for one in list_stops(store, stored.id)] == [(0, 3)]


@pytest.mark.parametrize("action", ["raise_beta", "save_checkpoint"])
def test_an_action_that_a_loop_cannot_take_is_refused(store_url: str, store: Store, action: Any) -> None:
    with pytest.raises(InvalidBudget, match=action):
        klaudit.start_run("my-loop", store=store_url, budget=KLBudget(1.0, "nats_per_sequence", action=action))
    assert store.runs.list() == []


def test_a_run_that_cannot_be_recorded_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("no database, and long enough to be told from one. " * 20)
    with pytest.raises(NotAStore):
        klaudit.start_run("my-loop", store=f"sqlite:///{path}")
    with pytest.raises(InvalidConfig):
        klaudit.start_run("my-loop", webhook="nowhere", store=f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("step", ["a", 1.5, 2.0, float("nan"), True, None, 2**70, -1])
def test_a_step_that_is_no_whole_number_is_refused_by_name_and_harms_nothing(
    store_url: str, store: Store, capsys: pytest.CaptureFixture[str], step: Any
) -> None:
    with klaudit.start_run("my-loop", kl=K1, store=store_url) as run:
        run.log(step=step, kl=0.1)
        run.log(step=3, kl=0.3)
        assert (run.failures, run.lost) == (1, 0)
    assert [one.step for one in store.steps.list(run.record.id)] == [3]
    assert "expected step to be a whole number from 0 to 2^63 - 1; got" in capsys.readouterr().err


def test_whole_numbers_of_another_library_are_steps(store_url: str, store: Store) -> None:
    with klaudit.start_run("my-loop", kl=K1, store=store_url) as run:
        run.log(step=np.int64(1), kl=0.1)  # type: ignore[arg-type]
        run.log(step=torch.tensor(2), kl=np.float32(0.5), metrics={"entropy": np.float64(2.0)})  # type: ignore[arg-type]
    assert [(one.step, one.kl.value) for one in store.steps.list(run.record.id)] == [(1, 0.1), (2, 0.5)]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"a": "b"}, "metrics['a']: expected a number; got 'b'"),
        ([1], "expected a mapping of names"),
        ({1: 2.0}, "names that are texts; got 1"),
    ],
)
def test_metrics_that_are_none_are_refused_by_name(store_url: str, capsys: pytest.CaptureFixture[str], metrics: Any, message: str) -> None:
    with klaudit.start_run("my-loop", kl=K1, store=store_url) as run:
        run.log(step=1, kl=0.1, metrics=metrics)
        assert (run.failures, run.lost) == (1, 0)
    assert message in capsys.readouterr().err
