import json
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from klaudit.detectors.change import Change
from klaudit.detectors.forecast import Noise
from klaudit.detectors.kl_change import HOLD, SMALL_SLOPE, WARM_UP, KLChangeDetector, find_limits

Floats = npt.NDArray[np.float64]

LEAST = 2.25e-4
N_STEPS = 400


def student(rng: np.random.Generator, n: int, *, degrees: float) -> Floats:
    """Unit variance."""
    return np.asarray(rng.standard_t(degrees, n) / math.sqrt(degrees / (degrees - 2)))


@dataclass(frozen=True)
class Healthy:
    """A healthy run, and what its detector would be told of it."""

    values: Floats
    sd: Floats
    noise: Noise
    least: float = LEAST

    def move(self, sds: Floats) -> Floats:
        """Its readings moved by so many standard deviations, on the scale on which their noise is natural."""
        return self.values + sds * self.sd if self.noise == "sampling" else self.values * np.exp(sds * self.sd / self.values)

    def build(self, *, rate: float = 1.0) -> KLChangeDetector:
        return KLChangeDetector(noise=self.noise, least=self.least, false_alarms_per_1000=rate)


def simulate(rng: np.random.Generator) -> Healthy:
    """Growth, noise by estimator with Student-t tails, autocorrelated wander."""
    t = np.arange(1, N_STEPS + 1)
    height = 10 ** rng.uniform(-1, 1.3)
    growth = [1 - np.exp(-t / rng.uniform(20, 150)), t / N_STEPS, np.sqrt(t / N_STEPS), np.ones(N_STEPS)][rng.integers(4)]
    degrees, batch = float(rng.choice([6, 6, 6, 10, 30])), int(2 ** rng.integers(3, 10))
    memory, spread = rng.choice([0.0, 0.3, 0.6, 0.94]), rng.choice([0.0, 0.02, 0.1])
    wander = np.zeros(N_STEPS)
    for step in range(1, N_STEPS):
        wander[step] = memory * wander[step - 1] + spread * math.sqrt(1 - memory**2) * rng.standard_normal()
    level = height * growth * np.exp(wander)
    noise = student(rng, N_STEPS, degrees=degrees)
    if rng.random() < 0.5:
        sd = np.sqrt(2 * level / batch)
        return Healthy(level + sd * noise, np.hypot(sd, spread * level), "sampling", least=max(LEAST, 0.5 / batch))
    share = rng.uniform(0.05, 0.5)
    return Healthy(level * np.exp(share * noise), level * math.hypot(share, spread), "proportional")


def build() -> KLChangeDetector:
    return KLChangeDetector(noise="proportional", least=LEAST)


def observe_all(detector: KLChangeDetector, values: Floats) -> list[tuple[int, Change]]:
    changes = [(step, detector.observe(float(value), position=step, least_sd=7e-4)) for step, value in enumerate(values)]
    return [(step, change) for step, change in changes if change is not None]


@pytest.mark.parametrize(("rate", "n_runs"), [(1.0, 150), (4.0, 60)])
def test_false_alarms_are_those_that_were_asked_for(rate: float, n_runs: int) -> None:
    rng = np.random.default_rng(11)
    counts: Counter[str] = Counter()
    for _ in range(n_runs):
        healthy = simulate(rng)
        counts.update(change.kind for _, change in observe_all(healthy.build(rate=rate), healthy.values))
    per_1000 = 1000 * counts.total() / (n_runs * N_STEPS)
    assert 0.4 * rate < per_1000 < 1.25 * rate, counts


