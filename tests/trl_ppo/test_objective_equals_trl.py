"""klaudit's PPO arithmetic against that of TRL 1.12.0, on tensors taken out of `PPOTrainer.train()` while it runs.

Nothing is recorded: every expected value is computed by TRL during the test. Line numbers are those of trl/experimental/ppo/ppo_trainer.py 1.12.0.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from klaudit.kl.estimators import estimate_k1, estimate_k3
from klaudit.kl.exact import measure_entropy
from klaudit.kl.reduce import reduce_to_batch
from klaudit.models.sampling import Rollout
from klaudit.models.scoring import gather_logprobs, score_completions
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.experience import Judgement, reward_rollout
from klaudit.ppo.objective import compute_policy_loss, compute_value_loss, estimate_advantages, penalize_rewards, whiten
from tests.trl_ppo.recorder import Recording, Update, record_updates

ppo_trainer = importlib.import_module("trl.experimental.ppo.ppo_trainer")

ENDS_EARLY, FULL_LENGTH = "k1, some sequences end early", "k1, no stop token, all sequences run to full length"
CASES: Mapping[str, Mapping[str, Any]] = {
    ENDS_EARLY: {},
    "k3, whitened rewards, discounted": {"kl_estimator": "k3", "whiten_rewards": True, "gamma": 0.97, "lam": 0.9, "cliprange": 0.1},
    FULL_LENGTH: {"stop_token": None},
}


@pytest.fixture(scope="module", params=list(CASES))
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, build_trainer: Callable[..., Any]) -> Recording:
    trainer = build_trainer(tmp_path_factory.mktemp("trl"), **CASES[request.param])
    with pytest.MonkeyPatch.context() as patch:
        updates = record_updates(trainer, patch)
    return Recording(trainer, updates, [(update, microbatch) for update in updates for microbatch in update.microbatches])


def assert_equal(ours: Tensor | float, trl: Tensor | float) -> None:
    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(trl), atol=1e-5, rtol=1e-5, check_dtype=False)


def estimate_token_kl(update: Update) -> Tensor:
    estimate = {"k1": estimate_k1, "k3": estimate_k3}[update.args.kl_estimator]
    return estimate(update.tensors["logprobs"], reference_logprobs=update.tensors["ref_logprobs"])


def penalize(update: Update, mask: Tensor) -> Tensor:
    return penalize_rewards(update.tensors["scores"], kl_tokens=estimate_token_kl(update), beta=update.args.kl_coef, mask=mask)


def advantages_of(update: Update, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return estimate_advantages(rewards, values=update.tensors["values"], mask=mask, gamma=update.args.gamma, lam=update.args.lam)


def read_all(recording: Recording, name: str) -> list[Tensor]:
    return [value for update in recording.updates for value in update.read_statistic(name)]


def policy_loss_of(update: Update, microbatch: Mapping[str, Tensor], logprobs: Tensor) -> Any:
    return compute_policy_loss(
        logprobs,
        old_logprobs=microbatch["mb_logprobs"],
        advantages=microbatch["mb_advantage"],
        mask=update.mask[microbatch["micro_batch_inds"]],
        clip_range=update.args.cliprange,
    )


def value_loss_of(update: Update, microbatch: Mapping[str, Tensor], values: Tensor, mask: Tensor) -> Any:
    return compute_value_loss(
        values,
        old_values=microbatch["mb_values"],
        returns=microbatch["mb_return"],
        mask=mask[microbatch["micro_batch_inds"]],
        clip_range=update.args.cliprange_value,
    )


def move_score(update: Update) -> Tensor:
    """TRL's raw advantages as they would be had it put the score on the last token and ended the episode there.

    Let L be the last token of a sequence that ended early, S the score, V' the value that TRL keeps at L + 1. A_L then holds S where TRL's holds
    gamma V' + gamma lam (S - V'); on the tokens before, the difference fades with gamma lam. Full-length sequences stay as they are.
    """
    gamma, lam = update.args.gamma, update.args.lam
    rows, last, end = torch.arange(len(update.mask)), update.tensors["sequence_lengths"], update.tensors["actual_end"]
    score, value = update.tensors["rewards"][rows, end], update.tensors["values"][rows, end]
    gap = torch.where(last < end, score - gamma * value - gamma * lam * (score - value), 0)
    fade: Tensor = (gamma * lam) ** (last[:, None] - torch.arange(update.mask.shape[1]))
    return update.raw_advantages + gap[:, None] * fade


def make_rollout(recording: Recording, update: Update) -> Rollout:
    queries = update.tensors["queries"]
    return Rollout(
        prompts=("",) * len(queries),
        completions=("",) * len(queries),
        prompt_ids=queries,
        prompt_mask=queries != recording.trainer.processing_class.pad_token_id,
        completion_ids=update.tensors["responses"],
        mask=update.mask,
        ended_with_eos=update.tensors["contain_eos_token"],
    )


def make_judgement(update: Update) -> Judgement:
    unread = torch.empty(0)
    return Judgement(
        logits=unread,
        logprobs=update.tensors["logprobs"],
        reference_logprobs=update.tensors["ref_logprobs"],
        values=update.tensors["values"],
        full_kl=unread,
        entropy=unread,
    )


def score_again(recording: Recording, update: Update) -> Tensor:
    """What TRL's reward model says before the penalty for a missing end-of-sequence."""
    queries, pad = update.tensors["queries"], recording.trainer.processing_class.pad_token_id
    texts = torch.cat([queries, update.tensors["postprocessed_responses"]], dim=1)
    with torch.no_grad():
        _, scores, _ = ppo_trainer.get_reward(recording.trainer.reward_model, texts, pad, queries.shape[1])
    return torch.as_tensor(scores)


