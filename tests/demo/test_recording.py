import json
from pathlib import Path

import pytest

from klaudit.demo.recording import record_sample_run, record_steps, require_truth, write_truth
from klaudit.errors import InvalidConfig
from klaudit.exchange.recorded_run import read_recorded_run
from tests.models.tiny import make_tiny_model


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A sample run's directory with its config, of a tiny model."""
    tiny = make_tiny_model()
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    directory = tmp_path / "sample"
    directory.mkdir()
    (directory / "config.toml").write_text(
        f'name = "sample"\npolicy = "{tmp_path / "model"}"\n'
        "[ppo]\nmax_steps = 2\nbatch_size = 4\nresponse_length = 4\nsave_steps = 1\nsave_optimizer = false\nsample_every = 1\nbeta = 1e-4\n"
        '[[budget]]\nlimit = 1e-9\nunit = "nats_per_sequence"\nowner = "me"\n'
    )
    return directory


def test_a_truth_is_that_of_its_config(directory: Path) -> None:
    write_truth(directory)
    require_truth(directory)
    config = directory / "config.toml"
    config.write_text(config.read_text() + '[fault]\nkind = "beta_zero"\nstep = 2\n')
    with pytest.raises(InvalidConfig, match=r"truth\.json must be derived"):
        require_truth(directory)


def test_of_a_short_run_the_steps_are_kept_with_what_was_broken_in_them(directory: Path) -> None:
    config = directory / "config.toml"
    config.write_text('stops = ["w3"]\n' + config.read_text() + '[fault]\nkind = "beta_zero"\nstep = 2\n')
    record_steps(directory)
    assert {path.name for path in directory.iterdir()} == {"config.toml", "steps.jsonl"}
    recorded = read_recorded_run(directory)
    assert recorded.run.status == "finished"
    assert [step.beta for step in recorded.steps] == [1e-4, 0.0]
    assert "output_dir" not in recorded.run.config


def test_a_run_is_not_trained_before_its_truth_is_written(directory: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"truth\.json must be derived from config\.toml"):
        record_sample_run(directory)
    write_truth(directory)
    truth = json.loads((directory / "truth.json").read_text())
    (directory / "truth.json").write_text(json.dumps({**truth, "is_healthy": True}))
    with pytest.raises(InvalidConfig, match=r"truth\.json must be derived"):
        record_sample_run(directory)
    assert {path.name for path in directory.iterdir()} == {"config.toml", "truth.json"}


def test_a_recorded_sample_run_is_complete_and_says_nothing_of_the_machine(directory: Path) -> None:
    write_truth(directory)
    seen: list[int] = []
    record_sample_run(directory, on_step=lambda step, logs: seen.append(step))
    assert seen == [1, 2]
    recorded = read_recorded_run(directory)
    assert [step.step for step in recorded.steps] == [1, 2]
    assert {sample.step for sample in recorded.samples} == {1, 2}
    assert {(one.checkpoint, one.step) for one in recorded.drift} == {("checkpoint-1", 1), ("checkpoint-2", 2)}
    assert [budget.owner for budget in recorded.budgets] == ["me"]
    assert "output_dir" not in recorded.run.config
    assert {path.suffix for path in directory.iterdir()} <= {".toml", ".json", ".jsonl", ".svg"}
