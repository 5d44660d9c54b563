import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRACKERS = ROOT / ".venv-trackers" / "bin" / "python"

RunTracker = Callable[..., str]


@pytest.fixture(scope="session")
def run_tracker(tmp_path_factory: pytest.TempPathFactory) -> RunTracker:
    """`run_tracker(script, *arguments, asked=..., code=0, **environment)`: a script of tests/trackers, run where the tools are installed."""
    if not TRACKERS.exists():
        reason = "the environment of other trackers is not there; make test makes it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("home")

    def run(script: str, *arguments: object, asked: Any = None, code: int = 0, **environment: object) -> str:
        quiet = {"HOME": home, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [TRACKERS, ROOT / "tests" / "trackers" / script, *map(str, arguments)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            cwd=home,
            env={**os.environ, **{name: str(value) for name, value in (quiet | environment).items()}},
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    return run
