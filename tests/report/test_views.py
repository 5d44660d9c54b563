import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from klaudit.records import Finding, KLBudget, KLReading, KLSeries, RunSummary, Severity, StepRecord, TextSample, TokenScore
from klaudit.report.views import (
    METRICS,
    Gap,
    RunRow,
    RunView,
    format_number,
    format_percent,
    format_reading,
    format_significant,
    view_drift,
    view_run,
    view_runs,
    view_sample,
)
from klaudit.report.views.curve import choose_points
from klaudit.report.views.figure import format_estimate
from tests.report.invented import START, Invented, invent_drift, invent_step, kl_at

TOKEN_SERIES = KLSeries(estimator="full", unit="nats_per_token")


def view(invented: Invented, *budgets: KLBudget) -> RunView:
    return view_run(invented.run, steps=invented.steps, budgets=budgets)


def summarise(invented: Invented, reading: KLReading | None) -> RunSummary:
    return RunSummary(
        run=invented.run,
        n_steps=12,
        last_step=12,
        last_logged_at=START,
        last_kl=reading,
        last_beta=0.05,
        last_score=1.0,
        n_findings={"critical": 1},
    )


def row_of(invented: Invented, reading: KLReading | None, *budgets: KLBudget) -> RunRow:
    return view_runs([summarise(invented, reading)], budgets=budgets).rows[0]


def walk(values: list[float]) -> tuple[StepRecord, ...]:
    base = invent_step(1, n_steps=1)
    return tuple(
        replace(base, step=i, kl=KLReading(base.kl.series, value), readings={}, metrics={}, logged_at=START + timedelta(seconds=i))
        for i, value in enumerate(values)
    )


class TestRuns:
    def test_a_row_shows_the_share_of_the_budget_that_the_last_reading_uses(self, invented: Invented) -> None:
        row = row_of(invented, invented.steps[-1].kl, KLBudget(10.0, unit="nats_per_sequence", run_id="r1"))
        assert row.budget_used_percent == pytest.approx(121.0)
        assert [row.last_kl, row.last_kl_se] == pytest.approx([12.1, 0.6])
        assert row.kl_text == "12.10 ± 0.60 nats/sequence"
        assert row.n_critical == 1

    def test_a_budget_of_the_other_unit_is_compared_by_way_of_the_mean_length(self, invented: Invented) -> None:
        row = row_of(invented, invented.steps[-1].kl, KLBudget(1.0, unit="nats_per_token", run_id="r1"))
        assert row.budget_used_percent == pytest.approx(60.5)

    def test_of_two_budgets_the_one_that_is_used_most_counts(self, invented: Invented) -> None:
        budgets = [KLBudget(limit, unit="nats_per_sequence", run_id="r1") for limit in (100.0, 20.0, 50.0)]
        assert row_of(invented, invented.steps[-1].kl, *budgets).budget_used_percent == pytest.approx(60.5)

    def test_without_a_budget_for_the_run_no_share_is_shown(self, invented: Invented) -> None:
        row = row_of(invented, invented.steps[-1].kl, KLBudget(10.0, unit="nats_per_sequence", match="other-*"))
        assert row.budget_used_percent is None
        assert row.budget_text == "no budget is set"

    def test_a_window_is_not_compared_with_one_reading(self, invented: Invented) -> None:
        window = KLBudget(10.0, unit="nats_per_sequence", scope="window", window_steps=5)
        row = row_of(invented, invented.steps[-1].kl, window)
        assert (row.budget_used_percent, row.budget_text) == (None, "no budget on a single step; the others are on the run's page")
        both = row_of(invented, invented.steps[-1].kl, window, KLBudget(20.0, unit="nats_per_sequence"))
        assert both.budget_used_percent == pytest.approx(60.5)

    def test_an_unknown_estimator_is_not_compared(self, invented: Invented) -> None:
        unknown = KLReading(KLSeries(unit="nats_per_sequence"), 5.0)
        assert row_of(invented, unknown, KLBudget(10.0, unit="nats_per_sequence")).budget_used_percent is None

    def test_absent_kl_is_not_zero(self, invented: Invented) -> None:
        row = row_of(invented, KLReading.absent(TOKEN_SERIES, "beta is 0"))
        assert row.last_kl is None
        assert row.kl_text == "not measured: beta is 0"