def test_trl_is_the_version_that_is_compared_with() -> None:
    assert importlib.import_module("trl").__version__ == "1.12.0"


def test_the_recorded_updates_hold_what_could_tell_the_two_apart(recording: Recording) -> None:
    args = recording.trainer.args
    assert len(recording.updates) == 2
    assert len(recording.microbatches) == 2 * args.num_ppo_epochs * args.gradient_accumulation_steps
    ends_early = torch.cat([update.tensors["sequence_lengths"] < args.response_length - 1 for update in recording.updates])
    assert ends_early.any() == (args.stop_token == "eos")
    assert not ends_early.all()
    missing_eos = torch.cat([~update.tensors["contain_eos_token"] for update in recording.updates])
    assert missing_eos.any()
    assert not missing_eos.all()
    assert all(estimate_token_kl(update)[update.mask].abs().max() > 0.1 for update in recording.updates)
    assert any(update.read_statistic("pg_clipfrac_stats").max() > 0 for update in recording.updates)
    assert any(update.read_statistic("vf_clipfrac_stats").max() > 0 for update in recording.updates)
    assert any((microbatch["ratio"] - 1).abs().max() > 0.1 for _, microbatch in recording.microbatches)


def test_reference_logprobs_of_the_sampled_tokens_are_equal(recording: Recording) -> None:
    for update in recording.updates:
        rollout = make_rollout(recording, update)
        with torch.no_grad():
            scored = score_completions(recording.trainer.ref_model, rollout=rollout, temperature=recording.trainer.args.temperature)
        ours = gather_logprobs(scored.logits, token_ids=rollout.completion_ids)
        assert_equal(ours[update.mask], update.tensors["ref_logprobs"][update.mask])


def test_kl_per_token_is_equal(recording: Recording) -> None:
    for update in recording.updates:
        assert_equal(estimate_token_kl(update), update.tensors["kl"])


def test_kl_per_sequence_is_what_trl_logs(recording: Recording) -> None:
    for update in recording.updates:
        assert_equal(reduce_to_batch(estimate_token_kl(update), mask=update.mask).value, update.metrics["objective/kl"])


