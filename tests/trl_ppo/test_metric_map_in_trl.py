"""What the metric map says of TRL 1.12.0's PPO, against numbers that its trainer really logs."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from klaudit.exchange.metric_map import TRL_PPO, detect_framework, find_beta, find_scales, read_logs, resolve_series


@pytest.mark.parametrize(("accumulated", "mini_batches", "logged_ratio"), [(2, 2, 0.5), (4, 2, 0.5), (2, 1, 1.0)])
def test_a_policy_that_does_not_move_has_ratio_one_whatever_trl_averages_over(
    accumulated: int, mini_batches: int, logged_ratio: float, build_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = build_trainer(
        tmp_path / "out",
        learning_rate=0.0,
        per_device_train_batch_size=16 // accumulated,
        gradient_accumulation_steps=accumulated,
        num_mini_batches=mini_batches,
        total_episodes=16,
    )
    trainer.train()
    logs, arguments = trainer.state.log_history[0], trainer.args.to_dict()
    framework = detect_framework(logs, trainer_class=type(trainer).__name__, arguments_class=type(trainer.args).__name__)
    assert framework is TRL_PPO
    series, notes = resolve_series(framework, arguments=arguments, version="1.12.0", logged=logs.keys())
    step = read_logs(
        logs,
        framework=framework,
        series=series,
        step=1,
        segment=0,
        logged_at=datetime.now(UTC),
        beta=find_beta(framework, arguments),
        scales=find_scales(framework, arguments),
    )
    assert logs["val/ratio"] == pytest.approx(logged_ratio, abs=1e-4)
    assert step.metrics["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert any("klaudit divides that out" in note for note in notes) == (logged_ratio != 1.0)
    # Random models differ much, so penalty and KL give back the coefficient that the trainer was told.
    assert step.metrics["implied_beta"] == pytest.approx(trainer.args.kl_coef, rel=1e-4)
