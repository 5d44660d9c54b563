import copy
import math
import statistics
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.plan import describe_settings
from klaudit.drift.profile import measure_mean_ratio
from klaudit.drift.prompt_set import PromptSet
from klaudit.drift.shard import measure_shard
from klaudit.drift.summary import list_sequences, sum_nats, summarise_shards
from klaudit.errors import InvalidConfig, OutOfMemory
from klaudit.models import DEFAULT_MODEL
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.models.sampling import Rollout, sample_completions
from klaudit.records import DriftMeasurement
from tests.drift.tasks import N_TOKENS, PROMPTS, measure_by_name, measure_tasks, plan_tasks
from tests.drift.tiny_models import WORDS, add_first_token, add_weight_noise

END = 0
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def summarise(policy: LanguageModel, reference: LanguageModel, **options: Any) -> dict[tuple[str, str], DriftMeasurement]:
    """Measurements over all prompts, by direction and estimator."""
    task = plan_tasks(**options)[0]
    prompts = options.get("prompts", PROMPTS)
    measured = summarise_shards(
        measure_tasks(policy, reference, **options),
        checkpoint=task.checkpoint, reference=task.reference, settings=describe_settings(prompts, task.settings), measured_at=NOW,
    )  # fmt: skip
    return {(one.series.direction, one.series.estimator): one for one in measured if one.slice is None}


@torch.no_grad()
def enumerate_kl(policy: LanguageModel, reference: LanguageModel, *, prompt: str, temperature: float = 1.0) -> tuple[float, float]:
    """KL of whole completions in both directions by visiting all of them, without padding, cache or sampling: sum of p (log p - log q)."""
    texts = torch.tensor([policy.tokenizer.encode(prompt)])
    p = q = torch.zeros(1, dtype=torch.float64)
    reverse = forward = 0.0
    for place in range(N_TOKENS):
        logits = (each.model(texts).logits[:, -1].double() / temperature for each in (policy, reference))
        p, q = (before[:, None] + one.log_softmax(-1) for before, one in zip((p, q), logits, strict=True))
        # completions that end here; all others go on
        ended = torch.ones_like(p, dtype=torch.bool) if place == N_TOKENS - 1 else torch.arange(len(WORDS)).expand_as(p) == END
        reverse += float((p.exp() * (p - q))[ended].sum())
        forward += float((q.exp() * (q - p))[ended].sum())
        rows, tokens = (~ended).nonzero(as_tuple=True)
        texts, p, q = torch.cat([texts[rows], tokens[:, None]], dim=1), p[~ended], q[~ended]
    return reverse, forward


def test_checkpoint_equal_to_the_reference_measures_zero_in_both_directions(reference: LanguageModel) -> None:
    for one in summarise(reference.freeze_copy(), reference).values():
        assert (one.value, one.low, one.high) == pytest.approx((0, 0, 0), abs=1e-5)
        assert one.series.estimator == "k1" or one.low >= 0


