from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from klaudit.errors import InvalidConfig, UnsupportedModel
from klaudit.models import sampling
from klaudit.models.language_model import LanguageModel
from klaudit.models.output_head import find_output_head
from klaudit.models.sampling import draw_tokens, encode_prompts, race_tokens, sample_completions
from klaudit.models.scoring import score_hidden
from klaudit.models.uniforms import draw_uniforms
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


MANY = tuple(" ".join(f"w{1 + (7 * i + j) % 99}" for j in range(1 + i % 6)) for i in range(8))
N_NEW = 12


def sample_by_name(tiny: LanguageModel, prompts: Sequence[str], *, n: int = N_NEW) -> list[list[int]]:
    """The counted tokens of each completion, with each prompt's own uniforms."""
    rollout = sample_completions(tiny, prompts=prompts, max_new_tokens=n, uniforms=draw_uniforms(prompts, n=n))
    return [ids[counts].tolist() for ids, counts in zip(rollout.completion_ids, rollout.mask, strict=True)]


@pytest.fixture
def short(tiny: LanguageModel) -> LanguageModel:
    """Ends a text after about five tokens, so that batches thin out."""
    assert tiny.model.generation_config is not None
    tiny.model.generation_config.eos_token_id = list(range(20))
    return tiny


def test_with_uniforms_a_completion_depends_neither_on_batch_size_nor_on_order(short: LanguageModel) -> None:
    together = sample_by_name(short, MANY)
    assert len({len(tokens) for tokens in together}) > 3
    assert [sample_by_name(short, [prompt])[0] for prompt in MANY] == together
    assert sample_by_name(short, MANY[::-1]) == together[::-1]
    assert sample_by_name(short, MANY[:3]) + sample_by_name(short, MANY[3:]) == together


def test_with_uniforms_a_longer_limit_only_goes_on(tiny: LanguageModel) -> None:
    shorter = sample_by_name(tiny, MANY, n=6)
    assert [tokens[:6] for tokens in sample_by_name(tiny, MANY)] == shorter


def test_with_uniforms_the_tokens_are_those_of_a_plain_loop(short: LanguageModel) -> None:
    for prompt, tokens in zip(MANY[:4], sample_by_name(short, MANY[:4]), strict=True):
        ids = short.tokenizer.encode(prompt)
        for number, token in zip(draw_uniforms([prompt], n=N_NEW)[0], tokens, strict=False):
            with torch.no_grad():
                rates = short.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
            waiting = np.random.Generator(np.random.Philox(key=int(number.numpy().view(np.uint64)))).standard_exponential(len(rates))
            assert int((waiting / rates).argmin()) == token
            ids.append(token)


def test_the_winner_of_a_race_is_drawn_from_the_distribution() -> None:
    """Chi-squared of 20,000 draws with 4 degrees of freedom; 18.5 is its 0.999 quantile."""
    n = 20_000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, -3.0, -torch.inf])
    counts = torch.bincount(race_tokens(logits.expand(n, -1), uniforms=draw_uniforms(["race"], n=n)[0])[:, 0], minlength=6).double()
    expected = n * logits.double().softmax(-1)
    assert counts[-1] == 0
    assert float(((counts - expected)[:-1].square() / expected[:-1]).sum()) < 18.5


def test_rounding_hardly_ever_changes_the_winner_of_a_race() -> None:
    """Where the cumulative distribution of the same numbers is another token's in one draw of a hundred."""
    logits = 3 * torch.randn(256, 8192, generator=torch.Generator().manual_seed(0))
    rounded = logits + 2e-5 * torch.randn(256, 8192, generator=torch.Generator().manual_seed(1))
    uniforms = draw_uniforms(["rounding"], n=256)[0]
    assert torch.equal(race_tokens(logits, uniforms=uniforms), race_tokens(rounded, uniforms=uniforms))


def test_sequences_that_have_ended_leave_the_batch(short: LanguageModel) -> None:
    read: list[int] = []
    short.model.get_submodule("model").register_forward_hook(lambda _module, _inputs, output: read.append(len(output.last_hidden_state)))
    tokens = sample_by_name(short, MANY)
    going = [sum(len(one) > step for one in tokens) for step in range(1, N_NEW)]
    assert read[0] == len(MANY)
    assert all(alive <= n <= alive / 0.75 + 1 for alive, n in zip(going, read[1:], strict=False))
    assert read[-1] < len(MANY) / 2


def test_the_hidden_states_that_were_sampled_from_are_kept(short: LanguageModel) -> None:
    head = find_output_head(short.model)
    prompts = [prompt for prompt in MANY for _ in range(2)]
    uniforms = draw_uniforms([str(i) for i in range(len(prompts))], n=N_NEW)
    rollout = sample_completions(short, prompts=prompts, max_new_tokens=N_NEW, uniforms=uniforms, head=head)
    assert rollout.hidden is not None
    assert rollout.hidden.shape == (*rollout.completion_ids.shape, 32)
    expected = score_hidden(short.model, rollout=rollout)[rollout.mask]
    torch.testing.assert_close(rollout.hidden[rollout.mask], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    chosen = rollout.select([3])
    assert chosen.hidden is not None
    assert torch.equal(chosen.hidden, rollout.hidden[[3]])


def test_uniforms_of_another_shape_are_refused(tiny: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match=r"uniforms of shape \[3, 4\]; got \[3, 2\]"):
        sample_completions(tiny, prompts=PROMPTS, max_new_tokens=4, uniforms=draw_uniforms(PROMPTS, n=2))


def test_a_prompt_that_leaves_no_room_in_the_context_is_refused_by_name(tiny: LanguageModel) -> None:
    long = " ".join(["w1"] * 121)
    with pytest.raises(InvalidConfig, match=r"'w1 w1.*' has 121 tokens; with 8 new ones.*the context of tiny, 128 tokens"):
        sample_completions(tiny, prompts=["w1", long], max_new_tokens=8)
    assert len(sample_completions(tiny, prompts=["w1", long], max_new_tokens=7)) == 2


def test_a_model_without_a_cache_is_refused_by_name(tiny: LanguageModel) -> None:
    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=100, n_embd=32, n_layer=1, n_head=2, n_positions=128))
    with pytest.raises(UnsupportedModel, match=r"OpenAIGPTLMHeadModel \(openai-gpt\) keeps no cache"):
        sample_completions(replace(tiny, model=model), prompts=PROMPTS, max_new_tokens=2)
