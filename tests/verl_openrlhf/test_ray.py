"""Both projects train in a process of Ray: klaudit must get there by itself."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from klaudit.store import open_store
from tests.verl_openrlhf.conftest import log_of_openrlhf, log_of_verl

ray: Any = importlib.import_module("ray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a Ray of one worker, begun as the pages of both trainers say, records to."""
    folder = tmp_path_factory.mktemp("ray")
    # The worker cannot import a test.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    hooks = {"worker_process_setup_hook": "klaudit.callbacks.openrlhf.install"}
    settings = {"env_vars": {"KLAUDIT_STORE": f"sqlite:///{folder / 'klaudit.db'}", "PYTHONPATH": str(Path(__file__).parents[2])}}
    with pytest.MonkeyPatch.context() as patch:
        # Else Ray leaves a token in the home directory.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # By default a worker gives way to everything else on the machine.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(num_cpus=1, include_dashboard=False, runtime_env=hooks | settings, log_to_driver=False)
        yield folder
        ray.shutdown()


def train_with_openrlhf(args: Any, logs: Any) -> None:
    logger = importlib.import_module("openrlhf.utils.logging_utils").TensorboardLogger(args)
    logger.log_train(1, logs)
    logger.close()


def train_with_verl(logs: Any) -> None:
    tracking = importlib.import_module("verl.utils.tracking").Tracking("project", "in-ray-verl", default_backend=["console", "klaudit"])
    tracking.log(data=logs, step=1)
    tracking.finish()


def test_openrlhf_and_verl_are_recorded_from_a_process_of_ray(folder: Path) -> None:
    args = SimpleNamespace(logger=SimpleNamespace(tensorboard_dir=str(folder), wandb=SimpleNamespace(run_name="in-ray-openrlhf")))
    ray.get(ray.remote(train_with_openrlhf).remote(args, log_of_openrlhf()))
    ray.get(ray.remote(train_with_verl).remote(log_of_verl()))
    with open_store(f"sqlite:///{folder / 'klaudit.db'}") as store:
        runs = {summary.run.name: summary.n_steps for summary in store.runs.list()}
    assert runs == {"in-ray-openrlhf": 1, "in-ray-verl": 1}
