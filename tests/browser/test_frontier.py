"""Reward against drift as a person sees it, in Chromium."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.take_pictures import wait_until_drawn

pytestmark = pytest.mark.browser


def test_points_curves_and_words_of_a_sweep_are_there(page: Page, dashboard: str, watch: Watch) -> None:
    page.goto(f"{dashboard}/frontier?run=near-beta-zero&run=lr-burst-nan")
    wait_until_drawn(page)
    chart = page.locator('[class*="st-key-frontier-"] .js-plotly-plot')
    expect(chart).to_be_visible()
    expect(chart.locator(".xtitle")).to_have_text("d = sqrt(KL to reference per sequence), sqrt(nats)")
    assert chart.locator(".points path.point").count() >= 200
    assert chart.locator(".scatterlayer .js-fill").count() == 2
    expect(page.get_by_role("heading", name="Advice on beta")).to_be_visible()
    expect(page.get_by_role("heading", name="Where each run ended")).to_be_visible()
    assert watch.complaints == []
