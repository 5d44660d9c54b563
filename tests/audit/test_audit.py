import json
import math
from collections.abc import Callable

import pytest

from klaudit.audit import audit_run
from klaudit.records import KLBudget, Run, Severity, StepRecord

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]

BUDGETS = (KLBudget(1.0, "nats_per_sequence", id="b1", owner="safety"),)


def test_the_json_has_the_keys_of_the_contract(build_run: BuildRun, build_step: BuildStep) -> None:
    audited = audit_run(build_run(), [build_step(2, 2.0, se=0.1)], budgets=BUDGETS).to_dict()
    assert list(audited) == ["schema_version", "run", "policy", "governing_series", "coverage", "verdict", "findings"]
    assert list(audited["policy"]) == ["name", "version", "digest"]
    assert list(audited["coverage"]) == ["steps", "kl_measured", "gaps", "non_finite", "rules_not_run"]
    assert {tuple(silent) for silent in audited["coverage"]["rules_not_run"]} == {("code", "why")}
    (finding,) = audited["findings"]
    assert " ".join(finding) == (
        "id code rule rule_version severity status segment series first_step detected_step last_step "
        "value threshold unit message remedy evidence"
    )
    assert (audited["schema_version"], audited["run"], audited["verdict"]) == (1, {"id": "r1", "name": "demo"}, "fail")
    assert audited["governing_series"]["estimator"] == "full"
    assert finding["evidence"]["budget"]["owner"] == "safety"


def test_non_finite_numbers_are_strings_in_the_json(build_run: BuildRun, build_step: BuildStep) -> None:
    audited = audit_run(build_run(), [build_step(1, 2.0, se=1e300), build_step(2, 2.0, se=1e300)], budgets=BUDGETS).to_dict()
    window = KLBudget(1.0, "nats_per_sequence", scope="window", window_steps=2)
    overflown = audit_run(build_run(), [build_step(1, 2.0, se=1e300)], budgets=(window,)).to_dict()
    json.dumps(audited, allow_nan=False)
    assert overflown["findings"][0]["evidence"]["lower_bound"] == "-Infinity"


def test_a_run_without_a_governing_series_has_none(build_run: BuildRun, build_step: BuildStep) -> None:
    assert audit_run(build_run(series={}), [build_step(1, 2.0)]).to_dict()["governing_series"] is None


@pytest.mark.parametrize(
    ("kl", "se", "verdict", "at_critical", "at_warning"),
    [(0.5, 0.1, "pass", False, False), (1.1, 0.5, "warn", False, True), (math.nan, 0.1, "fail", True, True)],
)
def test_the_verdict_follows_the_worst_finding(
    build_run: BuildRun, build_step: BuildStep, kl: float, se: float, verdict: str, at_critical: bool, at_warning: bool
) -> None:
    result = audit_run(build_run(), [build_step(1, kl, se=se)], budgets=BUDGETS)
    assert result.verdict == verdict
    assert (result.has_findings_at(Severity.CRITICAL), result.has_findings_at(Severity.WARNING)) == (at_critical, at_warning)
