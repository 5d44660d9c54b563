"""What a finding's own evidence shows: every shape that a rule keeps, as charts and facts with their units."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from klaudit.records import Finding, Severity
from klaudit.report.views.evidence import NO_UNIT, EvidenceChart, draw_evidence
from klaudit.report.views.fact import DRAWN, FACTS, TELLERS, TOLD, list_facts
from tests.audit.test_cases import ALL_CASES, audit_case

FIRING = [case for case in ALL_CASES if case.fires]
UNITLESS = ("6, unit not declared",)
"""Numbers of a trainer's configuration, whose unit is the very thing that nobody knows."""


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """Every finding of every firing case."""
    directory = tmp_path_factory.mktemp("cases")
    return [one for case in FIRING for one in audit_case(case, directory).findings]


def build_finding(**fields: Any) -> Finding:
    declared: dict[str, Any] = {
        "id": "f1", "run_id": "r1", "code": "KLA201", "rule": "kl_jump", "rule_version": 2, "severity": Severity.WARNING,
        "first_step": 3, "detected_step": 3, "last_step": 3, "message": "It jumped.", "remedy": "Look.",
    }  # fmt: skip
    return Finding(**(declared | fields))


def build_jump(**fields: Any) -> Finding:
    evidence = {
        "series": {"key": "kl", "estimator": "full", "unit": "nats_per_sequence"},
        "kl": 2.5,
        "expected": 0.5,
        "sd": 0.1,
        "score": 9.0,
        "limit": 4.0,
        "window": {"steps": [0, 1, 2], "kl": [0.4, 0.6, 0.5]},
    }
    declared = {"value": 9.0, "threshold": 4.0, "unit": "standard deviations", "series": "kl", "evidence": evidence}
    return build_finding(**(declared | fields))


def draw_one(finding: Finding) -> EvidenceChart:
    (chart,) = draw_evidence(finding)
    return chart


def test_every_rule_has_a_finding_here(found: list[Finding]) -> None:
    assert {one.code for one in found} >= {path.stem for path in (Path(__file__).parents[1] / "cases").glob("KLA*.toml")}


def test_every_finding_shows_a_chart_or_facts(found: list[Finding]) -> None:
    assert [one.code for one in found if not draw_evidence(one) and not list_facts(one)] == []


def test_every_series_that_a_rule_keeps_is_drawn_whole(found: list[Finding]) -> None:
    for one in found:
        for chart in draw_evidence(one):
            assert all(len(curve.steps) == len(curve.values) == curve.n_shown for curve in chart.curves), one.code
            assert chart.unit not in ("", NO_UNIT), one.code
            assert chart.title.endswith(f", {chart.unit}"), one.code


def test_every_name_in_a_rules_evidence_has_words(found: list[Finding]) -> None:
    names = {(one.code, name) for one in found for name in one.evidence}
    assert {(code, name) for code, name in names if name not in {*FACTS, *TELLERS, *DRAWN, *TOLD}} == set()


def test_no_fact_has_a_number_without_its_unit(found: list[Finding]) -> None:
    facts = [(one.code, fact) for one in found for fact in list_facts(one)]
    bare = [(code, fact) for code, fact in facts if re.fullmatch(r"-?[\d.,e-]+", fact.text) or NO_UNIT in fact.text]
    assert [(code, fact) for code, fact in bare if fact.text not in UNITLESS] == []


def test_a_jump_is_drawn_with_its_judged_reading_and_what_was_expected() -> None:
    chart = draw_one(build_jump())
    assert chart.title == "KL to reference (full), nats/sequence"
    assert (chart.curves[0].steps, chart.curves[0].values) == ((0, 1, 2, 3), (0.4, 0.6, 0.5, 2.5))
    assert chart.judged == (3, 2.5)
    assert chart.expected is not None
    assert (chart.expected.steps, chart.expected.values, chart.expected.label) == ((0, 3), (0.5, 0.5), "expected: 0.5 nats/sequence")
    assert (chart.expected.low, chart.expected.high) == ((0.4, 0.4), (0.6, 0.6))
    assert chart.levels == ()
    assert (chart.marks, chart.episode) == ((("detected, step 3", 3),), (3, 3))
    assert chart.statement == "4 readings kept with the finding, step 0 to 3"


def test_a_judged_reading_whose_step_is_not_known_is_a_level_and_no_point() -> None:
    chart = draw_one(build_jump(first_step=1, detected_step=1, last_step=9))
    assert chart.curves[0].steps == (0, 1, 2)
    assert chart.levels == (("judged: 2.5 nats/sequence", 2.5),)
    assert chart.judged is None


def test_a_step_that_the_rule_kept_is_where_the_judged_reading_stands() -> None:
    jump = build_jump(first_step=1, detected_step=1, last_step=9)
    assert draw_one(replace(jump, evidence={**jump.evidence, "step": 7})).judged == (7, 2.5)


def test_a_budget_is_drawn_in_its_own_unit_with_its_limit_and_bound() -> None:
    rows = [{"step": at, "kl": at * 1.0, "standard_error": 0.1, "value": at * 1.0, "lower_bound": at - 0.2} for at in range(20, 24)]
    evidence = {
        "budget": {"id": "b", "limit": 21.5, "unit": "nats_per_sequence", "scope": "per_step", "action": "alert", "owner": "Ada"},
        "series": {"key": "kl", "kind": "reference", "estimator": "k3", "unit": "nats_per_token"},
        "window": rows,
    }
    chart = draw_one(
        build_finding(
            code="KLA101",
            first_step=9,
            detected_step=9,
            last_step=23,
            evidence=evidence,
            value=23.0,
            threshold=21.5,
            unit="nats_per_sequence",
        )
    )
    assert chart.title == "KL to reference (k3), nats/sequence"
    assert chart.levels == (("limit 21.5 nats/sequence", 21.5),)
    assert chart.curves[0].low == pytest.approx((19.8, 20.8, 21.8, 22.8))
    assert chart.judged == (23, 23.0)
    assert (chart.marks, chart.episode) == ((), (20, 23))
    assert chart.statement == "4 readings kept with the finding, step 20 to 23; detected at step 9, which lies before"