class TestRun:
    def test_nan_is_a_gap_in_the_curve_and_is_listed(self, invented: Invented) -> None:
        curve = view(invented).governing
        assert curve is not None
        assert [step for step, value in zip(curve.steps, curve.values, strict=True) if math.isnan(value)] == [5]
        assert curve.gaps == (Gap(5, 5, "NaN", 1),)

    def test_infinity_is_listed_by_its_own_name(self, invented: Invented) -> None:
        curve = view_run(invented.run, steps=walk([1.0, math.inf, math.inf, -math.inf, 2.0])).governing
        assert curve is not None
        assert [(gap.first_step, gap.last_step, gap.kind) for gap in curve.gaps] == [(1, 2, "Infinity"), (3, 3, "-Infinity")]
        assert not any(map(math.isinf, curve.values))

    def test_the_governing_curve_comes_first_with_one_standard_error_as_band(self, invented: Invented) -> None:
        curve = view(invented).curves[0]
        assert (curve.key, curve.estimator, curve.unit, curve.band) == ("kl", "full", "nats/sequence", "± 1 standard error")
        assert curve.low is not None
        assert curve.high is not None
        assert [curve.low[-1], curve.high[-1]] == pytest.approx([12.1 - 0.6, 12.1 + 0.6])

    def test_a_budget_is_a_line_only_in_the_curve_s_own_unit(self, invented: Invented) -> None:
        budgets = (
            KLBudget(10.0, unit="nats_per_sequence"),
            KLBudget(0.5, unit="nats_per_token"),
            KLBudget(1.0, unit="nats_per_token", scope="path"),
            KLBudget(9.0, unit="nats_per_sequence", scope="checkpoint"),
        )
        assert [one.is_line for one in view(invented, *budgets).budgets] == [True, False, False, False]

    def test_each_scope_is_compared_with_its_own_statistic(self, invented: Invented) -> None:
        steps = walk([1.0, 3.0, math.nan, 5.0])
        window = KLBudget(10.0, unit="nats_per_sequence", scope="window", window_steps=3)
        assert view_run(invented.run, steps=steps, budgets=[window]).budgets[0].value == pytest.approx(3.5)
        path = KLBudget(0.1, unit="nats_per_token", scope="path")
        assert view(invented, path).budgets[0].value == pytest.approx(12 * 0.004)
        checkpoint = KLBudget(9.0, unit="nats_per_sequence", scope="checkpoint")
        assert view(invented, checkpoint).budgets[0].value is None

    def test_a_path_is_the_sum_of_the_update_series_that_the_audit_adds_up(self, invented: Invented) -> None:
        update = KLSeries(kind="update", estimator="k2", unit="nats_per_token")
        series = {"z": update, "a_unknown": KLSeries(kind="update"), "b": update, "kl": TOKEN_SERIES}
        values = {"z": 5.0, "a_unknown": 7.0, "b": 0.25}
        steps = [replace(one, readings={key: KLReading(series[key], value) for key, value in values.items()}) for one in invented.steps]
        path = KLBudget(4.0, unit="nats_per_token", scope="path")
        (use,) = view_run(replace(invented.run, series=series), steps=steps, budgets=[path]).budgets
        assert use.value == pytest.approx(12 * 0.25)

    def test_headline_numbers_carry_unit_and_estimator(self, invented: Invented) -> None:
        figures = {one.key: one for one in view(invented, KLBudget(10.0, unit="nats_per_sequence")).headline}
        assert figures["kl"].text == "12.10 ± 0.60 nats/sequence"
        assert figures["kl"].label == "KL to reference (full, nats/sequence)"
        assert figures["d"].value == pytest.approx(math.sqrt(12.1))
        assert figures["d"].note == "full estimator, at step 12"
        assert figures["budget_used"].text == "121%"
        assert figures["coverage"].text == "91.7% of 12 steps"
        assert list(figures) == ["kl", "d", "beta", "score", "heldout_score", "budget_used", "coverage"]

    def test_d_needs_a_mean_length_where_kl_is_per_token(self, invented: Invented) -> None:
        run = replace(invented.run, series={"kl": TOKEN_SERIES})
        step = invented.steps[0]
        without = view_run(run, steps=[replace(step, kl=KLReading(TOKEN_SERIES, 0.2), readings={})])
        assert without.figure("d") is not None
        assert without.figure("d").value is None  # type: ignore[union-attr]
        with_length = view_run(run, steps=[replace(step, kl=KLReading(TOKEN_SERIES, 0.2, mean_length=20.0), readings={})])
        assert with_length.figure("d").value == pytest.approx(2.0)  # type: ignore[union-attr]

    def test_a_run_without_steps_is_shown_without_numbers(self, invented: Invented) -> None:
        empty = view_run(invented.run, steps=())
        assert (empty.curves, empty.headline, empty.statement) == ((), (), "no step was recorded")

    def test_a_resumed_run_keeps_superseded_steps_and_joins_no_line_over_the_resume(self, invented: Invented) -> None:
        resumed = (*invented.steps[:4], *(replace(one, segment=1) for one in invented.steps[2:4]))
        curve = view_run(invented.run, steps=resumed).governing
        assert curve is not None
        assert curve.steps == (1, 2, 3, 4, 3, 3, 4)
        assert math.isnan(curve.values[4])
        assert curve.gaps == ()

    def test_undeclared_series_are_unknown_and_govern_nothing(self, invented: Invented) -> None:
        steps = [replace(one, kl=KLReading(KLSeries(), 1.0), readings={}) for one in invented.steps]
        shown = view_run(replace(invented.run, series={}), steps=steps, budgets=[KLBudget(1.0, unit="nats_per_token")])
        assert shown.governing_key is None
        assert shown.budgets[0].used_percent is None
        assert shown.governing is not None
        assert shown.governing.label == "KL to reference (unknown estimator, unknown unit)"

    def test_no_metric_is_drawn_without_a_unit(self) -> None:
        assert all(label and unit for label, unit in METRICS.values())


