import json

import numpy as np
import pytest

from klaudit.detectors.proportion import Proportion
from klaudit.errors import InvalidRecord


def teach(factor: float, *, spread: float = 0.0, n: int = 8, seed: int = 1) -> Proportion:
    rng = np.random.default_rng(seed)
    proportion = Proportion()
    for x in rng.uniform(0.5, 2, n):
        proportion.observe(float(x), float(factor * x * np.exp(rng.normal(0, spread))), rounding=1e-9)
    return proportion


def test_the_factor_is_known_after_eight_pairs() -> None:
    assert teach(16.0, n=7).factor is None
    assert teach(16.0).factor == pytest.approx(16.0)


@pytest.mark.parametrize("factor", [1.004, 0.997, -1.002])
def test_a_factor_next_to_one_is_one(factor: float) -> None:
    assert abs(teach(factor).factor or 0) == 1.0


def test_a_pair_off_by_more_than_the_tolerance_does_not_keep_to_it() -> None:
    proportion = teach(1.0)
    assert (proportion.holds(2.0, 2.03), proportion.holds(2.0, 2.05), proportion.holds(2.0, -2.0)) == (True, False, False)


def test_rounding_excuses_a_pair_or_leaves_it_undecided() -> None:
    proportion = teach(1.0)
    assert proportion.holds(2.0, 2.05, rounding=0.02) is True
    assert proportion.holds(2.0, 4.0, rounding=0.5) is None


def test_noise_while_learning_widens_the_tolerance() -> None:
    assert teach(1.0, spread=0.01).tolerance > 0.02


def test_numbers_that_do_not_belong_together_are_given_up_after_five_attempts() -> None:
    assert not teach(1.0, spread=0.5, n=39).is_hopeless
    proportion = teach(1.0, spread=0.5, n=40)
    assert (proportion.is_hopeless, proportion.holds(1.0, 1.0)) == (True, None)


def test_one_odd_pair_does_not_keep_it_from_learning() -> None:
    proportion = Proportion()
    for x, y in [(1.0, 1.0), (2.0, 2.0), (1.5, 4.5), *[(float(n), float(n)) for n in range(1, 6)]]:
        proportion.observe(x, y, rounding=0.0)
    assert proportion.factor == 1.0


@pytest.mark.parametrize("pair", [(0.0, 1.0), (5e-324, 1.0), (1.0, 1.7e308), (1e-300, 1e-300), (1.0, 0.0)])
def test_numbers_at_the_ends_of_what_a_float_holds_teach_nothing(pair: tuple[float, float]) -> None:
    proportion = Proportion()
    for _ in range(40):
        proportion.observe(*pair, rounding=0.0)
    assert (proportion.factor, proportion.is_hopeless) == (None, False)


def test_the_state_is_json_and_goes_on() -> None:
    first = teach(3.0, n=5)
    second = Proportion()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for one in (first, second):
        for x in (1.0, 2.0, 3.0):
            one.observe(x, 3 * x, rounding=0.0)
    assert first.factor == second.factor == pytest.approx(3.0)


def test_fewer_than_three_pairs_are_refused() -> None:
    with pytest.raises(InvalidRecord, match="3 pairs or more"):
        Proportion(learn=2)
