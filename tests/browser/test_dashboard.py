"""The pages as a person sees them, in Chromium."""

import random
import re
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from klaudit.store import open_store
from tests.browser.conftest import Watch
from tests.browser.planted_store import HOSTILE_NAME, HOSTILE_NAME_SHOWN, HOSTILE_TOKEN, REFERENCE, make_step
from tests.browser.take_pictures import wait_until_drawn

pytestmark = pytest.mark.browser

RUN = "near-beta-zero"
KL_CHART = '[class*="st-key-kl-"] .js-plotly-plot'
DRIFT_CHART = '[class*="st-key-drift-"] .js-plotly-plot'


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    wait_until_drawn(page)


def test_runs_opens_and_a_click_opens_the_run(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, dashboard)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    expect(page.get_by_text("216.9%, over budget")).to_be_visible()

    page.get_by_role("link", name=RUN).click()

    expect(page.get_by_role("heading", name=RUN)).to_be_visible()
    expect(page).to_have_url(f"{dashboard}/run?run={RUN}")
    wait_until_drawn(page)
    assert watch.complaints == []


def test_the_kl_chart_has_line_band_budget_findings_and_checkpoints(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, f"{dashboard}/run?run={RUN}")
    chart = page.locator(KL_CHART)
    expect(chart).to_be_visible()

    assert chart.evaluate("one => one._fullData.filter(t => t.visible === true).map(t => t.name)") == [
        "± 1 standard error",
        "KL to reference (full, nats/sequence)",
        "Checkpoint",
        "Critical finding",
        "Warning finding",
        "Info finding",
    ]
    assert chart.locator(".scatterlayer .trace .js-line").count() >= 1
    assert chart.locator(".scatterlayer .js-fill").count() == 1
    assert chart.locator(".shapelayer path").count() == 1
    expect(chart.locator(".annotation-text", has_text="budget: 8 nats/sequence, per step")).to_be_visible()
    expect(chart.locator(".ytitle")).to_have_text("KL to reference (full, nats/sequence)")
    expect(chart.locator(".points path.point")).to_have_count(5 + 3)
    assert page.locator("canvas").count() == 0
    assert watch.complaints == []


