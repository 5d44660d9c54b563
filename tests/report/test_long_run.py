import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from klaudit.records import PRIMARY, KLBudget, KLReading, RollUp, Run, RunSummary, StepRecord
from klaudit.report.views import LongRun, RunView, view_long_run, view_run
from klaudit.report.views.long_run import needs_every_step
from tests.report.invented import Invented
from tests.store.examples import make_finding

LEVEL = 64
N_STEPS = 20_000


def roll_up(key: str, values: Sequence[float]) -> list[RollUp]:
    """Buckets of a series by definition, steps from 0."""
    found = []
    for bucket in range(math.ceil(len(values) / LEVEL)):
        inside = [(value, step) for step, value in enumerate(values) if step // LEVEL == bucket]
        finite = [one for one in inside if math.isfinite(one[0])]
        low, high = (min(finite), max(finite)) if finite else (None, None)
        found.append(
            RollUp(
                key,
                LEVEL,
                segment=0,
                bucket=bucket,
                n=len(finite),
                min=low and low[0],
                min_step=low and low[1],
                max=high and high[0],
                max_step=high and high[1],
                total=math.fsum(value for value, _ in finite),
                n_non_finite=len(inside) - len(finite),
                first_step=inside[0][1],
                last_step=inside[-1][1],
            )
        )
    return found


def read_long_run(run: Run, walk: Sequence[StepRecord], *, broken: Sequence[int] = (), n_broken: int | None = None) -> LongRun:
    """What the pages read of a run: its buckets, the last step, and the steps of some buckets."""
    series = {key: [one.reading(key) for one in walk] for key in run.series}
    values = {key: [math.nan if one is None or one.value is None else one.value for one in readings] for key, readings in series.items()}
    summary = RunSummary(
        run=run,
        n_steps=len(walk),
        last_step=walk[-1].step,
        last_logged_at=walk[-1].logged_at,
        last_kl=walk[-1].kl,
        last_beta=walk[-1].beta,
        last_score=walk[-1].score,
        n_findings={},
        n_kl_measured=sum(math.isfinite(one) for one in values[run.governing_key or PRIMARY]),
    )
    return LongRun(
        summary=summary,
        level=LEVEL,
        rollups={key: roll_up(key, one) for key, one in values.items()},
        steps=[one for one in walk if one.step // LEVEL in broken],
        tail=walk[-200:],
        n_segments=1,
        n_broken=len(broken) if n_broken is None else n_broken,
        n_broken_read=len(broken),
    )


@pytest.fixture
def walk(invented: Invented) -> list[StepRecord]:
    """A random walk of KL with a spike, a dip and a stretch of NaN."""
    generator = np.random.default_rng(7)
    values = np.abs(np.cumsum(generator.normal(0, 0.01, N_STEPS)))
    values[12_345], values[12_346], values[7_000:7_010] = 50.0, -3.0, math.nan
    series = invented.run.series[invented.run.governing_key or PRIMARY]
    template = invented.steps[0]
    return [replace(template, step=step, kl=KLReading(series, float(value)), readings={}) for step, value in enumerate(values)]


@pytest.fixture
def run(invented: Invented) -> Run:
    return replace(invented.run, series={"kl": invented.run.series[invented.run.governing_key or PRIMARY]})


def test_no_spike_and_no_gap_of_a_long_run_is_lost_and_the_chart_says_how_it_is_thinned(run: Run, walk: list[StepRecord]) -> None:
    curve = view_long_run(read_long_run(run, walk, broken=[7_000 // LEVEL]), max_points=400).governing
    assert curve is not None
    shown = dict(zip(curve.steps, curve.values, strict=True))
    assert (shown[12_345], shown[12_346]) == (50.0, -3.0)
    assert [(gap.first_step, gap.last_step, gap.kind, gap.n_steps) for gap in curve.gaps] == [(7_000, 7_009, "NaN", 10)]
    assert math.isnan(shown[7_000])
    assert curve.n_shown < 500
    assert curve.statement.startswith(f"showing {curve.n_shown:,} of 20,000 points; lowest and highest of every 64 steps")
    assert "bands are left out" in curve.statement
    assert (curve.low, curve.high, curve.band) == (None, None, "")


def test_a_long_run_has_the_numbers_of_its_whole_view(run: Run, walk: list[StepRecord]) -> None:
    findings = [replace(make_finding(run.id), first_step=100, detected_step=12_345, last_step=19_999)]
    budgets = [KLBudget(2.0, unit=run.series["kl"].unit), KLBudget(2.0, unit=run.series["kl"].unit, scope="window", window_steps=20)]
    long = read_long_run(run, walk, broken=[7_000 // LEVEL, 100 // LEVEL, 12_345 // LEVEL])
    seen = view_long_run(long, findings=findings, budgets=budgets)
    whole = view_run(run, steps=walk, findings=findings, budgets=budgets)

    def describe(view: RunView) -> tuple[object, ...]:
        gaps = view.governing.gaps if view.governing else ()
        headline = [(one.key, one.text, one.note) for one in view.headline]
        return view.statement, headline, view.markers, view.n_steps, view.n_segments, gaps, view.curves[0].key

    assert describe(seen) == describe(whole)
    assert [(use.id, use.statement, use.is_line) for use in seen.budgets] == [(use.id, use.statement, use.is_line) for use in whole.budgets]
    assert [use.value for use in seen.budgets] == pytest.approx([use.value for use in whole.budgets], rel=1e-6)
    assert seen.governing is not None
    assert {100, 12_345, 19_999} <= set(seen.governing.steps)


def test_the_path_of_a_long_run_is_summed_from_its_buckets(run: Run, walk: list[StepRecord]) -> None:
    update = replace(run.series["kl"], kind="update", estimator="k2", unit="nats_per_token")
    walk = [replace(one, readings={"kl_update": KLReading(update, 0.25)}) for one in walk]
    run = replace(run, series={**run.series, "kl_update": update})
    path = KLBudget(100.0, unit="nats_per_token", scope="path")
    long = read_long_run(run, walk)
    (seen,), (whole,) = view_long_run(long, budgets=[path]).budgets, view_run(run, steps=walk, budgets=[path]).budgets
    assert seen == whole
    assert seen.value == 5_000.0
    assert not needs_every_step(path, long.summary)
    assert needs_every_step(replace(path, unit="nats_per_sequence"), long.summary)


def test_gaps_that_were_not_read_are_said(run: Run, walk: list[StepRecord]) -> None:
    curve = view_long_run(read_long_run(run, walk, broken=[7_000 // LEVEL], n_broken=300)).governing
    assert curve is not None
    assert curve.statement.endswith("gaps drawn in 1 of 300 stretches that have one")
