"""verl 0.9.1: its own Tracking, with klaudit as one of its loggers."""

import gc
import importlib
import importlib.metadata
import json
import math
import subprocess
import sys
from typing import Any

import pytest

from klaudit.callbacks.verl import BACKEND, add_backend
from klaudit.errors import KLBudgetExceeded
from klaudit.records import PRIMARY, KLBudget
from klaudit.store import Store
from tests.verl_openrlhf.conftest import log_of_verl

Tracking = importlib.import_module("verl.utils.tracking").Tracking


def track(config: Any, *, experiment: str = "gsm8k") -> Any:
    return Tracking("project", experiment, default_backend=["console", BACKEND], config=config)


def test_verl_knows_the_backend_by_itself() -> None:
    (plugin,) = importlib.metadata.entry_points(group="verl.plugins", name="klaudit")
    assert plugin.value == "klaudit.callbacks.verl"
    code = "import sys, verl; from verl.utils.tracking import Tracking; print('klaudit' in Tracking.supported_backend, 'klaudit.store' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["True", "False"]


def test_adding_the_backend_twice_is_adding_it_once() -> None:
    init, finish = Tracking.__init__, Tracking.finish
    add_backend(Tracking)
    assert (Tracking.__init__, Tracking.finish) == (init, finish)
    assert Tracking.supported_backend.count(BACKEND) == 1


