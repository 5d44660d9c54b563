"""OpenRLHF 0.11.2: its own loggers. TensorBoard's is the real one; W&B's is OpenRLHF's own class over a module that only takes notes."""

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from klaudit.callbacks import openrlhf
from klaudit.errors import KLBudgetExceeded
from klaudit.records import PRIMARY, KLBudget
from klaudit.store import Store
from tests.verl_openrlhf.conftest import log_of_openrlhf

logging_utils = importlib.import_module("openrlhf.utils.logging_utils")
hierarchize = importlib.import_module("openrlhf.utils.config").hierarchize


@pytest.fixture(autouse=True)
def installed(store_url: str) -> None:
    openrlhf.install()


@pytest.fixture
def args(tmp_path: Path) -> Any:
    """As openrlhf.cli.train_ppo_ray makes them."""
    flat = {
        "actor.model_name_or_path": "owner/model",
        "algo.kl.init_coef": 0.01,
        "algo.kl.estimator": "k3",
        "algo.kl.target": None,
        "algo.kl.use_loss": False,
        "rollout.batch_size": 8,
        "rollout.n_samples_per_prompt": 4,
        "rollout.temperature": 1.0,
        "logger.logging_steps": 1,
        "logger.tensorboard_dir": str(tmp_path / "tensorboard"),
        "logger.wandb.key": "hunter2",
        "logger.wandb.org": None,
        "logger.wandb.project": "p",
        "logger.wandb.group": None,
        "logger.wandb.run_name": "ppo-7",
    }
    return hierarchize(Namespace(**flat))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module that OpenRLHF takes for W&B, and what it was told."""
    told: list[dict[str, Any]] = []
    module: Any = ModuleType("wandb")
    module.api = Namespace(api_key="here")
    module.init = lambda **_: None
    module.define_metric = lambda *_, **__: None
    module.log = told.append
    module.finish = lambda: None
    module.Table = lambda columns, data=None: Namespace(columns=columns, data=[], add_data=lambda *_: None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_what_tensorboard_is_told_is_in_the_store_with_its_kl_labelled(args: Any, store: Store, tmp_path: Path) -> None:
    logger = logging_utils.TensorboardLogger(args)
    for step in range(1, 4):
        logger.log_train(step, log_of_openrlhf(kl=step / 100))
        logger.log_eval(step, {"eval_gsm8k_pass1": step / 10})
    logger.close()
    run = store.runs.get("ppo-7")
    kl = run.series[PRIMARY]
    assert (run.framework, run.status, run.batch_size) == ("openrlhf", "finished", 32)
    assert (kl.kind, kl.estimator, kl.unit, kl.temperature, kl.source_key) == ("reference", "k3", "nats_per_token", 1.0, "kl")
    assert run.policy == "owner/model"
    steps = store.steps.list(run.id)
    assert [step.kl.value for step in steps] == [0.01, 0.02, 0.03]
    assert [step.metrics.get("eval_gsm8k_pass1") for step in steps] == [None, 0.1, 0.2]
    assert {step.beta for step in steps} == {0.01}
    assert {step.score for step in steps} == {0.6}
    assert steps[0].readings["kl_update"].value == 0.0005
    assert len(list((tmp_path / "tensorboard" / "ppo-7").iterdir())) == 1
    assert "hunter2" not in json.dumps(run.config)


def test_two_loggers_of_one_trainer_make_one_run(args: Any, store: Store, wandb: list[dict[str, Any]]) -> None:
    loggers = [logging_utils.WandbLogger(args), logging_utils.TensorboardLogger(args)]
    for step in (1, 2):
        for logger in loggers:
            logger.log_train(step, log_of_openrlhf())
    for logger in loggers:
        logger.close()
    (summary,) = store.runs.list()
    assert (summary.run.name, summary.run.status) == ("ppo-7", "finished")
    assert [step.step for step in store.steps.list(summary.run.id)] == [1, 2]
    assert [entry["train/kl"] for entry in wandb if "train/kl" in entry] == [0.02, 0.02]
    assert loggers[0].klaudit.guard.failures == 0


def test_a_budget_of_the_store_stops_openrlhf_by_an_exception(args: Any, store: Store) -> None:
    store.budgets.add(KLBudget(0.05, "nats_per_token", match="ppo-*", action="stop", on="value"))
    logger = logging_utils.TensorboardLogger(args)
    logger.log_train(1, log_of_openrlhf())
    with pytest.raises(KLBudgetExceeded, match="ppo-7"):
        logger.log_train(2, log_of_openrlhf(kl=1.0))
    assert len(store.steps.list(store.runs.get("ppo-7").id)) == 2


def test_logging_every_tenth_step_is_no_resume(args: Any, store: Store) -> None:
    args.logger.logging_steps = 10
    for args.logger.wandb.run_name, first in (("ppo-7", 10), ("ppo-7", 10), ("ppo-7", 30)):
        openrlhf._runs.clear()
        logger = logging_utils.TensorboardLogger(args)
        logger.log_train(first, log_of_openrlhf())
        logger.close()
    assert {summary.run.name: summary.n_steps for summary in store.runs.list()} == {"ppo-7": 2, "ppo-7-2": 1}


def test_installing_twice_is_installing_once(args: Any) -> None:
    before = {name: vars(getattr(logging_utils, name))["log_train"] for name in openrlhf.LOGGERS}
    openrlhf.install()
    assert {name: vars(getattr(logging_utils, name))["log_train"] for name in openrlhf.LOGGERS} == before


def test_a_process_without_openrlhf_starts_all_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "openrlhf.utils.logging_utils", None)
    openrlhf.install()
    assert "nothing is recorded, because OpenRLHF's loggers cannot be imported" in capsys.readouterr().err


def test_whatever_is_logged_training_goes_on(args: Any, store: Store) -> None:
    logger = logging_utils.TensorboardLogger(args)
    logger.log_train(1, {})
    logger.log_train(2, {"kl": float("nan"), "ppo_kl": None})
    logger.log_train(1, log_of_openrlhf())
    logger.close()
    (step,) = store.steps.list(store.runs.get("ppo-7").id)
    assert (step.step, step.kl.value is not None) == (2, True)
