import math

import pytest
import torch

from klaudit.drift.measurement import SequenceDrift, measure_sequences, summarise_drift
from klaudit.drift.summary import FLOORS, sum_nats
from klaudit.models.language_model import LanguageModel
from tests.drift.tasks import N_TOKENS, PROMPTS, measure_by_name


def measure(
    policy: LanguageModel, reference: LanguageModel, *, seed: int = 0, batch_size: int = 64, temperature: float = 1.0
) -> SequenceDrift:
    return measure_sequences(
        policy,
        reference,
        prompts=PROMPTS.prompts * 16,
        max_new_tokens=N_TOKENS,
        seed=seed,
        batch_size=batch_size,
        temperature=temperature,
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_model_in_training_is_found_as_far_away_as_the_saved_one(
    policy: LanguageModel, reference: LanguageModel, temperature: float
) -> None:
    drift = measure(policy, reference, temperature=temperature)
    saved = measure_by_name(policy, reference, samples_per_prompt=64, temperature=temperature, forward=False).values()
    for estimator in FLOORS:
        live = summarise_drift(drift, estimator=estimator)
        mean = sum(sum_nats(one)[estimator] for one in saved) / len(saved)
        assert live.standard_error is not None
        assert live.value == pytest.approx(mean, abs=4 * live.standard_error)


def test_sequences_prompts_and_lengths_are_counted(policy: LanguageModel, reference: LanguageModel) -> None:
    full = summarise_drift(measure(policy, reference, batch_size=7), estimator="full")
    assert (full.n_sequences, full.n_prompts) == (128, 8)
    assert 1 <= full.mean_length <= N_TOKENS


def test_same_settings_give_the_same_numbers_and_another_seed_does_not(policy: LanguageModel, reference: LanguageModel) -> None:
    first, again, other = (measure(policy, reference, seed=seed) for seed in (5, 5, 6))
    assert first.nats == again.nats != other.nats


def test_global_generator_of_torch_is_left_alone(policy: LanguageModel, reference: LanguageModel) -> None:
    before = torch.get_rng_state()
    measure(policy, reference)
    assert torch.equal(before, torch.get_rng_state())


def test_broken_weights_give_a_number_that_is_not_finite_with_an_open_interval(policy: LanguageModel, reference: LanguageModel) -> None:
    with torch.no_grad():
        reference.model.get_parameter("lm_head.weight")[:] = math.nan
    full = summarise_drift(measure(policy, reference), estimator="full")
    assert math.isnan(full.value)
    assert (full.low, full.high, full.standard_error) == (0, math.inf, None)
