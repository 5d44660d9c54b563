import math
import statistics

import pytest
import torch

from klaudit.drift.measurement import Measured, measure_drift
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig
from klaudit.models import DEFAULT_MODEL
from klaudit.models.language_model import LanguageModel, load_language_model
from tests.drift.tiny_models import WORDS, add_weight_noise, build_model

PROMPTS = PromptSet("tiny", ("a", "b c", "d e f", "g", "a a b", "c g", "e", "f d"))
N_TOKENS = 3
END = 0


def measure(
    policy: LanguageModel,
    reference: LanguageModel,
    *,
    prompts: PromptSet = PROMPTS,
    samples_per_prompt: int = 32,
    seed: int = 0,
    batch_size: int = 64,
    temperature: float = 1.0,
) -> dict[str, Measured]:
    measured = measure_drift(
        policy,
        reference,
        prompts=prompts,
        max_new_tokens=N_TOKENS,
        samples_per_prompt=samples_per_prompt,
        seed=seed,
        batch_size=batch_size,
        temperature=temperature,
    )
    return {one.estimator: one for one in measured}


@torch.no_grad()
def enumerate_kl(policy: LanguageModel, reference: LanguageModel, *, prompt: str, temperature: float = 1.0) -> float:
    """KL of whole completions by visiting all of them, without padding, cache or sampling: sum of p (log p - log q)."""

    def predict(language_model: LanguageModel, ids: list[int]) -> torch.Tensor:
        logits: torch.Tensor = language_model.model(torch.tensor([ids])).logits[0, -1]
        return (logits.double() / temperature).log_softmax(-1)

    def visit(ids: list[int], n_left: int, p: float, q: float) -> float:
        if n_left == 0 or ids[-1] == END:
            return math.exp(p) * (p - q)
        of_policy, of_reference = predict(policy, ids), predict(reference, ids)
        return sum(
            visit([*ids, token], n_left - 1, p + of_policy[token].item(), q + of_reference[token].item()) for token in range(len(WORDS))
        )

    return visit(policy.tokenizer.encode(prompt), N_TOKENS, 0.0, 0.0)


def test_checkpoint_equal_to_the_reference_measures_zero(reference: LanguageModel) -> None:
    # The kernels of a copy may round differently, by where its weights lie in memory.
    for one in measure(reference.freeze_copy(), reference).values():
        assert (one.value, one.low, one.high, one.standard_error) == pytest.approx((0, 0, 0, 0), abs=1e-6)
        assert one.low <= one.value <= one.high


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_interval_covers_the_kl_that_enumeration_finds(policy: LanguageModel, reference: LanguageModel, temperature: float) -> None:
    exact = sum(enumerate_kl(policy, reference, prompt=prompt, temperature=temperature) for prompt in PROMPTS.prompts) / len(
        PROMPTS.prompts
    )
    assert exact > 0.05
    for one in measure(policy, reference, temperature=temperature).values():
        assert one.low <= exact <= one.high


def test_estimators_are_unbiased_and_full_has_the_least_noise(policy: LanguageModel, reference: LanguageModel) -> None:
    pair = PromptSet("pair", ("a", "b c"))
    exact = sum(enumerate_kl(policy, reference, prompt=prompt) for prompt in pair.prompts) / 2
    repeated = [measure(policy, reference, prompts=pair, samples_per_prompt=16, seed=seed, batch_size=32) for seed in range(40)]
    values = {name: [one[name].value for one in repeated] for name in ("full", "k1", "k3")}
    noise = {name: statistics.stdev(of_one) for name, of_one in values.items()}
    for name, of_one in values.items():
        assert statistics.fmean(of_one) == pytest.approx(exact, abs=4 * noise[name] / math.sqrt(40))
    assert noise["full"] < min(noise["k1"], noise["k3"])


def test_sequences_and_lengths_are_counted(policy: LanguageModel, reference: LanguageModel) -> None:
    full = measure(policy, reference, samples_per_prompt=5, batch_size=7)["full"]
    assert (full.n_sequences, full.n_prompts) == (40, 8)
    assert 1 <= full.mean_length <= N_TOKENS


