"""Findings as a person reads them."""

import pytest

from klaudit.records import Run, Severity
from klaudit.report import render_report
from klaudit.report.views.finding import FAMILIES, FindingsView, RuleText, name_plainly, view_finding, view_findings, view_judged
from tests.report.invented import START, invent_finding, invent_run
from tests.report.test_evidence import build_finding, build_jump

RULE = RuleText(
    "KLA201", "kl_jump", "The KL jumps.", "It matters.", "Look at it.", {"critical_z": "standard deviations that make it critical"}
)


def test_a_finding_says_when_it_began_was_detected_and_ended() -> None:
    late = view_finding(build_finding(first_step=3, detected_step=5, last_step=9, status="ended"), run_name="demo", rule=None)
    assert late.moments == "began at step 3, detected at step 5, 2 steps later; ended at step 9"
    assert late.span == "steps 3 to 9"
    going = view_finding(build_finding(), run_name="demo", rule=None)
    assert going.moments == "began at step 3, detected at step 3; goes on, last seen at step 3"
    assert going.span == "step 3"


def test_a_finding_has_its_rules_words_and_settings_with_their_meaning() -> None:
    jump = build_jump()
    view = view_finding(build_jump(evidence={**jump.evidence, "limits": {"critical_z": 8.0, "new": True}}), run_name="demo", rule=RULE)
    assert (view.rule, view.family_name, view.why, view.todo) == ("KL jump", "Change of drift", "It matters.", "Look at it.")
    assert (view.value, view.threshold) == ("9 standard deviations", "4 standard deviations")
    told = [(one.label, one.text) for one in view.settings]
    assert told == [("Standard deviations that make it critical", "8"), ("New", "True")]


def test_a_finding_of_an_unknown_rule_is_shown_with_what_it_has() -> None:
    view = view_finding(build_finding(code="KLA999", rule="from_tomorrow"), run_name="demo", rule=None)
    assert (view.rule, view.family_name, view.why) == ("From tomorrow", "KLA9xx", "")
    assert (view.value, view.threshold) == ("no number", "no number")


def test_the_worst_comes_first_and_of_these_the_open_ones() -> None:
    run = Run("r1", "demo", START)
    info = build_finding(id="info", severity=Severity.INFO)
    ended = build_finding(id="ended", severity=Severity.CRITICAL, status="ended")
    late = build_finding(id="open", severity=Severity.CRITICAL, first_step=9, detected_step=9, last_step=9)
    assert [one.id for one in view_findings([info, ended, late], run=run, rules={})] == ["open", "ended", "info"]


def test_findings_are_counted_and_filtered_by_severity_family_and_status() -> None:
    run = Run("r1", "demo", START)
    kept = [build_finding(id="a"), build_finding(id="b", code="KLA603", status="ended"), build_finding(id="c", severity=Severity.INFO)]
    view = FindingsView(view_findings(kept, run=run, rules={}))
    assert dict(view.count("severity")) == {"warning": 2, "info": 1}
    assert [one.id for one in view.select(severities=["warning"], families=["KLA2"]).findings] == ["a"]
    assert [one.id for one in view.select(statuses=["ended"]).findings] == ["b"]
    assert view.select() == view
    assert view.find("c") is not None
    assert view.find("nobody") is None


def test_what_was_judged_counts_rules_and_says_why_others_could_not() -> None:
    audit = {
        "policy": {"name": "strict"},
        "coverage": {
            "steps": 20,
            "kl_measured": 15,
            "gaps": 2,
            "rules_not_run": [{"code": "KLA201", "why": "too short"}, {"code": "KLA201", "why": "no KL"}],
        },
    }
    other = RuleText("KLA303", "non_finite", "", "", "", {})
    view = view_judged(audit, rules={"KLA201": RULE, "KLA303": other})
    assert view.statement == (
        "20 steps judged by the policy strict, KL measured on 15 of them (75%), 2 steps missing; 1 of 2 rules judged without reserve"
    )
    assert view.silent == (("KLA201", "KL jump", "too short"), ("KLA201", "KL jump", "no KL"))


@pytest.mark.parametrize(("rule", "words"), [("first_step_kl", "First step KL"), ("eos_missing", "EOS missing"), ("kl_jump", "KL jump")])
def test_a_rules_name_is_told_in_plain_words(rule: str, words: str) -> None:
    assert name_plainly(rule) == words


def test_families_are_named_for_every_code() -> None:
    assert list(FAMILIES) == [f"KLA{number}" for number in range(1, 8)]


def test_the_html_report_draws_the_evidence_of_its_findings_the_same_each_time() -> None:
    jump = build_jump(first_step=3, detected_step=3, last_step=3)
    finding = invent_finding("KLA201", "kl_jump", step=3, evidence=dict(jump.evidence))
    invented = invent_run()
    pages = [
        render_report(type(invented)(**{**vars(invented), "audit": invented.audit | {"findings": [finding]}}).report(), format="html")
        for _ in range(2)
    ]
    assert pages[0] == pages[1]
    assert "4 readings kept with the finding, step 0 to 3." in pages[0]
    assert "expected: 0.5 nats/sequence" in pages[0]
    assert "Evidence in facts" in pages[0]
