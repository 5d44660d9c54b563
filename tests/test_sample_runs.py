"""The recorded sample runs: what was planted, before they were trained, is what an audit of them finds."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

SAMPLE_RUNS = locate_asset("sample_runs")
NAMES = sorted(path.parent.name for path in SAMPLE_RUNS.glob("*/config.toml"))


@dataclass(frozen=True)
class SampleRun:
    directory: Path
    recipe: Recipe
    truth: dict[str, Any]
    recorded: RecordedRun
    audit: Audit


@functools.cache
def load_sample(name: str) -> SampleRun:
    """A sample run, put into a store and audited with the default policy."""
    directory = SAMPLE_RUNS / name
    with open_store("sqlite://", create=True) as store:
        loaded = load_recorded_run(store, directory)
        return SampleRun(
            directory=directory,
            recipe=read_recipe(directory / "config.toml"),
            truth=json.loads((directory / "truth.json").read_text(encoding="utf-8")),
            recorded=read_recorded_run(directory),
            audit=audit_stored_run(store, loaded.run.id),
        )


@pytest.fixture(params=NAMES)
def sample(request: pytest.FixtureRequest) -> SampleRun:
    return load_sample(request.param)


def test_there_are_three_recorded_sample_runs() -> None:
    recorded = sorted(path.parent.name for path in SAMPLE_RUNS.glob("*/steps.jsonl"))
    assert recorded == NAMES == ["adaptive-beta", "beta-near-zero", "learning-rate-spike"]


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_derived_from_the_config(name: str) -> None:
    truth = json.loads((SAMPLE_RUNS / name / "truth.json").read_text(encoding="utf-8"))
    assert truth == derive_truth(read_recipe(SAMPLE_RUNS / name / "config.toml"))


def test_a_sample_run_is_long_measured_and_shows_its_texts(sample: SampleRun) -> None:
    recorded = sample.recorded
    assert recorded.run.name == sample.directory.name
    assert recorded.run.status == "finished"
    assert [step.step for step in recorded.steps] == list(range(1, sample.recipe.ppo.max_steps + 1))
    assert len(recorded.steps) >= 60
    assert len({one.checkpoint for one in recorded.drift if one.series.estimator == "full"}) >= 4
    assert all(one.low <= one.value <= one.high for one in recorded.drift)
    assert len(recorded.samples) >= 4
    assert all(sample.tokens for sample in recorded.samples)
    assert [(one.limit, one.unit, one.owner) for one in recorded.budgets] == [
        (one.limit, one.unit, one.owner) for one in sample.recipe.budgets
    ]


def test_a_sample_run_is_that_of_its_config(sample: SampleRun) -> None:
    config = sample.recorded.run.config
    settings = {name: getattr(sample.recipe.ppo, name) for name in ("max_steps", "seed", "learning_rate", "batch_size", "target_kl")}
    assert {name: config[name] for name in settings} == settings
    assert sample.recorded.steps[0].beta == sample.recipe.ppo.beta


def test_a_sample_run_holds_no_weights_and_nothing_of_the_machine(sample: SampleRun) -> None:
    files = [path for path in sample.directory.rglob("*") if path.is_file()]
    assert {path.name for path in files if path.stat().st_size > 1_000_000} == set()
    assert {path.suffix for path in files} <= {".toml", ".json", ".jsonl", ".svg"}
    assert [path.name for path in files if re.search("/(home|root|tmp)/", path.read_text(encoding="utf-8"))] == []


def test_a_healthy_run_passes(sample: SampleRun) -> None:
    if sample.truth["is_healthy"]:
        assert sample.audit.verdict == "pass"
        assert not sample.audit.has_findings_at(Severity.WARNING)
    else:
        assert sample.audit.verdict != "pass"


def find_onset(planted: dict[str, Any], recorded: RecordedRun) -> int:
    """The step that is given, or the first whose governing KL is over the limit."""
    onset = planted["onset"]
    if "step" in onset:
        return int(onset["step"])
    key = recorded.run.governing_key
    assert key is not None
    readings = ((step.step, step.reading(key)) for step in recorded.steps)
    converted = ((step, reading.to_unit(onset["unit"]).value) for step, reading in readings if reading is not None)
    return next(step for step, value in converted if value is not None and value > onset["first_kl_over"])


def test_every_planted_cause_is_found_in_time(sample: SampleRun) -> None:
    for planted in sample.truth["planted"]:
        onset = find_onset(planted, sample.recorded)
        found = [one for one in sample.audit.findings if one.code == planted["code"]]
        in_time = [one for one in found if onset <= one.detected_step <= onset + planted["within_steps"]]
        assert in_time, f"{planted['cause']} at step {onset}: {[(one.code, one.detected_step) for one in sample.audit.findings]}"


def test_a_beta_next_to_nothing_breaks_the_budget_beyond_noise() -> None:
    findings = load_sample("beta-near-zero").audit.findings
    assert [one.severity for one in findings if one.code == "KLA101"] == [Severity.CRITICAL]
