import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from klaudit.digests import digest_weights
from klaudit.drift.checkpoints import CheckpointSource, find_checkpoints, measure_checkpoints
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig, ModelNotFound
from klaudit.models.language_model import LanguageModel
from klaudit.records import DriftMeasurement, KLSeries
from tests.drift.tiny_models import WORDS, build_model

PROMPTS = PromptSet("tiny", ("a", "b c", "d e f"))
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SaveModel = Callable[[LanguageModel, str], Path]


def measure(checkpoints: tuple[CheckpointSource, ...], *, reference: Path, **options: Any) -> list[DriftMeasurement]:
    settings: dict[str, Any] = {"max_new_tokens": 3, "samples_per_prompt": 4, "seed": 2, "batch_size": 8}
    return list(measure_checkpoints(checkpoints, reference=str(reference), prompts=PROMPTS, clock=lambda: NOW, **settings | options))


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-20", "checkpoint-3", "checkpoint-best", "runs", "old-checkpoint-7"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-9").write_text("a file")
    assert find_checkpoints(tmp_path) == tuple(CheckpointSource(tmp_path / f"checkpoint-{step}", step) for step in (3, 20, 100))


def test_directory_without_checkpoints_and_no_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="No directory checkpoint-N"):
        find_checkpoints(tmp_path)
    with pytest.raises(ModelNotFound, match="there is none at"):
        find_checkpoints(tmp_path / "nowhere")


def test_each_checkpoint_gives_three_records_that_say_what_they_are(
    policy: LanguageModel, reference: LanguageModel, save_model: SaveModel, tmp_path: Path
) -> None:
    base = save_model(reference, "base")
    save_model(reference, "run/checkpoint-2")
    save_model(policy, "run/checkpoint-10")
    measurements = measure(find_checkpoints(tmp_path / "run"), reference=base, run_id="r1")

    assert [(one.step, one.series.estimator) for one in measurements] == [(s, e) for s in (2, 10) for e in ("full", "k1", "k3")]
    assert all((one.value, one.low, one.high) == pytest.approx((0, 0, 0), abs=1e-6) for one in measurements[:3])
    assert all(one.checkpoint_digest == one.reference.digest == digest_weights(base) for one in measurements[:3])
    last = measurements[3]
    assert last.series == KLSeries(
        kind="reference", estimator="full", unit="nats_per_sequence", aggregation="batch_mean", direction="reverse", temperature=1.0
    )
    assert 0 <= last.low < last.value < last.high < math.inf
    assert last.checkpoint == str(tmp_path / "run" / "checkpoint-10")
    assert last.checkpoint_digest == digest_weights(tmp_path / "run" / "checkpoint-10") != last.reference.digest
    assert (last.run_id, last.slice, last.measured_at, last.reference.name) == ("r1", None, NOW, str(base))
    assert last.n_sequences == 12


def test_settings_hold_what_is_needed_to_measure_again(reference: LanguageModel, save_model: SaveModel) -> None:
    path = save_model(reference, "checkpoint-1")
    settings = dict(measure((CheckpointSource(path, None),), reference=path)[0].settings)
    assert settings.pop("klaudit")
    assert settings == {
        "prompt_set": "tiny",
        "prompt_set_digest": PROMPTS.digest,
        "n_prompts": 3,
        "max_new_tokens": 3,
        "samples_per_prompt": 4,
        "seed": 2,
        "batch_size": 8,
        "temperature": 1.0,
    }


def test_measuring_again_gives_the_same_records(policy: LanguageModel, reference: LanguageModel, save_model: SaveModel) -> None:
    base, checkpoint = save_model(reference, "base"), CheckpointSource(save_model(policy, "checkpoint-1"), 1)
    assert measure((checkpoint,), reference=base) == measure((checkpoint,), reference=base)
    # its neighbours change nothing of a checkpoint's numbers
    assert measure((CheckpointSource(base, 0), checkpoint), reference=base)[3:] == measure((checkpoint,), reference=base)


def test_progress_runs_over_all_checkpoints(reference: LanguageModel, save_model: SaveModel) -> None:
    sources = tuple(CheckpointSource(save_model(reference, f"checkpoint-{step}"), step) for step in (1, 2))
    seen: list[tuple[int, int]] = []
    measure(sources, reference=sources[0].path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 24), (12, 24), (20, 24), (24, 24)]


def test_missing_checkpoint_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="No checkpoint directory at"):
        measure_checkpoints(
            (CheckpointSource(tmp_path / "checkpoint-1", 1),),
            reference="no/such/model/either",
            prompts=PROMPTS,
            max_new_tokens=3,
            samples_per_prompt=1,
            seed=0,
            batch_size=4,
        )


def test_checkpoint_of_another_vocabulary_is_refused_by_name(reference: LanguageModel, save_model: SaveModel) -> None:
    base = save_model(reference, "base")
    other = save_model(build_model(words=(*WORDS, "h")), "checkpoint-5")
    with pytest.raises(InvalidConfig, match=r"checkpoint-5 and .*base must share a vocabulary"):
        measure((CheckpointSource(other, 5),), reference=base)