def test_rewards_are_equal_under_the_mask_of_trl(recording: Recording) -> None:
    for update in recording.updates:
        assert_equal(penalize(update, update.mask_p1), update.raw_rewards)


def test_under_its_own_mask_klaudit_puts_the_score_on_the_last_token_and_trl_one_position_later(recording: Recording) -> None:
    for update in recording.updates:
        rows, last, scores = torch.arange(len(update.mask)), update.tensors["sequence_lengths"], update.tensors["scores"]
        ours = penalize(update, update.mask)
        one_later = update.tensors["actual_end"]
        assert torch.equal(one_later - last, (last < update.mask.shape[1] - 1).long())
        ours[rows, last] -= scores
        ours[rows, one_later] += scores
        assert_equal(ours, update.raw_rewards)


def test_whitened_rewards_are_equal(recording: Recording) -> None:
    for update in recording.updates:
        for whitening in update.whitenings[:-1]:
            ours = whiten(whitening.values, mask=whitening.mask, shift_mean=whitening.shift_mean)
            assert_equal(ours[whitening.mask], whitening.whitened[whitening.mask])
            assert not whitening.shift_mean


def test_advantages_and_returns_are_equal_on_the_rewards_of_trl(recording: Recording) -> None:
    for update in recording.updates:
        advantages, returns = advantages_of(update, update.tensors["rewards"], update.mask_p1)
        assert_equal(advantages[update.mask_p1], update.raw_advantages[update.mask_p1])
        assert_equal(returns[update.mask_p1], update.tensors["returns"][update.mask_p1])


def test_with_the_score_on_the_last_token_the_advantages_differ_by_what_the_extra_position_of_trl_adds(recording: Recording) -> None:
    for update in recording.updates:
        rows, last, end = torch.arange(len(update.mask)), update.tensors["sequence_lengths"], update.tensors["actual_end"]
        rewards = update.tensors["rewards"].clone()
        rewards[rows, last] += torch.where(last < end, rewards[rows, end], 0)
        advantages, returns = advantages_of(update, rewards, update.mask)
        expected = move_score(update)
        assert_equal(advantages[update.mask], expected[update.mask])
        assert_equal(returns[update.mask], (expected + update.tensors["values"])[update.mask])


@pytest.mark.parametrize("recording", [ENDS_EARLY, FULL_LENGTH], indirect=True)
def test_from_raw_scores_to_whitened_advantages_klaudit_as_a_whole_differs_only_by_where_the_score_stands(recording: Recording) -> None:
    args = recording.trainer.args
    config = PPOConfig(missing_eos_penalty=args.missing_eos_penalty, gamma=args.gamma, lam=args.lam, whiten_rewards=args.whiten_rewards)
    for update in recording.updates:
        experience = reward_rollout(
            make_rollout(recording, update),
            judgement=make_judgement(update),
            scores=score_again(recording, update),
            heldout_scores=None,
            beta=args.kl_coef,
            config=config,
        )
        expected = move_score(update)
        assert_equal(experience.scores, update.tensors["scores"])
        assert_equal(experience.advantages[update.mask], ppo_trainer.masked_whiten(expected, update.mask)[update.mask])
        assert_equal(experience.returns[update.mask], (expected + update.tensors["values"])[update.mask])


@pytest.mark.parametrize("recording", [FULL_LENGTH], indirect=True)
def test_where_no_sequence_ends_early_nothing_differs(recording: Recording) -> None:
    for update in recording.updates:
        assert update.mask.all()
        assert torch.equal(move_score(update), update.raw_advantages)
        assert torch.equal(update.mask, update.mask_p1)


def test_whitened_advantages_are_equal(recording: Recording) -> None:
    for update in recording.updates:
        ours = whiten(update.raw_advantages, mask=update.mask)
        assert_equal(ours[update.mask], update.tensors["advantages"][update.mask])