class TestThinning:
    def test_a_spike_of_one_step_and_every_finding_s_point_survive(self, invented: Invented) -> None:
        values = [0.001 * (i % 7) for i in range(50_000)]
        values[31_234] = 40.0
        findings = [
            Finding("f", "r1", "KLA201", "kl_jump", 1, Severity.WARNING, first, first + 3, first + 11, "m", "r", series="kl")
            for first in range(101, 49_000, 997)
        ]
        curve = view_run(invented.run, steps=walk(values), findings=findings, max_points=1000).governing
        assert curve is not None
        shown = dict(zip(curve.steps, curve.values, strict=True))
        assert shown[31_234] == 40.0
        assert {step for one in findings for step in (one.first_step, one.detected_step, one.last_step)} <= shown.keys()
        assert curve.n_shown <= 1000
        assert curve.statement.startswith(f"showing {curve.n_shown:,} of 50,000 points")

    def test_a_spike_beside_a_nan_and_two_opposite_spikes_survive(self) -> None:
        values = np.sin(np.arange(100_000) / 500)
        values[40_000], values[40_003], values[40_005], values[40_006] = 9.0, np.nan, -9.0, 8.0
        chosen = choose_points(values, keep=(), max_points=2000)
        assert {40_000, 40_003, 40_005} <= set(chosen)
        assert len(chosen) <= 2000

    @pytest.mark.parametrize("values", [np.full(5000, np.nan), np.resize([1.0, np.nan], 5000), np.full(5000, np.inf)])
    def test_a_series_that_is_mostly_broken_is_thinned_all_the_same(self, values: np.ndarray) -> None:
        chosen = choose_points(values, keep=(), max_points=400)
        assert 0 < len(chosen) <= 402
        assert (chosen[0], chosen[-1]) == (0, 4999)

    def test_a_short_series_is_shown_whole(self) -> None:
        assert choose_points(np.arange(7.0), keep=(), max_points=7) == list(range(7))


class TestDrift:
    def test_a_checkpoint_stands_beside_the_kl_logged_one_step_later(self, invented: Invented) -> None:
        shown = view_drift(invented.run, measurements=invented.drift, steps=invented.steps)
        at_6, at_12 = shown.select("full")
        assert at_6.logged is not None
        assert [at_6.step, at_6.logged.logged_step, at_6.logged.value] == pytest.approx([6, 7, kl_at(7)])
        assert at_6.value == pytest.approx(at_6.logged.value)
        assert at_12.logged is None
        assert shown.logged is not None
        assert shown.logged.steps == tuple(range(12))

    def test_each_estimator_stands_beside_its_own_logged_series(self, invented: Invented) -> None:
        shown = view_drift(invented.run, measurements=invented.drift, steps=invented.steps)
        logged = {one.estimator: one.logged.value for one in shown.points if one.step == 6 and one.logged is not None}
        assert logged == {"full": pytest.approx(3.6), "k1": pytest.approx(2.7), "k3": pytest.approx(4.5)}

    def test_after_a_resume_the_last_segment_s_log_counts(self, invented: Invented) -> None:
        step = invented.steps[6]
        again = replace(step, segment=1, kl=replace(step.kl, value=99.0))
        shown = view_drift(invented.run, measurements=[invent_drift(6, "full", 3.0)], steps=[again, *invented.steps])
        assert shown.points[0].logged is not None
        assert shown.points[0].logged.value == 99.0

    def test_reference_and_interval_are_named(self, invented: Invented) -> None:
        shown = view_drift(invented.run, measurements=invented.drift, steps=())
        assert (shown.reference, shown.reference_digest) == ("tiny-reference", "sha256:" + "ab" * 32)
        assert shown.points[0].text == "3.60 [3.10, 4.10] nats/sequence"
        assert shown.interval == "95% interval over prompts"


