from dataclasses import replace

import pytest
import torch
from torch.nn.functional import pad

from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import Rollout, sample_completions
from klaudit.models.scoring import gather_logprobs, score_completions, score_hidden
from tests.models.tiny import EOS

PROMPTS = ("w1", "w2 w3 w4 w5 w6", "w7 w8 w9")


@pytest.fixture
def rollout(tiny: LanguageModel) -> Rollout:
    return sample_completions(tiny, prompts=PROMPTS, max_new_tokens=6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_equal_a_plain_forward_over_each_text_alone(tiny: LanguageModel, rollout: Rollout, temperature: float) -> None:
    scored = score_completions(tiny.model, rollout=rollout, temperature=temperature)
    for row, prompt in enumerate(PROMPTS):
        prompt_ids = tiny.tokenizer.encode(prompt)
        completion_ids = rollout.completion_ids[row][rollout.mask[row]].tolist()
        logits = tiny.model(torch.tensor([prompt_ids + completion_ids])).logits[0, len(prompt_ids) - 1 : -1] / temperature
        torch.testing.assert_close(scored.logits[row, : len(completion_ids)], logits, rtol=1e-5, atol=1e-5)


def test_the_hidden_state_is_the_one_that_the_vocabulary_is_projected_from(tiny: LanguageModel, rollout: Rollout) -> None:
    scored = score_completions(tiny.model, rollout=rollout)
    torch.testing.assert_close(tiny.model.get_submodule("lm_head")(scored.hidden), scored.logits)


def test_only_completion_positions_are_projected_onto_the_vocabulary(tiny: LanguageModel, rollout: Rollout) -> None:
    projected: list[int] = []
    tiny.model.get_submodule("lm_head").register_forward_hook(lambda _module, _inputs, output: projected.append(output.shape[1]))
    score_completions(tiny.model, rollout=rollout)
    assert projected == [rollout.completion_ids.shape[1]]


def test_more_padding_on_either_side_changes_no_score_and_no_gradient(tiny: LanguageModel, rollout: Rollout) -> None:
    padded = replace(
        rollout,
        prompt_ids=pad(rollout.prompt_ids, (3, 0), value=EOS),
        prompt_mask=pad(rollout.prompt_mask, (3, 0), value=False),
        completion_ids=pad(rollout.completion_ids, (0, 2), value=EOS),
        mask=pad(rollout.mask, (0, 2), value=False),
    )
    gradients = []
    for variant in (rollout, padded):
        tiny.model.zero_grad()
        logits = score_completions(tiny.model, rollout=variant).logits
        gather_logprobs(logits, token_ids=variant.completion_ids)[variant.mask].sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad.clone() for parameter in tiny.model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) > 10
    for plain, with_padding in zip(*gradients, strict=True):
        torch.testing.assert_close(with_padding, plain, rtol=1e-4, atol=1e-4)


def test_gathered_logprobs_are_those_of_log_softmax() -> None:
    logits = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[0, 5, 10], [1, 1, 2]])
    expected = torch.log_softmax(logits, dim=-1)
    assert gather_logprobs(logits, token_ids=ids)[1, 2] == pytest.approx(float(expected[1, 2, 2]), rel=1e-6)
    torch.testing.assert_close(gather_logprobs(logits, token_ids=ids), expected.gather(-1, ids.unsqueeze(-1)).squeeze(-1))


def test_hidden_states_are_scored_without_the_vocabulary(tiny: LanguageModel, rollout: Rollout) -> None:
    projected: list[int] = []
    tiny.model.get_submodule("lm_head").register_forward_hook(lambda _module, _inputs, output: projected.append(output.shape[1]))
    hidden = score_hidden(tiny.model, rollout=rollout)
    assert projected == []
    torch.testing.assert_close(
        hidden[rollout.mask], score_completions(tiny.model, rollout=rollout).hidden[rollout.mask], rtol=1e-4, atol=1e-4
    )


def test_a_prompt_that_stands_there_several_times_is_read_once(tiny: LanguageModel) -> None:
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    rollout = sample_completions(tiny, prompts=prompts, max_new_tokens=6, generator=torch.Generator().manual_seed(1))
    read: list[int] = []
    first = tiny.model.get_submodule("model.layers.0.mlp")
    first.register_forward_hook(lambda _module, _inputs, output: read.append(output.shape[0] * output.shape[1]))
    hidden = score_hidden(tiny.model, rollout=rollout)
    assert read == [3 * 5, 12 * 5]
    torch.testing.assert_close(
        hidden[rollout.mask], score_completions(tiny.model, rollout=rollout).hidden[rollout.mask], rtol=1e-4, atol=1e-4
    )


def test_a_completion_of_one_token_needs_the_prompt_alone(tiny: LanguageModel) -> None:
    rollout = sample_completions(tiny, prompts=("w1 w2", "w1 w2"), max_new_tokens=1)
    torch.testing.assert_close(
        score_hidden(tiny.model, rollout=rollout), score_completions(tiny.model, rollout=rollout).hidden, rtol=1e-4, atol=1e-4
    )
