"""The page Findings without a browser: every rule's evidence, filters, links, and what is said of a run in which nothing was found."""

from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from finding_charts import describe_evidence, draw_evidence
from klaudit.records import Finding, Run, Segment
from klaudit.report.views.evidence import draw_evidence as view_evidence
from klaudit.store import open_store
from klaudit.workflows.recorded_runs import load_recorded_run
from tests.app.test_pages import open_app, read_tables, read_text, strip_escapes
from tests.audit.test_cases import ALL_CASES, BEGAN_AT, audit_case

RUN = "every-rule"


def list_found(directory: Path) -> list[Finding]:
    """The findings of every firing case, of each rule those whose evidence differs in shape, as findings of one run."""
    found = [one for case in ALL_CASES if case.fires for one in audit_case(case, directory).findings]
    unlike = {(one.code, *sorted(one.evidence)): one for one in found}.values()
    return [replace(one, id=f"{at:016x}", run_id=RUN) for at, one in enumerate(unlike)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    return list_found(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def store_of_all(found: list[Finding], tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of a store with a run that every rule has fired on."""
    url = f"sqlite:///{tmp_path_factory.mktemp('findings') / 'klaudit.db'}"
    with open_store(url, create=True) as store:
        store.runs.add(Run(RUN, RUN, BEGAN_AT, status="finished", finished_at=BEGAN_AT))
        store.runs.add_segment(Segment(RUN, 0, BEGAN_AT, ended_at=BEGAN_AT))
        store.findings.upsert(RUN, found)
    return url


def open_findings(monkeypatch: pytest.MonkeyPatch, url: str, **query: str) -> AppTest:
    """The page, as a link to it opens it."""
    app = open_app(monkeypatch, url)
    for name, value in query.items():
        app.query_params[name] = value
    return app.switch_page("app_pages/findings.py").run()


def test_every_shape_of_evidence_of_every_rule_can_be_drawn_and_told(found: list[Finding]) -> None:
    for one in found:
        for chart in view_evidence(one):
            figure = draw_evidence(chart, severity=one.severity.value)
            assert len(figure.data) >= 1
            assert figure.layout.yaxis.title.text == chart.unit
            assert describe_evidence(chart)


def test_the_page_shows_a_finding_of_every_rule_with_a_chart_or_facts(
    found: list[Finding], store_of_all: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_findings(monkeypatch, store_of_all, run=RUN)
    for one in {finding.code: finding for finding in found}.values():
        app.query_params["finding"] = one.id
        app.run()
        assert not app.exception, one.code
        assert not app.warning, one.code
        text = read_text(app)
        assert " ".join(one.message.split()) in text, one.code
        assert " ".join(one.remedy.split()).replace("`", "") in text.replace("`", ""), one.code
        assert app.get("plotly_chart") or app.table, one.code


def test_a_finding_says_its_numbers_with_units_and_when_it_was_seen(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_findings(monkeypatch, planted_store, run="near-beta-zero")

    text = read_text(app)
    assert "is over its budget of 8 nats/sequence" in text
    assert "Began at step 36, detected at step 38, 2 steps later; goes on, last seen at step 60" in text
    numbers = {one.label: (strip_escapes(str(one.value)), strip_escapes(str(one.delta))) for one in app.metric}
    assert numbers == {"Judged": ("–", "no number"), "Threshold": ("–", "no number"), "Episode": ("36 to 60", "steps")}
    assert "What to do" in text
    assert "Why it matters" in text


def test_the_address_names_the_finding_and_the_list_follows_it(
    found: list[Finding], store_of_all: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = next(one for one in found if one.code == "KLA704")
    app = open_findings(monkeypatch, store_of_all, run=RUN, finding=wanted.id)

    assert app.radio[0].value == wanted.id
    assert any("Off policy scoring" in strip_escapes(one) for one in app.radio[0].options)
    assert wanted.message in read_text(app)
    numbers = {one.label: (strip_escapes(str(one.value)), strip_escapes(str(one.delta))) for one in app.metric}
    assert numbers["Judged"] == (f"{wanted.value:g}", wanted.unit)
    assert numbers["Threshold"] == (f"{wanted.threshold:g}", wanted.unit)


def test_a_choice_in_the_list_goes_into_the_address(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_findings(monkeypatch, planted_store, run="near-beta-zero")
    before = app.subheader[0].value
    app.radio[0].set_value(app.radio[0].options[1]).run()

    assert not app.exception
    assert app.query_params["finding"] == app.radio[0].value
    assert app.subheader[0].value != before


def test_a_finding_that_is_not_there_is_said(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_findings(monkeypatch, planted_store, run="near-beta-zero", finding="feed")

    assert "No finding feed here" in strip_escapes(app.warning[0].value)
    assert app.radio


def test_filters_keep_the_chosen_kinds_and_count_them(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_findings(monkeypatch, planted_store, run="near-beta-zero")
    n_all = len(app.radio[0].options)
    app.pills(key="findings_severity").set_value(["critical"]).run()

    assert not app.exception
    assert 1 == len(app.radio[0].options) < n_all
    assert all("critical" in one for one in app.radio[0].options)


def test_all_runs_are_listed_with_their_names_the_newest_first(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_findings(monkeypatch, planted_store)

    assert not app.exception
    assert app.selectbox[0].value == ""
    assert "Run near-beta-zero at step 38" in strip_escapes(app.get("page_link")[0].proto.label)


def test_a_run_without_a_finding_says_what_was_judged_and_what_could_not(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{own_directory / 'klaudit.db'}"
    with open_store(url, create=True) as store:
        name = load_recorded_run(store, Path(__file__).parents[2] / "sample_runs" / "broken" / "healthy").run.name
    app = open_findings(monkeypatch, url, run=name)

    assert not app.exception
    text = read_text(app)
    assert "No finding in broken-healthy" in text
    assert "34 steps judged by the policy default, KL measured on 34 of them (100%)" in text
    assert "KLA101 Budget exceeded,no budget is set" in read_tables(app)


def test_an_unknown_run_is_said_and_all_are_shown(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_findings(monkeypatch, planted_store, run="nope")

    assert "No run is called nope" in app.warning[0].value
    assert app.radio


def test_an_empty_store_says_how_to_fill_it(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{own_directory / 'empty.db'}"
    open_store(url, create=True).close()
    app = open_findings(monkeypatch, url)

    assert not app.exception
    assert "klaudit demo --replay" in read_text(app)


def test_a_finding_on_the_page_of_its_run_links_to_its_evidence(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = "near-beta-zero"
    app.query_params["step"] = "38"
    app.switch_page("app_pages/run.py").run()

    assert not app.exception
    links = [one.proto for one in app.get("page_link") if "Evidence" in one.proto.label]
    assert links
    assert all("run=near-beta-zero" in one.query_string and "finding=" in one.query_string for one in links)
