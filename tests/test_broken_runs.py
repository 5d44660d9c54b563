"""The recorded runs that were broken at a known step: an audit names the cause in time, and says nothing before it or of the healthy one."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from klaudit.assets import locate_asset
from klaudit.audit import Audit
from klaudit.demo.faults import FAULT_KINDS
from klaudit.demo.recipe import Recipe, read_recipe
from klaudit.demo.truth import derive_truth
from klaudit.exchange.recorded_run import RecordedRun, read_recorded_run
from klaudit.records import Finding, Severity
from klaudit.store import open_store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.recorded_runs import load_recorded_run

BROKEN_RUNS = locate_asset("sample_runs") / "broken"
NAMES = sorted(path.parent.name for path in BROKEN_RUNS.glob("*/config.toml"))
HEALTHY = "healthy"


@dataclass(frozen=True)
class BrokenRun:
    directory: Path
    recipe: Recipe
    truth: dict[str, Any]
    recorded: RecordedRun
    audit: Audit

    @property
    def alarms(self) -> list[Finding]:
        """Findings at warning or above, by when they were made."""
        found = [one for one in self.audit.findings if one.severity.rank >= Severity.WARNING.rank]
        return sorted(found, key=lambda one: (one.detected_step, one.code))


@functools.cache
def load_broken(name: str) -> BrokenRun:
    """A run, put into a store and audited with the default policy."""
    directory = BROKEN_RUNS / name
    with open_store("sqlite://", create=True) as store:
        loaded = load_recorded_run(store, directory)
        return BrokenRun(
            directory=directory,
            recipe=read_recipe(directory / "config.toml"),
            truth=json.loads((directory / "truth.json").read_text(encoding="utf-8")),
            recorded=read_recorded_run(directory),
            audit=audit_stored_run(store, loaded.run.id),
        )


def describe_alarms(broken: BrokenRun) -> str:
    """For a message of a failed test."""
    return f"{broken.directory.name}: {[(one.code, str(one.severity), one.detected_step) for one in broken.alarms]}"


@pytest.fixture(params=NAMES)
def broken(request: pytest.FixtureRequest) -> BrokenRun:
    return load_broken(request.param)


def test_there_is_a_run_with_each_fault_and_one_with_none() -> None:
    faults = [load_broken(name).recipe.fault for name in NAMES]
    assert sorted(fault.kind for fault in faults if fault is not None) == sorted(FAULT_KINDS)
    assert [name for name, fault in zip(NAMES, faults, strict=True) if fault is None] == [HEALTHY]


def test_the_truth_is_derived_from_the_config(broken: BrokenRun) -> None:
    assert broken.truth == derive_truth(broken.recipe)


def test_the_run_is_that_of_its_config_and_the_settings_of_all_are_alike(broken: BrokenRun) -> None:
    recorded, ppo = broken.recorded, broken.recipe.ppo
    assert recorded.run.name == broken.recipe.name == f"broken-{broken.directory.name}"
    assert recorded.run.status == "finished"
    settings = {name: getattr(ppo, name) for name in ("max_steps", "seed", "learning_rate", "batch_size", "response_length", "beta")}
    assert {name: recorded.run.config[name] for name in settings} == settings
    healthy = load_broken(HEALTHY).recipe.ppo
    assert {**settings, "seed": healthy.seed} == {name: getattr(healthy, name) for name in settings}


def test_there_is_room_before_and_after_the_fault(broken: BrokenRun) -> None:
    steps = [step.step for step in broken.recorded.steps]
    assert steps == list(range(1, broken.recipe.ppo.max_steps + 1))
    if broken.recipe.fault is not None:
        assert broken.recipe.fault.step > 15
        assert steps[-1] - broken.recipe.fault.step >= 12


def test_a_run_is_small_and_says_nothing_of_the_machine(broken: BrokenRun) -> None:
    files = sorted(broken.directory.iterdir())
    assert [path.name for path in files] == ["config.toml", "steps.jsonl", "truth.json"]
    assert sum(path.stat().st_size for path in files) < 100_000
    assert [path.name for path in files if re.search("/(home|root|tmp)/", path.read_text(encoding="utf-8"))] == []


def test_every_cause_is_named_in_time(broken: BrokenRun) -> None:
    for planted in broken.truth["planted"]:
        onset = planted["onset"]["step"]
        in_time = [one for one in broken.alarms if onset <= one.detected_step <= onset + planted["within_steps"]]
        assert {one.code for one in in_time} & set(planted["codes"]), f"{planted['cause']} at step {onset}; {describe_alarms(broken)}"


def test_nothing_is_said_before_the_fault(broken: BrokenRun) -> None:
    onset = min((planted["onset"]["step"] for planted in broken.truth["planted"]), default=None)
    early = [one for one in broken.alarms if onset is None or one.detected_step < onset]
    assert early == [], describe_alarms(broken)


def test_the_healthy_run_passes() -> None:
    healthy = load_broken(HEALTHY)
    assert healthy.truth["is_healthy"]
    assert healthy.alarms == [], describe_alarms(healthy)
