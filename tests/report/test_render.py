import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from klaudit.errors import InvalidConfig
from klaudit.records import KLReading
from klaudit.report import FORMATS, Report, build_report, render_report
from tests.report.invented import START, Invented, invent_finding, invent_run

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)> ]]> "q" 'q' `tick` a|b *b* [l](http://evil.example) @team \u202egnp.exe"""


class Page(HTMLParser):
    """Every element with its attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in {"meta", "br", "img", "link", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        self.text.append(data)


@pytest.fixture
def hostile() -> Report:
    invented = invent_run(name=HOSTILE, prompt=HOSTILE)
    finding = invent_finding("KLA201", "kl_jump", step=3, message=HOSTILE, remedy=HOSTILE, evidence={"text": HOSTILE})
    sample = invented.samples[0]
    tokens = tuple(replace(token, text=HOSTILE) for token in sample.tokens)
    return replace(
        invented,
        audit=invented.audit | {"findings": [finding]},
        run=replace(invented.run, config={HOSTILE: HOSTILE}),
        samples=(replace(sample, tokens=tokens),),
    ).report()


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_invented_run_reads_as_its_golden_file(report: Report, format: str) -> None:
    assert render_report(report, format=format) == (GOLDEN / f"report.{format}").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_equal_inputs_give_equal_bytes(format: str) -> None:
    assert render_report(invent_run().report(), format=format) == render_report(invent_run().report(), format=format)


def test_an_unknown_format_is_refused_by_name(report: Report) -> None:
    with pytest.raises(InvalidConfig, match="must be one of html, json, md; got 'docx'"):
        render_report(report, format="docx")


class TestJson:
    def test_it_is_strict_json_with_non_finite_numbers_as_strings(self, report: Report) -> None:
        def refuse(constant: str) -> float:
            raise AssertionError(constant)

        data = json.loads(render_report(report, format="json"), parse_constant=refuse)
        assert data["schema_version"] == 1
        assert data["verdict"] == "fail"
        assert data["generated_at"] == "2026-11-22T12:00:00Z"
        governing = next(one for one in data["view"]["curves"] if one["key"] == data["view"]["governing_key"])
        assert governing["values"][4] == "NaN"
        assert governing["values"][11] == pytest.approx(12.1)
        assert [one["value"] for one in data["findings"]] == [pytest.approx(12.1), "NaN"]

    def test_the_audit_is_in_it_as_it_came(self, invented: Invented) -> None:
        assert json.loads(render_report(invented.report(), format="json"))["audit"] == invented.audit


class TestHtml:
    def test_it_parses_and_asks_nobody_for_anything(self, report: Report) -> None:
        text = render_report(report, format="html")
        page = Page(text)
        assert page.open == []
        assert re.search(r"https?://", text) is None
        assert {tag for tag, _ in page.elements}.isdisjoint({"link", "img", "iframe", "object", "embed", "form", "base"})
        assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.elements)
        assert "@import" not in text
        assert "url(" not in text

    def test_the_evidence_inside_is_the_json_report(self, report: Report) -> None:
        (script,) = Page(render_report(report, format="html")).scripts
        assert json.loads(script) == json.loads(render_report(report, format="json"))

    def test_a_hostile_name_prompt_token_and_message_stay_text(self, hostile: Report) -> None:
        page = Page(render_report(hostile, format="html"))
        assert page.open == []
        assert [attributes for tag, attributes in page.elements if tag == "script"] == [
            {"type": "application/json", "id": "klaudit-report"}
        ]
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert not any(tag == "img" for tag, _ in page.elements)
        assert json.loads(page.scripts[0])["run"]["name"] == HOSTILE
        assert HOSTILE in "".join(page.text)

    def test_it_forbids_scripts_and_network_to_itself(self, report: Report) -> None:
        policies = [attributes for tag, attributes in Page(render_report(report, format="html")).elements if "http-equiv" in attributes]
        assert [one["content"] for one in policies] == ["default-src 'none'; style-src 'unsafe-inline'"]

    def test_budget_line_findings_gap_and_intervals_are_drawn(self, report: Report) -> None:
        elements = Page(render_report(report, format="html")).elements
        classes = [attributes.get("class") or "" for _, attributes in elements]
        assert classes.count("level") == 1
        assert classes.count("mark critical") == 1
        assert classes.count("mark warning") == 1
        assert classes.count("measured e-full") == 2 + 1, "two checkpoints and the legend"
        assert "gap" in classes
        line = next(attributes["d"] for tag, attributes in elements if tag == "path" and attributes.get("class") == "line s0")
        assert (line or "").count("M") == 2, "the pen lifts at the NaN of step 5"

    def test_every_chart_has_a_description_in_words(self, report: Report) -> None:
        charts = [
            attributes for tag, attributes in Page(render_report(report, format="html")).elements if attributes.get("class") == "chart"
        ]
        assert len(charts) >= 8
        assert all(one["role"] == "img" and len(one["aria-label"] or "") > 40 for one in charts)

    def test_a_hundred_thousand_steps_stay_below_one_megabyte(self) -> None:
        report = invent_run(100_000).report()
        text = render_report(report, format="html")
        assert len(text.encode()) < 1_000_000
        assert "of 100,000 points; lowest and highest of every stretch and every finding's point kept" in text

    def test_a_lone_surrogate_does_not_break_the_file(self) -> None:
        text = render_report(invent_run(prompt="half \ud83d emoji").report(), format="html")
        assert "half ? emoji" in text.encode().decode()


class TestMarkdown:
    def test_hostile_text_is_inert(self, hostile: Report) -> None:
        text = render_report(hostile, format="md")
        outside = re.sub(r"(`+).*?\1(?!`)", "", text)
        assert re.search(r"(?<!\\)<", outside) is None
        assert "\u202e" not in text
        assert "http://" not in outside
        assert "@team" not in outside
        rows = [line for line in text.splitlines() if line.startswith("| warning")]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [6]

    def test_the_run_s_name_stays_in_its_code_span(self, hostile: Report) -> None:
        assert "alert(1)" in render_report(hostile, format="md").splitlines()[0]
        assert render_report(hostile, format="md").splitlines()[0].startswith("## KL audit of ``</script>")


class TestWords:
    @pytest.mark.parametrize("format", sorted(FORMATS))
    def test_no_report_says_safe_or_compliant(self, invented: Invented, format: str) -> None:
        clean = replace(invented, audit=invented.audit | {"findings": [], "verdict": "pass"})
        for report in (invented.report(), clean.report()):
            assert re.search(r"\b(safe|compliant|compliance)\b", render_report(report, format=format), re.IGNORECASE) is None

    def test_the_headline_of_a_quiet_run_says_what_was_looked_at(self, invented: Invented) -> None:
        report = replace(invented, audit=invented.audit | {"findings": [], "verdict": "pass"}).report()
        assert report.headline == "No critical finding and no warning in 12 recorded steps"
        assert report.measured.startswith("KL to reference (full, nats/sequence) measured on 11 of 12 recorded steps (91.7%)")

    def test_the_headline_of_a_run_that_nothing_could_judge_says_so(self, invented: Invented) -> None:
        steps = tuple(replace(one, kl=KLReading.absent(one.kl.series, "beta is 0"), readings={}) for one in invented.steps)
        blind = replace(
            invented, run=replace(invented.run, series={}), steps=steps, audit=invented.audit | {"findings": [], "verdict": "pass"}
        )
        assert "no KL that a budget or a change rule could judge" in blind.report().headline

    def test_coverage_lists_gaps_silent_rules_and_nan(self, invented: Invented) -> None:
        coverage = invented.audit["coverage"] | {"gaps": 3}
        lines = replace(invented, audit=invented.audit | {"coverage": coverage}).report().not_measured
        assert "3 steps left no record between the first and the last." in lines
        assert "KL to reference (full, nats/sequence): NaN at step 5." in lines
        assert "KLA609 did not judge: no prompt slices were measured." in lines

    def test_a_run_without_anything_still_makes_every_format(self, invented: Invented) -> None:
        report = build_report(
            run=invented.run, steps=(), audit={"verdict": "pass", "findings": []}, generated_at=START, klaudit_version="0"
        )
        assert report.headline == "Nothing to judge: no step was recorded"
        assert all(render_report(report, format=format) for format in FORMATS)

    def test_a_run_of_nothing_but_nan_still_makes_every_format(self, invented: Invented) -> None:
        steps = tuple(
            replace(one, kl=replace(one.kl, value=math.nan), readings={}, metrics={"entropy": math.inf}, score=math.nan)
            for one in invented.steps
        )
        report = replace(invented, steps=steps).report()
        assert all(render_report(report, format=format) for format in FORMATS)