def test_intervals_of_full_and_k3_do_not_start_below_zero_and_k1_may(policy: LanguageModel, reference: LanguageModel) -> None:
    measured = measure(policy, reference, prompts=PromptSet("two", ("a", "b c")), samples_per_prompt=1)
    assert measured["full"].low >= 0
    assert measured["k3"].low >= 0
    assert measured["k1"].low < 0


def test_repeated_prompt_is_one_prompt_in_the_interval(policy: LanguageModel, reference: LanguageModel) -> None:
    repeated = PromptSet("repeated", PROMPTS.prompts * 4)
    four_times = measure(policy, reference, prompts=repeated, samples_per_prompt=2)["full"]
    assert (four_times.n_prompts, four_times.n_sequences) == (8, 64)
    as_samples = measure(policy, reference, samples_per_prompt=8)["full"]
    assert four_times.standard_error == pytest.approx(as_samples.standard_error, rel=0.5)


def test_same_settings_give_the_same_numbers_and_another_seed_does_not(policy: LanguageModel, reference: LanguageModel) -> None:
    first, again = (measure(policy, reference, seed=5) for _ in range(2))
    assert first == again
    assert measure(policy, reference, seed=6)["full"].value != first["full"].value


def test_batch_size_changes_the_draws_and_not_what_is_measured(policy: LanguageModel, reference: LanguageModel) -> None:
    large, small = (measure(policy, reference, batch_size=size)["full"] for size in (64, 5))
    assert large.standard_error is not None
    assert small.value == pytest.approx(large.value, abs=2 * large.standard_error)


def test_global_generator_of_torch_is_left_alone(policy: LanguageModel, reference: LanguageModel) -> None:
    before = torch.get_rng_state()
    measure(policy, reference)
    assert torch.equal(before, torch.get_rng_state())


def test_broken_weights_give_a_number_that_is_not_finite_with_an_open_interval(policy: LanguageModel, reference: LanguageModel) -> None:
    with torch.no_grad():
        reference.model.get_parameter("lm_head.weight")[:] = math.nan
    full = measure(policy, reference)["full"]
    assert math.isnan(full.value)
    assert (full.low, full.high, full.standard_error) == (0, math.inf, None)


def test_progress_counts_sequences_up_to_their_total(policy: LanguageModel, reference: LanguageModel) -> None:
    seen: list[tuple[int, int]] = []
    measure_drift(
        policy,
        reference,
        prompts=PROMPTS,
        max_new_tokens=1,
        samples_per_prompt=2,
        seed=0,
        batch_size=6,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(6, 16), (12, 16), (16, 16)]


def test_other_vocabulary_and_other_tokenizer_are_refused(reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match="must share a vocabulary; they have 9 and 8 tokens"):
        measure(build_model(words=(*WORDS, "h")), reference)
    with pytest.raises(InvalidConfig, match="must share a tokenizer; 'a' with id 1 is in only one"):
        measure(build_model(words=("</s>", "b", "a", *WORDS[3:])), reference)


def test_settings_out_of_range_are_refused(policy: LanguageModel, reference: LanguageModel) -> None:
    with pytest.raises(InvalidConfig, match="at least 2 different"):
        measure(policy, reference, prompts=PromptSet("same", ("a", "a")))
    with pytest.raises(InvalidConfig, match="samples_per_prompt and batch_size"):
        measure(policy, reference, samples_per_prompt=0)
    with pytest.raises(InvalidConfig, match="samples_per_prompt and batch_size"):
        measure(policy, reference, batch_size=0)


@pytest.mark.model
def test_real_model_with_two_percent_of_weight_noise_drifts_a_little_and_full_is_surer_than_k1() -> None:
    reference = load_language_model(DEFAULT_MODEL)
    policy = add_weight_noise(reference, relative=0.02)
    prompts = PromptSet("reviews", tuple(f"This {thing} was" for thing in ("film", "book", "phone", "hotel")))
    measured = measure_drift(policy, reference, prompts=prompts, max_new_tokens=8, samples_per_prompt=2, seed=0, batch_size=8)
    full, k1, k3 = measured
    assert (full.estimator, k1.estimator, k3.estimator) == ("full", "k1", "k3")
    assert 0.001 < full.value / full.mean_length < 0.2
    assert full.standard_error is not None
    assert k1.standard_error is not None
    assert full.standard_error < k1.standard_error
    assert max(one.low for one in measured) <= min(one.high for one in measured)
