import math

import pytest

from klaudit.drift.contrast import contrast_slices, correct_p_values
from tests.drift.sequences import draw_slices, make_sequence


def test_slice_that_differs_is_found_among_those_that_do_not() -> None:
    contrasts = {one.slice: one for one in contrast_slices(draw_slices({"a": 0.05, "b": 0.05, "trigger": 1.0, None: 0.05}, seed=1))}
    assert list(contrasts) == ["a", "b", "trigger"]
    assert contrasts["trigger"].p_value < 0.001
    assert contrasts["trigger"].ratio.low > 5
    assert contrasts["trigger"].n_prompts == 8
    assert contrasts["trigger"].value.value == pytest.approx(contrasts["trigger"].ratio.value * contrasts["trigger"].rest.value)
    assert min(contrasts["a"].p_value, contrasts["b"].p_value) > 0.05


@pytest.mark.parametrize(("n_slices", "n_prompts", "deviation"), [(4, 8, 1.0), (2, 16, 0.3), (6, 3, 0.6)])
def test_slices_that_differ_in_nothing_are_flagged_in_no_more_families_than_promised(
    n_slices: int, n_prompts: int, deviation: float
) -> None:
    levels: dict[str | None, float] = dict.fromkeys(map(str, range(n_slices)), 0.1)
    n_families = 200
    flagged = 0
    for seed in range(n_families):
        sequences = draw_slices(levels, seed=seed, n_prompts=n_prompts, n_samples=1, n_tokens=4, deviation=deviation)
        flagged += any(one.p_value < 0.05 for one in contrast_slices(sequences))
    # two standard errors of 200 families
    assert flagged / n_families <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / n_families)


def test_values_are_nats_per_token_so_that_longer_completions_are_no_difference() -> None:
    short = [make_sequence((0.1,) * 2, prompt=f"s{i}", slice="short") for i in range(4)]
    long = [make_sequence((0.1,) * 20, prompt=f"l{i}", slice="long") for i in range(4)]
    first, second = contrast_slices([*short, *long])
    assert (first.value.value, second.value.value, first.ratio.value) == pytest.approx((0.1, 0.1, 1.0))
    assert first.p_value == pytest.approx(1.0)


def test_differences_of_rounding_are_no_difference() -> None:
    quiet = [make_sequence((1e-13,), prompt=f"a{i}", slice="a") for i in range(4)]
    noisy = [make_sequence((9e-11,), prompt=f"b{i}", slice="b") for i in range(4)]
    assert [one.p_value for one in contrast_slices([*quiet, *noisy])] == [1.0, 1.0]


def test_checkpoint_that_is_the_reference_has_no_ratio_and_no_finding() -> None:
    contrasts = contrast_slices([make_sequence((0.0,), prompt=f"{name}{i}", slice=name) for name in "ab" for i in range(3)])
    assert all(math.isnan(one.ratio.value) and one.p_value == 1.0 for one in contrasts)


def test_drift_on_one_slice_and_none_on_the_others_is_infinitely_more() -> None:
    moved = [make_sequence((0.8 + i / 10,), prompt=f"a{i}", slice="a") for i in range(4)]
    still = [make_sequence((0.0,), prompt=f"b{i}", slice="b") for i in range(4)]
    contrast = contrast_slices([*moved, *still])[0]
    assert (contrast.ratio.value, contrast.ratio.low, contrast.p_value < 1e-6) == (math.inf, math.inf, True)


def test_slice_of_one_prompt_is_not_judged() -> None:
    sequences = draw_slices({"rest": 0.1}, seed=3)
    alone = make_sequence((50.0,), prompt="alone", slice="alone")
    contrast = contrast_slices([*sequences, alone])[-1]
    assert (contrast.slice, contrast.p_value, contrast.ratio.low, contrast.ratio.high) == ("alone", 1.0, 0.0, math.inf)


def test_without_anything_beside_a_slice_there_is_no_contrast() -> None:
    assert contrast_slices(draw_slices({None: 0.1}, seed=0)) == ()
    assert contrast_slices(draw_slices({"only": 0.1}, seed=0)) == ()


def test_correction_is_that_of_holm() -> None:
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06 which may not fall below its forerunner's, and 0.5
    assert correct_p_values([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert correct_p_values([0.9, 0.8]) == [1.0, 1.0]
