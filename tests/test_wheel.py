"""What `pip install` puts on a machine: the wheel, unpacked, and used from there."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def run_klaudit(installed: Path, directory: Path, *arguments: str) -> str:
    """The command line of the unpacked wheel, which must not fall back on the checkout."""
    script = (
        "import sys, klaudit, pathlib\n"
        "assert pathlib.Path(klaudit.__file__).is_relative_to(sys.argv[1]), klaudit.__file__\n"
        "from klaudit.cli import main\n"
        "main(sys.argv[2:])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KLAUDIT_")} | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", script, str(installed), *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_adds_one_top_level_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {one for one in tops if not one.endswith(".dist-info")} == {"klaudit"}


def test_the_wheel_carries_pages_migrations_and_sample_runs_and_no_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert max(one.file_size for one in archive.infolist()) < 1_000_000
    assert "klaudit/app/streamlit_app.py" in names
    assert "klaudit/app/.streamlit/config.toml" in names
    assert "klaudit/db/versions/0001_first_tables.py" in names
    recorded = [name.split("/")[2:] for name in names if name.startswith("klaudit/sample_runs/") and name.endswith("/steps.jsonl")]
    assert len([path for path in recorded if len(path) == 2]) == 3
    assert {path[0] for path in recorded if len(path) == 3} == {"broken", "healthy", "sweep"}


def test_a_store_is_made_and_the_sample_runs_are_loaded_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    run_klaudit(installed, tmp_path, "db", "upgrade")
    run_klaudit(installed, tmp_path, "demo", "--replay")
    runs = json.loads(run_klaudit(installed, tmp_path, "runs", "list", "--json"))["runs"]
    assert {one["name"]: one["steps"] for one in runs} == {"adaptive-beta": 64, "beta-near-zero": 64, "learning-rate-spike": 64}
