import importlib.metadata
import subprocess
import sys

import pytest

import klaudit

HEAVY = {"torch", "transformers", "streamlit", "pandas", "plotly", "sqlalchemy", "alembic", "numpy", "pydantic", "rich", "typer"}
"""What an import of klaudit must not drag along."""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_klaudit_imports_nothing_heavy() -> None:
    imported = run_python("import sys, klaudit; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "klaudit" in imported
    assert set(imported) & HEAVY == set()


def test_all_is_exactly_what_can_be_reached() -> None:
    assert klaudit.__all__ == sorted(klaudit.__all__)
    assert {name for name in klaudit.__all__ if getattr(klaudit, name) is not None} == set(klaudit.__all__)
    assert set(klaudit.__all__) <= set(dir(klaudit))


def test_the_names_of_the_readme_are_there() -> None:
    assert {"attach", "KLAuditCallback", "KLBudget", "start_run", "KLSeries", "KLReading"} <= set(klaudit.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'klaudit' has no attribute 'atach'"):
        klaudit.atach  # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert klaudit.__version__ == importlib.metadata.version("klaudit")


BLOCKED = "import sys\nfor name in ('torch', 'transformers', 'streamlit', 'pandas', 'plotly'): sys.modules[name] = None\n"


def test_a_loop_is_recorded_and_listed_without_torch_streamlit_and_pandas(tmp_path: object) -> None:
    code = f"""
{BLOCKED}
import klaudit, os
os.chdir({str(tmp_path)!r})
with klaudit.start_run("loop", kl=klaudit.KLSeries(estimator="k1", unit="nats_per_sequence")) as run:
    run.log(step=1, kl=0.02)
assert run.failures == 0
from klaudit.cli.main import run as command
sys.exit(command(["audit", "loop"]) or command(["report", "loop", "--out", "report.html"]) or command(["runs", "list"]))
"""
    assert "loop" in run_python(code)


@pytest.mark.parametrize("name", ["attach", "KLAuditCallback"])
def test_what_needs_transformers_says_how_to_get_it(name: str) -> None:
    code = f"""
{BLOCKED}
import klaudit
try:
    klaudit.{name}
except klaudit.KlauditError as error:
    print(type(error).__name__, error)
"""
    assert run_python(code) == (
        f'MissingExtra klaudit.{name} needs an optional part of klaudit. Install it with: pip install "klaudit[train]"'
    )