@pytest.mark.parametrize(("kind", "least_found", "longest_delay"), [("spike", 0.85, 0), ("level", 0.9, 1), ("burst", 0.9, 6)])
def test_changes_are_found_and_soon(kind: str, least_found: float, longest_delay: int) -> None:
    rng = np.random.default_rng(12)
    delays = []
    for _ in range(80):
        healthy = simulate(rng)
        onset = int(rng.integers(80, 350))
        since = np.arange(N_STEPS) - onset
        moves = {
            "spike": np.where(since == 0, rng.uniform(7, 12), 0.0),
            "level": np.where(since >= 0, max(rng.uniform(4, 8), 0.3 * healthy.values[onset - 1] / healthy.sd[onset]), 0.0),
            "burst": np.where((since >= 0) & (since < 25), 4 * rng.standard_normal(N_STEPS), 0.0),
        }
        found = [step - onset for step, _ in observe_all(healthy.build(), healthy.move(moves[kind])) if onset <= step <= onset + 20]
        delays.append(found[0] if found else math.inf)
    assert np.mean(np.isfinite(delays)) >= least_found
    assert np.median(delays) <= longest_delay


def test_growth_out_of_zero_and_saturation_are_no_changes() -> None:
    t = np.arange(300)
    for values in (3 * (1 - np.exp(-t / 40)), np.sqrt(t), 0.01 * t, np.where(t < 12, 0.0, 2 * (1 - np.exp(-(t - 12) / 30)))):
        assert observe_all(build(), values.astype(np.float64)) == []


def test_one_change_is_told_once() -> None:
    rng = np.random.default_rng(13)
    values = np.where(np.arange(200) < 100, 1.0, 3.0) * np.exp(0.1 * rng.standard_normal(200))
    changes = observe_all(build(), values)
    assert [(step, change.kind, change.direction) for step, change in changes] == [(100, "jump", 1)]


def test_a_fall_to_another_level_is_told_and_a_low_value_is_not() -> None:
    rng = np.random.default_rng(14)
    steady = np.exp(0.1 * rng.standard_normal(200))
    fallen = np.where(np.arange(200) < 100, 1.0, 0.3) * steady
    low = np.where(np.arange(200) == 100, 0.3, 1.0) * steady
    ((step, change),) = observe_all(build(), fallen)
    assert (change.kind, change.direction) == ("level", -1)
    assert 100 <= step <= 103
    assert observe_all(build(), low) == []


@pytest.mark.parametrize("onset", [100, 200])
def test_a_fall_to_a_fifth_of_noisy_growth_is_told_and_growth_that_ends_is_none(onset: int) -> None:
    t = np.arange(300)
    n_found, n_false = 0, 0
    for seed in range(20):
        noise = np.exp(0.35 * np.random.default_rng(seed).standard_normal(300))
        ended = 0.01 * np.minimum(t + 1, onset) * noise
        falls = [step for step, change in observe_all(build(), np.where(t < onset, ended, 0.2 * ended)) if change.direction < 0]
        n_found += any(onset <= step <= onset + 20 for step in falls)
        n_false += any(change.direction < 0 for _, change in observe_all(build(), ended))
    assert n_found >= 18
    assert n_false <= 1


def test_a_steady_departure_is_told_as_a_slope() -> None:
    rng = np.random.default_rng(15)
    values = 2 + 0.1 * rng.standard_normal(260)
    values[150:] += 0.03 * np.arange(1, 111)
    changes = observe_all(build(), values)
    assert changes[0][1].kind == "slope"
    assert 150 < changes[0][0] <= 175


def test_a_slope_that_was_told_at_a_high_reading_is_not_told_again() -> None:
    told = []
    for seed in range(40):
        noise = np.exp(0.35 * np.random.default_rng(seed).standard_normal(200))
        values = np.exp(0.03 * np.clip(np.arange(200) - 120, 0, 40)) * noise
        told.append([step for step, change in observe_all(build(), values) if change.kind == "slope"])
    assert sum(len(steps) for steps in told) >= 20
    assert max(len(steps) for steps in told) == 1


def test_the_slope_of_a_small_series_must_be_clearer() -> None:
    rng = np.random.default_rng(15)
    values = 2 + 0.1 * rng.standard_normal(260)
    values[150:] += 0.03 * np.arange(1, 111)
    (large, small) = (KLChangeDetector(noise="proportional", least=LEAST, small=floor) for floor in (0.0, 10.0))
    (first, *_), (later, *_) = ([one for one in observe_all(built, values) if one[1].kind == "slope"] for built in (large, small))
    assert later[0] > first[0]
    assert later[1].limit == first[1].limit + SMALL_SLOPE


