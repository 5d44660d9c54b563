import math

import numpy as np
import pytest

from klaudit.drift.precision import Precision, judge_precision
from klaudit.errors import InvalidConfig
from tests.drift.sequences import make_sequence, make_shard


def draw_gamma(rng: np.random.Generator, *, mean: float, deviation: float) -> float:
    return float(rng.gamma((mean / deviation) ** 2, deviation**2 / mean)) if deviation else mean


def measure(*, between: float, within: float, n_prompts: int = 64, n_samples: int = 8, asked: float, seed: int = 0) -> Precision:
    """Of prompts of mean 1 that scatter by `between`, with completions that scatter around them by `within`, nats, both gamma."""
    rng = np.random.default_rng(seed)
    centres = [draw_gamma(rng, mean=1.0, deviation=between) for _ in range(n_prompts)]
    sequences = [
        make_sequence((draw_gamma(rng, mean=centres[prompt], deviation=within),), prompt=str(prompt), prompt_index=prompt, sample=sample)
        for prompt in range(n_prompts)
        for sample in range(n_samples)
    ]
    return judge_precision([make_shard(*sequences)], within=asked)


def test_narrow_interval_is_enough() -> None:
    precision = measure(between=0.1, within=0.1, asked=0.1)
    assert precision.is_reached
    assert precision.relative_half_width == pytest.approx(2 * math.sqrt(0.1**2 + 0.1**2 / 8) / 8, rel=0.3)


def test_where_samples_scatter_the_number_of_them_is_foretold() -> None:
    precision = measure(between=0.0, within=1.0, n_samples=4, asked=0.05)
    # half-width 2 / sqrt(64 n) = 0.05
    assert not precision.is_reached
    assert precision.samples_needed == pytest.approx(25, rel=0.4)
    assert precision.samples_needed is not None
    assert measure(between=0.0, within=1.0, n_samples=2 * precision.samples_needed, asked=0.05).is_reached


def test_where_prompts_differ_no_number_of_samples_helps_and_the_number_of_prompts_is_told() -> None:
    precision = measure(between=0.5, within=0.2, asked=0.05)
    assert precision.samples_needed is None
    # 2 x 0.5 / sqrt(G) = 0.05
    assert precision.prompts_needed == pytest.approx(400, rel=0.4)
    assert measure(between=0.5, within=0.2, n_prompts=2 * precision.prompts_needed, asked=0.05).is_reached


def test_one_sample_a_prompt_asks_for_more_of_them_first() -> None:
    precision = measure(between=0.5, within=0.5, n_samples=1, asked=0.05)
    assert precision.samples_needed is not None
    assert precision.samples_needed > 1


def test_checkpoint_that_is_the_reference_is_known_well_enough() -> None:
    sequences = [make_sequence((1e-12 * i,), prompt=str(i)) for i in range(4)]
    assert judge_precision([make_shard(*sequences)], within=0.01).is_reached
    assert judge_precision([make_shard(*(make_sequence((0.0,), prompt=str(i)) for i in range(4)))], within=0.01).is_reached


def test_numbers_that_are_not_finite_are_never_known() -> None:
    precision = judge_precision([make_shard(make_sequence((math.nan,), prompt="a"), make_sequence(prompt="b"))], within=0.1)
    assert not precision.is_reached
    assert precision.samples_needed is None


@pytest.mark.parametrize("within", [0.0, -0.1, math.nan, math.inf])
def test_width_must_be_a_share(within: float) -> None:
    with pytest.raises(InvalidConfig, match="positive share of the value"):
        judge_precision([make_shard(make_sequence())], within=within)
