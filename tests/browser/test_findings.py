"""Findings as a person sees them, in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from klaudit.store import open_store
from klaudit.workflows.loading import load_run
from tests.bench.detection.labelled_run import generate_run
from tests.browser.conftest import Watch
from tests.browser.dashboard import serve_dashboard
from tests.browser.take_pictures import wait_until_drawn

pytestmark = pytest.mark.browser

KINDS = ("beta_collapse", "reset")


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dashboard of runs in which something was planted, and found."""
    directory = tmp_path_factory.mktemp("findings")
    url = f"sqlite:///{directory / 'klaudit.db'}"
    with open_store(url, create=True) as store:
        for kind in KINDS:
            labelled = generate_run(3, kind)
            load_run(store, *labelled.read(), budgets=labelled.budgets)
    with serve_dashboard(url, directory=Path(directory)) as address:
        yield address


def test_a_finding_is_chosen_drawn_and_leads_to_its_step_in_the_run(page: Page, dashboard: str, watch: Watch) -> None:
    page.goto(f"{dashboard}/findings")
    wait_until_drawn(page)
    expect(page.get_by_role("radio", checked=True)).to_have_count(1)

    page.locator('[data-testid="stRadio"] label', has_text="Beta changed").click()

    expect(page.get_by_role("heading", name="Beta fell")).to_be_visible()
    wait_until_drawn(page)
    expect(page).to_have_url(re.compile("finding=[0-9a-f]{16}"))
    chart = page.locator('[class*="st-key-evidence-"] .js-plotly-plot')
    expect(chart.locator(".ytitle")).to_have_text("reward/nat")
    expect(chart.locator(".annotation-text", has_text="threshold")).to_be_visible()
    expect(chart.locator(".annotation-text", has_text="detected, step")).to_be_visible()
    assert chart.locator(".points path.point").count() >= 20
    expect(page.get_by_text("What to do").first).to_be_visible()

    page.get_by_role("link", name="at step").click()

    expect(page.get_by_role("heading", name="seed-3-beta_collapse")).to_be_visible()
    wait_until_drawn(page)
    expect(page.locator('[class*="st-key-kl-"] .annotation-text', has_text="step ").first).to_be_visible()
    expect(page).to_have_url(re.compile("run=seed-3-beta_collapse&step=[0-9]+"))
    page.get_by_role("link", name="Evidence, and why it matters").first.click()
    expect(page.get_by_role("radio", checked=True)).to_have_count(1)
    assert watch.complaints == []
