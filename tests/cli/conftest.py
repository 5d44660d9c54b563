import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.cli.main import run as run_command
from klaudit.records import KLBudget, TextSample
from klaudit.store import upgrade_store
from tests.cli.outcome import Outcome
from tests.workflows.recordings import begin, make_step, record_all

Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def clean_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command runs in an empty directory, and none sees the settings of who runs the tests."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("KLAUDIT_STORE", "KLAUDIT_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def klaudit(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> Outcome:
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def planted_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs: `quiet`, and `loud` that breaks its budget at step 3; copy it."""
    path = tmp_path_factory.mktemp("store") / "planted.db"
    upgrade_store(f"sqlite:///{path}")
    with begin(f"sqlite:///{path}", "quiet") as recorder:
        record_all(recorder, [0.0, 0.1, 0.12])
    with begin(f"sqlite:///{path}", "loud", budgets=[KLBudget(1.0, "nats_per_sequence", owner="me")]) as recorder:
        record_all(recorder, [0.0, 0.1])
        recorder.log(make_step(3, 2.0), samples=[TextSample(3, "The film was", " good", ())])
        recorder.log(make_step(4, float("nan")))
    return path


@pytest.fixture
def store_file(planted_file: Path) -> Path:
    """The planted store, where commands look for one."""
    return Path(shutil.copy(planted_file, "klaudit.db")).resolve()


@pytest.fixture
def store_url(store_file: Path) -> str:
    return f"sqlite:///{store_file}"
