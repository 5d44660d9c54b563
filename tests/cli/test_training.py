"""`klaudit demo`, `klaudit train` and `klaudit drift measure` from start to end, on a model of two small layers."""

import json
import re
from pathlib import Path

import pytest

from klaudit.store import open_store
from tests.cli.conftest import Command
from tests.models.tiny import make_tiny_model

RECIPE = """
name = "first-try"
policy = "{policy}"
description = "a test"
[ppo]
max_steps = {max_steps}
batch_size = 4
response_length = 4
learning_rate = 1e-3
save_steps = 2
[[budget]]
limit = 1e-9
unit = "nats_per_sequence"
on = "value"
owner = "me"
"""


class AverageWord:
    """The tiny model knows no word of VADER's: its words w1 to w99 are worth 0.01 to 0.99 here."""

    def __init__(self, half: str, *, repetition_penalty: float = 0.0) -> None:
        """As LexiconScore."""

    def __call__(self, prompts: list[str], completions: list[str]) -> list[float]:
        words = [[int(word[1:]) / 100 for word in text.split()] for text in completions]
        return [sum(numbers) / max(1, len(numbers)) for numbers in words]


@pytest.fixture(autouse=True)
def score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.demo.training.LexiconScore", AverageWord)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny, path = make_tiny_model(), tmp_path_factory.mktemp("model")
    tiny.model.save_pretrained(path)
    tiny.tokenizer.save_pretrained(path)
    return path


def test_the_demo_trains_measures_audits_and_reports(klaudit: Command, model: Path) -> None:
    outcome = klaudit("demo", "--steps", "4", "--model", model)
    assert outcome.code == 0
    parts = re.findall(r"[1-4] of 4 +([A-Z]\w+)", outcome.err)
    assert parts == ["Train", "Drift", "Audit", "Report"]
    assert "Audit of run demo: " in outcome.out
    assert "klaudit dashboard" in outcome.err
    report = Path("runs/demo/report.html")
    assert report.read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    with open_store("sqlite:///klaudit.db") as store:
        run = store.runs.get("demo")
        assert (run.status, store.steps.count(run.id), run.policy) == ("finished", 4, str(model))
        checkpoints = store.checkpoints.list(run.id)
        assert [one.step for one in checkpoints] == [1, 2, 3, 4]
        measured = store.drift.list(run.id)
        assert {(one.step, one.series.estimator) for one in measured} == {
            (step, est) for step in (1, 2, 3, 4) for est in ("full", "k1", "k3")
        }
        assert store.samples.steps_with_samples(run.id) != []
        assert run.reference is not None
        assert {one.reference.digest for one in measured} == {run.reference.digest}


def test_a_second_demo_leaves_the_first_ones_checkpoints_alone(klaudit: Command, model: Path) -> None:
    for _ in range(2):
        assert klaudit("demo", "--steps", "1", "--model", model, "--healthy").code == 0
    with open_store("sqlite:///klaudit.db") as store:
        paths = [Path(store.checkpoints.list(store.runs.get(name).id)[0].path) for name in ("demo", "demo-2")]
    assert [path.relative_to(Path.cwd()) for path in paths] == [Path("runs/demo/checkpoint-1"), Path("runs/demo-2/checkpoint-1")]


def test_a_recipe_is_trained_resumed_and_measured(klaudit: Command, model: Path) -> None:
    Path("first.toml").write_text(RECIPE.format(policy=model, max_steps=2))
    outcome = klaudit("train", "first.toml")
    assert (outcome.code, "run 'first-try' is recorded; checkpoints in runs/first-try" in outcome.err) == (0, True)
    Path("longer.toml").write_text(RECIPE.format(policy=model, max_steps=3))
    assert klaudit("train", "longer.toml", "--resume", "runs/first-try/checkpoint-2").code == 0
    run = klaudit("runs", "show", "first-try", "--json").json["run"]
    assert (run["steps"], run["last_step"], run["segments"], run["status"]) == (3, 3, 2, "finished")
    assert klaudit("budget", "list", "--json").json["budgets"][0]["owner"] == "me"
    assert {one["code"] for one in klaudit("audit", "first-try", "--json").json["findings"]} == {"KLA101"}

    Path("prompts.jsonl").write_text('{"prompt": "w1 w2"}\n{"prompt": "w3"}\n')
    settings = ("--reference", model, "--prompts", "prompts.jsonl", "--max-new-tokens", "3", "--samples", "2", "--seed", "5")
    kept = klaudit("drift", "measure", "--run", "first-try", *settings, "--json")
    measurements = kept.json["measurements"]
    assert [(one["step"], one["series"]["estimator"]) for one in measurements] == [(s, e) for s in (2, 3) for e in ("full", "k1", "k3")]
    assert all(one["low"] <= one["value"] <= one["high"] and one["n_sequences"] == 4 and one["slice"] is None for one in measurements)
    assert klaudit("drift", "show", "first-try", "--json").json["measurements"] == measurements
    # The same checkpoints outside a run: the same numbers, and nothing of them is kept.
    loose = klaudit("drift", "measure", "--checkpoints", "runs/first-try", *settings, "--json")
    assert [one["value"] for one in loose.json["measurements"]] == [one["value"] for one in measurements]
    assert len(klaudit("drift", "show", "first-try", "--json").json["measurements"]) == 6


def test_a_reference_that_is_not_there_is_named(klaudit: Command, model: Path) -> None:
    outcome = klaudit("drift", "measure", "--checkpoints", model, "--reference", "./nowhere")
    assert (outcome.code, outcome.out) == (2, "")
    assert "No model directory at './nowhere'" in outcome.err.splitlines()[-1]
    assert list(Path.cwd().iterdir()) == []


def test_a_batch_of_one_sequence_trains_without_a_standard_error(klaudit: Command, model: Path) -> None:
    Path("one.toml").write_text(RECIPE.format(policy=model, max_steps=1).replace("batch_size = 4", "batch_size = 1"))
    assert klaudit("train", "one.toml").code == 0
    assert klaudit("runs", "show", "first-try", "--json").json["run"]["last_kl"]["standard_error"] is None


def test_a_training_that_breaks_off_is_marked_as_failed(klaudit: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("klaudit.ppo.trainer.update_policy", interrupt)
    Path("first.toml").write_text(RECIPE.format(policy=model, max_steps=2))
    outcome = klaudit("train", "first.toml")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (130, "klaudit: interrupted")
    assert klaudit("runs", "list", "--json").json["runs"][0]["status"] == "failed"


def test_a_budget_that_stops_ends_the_training_and_not_the_command(klaudit: Command, model: Path) -> None:
    Path("first.toml").write_text(RECIPE.format(policy=model, max_steps=9) + 'action = "stop"\n')
    assert klaudit("train", "first.toml").code == 0
    assert klaudit("runs", "show", "first-try", "--json").json["run"]["last_step"] == 2
    assert json.loads(klaudit("audit", "first-try", "--json").out)["findings"][0]["detected_step"] == 2
