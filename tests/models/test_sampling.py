from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from klaudit.errors import InvalidConfig
from klaudit.models import sampling
from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import draw_tokens, encode_prompts, sample_completions
from tests.models.tiny import EOS

PROMPTS = ("w1", "w2 w3 w4 w5 w6", "w7 w8 w9")


def script_tokens(monkeypatch: pytest.MonkeyPatch, columns: Sequence[Sequence[int]]) -> None:
    """Let sampling draw these tokens, one column a step."""
    steps = iter(columns)

    def draw(logits: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.tensor(next(steps)).unsqueeze(1)

    monkeypatch.setattr(sampling, "draw_tokens", draw)


def test_cold_sampling_of_a_left_padded_batch_equals_greedy_generation_one_by_one(tiny: LanguageModel) -> None:
    rollout = sample_completions(tiny, prompts=PROMPTS, max_new_tokens=8, temperature=1e-4)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tiny.tokenizer.encode(prompt)])
        model: Any = tiny.model
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)[0, ids.shape[1] :]
        assert rollout.completion_ids[row][rollout.mask[row]].tolist() == expected.tolist()


def test_the_mask_counts_up_to_and_including_end_of_sequence(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    script_tokens(monkeypatch, [[5, 6, 7], [EOS, 6, 7], [9, EOS, 8]])
    rollout = sample_completions(tiny, prompts=PROMPTS, max_new_tokens=3)
    assert rollout.mask.tolist() == [[True, True, False], [True, True, True], [True, True, True]]
    assert rollout.completion_ids.tolist() == [[5, EOS, EOS], [6, 6, EOS], [7, 7, 8]]
    assert rollout.ended_with_eos.tolist() == [True, True, False]
    assert rollout.completions == ("w5", "w6 w6", "w7 w7 w8")


def test_sampling_stops_once_every_sequence_has_ended(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    script_tokens(monkeypatch, [[5, EOS, 7], [EOS, 1, EOS]])
    rollout = sample_completions(tiny, prompts=PROMPTS, max_new_tokens=50)
    assert rollout.mask.tolist() == [[True, True], [True, False], [True, True]]
    assert rollout.ended_with_eos.all()


def test_the_same_seed_samples_the_same_and_another_does_not(tiny: LanguageModel) -> None:
    def sample(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        ids: list[list[int]] = sample_completions(tiny, prompts=PROMPTS, max_new_tokens=8, generator=generator).completion_ids.tolist()
        return ids

    assert sample(3) == sample(3)
    assert sample(3) != sample(4)


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    n = 20_000
    drawn = draw_tokens(probabilities.log().expand(n, -1), generator=torch.Generator().manual_seed(0)).squeeze(1)
    counts = torch.bincount(drawn, minlength=5)
    assert counts[1] == 0
    five_sigma = 5 * (n * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - n * probabilities).abs() <= five_sigma).all()


def test_logits_that_are_not_finite_give_a_token_of_the_vocabulary_and_no_error() -> None:
    drawn = draw_tokens(torch.full((2, 7), float("nan")))
    assert drawn.shape == (2, 1)
    assert ((drawn >= 0) & (drawn < 7)).all()


def test_prompts_end_in_the_last_column(tiny: LanguageModel) -> None:
    ids, mask = encode_prompts(tiny, prompts=["w1", "w2 w3"])
    assert ids.tolist() == [[EOS, 1], [2, 3]]
    assert mask.tolist() == [[False, True], [True, True]]


def test_selected_rows_keep_texts_and_tensors_together(tiny: LanguageModel) -> None:
    rollout = sample_completions(tiny, prompts=PROMPTS, max_new_tokens=4)
    chosen = rollout.select([2, 0])
    assert chosen.prompts == ("w7 w8 w9", "w1")
    assert chosen.completions == (rollout.completions[2], rollout.completions[0])
    assert torch.equal(chosen.completion_ids, rollout.completion_ids[[2, 0]])
    assert torch.equal(chosen.prompt_mask, rollout.prompt_mask[[2, 0]])


@pytest.mark.parametrize("prompts", [[], ["w1", ""]])
def test_missing_and_empty_prompts_are_refused(tiny: LanguageModel, prompts: list[str]) -> None:
    with pytest.raises(InvalidConfig, match="at least one prompt"):
        sample_completions(tiny, prompts=prompts, max_new_tokens=4)


@pytest.mark.parametrize(("max_new_tokens", "temperature"), [(0, 1.0), (4, 0.0), (4, float("nan"))])
def test_a_length_or_temperature_out_of_range_is_refused(tiny: LanguageModel, max_new_tokens: int, temperature: float) -> None:
    with pytest.raises(InvalidConfig, match="temperature > 0"):
        sample_completions(tiny, prompts=PROMPTS, max_new_tokens=max_new_tokens, temperature=temperature)
