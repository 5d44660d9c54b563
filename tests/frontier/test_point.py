import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from klaudit.frontier import read_d, read_points
from klaudit.records import KLReading, KLSeries, Run, StepRecord

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
FULL = KLSeries(estimator="full", unit="nats_per_sequence")
PER_TOKEN = KLSeries(estimator="full", unit="nats_per_token")
RUN = Run("r1", "demo", NOW, series={"kl": FULL}, batch_size=16, beta=0.05)


def make_step(step: int, kl: float, **fields: object) -> StepRecord:
    made = StepRecord(step, KLReading(FULL, kl), NOW, score=0.5, metrics={"heldout_score": 0.3, "score_std": 0.8})
    return replace(made, **fields)  # type: ignore[arg-type]


def test_a_point_has_what_the_step_knew_of_one_policy() -> None:
    (point,) = read_points(RUN, [make_step(3, 4.0, beta=0.1)])
    assert (point.d, point.step, point.score, point.heldout_score) == (2.0, 3, 0.5, 0.3)
    assert (point.beta, point.run, point.estimator, point.heldout_se) == (0.1, "demo", "full", None)
    assert point.score_se == pytest.approx(0.2)


def test_a_beta_that_steps_do_not_log_is_the_runs() -> None:
    assert read_points(RUN, [make_step(3, 4.0)])[0].beta == 0.05


def test_of_a_step_in_two_segments_the_later_counts_in_whatever_order_they_come() -> None:
    steps = [make_step(2, 9.0, segment=1), make_step(1, 1.0), make_step(2, 4.0), make_step(3, 16.0, segment=1)]
    assert [(one.step, one.d) for one in read_points(RUN, steps)] == [(1, 1.0), (2, 3.0), (3, 4.0)]


@pytest.mark.parametrize(
    "step", [make_step(1, math.nan), make_step(1, 1.0, score=None, metrics={}), make_step(1, 1.0, score=math.inf, metrics={})]
)
def test_a_step_without_kl_or_any_score_is_no_point(step: StepRecord) -> None:
    assert read_points(RUN, [step]) == ()


def test_a_score_that_is_not_finite_is_left_out_and_the_other_kept() -> None:
    (point,) = read_points(RUN, [make_step(1, 1.0, metrics={"heldout_score": math.nan})])
    assert (point.score, point.heldout_score) == (0.5, None)


def test_a_kl_per_token_becomes_one_per_sequence_by_the_mean_length() -> None:
    run = replace(RUN, series={"kl": PER_TOKEN})
    step = replace(make_step(1, 0.0), kl=KLReading(PER_TOKEN, 0.04))
    assert read_points(run, [step]) == ()
    with_length = replace(step, metrics={"heldout_score": 0.3, "response_length": 100.0})
    assert read_points(run, [with_length])[0].d == pytest.approx(2.0)


def test_a_negative_estimate_counts_as_zero_and_no_number_as_none() -> None:
    assert read_d(KLReading(FULL, -0.13)) == 0
    assert read_d(KLReading.absent(FULL, "not logged")) is None
    assert read_d(None) is None
