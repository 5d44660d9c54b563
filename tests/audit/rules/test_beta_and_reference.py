"""KLA401 to KLA404 beyond their cases: what two of them say of one event, and hostile numbers."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klaudit.audit import AuditEngine, Policy, audit_run
from klaudit.records import Finding, KLSeries, Run, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]
CODES = ("KLA401", "KLA402", "KLA403", "KLA404")
OURS = Policy(name="ours", rules={code: one for code, one in Policy().rules.items() if code in CODES})
NUMBERS = st.one_of(
    st.floats(-1e12, 1e12), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-320, 0.05, 0.05, 0.05]), st.none()
)


def find(run: Run, steps: list[StepRecord]) -> list[Finding]:
    return list(audit_run(run, steps, policy=OURS).findings)


@pytest.mark.parametrize("config", [{}, {"target_kl": 6.0, "horizon": 10_000}])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.02, 20.0])
def test_one_change_of_beta_is_one_finding(build_run: BuildRun, build_step: BuildStep, config: dict[str, float], factor: float) -> None:
    betas = [0.1 * 1.002**step for step in range(40)]
    steps = [build_step(step, 0.1, beta=beta * (factor if step >= 30 else 1)) for step, beta in enumerate(betas)]
    found = [one for one in find(build_run(config=config), steps) if one.detected_step >= 30 and one.severity == "critical"]
    told = [(one.code, one.detected_step) for one in found]
    assert told == ([("KLA402", 30)] if factor < 1 else [])


def test_a_beta_that_goes_on_below_zero_is_told_where_it_crosses(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(step, 0.1, beta=0.1 - 0.01 * step) for step in range(20)]
    assert [(one.code, one.severity, one.detected_step) for one in find(build_run(), steps)] == [("KLA402", "critical", 11)]


def test_a_kl_that_is_not_finite_is_no_fall_and_does_not_hide_one(build_run: BuildRun, build_step: BuildStep) -> None:
    kls = [1.0 + 0.01 * (step % 3) for step in range(30)] + [0.0, math.nan, 0.0, 0.0]
    assert [
        (one.code, one.first_step, one.detected_step) for one in find(build_run(), [build_step(s, kl) for s, kl in enumerate(kls)])
    ] == [("KLA401", 30, 32)]


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.booleans()), max_size=40),
    st.dictionaries(
        st.sampled_from(
            ["target_kl", "target", "horizon", "kl_target", "beta", "sync_ref_model", "ref_update_interval", "kl_ctrl", "adap_kl_ctrl"]
        ),
        st.one_of(
            NUMBERS,
            st.text(max_size=5),
            st.lists(st.integers(), max_size=3),
            st.dictionaries(st.sampled_from(["target_kl", "horizon", "type"]), NUMBERS),
        ),
    ),
    st.sampled_from(["k1", "k3", "full"]),
)
@settings(max_examples=50, deadline=None)
def test_whatever_is_logged_they_judge_live_as_afterwards(
    build_run: BuildRun,
    build_step: BuildStep,
    logged: list[tuple[float | None, float | None, bool]],
    config: dict[str, object],
    estimator: str,
) -> None:
    series = KLSeries(estimator=estimator, unit="nats_per_token")  # type: ignore[arg-type]
    run = build_run(config=config, series={"kl": series})
    segment, steps = 0, []
    for step, (kl, beta, resumes) in enumerate(logged):
        segment += resumes
        steps.append(build_step(step, kl, series=series, beta=beta, segment=segment, mean_length=10.0))
    live = AuditEngine(run, OURS)
    for record in steps:
        live.observe(record)
    assert repr(live.conclude().to_dict()) == repr(audit_run(run, steps, policy=OURS).to_dict())