class TestSample:
    def test_the_total_is_the_sum_over_the_tokens_in_nats(self, invented: Invented) -> None:
        sample = view_sample(invented.samples[0])
        assert sample.estimator == "full"
        assert sample.total_nats == pytest.approx(0.25 + 2.5 + 0.0625)
        assert [token.level for token in sample.tokens] == [1, 4, 0]

    def test_one_token_without_full_kl_turns_the_whole_text_to_k1(self) -> None:
        tokens = (TokenScore("a", -1.0, -1.5, 0.25), TokenScore("b", -1.0, -0.5))
        sample = view_sample(TextSample(step=1, prompt="", completion="ab", tokens=tokens))
        assert (sample.estimator, [token.kl for token in sample.tokens]) == ("k1", [0.5, -0.5])

    def test_a_token_that_is_not_finite_has_the_strongest_shade(self) -> None:
        tokens = (TokenScore("a", -1.0, -math.inf), TokenScore("b", math.inf, math.inf))
        sample = view_sample(TextSample(step=1, prompt="", completion="ab", tokens=tokens))
        assert [token.level for token in sample.tokens] == [4, 4]
        assert math.isnan(sample.total_nats)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12.0, "12"), (0.00123456, "0.001235"), (1234567.0, "1.23e+06"), (12345.6, "12,346"), (-0.5, "-0.5"), (1e-9, "1e-09")],
)
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (2.0, "2.00"), (0.03384, "0.0338"), (9.999, "10.0"), (-104.4, "-104"), (6144.3, "6,144"), (1.25e-6, "1.25e-06")],
)
def test_numbers_in_columns_have_three_significant_digits(value: float, text: str) -> None:
    assert format_significant(value) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((2.1, 0.0, 3.9), "2.10 [0.00, 3.90]"),
        ((104.2, -90.3, 854.4), "104 [-90, 854]"),
        ((0.9863, 0.954, 1.051), "0.986 [0.954, 1.051]"),
        ((1.08, 0.5, 220.0), "1.1 [0.5, 220.0]"),
        ((1.0003, 0.9981, 1.0022), "1.000 [0.998, 1.002]"),
        ((1.0, 1.0 - 1e-9, 1.0 + 1e-9), "1.0000 [1.0000, 1.0000]"),
        ((0.0, -0.0012, 0.0011), "0.00000 [-0.00120, 0.00110]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((0.5, -math.inf, math.inf), "0.500 [-Infinity, Infinity]"),
        ((math.nan, 0.0, math.nan), "NaN [0, NaN]"),
    ],
)
def test_an_estimate_in_a_column_has_one_precision_with_its_interval(estimate: tuple[float, float, float], text: str) -> None:
    assert format_estimate(*estimate) == text


def test_non_finite_numbers_are_named() -> None:
    assert [format_number(one) for one in (math.nan, math.inf, -math.inf)] == ["NaN", "Infinity", "-Infinity"]


def test_a_share_below_one_hundred_never_reads_as_one_hundred() -> None:
    assert [format_percent(one) for one in (99.9999, 100.0, 7.0, 0.04)] == ["99.9%", "100%", "7%", "0%"]


def test_a_reading_has_the_decimals_that_its_error_deserves() -> None:
    assert format_reading(KLReading(TOKEN_SERIES, 1.40312, standard_error=0.2033)) == "1.40 ± 0.20 nats/token"
    assert format_reading(KLReading(TOKEN_SERIES, math.nan, standard_error=math.nan)) == "NaN ± NaN nats/token"