def test_nothing_alarms_in_the_warm_up() -> None:
    values = np.array([0.1] * WARM_UP + [5.0] + [0.1] * 20)
    assert [step for step, _ in observe_all(build(), values)] == [WARM_UP]


def test_of_spikes_that_follow_each_other_a_second_one_is_told_while_the_first_is_held_and_no_third() -> None:
    rng = np.random.default_rng(18)
    values = np.exp(0.1 * rng.standard_normal(120))
    values[60:72:2] *= 4.0
    assert [(step, change.kind) for step, change in observe_all(build(), values)][:2] == [(60, "jump"), (62, "jump")]
    assert not [step for step, _ in observe_all(build(), values) if 62 < step <= 62 + HOLD]


def test_a_small_spike_does_not_hide_the_large_one_after_it() -> None:
    rng = np.random.default_rng(19)
    values = np.exp(0.1 * rng.standard_normal(120))
    values[60], values[65] = 2.0, 3.0
    assert [step for step, _ in observe_all(build(), values)] == [60, 65]


def test_a_climb_over_four_values_is_told_once() -> None:
    rng = np.random.default_rng(20)
    n_late = 0
    for _ in range(20):
        climb = np.clip((np.arange(120) - 79) / 4, 0, 1)
        changes = observe_all(build(), 5.0**climb * np.exp(0.1 * rng.standard_normal(120)))
        n_late += any(step > 83 and change.kind == "jump" for step, change in changes)
    assert n_late <= 1


def test_a_gap_of_steps_in_growth_that_levels_off_is_no_fall() -> None:
    rng = np.random.default_rng(21)
    for gap in (500, 10_000):
        detector = build()
        values = np.concatenate([0.01 * np.arange(1, 101), np.full(60, 1.1)]) * np.exp(0.05 * rng.standard_normal(160))
        positions = [step + (gap if step >= 100 else 0) for step in range(160)]
        changes = [detector.observe(float(one), position=at, least_sd=7e-4) for one, at in zip(values, positions, strict=True)]
        assert [change for change in changes if change is not None] == []


def test_values_that_are_no_numbers_change_nothing() -> None:
    rng = np.random.default_rng(16)
    values = np.exp(0.2 * rng.standard_normal(120))
    with_gaps = np.insert(values, [30, 60, 60, 90], [math.nan, math.inf, -math.inf, math.nan])
    plain, gapped = build(), build()
    observe_all(plain, values)
    observe_all(gapped, with_gaps)
    assert plain.surprise == gapped.surprise


def test_a_gap_of_steps_leads_no_line_out_of_the_floats() -> None:
    detector = build()
    values = [1e90 * math.exp(0.3 * t + 0.01 * math.sin(t)) for t in range(80)] + [1.0] * WARM_UP
    changes = [detector.observe(value, position=step, least_sd=7e-4) for step, value in enumerate([*values, 1.0])]
    changes.append(detector.observe(1.0, position=2.0**62, least_sd=7e-4))
    told = [change for change in changes if change is not None]
    assert told
    assert all(math.isfinite(change.expected) and math.isfinite(change.score) for change in told)


def test_state_is_json_and_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(17)
    for _ in range(5):
        healthy = simulate(rng)
        values = healthy.values.copy()
        values[250] *= 20
        whole, first, second = healthy.build(), healthy.build(), healthy.build()
        expected = [(step, change.kind) for step, change in observe_all(whole, values) if step >= 200]
        observe_all(first, values[:200])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        went_on = [(step, second.observe(float(value), position=step, least_sd=7e-4)) for step, value in enumerate(values[200:], start=200)]
        assert [(step, change.kind) for step, change in went_on if change is not None] == expected


def test_limits_rise_as_fewer_false_alarms_are_asked_for() -> None:
    few, many = find_limits(0.1), find_limits(2.0)
    assert few.jump > many.jump
    assert few.level > many.level
    assert few.slope > many.slope
    assert few.variance > many.variance