def test_a_run_of_verl_is_in_the_store_with_its_kl_labelled(
    verl_config: dict[str, Any], store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    tracking = track(verl_config)
    tracking.log(data={"val-core/gsm8k/acc/mean@1": 0.1}, step=0)
    for step in range(1, 5):
        tracking.log(data=log_of_verl(kl=step / 100), step=step)
    tracking.finish()
    run = store.runs.get("gsm8k")
    kl = run.series[PRIMARY]
    assert (run.framework, run.status, run.planned_steps, run.batch_size) == ("verl", "finished", 4, 32)
    assert (kl.kind, kl.estimator, kl.unit, kl.temperature) == ("reference", "k1", "nats_per_token", 0.8)
    assert kl.source_key == "actor/reward_kl_penalty"
    assert run.series["kl_update"].kind == "update"
    assert run.policy == "owner/model"
    assert run.reference is not None
    assert run.reference.name == "owner/model"
    steps = store.steps.list(run.id)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    assert [step.kl.value for step in steps] == [0.01, 0.02, 0.03, 0.04]
    assert {step.beta for step in steps} == {0.001}
    assert {step.score for step in steps} == {0.4}
    assert steps[0].metrics["val-core/gsm8k/acc/mean@1"] == 0.1
    assert "val-core/gsm8k/acc/mean@1" not in steps[1].metrics
    assert steps[0].metrics["rlhf_reward"] == 0.39
    printed = capfd.readouterr()
    assert "step:4 - actor/reward_kl_penalty:0.04" in printed.out
    assert printed.err.count("actor/reward_kl_penalty: k1, nats per token, temperature 0.8") == 1


def test_the_configuration_is_recorded_without_its_secrets(verl_config: dict[str, Any], store: Store) -> None:
    tracking = track(verl_config)
    tracking.log(data=log_of_verl(), step=1)
    tracking.finish()
    config = store.runs.get("gsm8k").config
    assert config["algorithm"]["kl_ctrl"]["type"] == "fixed"
    assert "hunter2" not in json.dumps(config)
    identity = store.runs.get("gsm8k").identity
    assert identity is not None
    assert identity["packages"]["verl"] == "0.9.1"


def test_a_kl_in_the_loss_is_another_series(verl_config: dict[str, Any], store: Store) -> None:
    verl_config["algorithm"]["use_kl_in_reward"] = False
    verl_config["actor_rollout_ref"]["actor"] |= {"use_kl_loss": True, "kl_loss_type": "low_var_kl", "kl_loss_coef": 0.01}
    tracking = track(verl_config)
    # Its critic warms up: the actor, and its KL, comes later.
    tracking.log(data={"critic/score/mean": 0.1, "response_length/mean": 90.0}, step=1)
    tracking.log(data={"critic/score/mean": 0.2, "response_length/mean": 90.0, "actor/kl_loss": 0.005, "actor/kl_coef": 0.01}, step=2)
    tracking.finish()
    run = store.runs.get("gsm8k")
    assert (run.series[PRIMARY].estimator, run.series[PRIMARY].source_key) == ("k3", "actor/kl_loss")
    first, second = store.steps.list(run.id)
    assert (first.kl.value, second.kl.value) == (None, 0.005)
    assert (first.beta, second.beta) == (0.01, 0.01)


def test_without_a_reference_the_run_says_so(verl_config: dict[str, Any], store: Store) -> None:
    verl_config["algorithm"]["use_kl_in_reward"] = False
    tracking = track(verl_config)
    tracking.log(data={"actor/ppo_kl": 0.001, "critic/score/mean": 0.1}, step=1)
    tracking.finish()
    run = store.runs.get("gsm8k")
    assert run.reference is None
    assert run.governing_key is None
    assert run.identity is not None
    assert any("use_kl_in_reward and use_kl_loss are both off" in note for note in run.identity["notes"])


def test_a_run_without_a_configuration_is_known_by_its_keys(store: Store) -> None:
    tracking = track(None)
    tracking.log(data=log_of_verl(), step=1)
    tracking.finish()
    run = store.runs.get("gsm8k")
    assert run.series[PRIMARY].source_key == "actor/reward_kl_penalty"


def test_a_resumed_run_goes_on_in_a_new_segment_and_a_new_one_is_another_run(verl_config: dict[str, Any], store: Store) -> None:
    for steps in (range(1, 3), range(3, 5), range(1, 2)):
        tracking = track(verl_config)
        for step in steps:
            tracking.log(data=log_of_verl(), step=step)
        tracking.finish()
    run = store.runs.get("gsm8k")
    assert [(step.segment, step.step) for step in store.steps.list(run.id)] == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert len(store.steps.list(store.runs.get("gsm8k-2").id)) == 1


@pytest.mark.parametrize(("last", "exit_code", "status"), [(4, 0, "finished"), (3, 0, "failed"), (4, 1, "failed")])
def test_a_run_that_ends_before_its_last_step_has_failed(
    verl_config: dict[str, Any], store: Store, last: int, exit_code: int, status: str
) -> None:
    tracking = track(verl_config)
    for step in range(1, last + 1):
        tracking.log(data=log_of_verl(), step=step)
    tracking.finish(exit_code)
    assert store.runs.get("gsm8k").status == status


def test_tracking_that_nobody_finishes_ends_its_run(verl_config: dict[str, Any], store: Store) -> None:
    tracking = track(verl_config)
    for step in range(1, 5):
        tracking.log(data=log_of_verl(), step=step)
    del tracking
    gc.collect()
    assert store.runs.get("gsm8k").status == "finished"


def test_a_budget_of_the_store_stops_verl_by_an_exception(verl_config: dict[str, Any], store: Store) -> None:
    store.budgets.add(KLBudget(0.05, "nats_per_token", match="gsm*", action="stop", on="value"))
    tracking = track(verl_config)
    tracking.log(data=log_of_verl(kl=0.01), step=1)
    with pytest.raises(KLBudgetExceeded, match="gsm8k"):
        tracking.log(data=log_of_verl(kl=0.5), step=2)
    run = store.runs.get("gsm8k")
    assert [step.kl.value for step in store.steps.list(run.id)] == [0.01, 0.5]
    tracking.finish()


@pytest.mark.parametrize("data", [{}, {"actor/reward_kl_penalty": "a text"}, {"x": object()}, {"actor/reward_kl_penalty": None}, {"actor/reward_kl_penalty": math.inf}])  # fmt: skip
def test_whatever_is_logged_training_goes_on(verl_config: dict[str, Any], store: Store, data: dict[str, Any]) -> None:
    tracking = Tracking("project", "gsm8k", default_backend=BACKEND, config=verl_config)
    tracking.log(data=data, step=1)
    tracking.log(data=log_of_verl(), step=2)
    tracking.log(data=log_of_verl(), step=2)
    tracking.log(data=log_of_verl(), step=1)
    tracking.finish()
    assert 2 in [step.step for step in store.steps.list(store.runs.get("gsm8k").id)]


def test_verl_without_klaudit_among_its_loggers_records_nothing(verl_config: dict[str, Any], store: Store) -> None:
    tracking = Tracking("project", "gsm8k", default_backend=["console"], config=verl_config)
    tracking.log(data=log_of_verl(), step=1)
    tracking.finish()
    assert store.runs.list() == []
