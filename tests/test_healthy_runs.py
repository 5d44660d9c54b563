"""The long recorded runs in which nothing was planted: what an audit says of them is a false alarm, and stands in their page."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from klaudit.assets import locate_asset
from klaudit.audit import Audit
from klaudit.demo.recipe import Recipe, read_recipe
from klaudit.demo.truth import derive_truth
from klaudit.exchange.recorded_run import RecordedRun, read_recorded_run
from klaudit.records import Severity
from klaudit.store import open_store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.recorded_runs import load_recorded_run

HEALTHY_RUNS = sorted(path.parent for path in (locate_asset("sample_runs") / "healthy").glob("*/config.toml"))
BYTES_A_STEP = 1_350
CRITICAL = {"full-stops": ["KLA204"]}
"""False alarms that are even critical."""


@dataclass(frozen=True)
class HealthyRun:
    directory: Path
    recipe: Recipe
    recorded: RecordedRun
    audit: Audit


@functools.cache
def load_healthy(directory: Path) -> HealthyRun:
    """A run, put into a store and audited with the default policy."""
    with open_store("sqlite://", create=True) as store:
        loaded = load_recorded_run(store, directory)
        return HealthyRun(
            directory=directory,
            recipe=read_recipe(directory / "config.toml"),
            recorded=read_recorded_run(directory),
            audit=audit_stored_run(store, loaded.run.id),
        )


@pytest.fixture(params=HEALTHY_RUNS, ids=[path.name for path in HEALTHY_RUNS])
def healthy(request: pytest.FixtureRequest) -> HealthyRun:
    return load_healthy(request.param)


def test_the_run_is_that_of_its_config_and_whole(healthy: HealthyRun) -> None:
    recipe, recorded = healthy.recipe, healthy.recorded
    assert recorded.run.name == recipe.name == f"healthy-{healthy.directory.name}"
    assert recorded.run.status == "finished"
    settings = {name: getattr(recipe.ppo, name) for name in ("max_steps", "seed", "learning_rate", "batch_size", "response_length", "beta")}
    assert {name: recorded.run.config[name] for name in settings} == settings
    assert [step.step for step in recorded.steps] == list(range(1, recipe.ppo.max_steps + 1))


def test_nothing_was_planted_in_it(healthy: HealthyRun) -> None:
    truth = json.loads((healthy.directory / "truth.json").read_text(encoding="utf-8"))
    assert truth == derive_truth(healthy.recipe)
    assert (truth["is_healthy"], truth["planted"]) == (True, [])


def test_it_is_small_and_says_nothing_of_the_machine(healthy: HealthyRun) -> None:
    files = sorted(healthy.directory.iterdir())
    assert [path.name for path in files] == ["config.toml", "steps.jsonl", "truth.json"]
    assert sum(path.stat().st_size for path in files) < BYTES_A_STEP * len(healthy.recorded.steps)
    assert [path.name for path in files if re.search('"(/|file:)|/(home|root|tmp)/', path.read_text(encoding="utf-8"))] == []


def test_an_audit_says_of_it_what_its_page_says(healthy: HealthyRun) -> None:
    told = [one for one in healthy.audit.findings if one.severity.rank >= Severity.WARNING.rank]
    alarms = [f"{one.severity.value} {one.code} at step {one.detected_step}" for one in told]
    page = (healthy.directory.parents[1] / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{healthy.directory.name}` | {len(healthy.recorded.steps)} |"))
    assert row.split("|")[-2].strip() == (", ".join(alarms) or "nothing")
    assert healthy.audit.coverage.kl_measured == len(healthy.recorded.steps)


def test_an_audit_finds_nothing_critical_but_what_is_known(healthy: HealthyRun) -> None:
    critical = [one.code for one in healthy.audit.findings if one.severity is Severity.CRITICAL]
    assert critical == CRITICAL.get(healthy.directory.name, [])
