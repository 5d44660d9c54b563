import math
import random
from typing import Any

import numpy as np
import pytest
import torch

import klaudit
from klaudit.callbacks.heldout import HeldoutScore, require_heldout
from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel


def test_it_is_measured_at_the_first_step_and_at_multiples_of_its_interval(tiny: LanguageModel) -> None:
    heldout = HeldoutScore(lambda _model, step: float(step), every_n_steps=3)
    heldout.begin(tiny.model)
    scores = []
    for step in range(1, 8):
        heldout.observe(tiny.model, step=step - 1)
        scores.append(heldout.take(step).get("heldout_score"))
    assert scores == [1.0, None, 3.0, None, None, 6.0, None]


def test_a_trainer_that_does_not_log_every_step_gets_the_latest(tiny: LanguageModel) -> None:
    heldout = HeldoutScore(lambda _model, step: float(step), every_n_steps=2)
    heldout.begin(tiny.model)
    for step in range(1, 6):
        heldout.observe(tiny.model, step=step - 1)
    assert heldout.take(5)["heldout_score"] == 4.0
    assert heldout.take(5) == {}


def test_a_trainer_that_logs_before_its_update_is_counted_gets_what_is_of_its_step(tiny: LanguageModel) -> None:
    heldout = HeldoutScore(lambda _model, step: float(step), every_n_steps=1)
    heldout.begin(tiny.model)
    heldout.observe(tiny.model, step=0)
    heldout.observe(tiny.model, step=1)
    assert heldout.take(1)["heldout_score"] == 1.0
    assert heldout.take(2)["heldout_score"] == 2.0


def test_nothing_of_the_training_is_touched(tiny: LanguageModel) -> None:
    def score(model: Any, _step: int) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        return random.random() + float(np.random.random()) + float(torch.rand(1))

    tiny.model.train()
    before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    heldout = HeldoutScore(score)
    heldout.begin(tiny.model)
    heldout.observe(tiny.model, step=0)
    assert "heldout_score" in heldout.take(1)
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before
    assert tiny.model.training


@pytest.mark.parametrize("result", ["no number", None, ZeroDivisionError])
def test_what_fails_is_counted_and_said_once(tiny: LanguageModel, capsys: pytest.CaptureFixture[str], result: Any) -> None:
    def score(_model: Any, _step: int) -> Any:
        if result is ZeroDivisionError:
            raise ZeroDivisionError("nothing to divide by")
        return result

    heldout = HeldoutScore(score, every_n_steps=1)
    heldout.begin(tiny.model)
    for step in (0, 1, 2):
        heldout.observe(tiny.model, step=step)
    assert heldout.take(3) == {}
    assert heldout.failures == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "the held-out score failed and training goes on" in line


def test_a_score_that_is_no_number_but_nan_is_kept(tiny: LanguageModel) -> None:
    heldout = HeldoutScore(lambda *_: math.nan)
    heldout.begin(tiny.model)
    heldout.observe(tiny.model, step=0)
    assert math.isnan(heldout.take(1)["heldout_score"])


def test_a_model_in_pieces_is_not_scored_on_one_rank(tiny: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    next(tiny.model.parameters()).ds_id = 1  # type: ignore[attr-defined]
    heldout = HeldoutScore(lambda *_: 1.0)
    heldout.begin(tiny.model)
    heldout.observe(tiny.model, step=0)
    assert heldout.take(1) == {}
    assert "ZeRO-3" in str(heldout.unavailable)
    assert "the held-out score is off: its weights are sharded" in capsys.readouterr().err


@pytest.mark.parametrize("every_n_steps", [0, -1, 1.5, True])
def test_an_interval_is_a_whole_number_of_steps(every_n_steps: Any) -> None:
    with pytest.raises(InvalidConfig, match="every_n_steps"):
        HeldoutScore(lambda *_: 0.0, every_n_steps=every_n_steps)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="must be a function of model and step"):
        HeldoutScore(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("heldout", [lambda *_: 0.0, "", 5])
def test_what_is_neither_a_score_nor_a_key_is_refused_with_the_line_to_write(heldout: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"klaudit\.HeldoutScore\(function, every_n_steps=N\)"):
        klaudit.KLAuditCallback("a", heldout=heldout)


def test_a_key_and_nothing_are_taken() -> None:
    require_heldout("eval_reward")
    require_heldout(None)
