"""The page Drift of a run whose checkpoints were really measured, in Chromium."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.dashboard import serve_dashboard
from tests.browser.measured_run import RUN, STEPS, measure_run
from tests.browser.take_pictures import wait_until_drawn

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dashboard of a run that `klaudit drift measure` measured."""
    directory = tmp_path_factory.mktemp("drift")
    url = f"sqlite:///{directory / 'klaudit.db'}"
    measure_run(url, directory=directory)
    with serve_dashboard(url, directory=directory) as address:
        yield address


def find_chart(page: Page, key: str) -> str:
    """Selector of the one chart of that key."""
    return f'[class*="st-key-{key}"] .js-plotly-plot'


def test_a_hidden_trigger_is_found_from_the_headline_to_the_tokens(page: Page, dashboard: str, watch: Watch) -> None:
    page.goto(f"{dashboard}/drift?run={RUN}")
    wait_until_drawn(page)

    expect(page.get_by_text("Furthest slice: trigger")).to_be_visible()
    expect(page.get_by_text("times the rest, beyond noise")).to_be_visible()
    chart = page.locator(find_chart(page, "drift-run-measured"))
    expect(chart.locator(".legendtext", has_text="slice trigger")).to_be_visible()
    expect(chart.locator(".annotation-text", has_text="budget: 1 nats/sequence")).to_be_visible()
    expect(page.locator(find_chart(page, "slices")).locator(".legendtext", has_text="Slice beyond noise")).to_be_visible()
    expect(page.locator(find_chart(page, "matrix")).locator(".textpoint")).to_have_count(len(STEPS) ** 2)
    expect(page.locator(find_chart(page, "layers-all")).locator(".hm image, .hm rect").first).to_be_attached()
    expect(page.locator(find_chart(page, "prompts-policy")).locator(".yaxislayer-above text, .ytick text").first).to_have_text(
        re.compile("^g ")
    )

    completion = page.locator(".klaudit-completion").first
    token = completion.locator("span[data-told]").first
    token.scroll_into_view_if_needed()
    token.hover()
    told = token.evaluate("one => getComputedStyle(one, '::after').content")
    assert re.search(r"nats · policy [0-9.]+%, reference [0-9.e-]+% · most of it from", told)

    page.get_by_text("after update 6", exact=True).click()
    expect(page.get_by_role("heading", name="Where the drift is, after update 6")).to_be_visible()
    expect(page).to_have_url(re.compile(f"run={RUN}&checkpoint=after"))
    expect(page.get_by_text("No slice stands out")).to_be_visible()
    page.get_by_text("KL(reference ‖ policy)", exact=True).first.click()
    expect(page.get_by_text("On completions of the reference. The trainer logs the other direction only.")).to_be_visible()
    assert watch.complaints == []
