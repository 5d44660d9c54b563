import shlex
from pathlib import Path

import pytest

from klaudit.assets import locate_asset
from klaudit.store import open_store
from klaudit.workflows.recorded_runs import load_recorded_run
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def samples_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with two sample runs: one that hacks its reward, and a healthy one."""
    url = f"sqlite:///{tmp_path_factory.mktemp('samples') / 'klaudit.db'}"
    with open_store(url, create=True) as store:
        for name in ("beta-near-zero", "adaptive-beta"):
            load_recorded_run(store, Path(str(locate_asset("sample_runs"))) / name)
    return url


def test_a_run_past_its_peak_gets_peak_budget_and_beta(klaudit: Command, samples_url: str) -> None:
    outcome = klaudit("frontier", "beta-near-zero", "--store", samples_url)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "Reward against drift of beta-near-zero"
    assert lines[1].startswith("  The held-out score peaks at d* = ")
    assert lines[-1].startswith("  klaudit budget set --limit ")
    assert "--run beta-near-zero" in lines[-1]


def test_the_line_that_it_prints_sets_a_budget(klaudit: Command, samples_url: str) -> None:
    proposed = klaudit("frontier", "beta-near-zero", "--store", samples_url, "--json").json["proposed_budget"]
    arguments = shlex.split(proposed["command"])[1:]
    outcome = klaudit(*arguments, "--store", samples_url, "--json")
    assert outcome.code == 0
    assert outcome.json["budget"]["limit"] == pytest.approx(proposed["value"], rel=5e-3)


def test_a_healthy_run_gets_no_budget(klaudit: Command, samples_url: str) -> None:
    told = klaudit("frontier", "adaptive-beta", "--store", samples_url, "--json").json
    assert told["schema_version"] == 1
    assert told["heldout_score"]["peak"]["kind"] == "none"
    assert (told["proposed_budget"], told["advice"]) == (None, [])
    assert len(told["heldout_score"]["fits"]) == 2


def test_runs_given_together_are_a_sweep_and_each_counts_once(klaudit: Command, samples_url: str) -> None:
    told = klaudit("frontier", "beta-near-zero", "adaptive-beta", "beta-near-zero", "--store", samples_url, "--json").json
    assert [one["name"] for one in told["runs"]] == ["beta-near-zero", "adaptive-beta"]
    assert [one["points"] for one in told["runs"]] == [64, 64]
    assert told["advice"][0] == {"basis": "sweep", "beta": None, "reason": "needs runs of 3 betas or more; there are 2"}


def test_a_given_offset_is_kept(klaudit: Command, samples_url: str) -> None:
    told = klaudit("frontier", "beta-near-zero", "--heldout-offset", "0.1", "--store", samples_url, "--json").json
    assert {one["offset"] for one in told["heldout_score"]["fits"]} == {0.1}
    assert {one["offset"] for one in told["score"]["fits"]} != {0.1}


def test_a_run_of_three_steps_gets_a_reason(klaudit: Command, store_file: Path) -> None:
    outcome = klaudit("frontier", "quiet")
    assert outcome.code == 0
    assert "needs 5 points or more" in outcome.out


def test_an_unknown_run_is_one_line(klaudit: Command, store_file: Path) -> None:
    outcome = klaudit("frontier", "quiet", "nope")
    assert outcome.code == 2
    assert "nope" in outcome.line