def test_policy_loss_its_gradient_and_its_clip_fraction_are_equal(recording: Recording) -> None:
    for (update, microbatch), clip_fraction in zip(recording.microbatches, read_all(recording, "pg_clipfrac_stats"), strict=True):
        logprobs = microbatch["new_logprobs"].requires_grad_()
        ours = policy_loss_of(update, microbatch, logprobs)
        assert_equal(ours.loss, microbatch["pg_loss"])
        assert_equal(torch.autograd.grad(ours.loss, logprobs)[0], microbatch["grad_logprobs"])
        assert_equal(ours.clip_fraction, clip_fraction)


def test_value_loss_its_gradient_and_its_clip_fraction_are_equal_under_the_mask_of_trl(recording: Recording) -> None:
    for (update, microbatch), clip_fraction in zip(recording.microbatches, read_all(recording, "vf_clipfrac_stats"), strict=True):
        values = microbatch["vpred"].requires_grad_()
        ours = value_loss_of(update, microbatch, values, update.mask_p1)
        assert_equal(ours.loss, microbatch["vf_loss"])
        assert_equal(torch.autograd.grad(ours.loss, values)[0], microbatch["grad_values"])
        assert_equal(ours.clip_fraction, clip_fraction)


def test_under_its_own_mask_the_value_loss_leaves_out_the_position_after_the_end(recording: Recording) -> None:
    for update, microbatch in recording.microbatches:
        rows = microbatch["micro_batch_inds"]
        mask, mask_p1 = update.mask[rows], update.mask_p1[rows]
        extra = 0.5 * microbatch["vf_loss_max"][mask_p1 & ~mask].sum()
        ours = value_loss_of(update, microbatch, microbatch["vpred"], update.mask)
        assert_equal((ours.loss * mask.sum() + extra) / mask_p1.sum(), microbatch["vf_loss"])


def test_update_kl_and_ratio_are_masked_where_trl_averages_over_padding(recording: Recording) -> None:
    """On padding TRL has log-ratio 0 and ratio 1, so that its update KL is klaudit's times the share of tokens that count."""
    statistics = zip(read_all(recording, "approxkl_stats"), read_all(recording, "ratio_stats"), strict=True)
    for (update, microbatch), (trl_update_kl, trl_ratio) in zip(recording.microbatches, statistics, strict=True):
        share = update.mask[microbatch["micro_batch_inds"]].float().mean()
        ours = policy_loss_of(update, microbatch, microbatch["new_logprobs"])
        assert_equal(ours.kl_update * share, trl_update_kl)
        assert_equal(ours.ratio_mean * share + (1 - share), trl_ratio)


def test_entropy_per_token_is_equal_and_trl_averages_it_over_padding(recording: Recording) -> None:
    for (update, microbatch), trl_entropy in zip(recording.microbatches, read_all(recording, "entropy_stats"), strict=True):
        mask = update.mask[microbatch["micro_batch_inds"]]
        ours = measure_entropy(microbatch["logits"])
        share = mask.float().mean()
        on_padding = ours[~mask].mean() if (~mask).any() else 0.0
        assert_equal(ours[mask].mean() * share + on_padding * (1 - share), trl_entropy)


def test_trl_logs_minibatch_averages_divided_by_slots_that_it_never_fills(recording: Recording) -> None:
    """TRL keeps one slot per epoch, minibatch and accumulation step (:631) but has fewer microbatches in a minibatch, and the rest stay 0."""
    for update in recording.updates:
        args = update.args
        filled = math.ceil(args.gradient_accumulation_steps / args.num_mini_batches) / args.gradient_accumulation_steps
        assert filled == 0.5
        losses = [policy_loss_of(update, one, one["new_logprobs"]).loss.detach() for one in update.microbatches]
        assert_equal(filled * torch.stack(losses).mean(), update.metrics["loss/policy_avg"])
        assert_equal(filled * update.read_statistic("ratio_stats").mean(), update.metrics["val/ratio"])