def test_a_finding_tells_itself_when_pointed_at(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/run?run={RUN}")
    chart = page.locator(KL_CHART)
    markers = chart.locator(".points path.point")
    box = markers.nth(5).bounding_box()
    assert box is not None

    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    expect(chart.locator(".hoverlayer")).to_contain_text("KLA101 budget_exceeded")


def test_a_gap_of_nan_is_shaded_and_named(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/run?run=lr-burst-nan")

    expect(page.locator(f"{KL_CHART} .annotation-text", has_text="NaN")).to_be_visible()
    expect(page.get_by_text("1 gap: NaN at step 31 to 33")).to_be_visible()


def test_every_number_in_the_headline_has_its_unit(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/run?run={RUN}")
    metrics = page.get_by_test_id("stMetric")

    expect(metrics.nth(0)).to_contain_text("full, nats/sequence")
    units = ("nats/sequence", "sqrt(nats)", "reward/nat", "reward", "reward", "of its limit", "of recorded steps")
    for i, unit in enumerate(units):
        expect(metrics.nth(i)).to_contain_text(unit)


def test_sampled_text_is_shaded_and_inert(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, f"{dashboard}/run?run={RUN}")
    sample = page.locator(".klaudit-sample").first

    expect(sample).to_contain_text(HOSTILE_TOKEN)
    assert sample.locator("img").count() == 0
    token = sample.locator("span[title]").first
    expect(token).to_have_attribute("title", re.compile(r"nats \(full\)$"))
    assert token.evaluate("one => getComputedStyle(one).borderBottomStyle") == "solid"
    assert page.title() != "1"
    assert watch.complaints == []


def test_drift_shows_its_intervals_beside_what_was_logged(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, dashboard)
    page.get_by_role("link", name=RUN).click()
    expect(page.get_by_role("heading", name=RUN)).to_be_visible()
    page.get_by_role("link", name="Drift", exact=True).click()
    chart = page.locator(DRIFT_CHART)
    expect(chart).to_be_visible()

    expect(page).to_have_url(f"{dashboard}/drift?run={RUN}")
    expect(chart.locator(".errorbar path.yerror")).to_have_count(5)
    expect(chart.locator(".legendtext", has_text="Logged KL to reference (full, nats/sequence)")).to_be_visible()
    page.get_by_role("radio", name="k1").click()
    expect(chart.locator(".ytitle", has_text="full")).to_have_count(0)
    expect(chart.locator(".ytitle", has_text="k1")).to_have_count(1)
    expect(chart.locator(".errorbar path.yerror")).to_have_count(5)
    page.get_by_text("All numbers, and how they were measured").click()
    expect(page.get_by_role("table").first).to_contain_text("checkpoint-12")
    expect(page.get_by_text("SmolLM2-135M-Instruct", exact=True).first).to_be_visible()
    assert watch.complaints == []


def test_drift_that_was_not_measured_gives_the_command(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/drift?run=adaptive-beta")

    expect(page.get_by_text("klaudit drift measure --run adaptive-beta --reference SmolLM2-135M-Instruct")).to_be_visible()


def test_a_hostile_run_name_is_text_on_every_page(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, dashboard)
    expect(page.get_by_role("link", name=HOSTILE_NAME_SHOWN)).to_be_visible()
    for path in ("run", "drift"):
        open_page(page, f"{dashboard}/{path}?run={quote(HOSTILE_NAME)}")
        expect(page.get_by_text(HOSTILE_NAME_SHOWN).first).to_be_visible()
        assert page.locator('a[href*="203.0.113.9/x"], img[src*="203.0.113.9"]').count() == 0

    assert watch.complaints == []


def test_a_running_run_says_how_old_it_is_and_can_be_paused(page: Page, dashboard: str) -> None:
    open_page(page, f"{dashboard}/run?run=adaptive-beta")

    expect(page.get_by_text(re.compile(r"36 steps, last one \d+ (s|min) ago"))).to_be_visible()
    toggle = page.get_by_role("switch", name="Follow live")
    expect(toggle).to_be_checked()
    page.get_by_text("Follow live").click()
    expect(toggle).not_to_be_checked()


def test_a_step_that_is_logged_shows_up_by_itself(page: Page, dashboard: str, store_url: str, watch: Watch) -> None:
    open_page(page, f"{dashboard}/run?run=just-started")
    expect(page.get_by_text("No step was logged yet.")).to_be_visible()

    with open_store(store_url) as store:
        run = store.runs.get("just-started")
        store.steps.add(run.id, make_step(1, rng=random.Random(0), slope=0.1, at=datetime.now(UTC), is_nan=False))

    expect(page.get_by_text(re.compile(r"^1 step, last one \d+ s ago"))).to_be_visible()
    expect(page.locator(KL_CHART)).to_be_visible()
    assert watch.complaints == []


def test_a_dead_trainer_is_found_from_the_list_to_its_ledger(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, dashboard)
    expect(page.get_by_text("no sign of life since")).to_be_visible()
    expect(page.get_by_text("3 steps lost")).to_be_visible()
    page.get_by_role("link", name="killed-trainer").click()
    expect(page.get_by_role("heading", name="killed-trainer")).to_be_visible()
    wait_until_drawn(page)

    expect(page.get_by_text("The run says that it is running, and there is no sign of life since")).to_be_visible()
    expect(page.locator(f"{KL_CHART} .annotation-text", has_text="resumed")).to_be_visible()
    expect(page.get_by_text("3 steps were logged and could not be kept")).to_be_visible()
    page.get_by_role("tab", name="Segments (2)").click()
    expect(page.get_by_role("table").filter(visible=True)).to_contain_text("3 steps (between 46 and 48)")
    expect(page.get_by_role("table").filter(visible=True)).to_contain_text("changed")
    page.get_by_role("tab", name="Identity").click()
    expect(page.get_by_text("with uncommitted changes")).to_be_visible()
    expect(page.get_by_text("trl 1.16.0")).to_be_visible()
    page.get_by_role("tab", name="Ledger").click()
    expect(page.get_by_text("klaudit ledger verify")).to_be_visible()
    assert watch.complaints == []


def test_a_digest_is_copied_in_full(page: Page, dashboard: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=dashboard)
    open_page(page, f"{dashboard}/run?run=grpo-with-probe")
    page.get_by_role("tab", name="Identity").click()
    digest = page.get_by_test_id("stCode").filter(has_text=str(REFERENCE.digest)[:20], visible=True).first
    digest.hover()
    digest.get_by_role("button").click()

    assert page.evaluate("navigator.clipboard.readText()") == REFERENCE.digest


def test_what_the_probe_measured_stands_alone_with_its_errors(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, f"{dashboard}/run?run=grpo-with-probe")
    chart = page.locator(KL_CHART)
    expect(chart).to_be_visible()

    expect(chart.locator(".points path.point")).to_have_count(7)
    expect(chart.locator(".errorbar path.yerror")).to_have_count(7)
    expect(chart.locator(".trace .js-line")).to_have_count(0)
    expect(page.get_by_text("measured at 7 of 60 steps; nothing is known in between")).to_be_visible()
    assert watch.complaints == []


def test_what_an_imported_file_says_is_text(page: Page, dashboard: str, watch: Watch) -> None:
    open_page(page, f"{dashboard}/run?run=read-from-a-log")

    expect(page.get_by_text(re.compile(r"Imported from .*klaudit did not see it train"))).to_be_visible()
    page.get_by_role("tab", name="Identity").click()
    expect(page.get_by_text("Packages")).to_be_visible()
    assert page.locator('a[href*="203.0.113.9"], img[src*="203.0.113.9"]').count() == 0
    assert watch.complaints == []