def test_measured_checkpoints_are_drawn_with_their_intervals() -> None:
    rows = [{"checkpoint": f"checkpoint-{at}", "step": at, "value": at / 10, "low": at / 10 - 1, "high": at / 10 + 1} for at in (10, 20)]
    evidence = {"budget": {"limit": 1.5, "unit": "nats_per_sequence", "scope": "checkpoint"}, "measurements": rows}
    chart = draw_one(build_finding(code="KLA101", first_step=20, detected_step=20, last_step=20, evidence=evidence))
    assert (chart.curves[0].low, chart.curves[0].high, chart.curves[0].band) == ((0.0, 1.0), (2.0, 3.0), "95% interval")


def test_series_of_two_units_are_two_charts() -> None:
    window = {"steps": [1, 2], "score": [0.1, 0.2], "heldout_score": [0.2, 0.1], "d": [1.0, 2.0]}
    charts = draw_evidence(build_finding(code="KLA601", evidence={"kind": "heldout", "window": window}, unit="standard errors", value=9.0))
    assert [(one.unit, len(one.curves)) for one in charts] == [("reward", 2), ("sqrt(nats)", 1)]


def test_a_freeze_is_drawn_behind_the_readings_before_it() -> None:
    evidence = {"kind": "frozen", "kl": 0.7, "unit": "nats_per_token", "n_steps": 30, "before": [0.5, 0.6]}
    chart = draw_one(build_finding(code="KLA302", first_step=5, detected_step=9, last_step=34, evidence=evidence, value=30.0, unit="steps"))
    assert chart.curves[0].values == (0.5, 0.6, *(0.7,) * 20)
    assert (chart.unit, chart.x_label, chart.marks, chart.episode) == ("nats/token", "reading, in order", (("began, step 5", 3),), (3, 22))


def test_readings_that_a_rule_keeps_as_distances_or_roots_are_drawn_in_the_findings_unit() -> None:
    excess = {"steps": [1, 2], "excess": [-0.1, 0.2], "standard_error": [0.05, 0.05]}
    evidence = {"check": "reference_over_policy", "expected": 1.0, "window": excess}
    chart = draw_one(build_finding(code="KLA704", evidence=evidence, threshold=0.98, unit="as a factor"))
    assert chart.curves[0].values == pytest.approx((0.9, 1.2))
    assert chart.curves[0].low == pytest.approx((0.85, 1.15))
    assert chart.levels == (("threshold 0.98 as a factor", 0.98),)
    roots = {"number": "kl_mismatch", "is_square_root": True, "began_with": 0.04, "window": {"steps": [1, 2], "values": [0.2, 0.3]}}
    chart = draw_one(build_finding(code="KLA702", evidence=roots, threshold=0.08, unit="nats_per_token"))
    assert chart.curves[0].values == pytest.approx((0.04, 0.09))
    assert chart.title == "Rollout-mismatch KL, nats/token"


def test_a_number_that_is_not_finite_lifts_the_pen() -> None:
    evidence = {"window": {"steps": [1, 2], "grad_norm": [1.0, 1.1]}, "grad_norm": "NaN"}
    chart = draw_one(build_finding(code="KLA504", evidence=evidence, series="grad_norm", unit="gradient norm"))
    assert (chart.curves[0].steps, math.isnan(chart.curves[0].values[-1])) == ((1, 2, 3), True)
    assert [one.kind for one in chart.curves[0].gaps] == ["NaN"]


@pytest.mark.parametrize(
    "evidence",
    [
        {"window": {"steps": [1, 2], "kl": [0.1]}},
        {"window": {"steps": ["a"], "kl": [0.1]}},
        {"window": {"kl": [0.1]}},
        {"window": "text"},
        {"window": [{"kl": 1.0}, 3]},
        {"window": {"steps": [], "kl": []}},
        {"blocks": None, "series": "kl", "budget": 3, "score": {}, "names": 1, "last_gap": "x", "peak_d": [1], "settings": [], "breach": 2},
        {"low": {"kl": "x"}, "window": {}},
        {"something new": {"deep": [1, {"a": 2}]}},
    ],
)
def test_evidence_of_another_shape_is_never_an_error(evidence: dict[str, Any]) -> None:
    finding = build_finding(evidence=evidence)
    assert draw_evidence(finding) == ()
    assert all(isinstance(fact.text, str) for fact in list_facts(finding))


def test_facts_say_shares_in_percent_and_budgets_with_their_owner() -> None:
    budget = {"limit": 2.0, "unit": "nats_per_sequence", "scope": "window", "window_steps": 9, "action": "raise_beta", "owner": "Ada"}
    facts = {one.label: one.text for one in list_facts(build_finding(evidence={"budget": budget, "tolerance": 0.02, "n_gaps": 1}))}
    assert facts == {
        "Budget": "2 nats/sequence, window over 9 steps, on breach raise beta",
        "Budget, owner": "Ada",
        "Tolerance": "2%",
        "Gaps": "1 gap",
    }