@pytest.mark.parametrize("has_head", [True, False])
def test_a_model_against_itself_is_at_exactly_zero_at_every_token(
    reference: LanguageModel, has_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_head:
        monkeypatch.setattr(LoadedModel, "head", None)
    loaded = LoadedModel(reference)
    shards = [measure_shard(loaded, loaded, task) for task in plan_tasks(samples_per_prompt=4)]
    sequences = [one for shard in shards for one in shard.sequences]
    assert {one.sampler for one in sequences} == {"policy", "reference"}
    assert {value for one in sequences for value in sum_nats(one).values()} == {0.0}


def test_in_sixteen_bits_both_models_are_scored_alike_and_not_from_what_sampling_left(
    reference: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(*given: Any, **options: Any) -> Rollout:
        rollout = sample_completions(*given, **options)
        assert rollout.hidden is not None
        return replace(rollout, hidden=rollout.hidden + 1)

    monkeypatch.setattr("klaudit.drift.shard.sample_completions", spoil)
    halves = [LanguageModel(copy.deepcopy(reference.model).bfloat16(), reference.tokenizer, "half") for _ in range(2)]
    shards = measure_tasks(*halves, samples_per_prompt=4, dtype="bfloat16")
    assert {value for shard in shards for one in shard.sequences for value in sum_nats(one).values()} == {0.0}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_measure_the_same_within_their_rounding(policy: LanguageModel, reference: LanguageModel, dtype: str) -> None:
    whole = summarise(policy, reference)["reverse", "full"]
    halves = [LanguageModel(copy.deepcopy(one.model).to(getattr(torch, dtype)), one.tokenizer, "half") for one in (policy, reference)]
    half = summarise(*halves, dtype=dtype)["reverse", "full"]
    assert half.value != whole.value
    assert half.value == pytest.approx(whole.value, rel=0.05)
    assert half.settings["dtype"] == dtype


def test_a_tokenizer_that_makes_other_tokens_of_a_prompt_is_refused(policy: LanguageModel, reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match="'a' they make 1 and 2, from token 1 on"):
        measure_tasks(policy, add_first_token(reference))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_interval_covers_the_kl_that_enumeration_finds(policy: LanguageModel, reference: LanguageModel, temperature: float) -> None:
    exact = [enumerate_kl(policy, reference, prompt=prompt, temperature=temperature) for prompt in PROMPTS.prompts]
    reverse, forward = (statistics.fmean(column) for column in zip(*exact, strict=True))
    assert min(reverse, forward) > 0.05
    for (direction, _), one in summarise(policy, reference, temperature=temperature).items():
        assert one.low <= (reverse if direction == "reverse" else forward) <= one.high


def test_estimators_are_unbiased_and_full_has_the_least_noise(policy: LanguageModel, reference: LanguageModel) -> None:
    pair = PromptSet("pair", ("a", "b c"))
    exact = statistics.fmean(enumerate_kl(policy, reference, prompt=prompt)[0] for prompt in pair.prompts)
    repeated = [
        list_sequences(measure_tasks(policy, reference, prompts=pair, samples_per_prompt=16, seed=seed, forward=False))
        for seed in range(24)
    ]
    values = {name: [statistics.fmean(sum_nats(one)[name] for one in sequences) for sequences in repeated] for name in ("full", "k1", "k3")}
    noise = {name: statistics.stdev(of_one) for name, of_one in values.items()}
    for name, of_one in values.items():
        assert statistics.fmean(of_one) == pytest.approx(exact, abs=4 * noise[name] / math.sqrt(24))
    assert noise["full"] < min(noise["k1"], noise["k3"])


@torch.no_grad()
def test_numbers_of_a_token_are_those_of_the_models_without_batch_or_cache(policy: LanguageModel, reference: LanguageModel) -> None:
    for one in list(measure_by_name(policy, reference, samples_per_prompt=2, temperature=0.7).values())[::5]:
        ids = policy.tokenizer.encode(one.prompt)
        for place, token_id in enumerate(one.token_ids):
            logits = [
                each.model(torch.tensor([[*ids, *one.token_ids[:place]]])).logits[0, -1].double() / 0.7 for each in (policy, reference)
            ]
            p, q = (each.log_softmax(-1) for each in logits)
            first, second = (p, q) if one.sampler == "policy" else (q, p)
            terms = second.exp() - first.exp() + first.exp() * (first - second)
            assert one.full[place] == pytest.approx(float(terms.sum()), abs=1e-5)
            assert one.policy_logprobs[place] == pytest.approx(float(p[token_id]), abs=1e-4)
            assert one.reference_logprobs[place] == pytest.approx(float(q[token_id]), abs=1e-4)
            assert one.policy_entropy[place] == pytest.approx(float(-(p.exp() * p).sum()), abs=1e-4)
            assert one.tokens[place] == WORDS[token_id]
            assert one.top_tokens[place][0] == WORDS[int(terms.argmax())]
            assert one.top_contributions[place] == pytest.approx(terms.topk(3).values.tolist(), abs=1e-5)


def test_completion_ends_with_end_of_sequence_or_at_the_limit(policy: LanguageModel, reference: LanguageModel) -> None:
    sequences = measure_by_name(policy, reference).values()
    assert {one.ended for one in sequences} == {True, False}
    for one in sequences:
        assert one.ended == (one.token_ids[-1] == END)
        assert END not in one.token_ids[:-1]
        assert one.ended or len(one) == N_TOKENS


def test_completions_depend_neither_on_the_batch_nor_on_the_shard(policy: LanguageModel, reference: LanguageModel) -> None:
    together = measure_by_name(policy, reference, samples_per_prompt=4)
    apart = measure_by_name(policy, reference, samples_per_prompt=4, batch_size=3, shard_prompts=3)
    assert together.keys() == apart.keys()
    for name, one in together.items():
        assert one.token_ids == apart[name].token_ids
        assert one.full == pytest.approx(apart[name].full, abs=1e-6)


def test_more_samples_are_added_to_the_ones_there_are(policy: LanguageModel, reference: LanguageModel) -> None:
    few, more = (measure_by_name(policy, reference, samples_per_prompt=n) for n in (2, 5))
    assert {name: more[name].token_ids for name in few} == {name: one.token_ids for name, one in few.items()}


def test_prompt_that_stands_twice_gets_completions_of_its_own(policy: LanguageModel, reference: LanguageModel) -> None:
    sequences = measure_by_name(policy, reference, prompts=PromptSet("twice", ("a", "a", "b")), samples_per_prompt=8)
    first, second = ([sequences["policy", index, sample].token_ids for sample in range(8)] for index in (0, 1))
    assert first != second


def test_all_checkpoints_are_drawn_with_the_same_random_numbers_and_another_seed_is_not(reference: LanguageModel) -> None:
    near = add_weight_noise(reference, relative=1e-6)
    first, again = (measure_by_name(one, reference, samples_per_prompt=4) for one in (near, reference.freeze_copy()))
    assert {name: one.token_ids for name, one in first.items()} == {name: one.token_ids for name, one in again.items()}
    assert {one.token_ids for one in first.values()} != {one.token_ids for one in measure_by_name(near, reference, seed=6).values()}


def test_global_generator_of_torch_is_left_alone(policy: LanguageModel, reference: LanguageModel) -> None:
    before = torch.get_rng_state()
    measure_tasks(policy, reference, samples_per_prompt=2)
    assert torch.equal(before, torch.get_rng_state())


def test_mean_ratio_is_one_where_what_is_scored_is_what_was_sampled(policy: LanguageModel, reference: LanguageModel) -> None:
    shards = measure_tasks(policy, reference, samples_per_prompt=64)
    ratio = measure_mean_ratio(list_sequences(shards, sampler="policy"))
    assert ratio.low <= 1 <= ratio.high
    shifted = [
        replace(one, policy_logprobs=tuple(value - 0.5 for value in one.policy_logprobs))
        for one in list_sequences(shards, sampler="policy")
    ]
    assert measure_mean_ratio(shifted).low > 1


def test_models_without_a_known_head_are_measured_by_their_logits(
    policy: LanguageModel, reference: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_head = measure_by_name(policy, reference, samples_per_prompt=3)
    monkeypatch.setattr(LoadedModel, "head", None)
    by_logits = measure_by_name(policy, reference, samples_per_prompt=3)
    for name, one in by_head.items():
        assert one.token_ids == by_logits[name].token_ids
        assert one.full == pytest.approx(by_logits[name].full, abs=1e-5)


def test_batch_that_does_not_fit_is_halved_and_changes_no_number(
    policy: LanguageModel, reference: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measure_by_name(policy, reference, samples_per_prompt=4)
    sizes: list[int] = []

    def refuse_large(language_model: LanguageModel, *, prompts: list[str], **options: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample_completions(language_model, prompts=prompts, **options)

    monkeypatch.setattr("klaudit.drift.shard.sample_completions", refuse_large)
    seen: list[tuple[int, int]] = []
    task = plan_tasks(samples_per_prompt=4)[0]
    found = measure_shard(LoadedModel(policy), LoadedModel(reference), task, on_progress=lambda *done: seen.append(done))
    assert sizes[:4] == [32, 16, 8, 4]
    assert seen[-1] == (32, 32)
    for one in found.sequences:
        assert one.token_ids == expected["policy", one.prompt_index, one.sample].token_ids


def test_memory_that_holds_no_sequence_is_said_with_the_prompt(
    policy: LanguageModel, reference: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("klaudit.drift.shard.sample_completions", refuse)
    with pytest.raises(OutOfMemory, match="prompt 'd e f'"):
        measure_tasks(policy, reference)


def test_broken_weights_give_numbers_that_are_not_finite(policy: LanguageModel, reference: LanguageModel) -> None:
    with torch.no_grad():
        reference.model.get_parameter("lm_head.weight")[:] = math.nan
    full = summarise(policy, reference, samples_per_prompt=2)["reverse", "full"]
    assert math.isnan(full.value)
    assert (full.low, full.high) == (0, math.inf)


def test_prompt_beyond_the_context_is_refused_by_name(policy: LanguageModel, reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match=r"'a a a.*63 tokens; with 3 new ones"):
        measure_tasks(policy, reference, prompts=PromptSet("long", ("a", "a " * 62 + "a")), samples_per_prompt=1)


def test_padding_of_one_model_only_is_left_out_and_tokens_beyond_it_are_refused(policy: LanguageModel, reference: LanguageModel) -> None:
    padded = reference.freeze_copy()
    resize: Any = padded.model.resize_token_embeddings
    resize(12, mean_resizing=False)
    with torch.no_grad():
        padded.model.get_parameter("lm_head.weight")[8:] = 0
        padded.model.get_parameter("lm_head.weight")[8:, 0] = -1e4 * torch.sign(padded.model.get_parameter("model.norm.weight")[0])
    expected = measure_by_name(policy, reference, samples_per_prompt=2, forward=False)
    for name, one in measure_by_name(policy, padded, samples_per_prompt=2, forward=False).items():
        assert one.full == pytest.approx(expected[name].full, abs=1e-5)
    with torch.no_grad():
        padded.model.get_parameter("lm_head.weight")[8:] = 0
    with pytest.raises(InvalidConfig, match=r"tiny-0 sampled token (8|9|10|11), of which .* share 8 tokens"):
        measure_by_name(policy, padded, samples_per_prompt=16)


@pytest.mark.model
def test_real_model_with_two_percent_of_weight_noise_drifts_a_little_and_full_is_surer_than_k1() -> None:
    reference = load_language_model(DEFAULT_MODEL)
    policy = add_weight_noise(reference, relative=0.02)
    prompts = PromptSet("reviews", tuple(f"This {thing} was" for thing in ("film", "book", "phone", "hotel")))
    measured = summarise(policy, reference, prompts=prompts, max_new_tokens=8, samples_per_prompt=2, forward=False)
    full, k1 = measured["reverse", "full"], measured["reverse", "k1"]
    assert 0.001 < full.value / full.mean_length < 0.2
    assert full.high - full.low < k1.high - k1.low
    assert max(one.low for one in measured.values()) <= min(one.high for one in measured.values())
