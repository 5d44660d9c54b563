from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from klaudit.errors import InvalidStepsFile
from klaudit.exchange.recorded_run import RecordedRun, read_recorded_run, write_recorded_run
from klaudit.records import DriftMeasurement, KLBudget, KLReading, KLSeries, ReferenceModel, Run, StepRecord, TextSample, TokenScore

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
FULL = KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0)


def make_recorded_run() -> RecordedRun:
    run = Run("", "a run", NOW, status="finished", finished_at=NOW, batch_size=4, series={"kl": FULL}, config={"seed": 1})
    steps = tuple(StepRecord(step, KLReading(FULL, 0.5 * step, 0.1, 4), NOW, beta=0.1, metrics={"entropy": 2.0}) for step in (1, 2))
    tokens = (TokenScore(" good", -0.5, -0.75, 0.25), TokenScore("\n", -1.0, -2.0))
    drift = DriftMeasurement(
        checkpoint="checkpoint-2",
        reference=ReferenceModel("base", "sha256:" + "ab" * 32),
        series=FULL,
        value=0.9,
        low=0.5,
        high=float("inf"),
        n_sequences=8,
        mean_length=16.0,
        measured_at=NOW,
        step=2,
        settings={"seed": 0, "prompt_set": "reviews", "slice": None},
    )
    return RecordedRun(
        run=run,
        steps=steps,
        samples=(TextSample(1, "The film was", " good\n", tokens, score=0.5), TextSample(2, "p", "c", (), index=1)),
        drift=(drift,),
        budgets=(KLBudget(5.0, "nats_per_sequence", owner="me"), KLBudget(0.1, "nats_per_token", scope="window", window_steps=5)),
    )


def test_a_run_comes_back_from_its_directory(tmp_path: Path) -> None:
    recorded = make_recorded_run()
    write_recorded_run(tmp_path / "run", recorded)
    assert read_recorded_run(tmp_path / "run") == recorded


def test_a_run_of_steps_alone_is_enough(tmp_path: Path) -> None:
    recorded = make_recorded_run()
    write_recorded_run(tmp_path, recorded)
    for name in ("samples.json", "drift.json", "budgets.json"):
        (tmp_path / name).unlink()
    assert read_recorded_run(tmp_path) == RecordedRun(recorded.run, recorded.steps)


@pytest.mark.parametrize(
    ("name", "old", "new", "field"),
    [
        ("samples.json", '"step":1', '"step":"one"', "0.step"),
        ("samples.json", '"prompt"', '"promt"', "0.prompt"),
        ("drift.json", '"low":0.5', '"low":5', "0"),
        ("budgets.json", '"limit":5.0', '"limit":-5.0', "0"),
        ("budgets.json", '"owner"', '"owners"', "0.owners"),
        ("budgets.json", "[", "", ""),
    ],
)
def test_a_bad_record_is_named_by_file_and_field(tmp_path: Path, name: str, old: str, new: str, field: str) -> None:
    write_recorded_run(tmp_path, make_recorded_run())
    content = (tmp_path / name).read_text()
    assert old in content
    (tmp_path / name).write_text(content.replace(old, new, 1))
    with pytest.raises(InvalidStepsFile) as caught:
        read_recorded_run(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}, field {field!r}: ")


def test_writing_again_leaves_the_new_run_and_nothing_else(tmp_path: Path) -> None:
    recorded = make_recorded_run()
    write_recorded_run(tmp_path, recorded)
    write_recorded_run(tmp_path, replace(recorded, samples=()))
    assert read_recorded_run(tmp_path).samples == ()
    assert {path.name for path in tmp_path.iterdir()} == {"steps.jsonl", "samples.json", "drift.json", "budgets.json"}
