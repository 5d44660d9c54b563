"""What verl's and OpenRLHF's own loggers write, imported."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from klaudit.records import PRIMARY
from klaudit.store import Store
from klaudit.workflows.imports import import_file
from tests.verl_openrlhf.conftest import log_of_openrlhf, log_of_verl

Tracking = importlib.import_module("verl.utils.tracking").Tracking
KLS = [0.01, 0.02, float("nan"), 0.04]


def track(config: Any) -> None:
    tracking = Tracking("project", "gsm8k", default_backend=["console", "file"], config=config)
    for step, kl in enumerate(KLS, start=1):
        tracking.log(data=log_of_verl(kl=kl), step=step)
    del tracking


def require_kls(store: Store, path: Path, kls: list[Any], *, framework: str) -> None:
    (imported,) = import_file(store, path)
    assert imported.loaded.run.framework == framework
    series = store.runs.get(imported.loaded.run.id).series[PRIMARY]
    assert (series.kind, series.unit) == ("reference", "nats_per_token")
    steps = store.steps.list(imported.loaded.run.id)
    assert [one.step for one in steps] == [1, 2, 3, 4]
    assert [one.kl.value for one in steps] == pytest.approx(kls, nan_ok=True)


def test_the_file_that_verls_file_logger_writes(
    verl_config: dict[str, Any], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verl.jsonl"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(path))
    track(verl_config)
    # orjson writes null for NaN, which is read as a number that was computed and was none.
    require_kls(store, path, KLS, framework="verl")


def test_the_lines_that_verls_console_logger_prints(
    verl_config: dict[str, Any], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "other.jsonl"))
    track(verl_config)
    path = tmp_path / "verl.log"
    path.write_text(capfd.readouterr().out)
    require_kls(store, path, KLS, framework="verl")


def test_the_event_files_that_openrlhfs_logger_writes(store: Store, tmp_path: Path) -> None:
    logging_utils = importlib.import_module("openrlhf.utils.logging_utils")
    arguments = SimpleNamespace(logger=SimpleNamespace(tensorboard_dir=str(tmp_path / "runs"), wandb=SimpleNamespace(run_name="ppo")))
    logger = logging_utils.TensorboardLogger(arguments)
    for step, kl in enumerate((0.01, 0.02, 0.03, 0.04), start=1):
        logger.log_train(step, log_of_openrlhf(kl=kl, policy_loss=0.1))
    logger.close()
    (directory,) = {path.parent for path in (tmp_path / "runs").rglob("events*")}
    require_kls(store, directory, [0.01, 0.02, 0.03, 0.04], framework="openrlhf")
