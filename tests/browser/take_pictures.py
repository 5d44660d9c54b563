"""Take the README's pictures: `python -m tests.browser.take_pictures --store URL --run NAME --out docs/pictures`."""

import argparse
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.dashboard import launch_chromium, serve_dashboard

TALLEST = 1560
"""Pixels of the page that a picture shows at most."""


def take_pictures(store_url: str, *, run: str, out: Path, width: int = 1440, dark: bool = False) -> list[Path]:
    """Save runs.png, run.png, findings.png, drift.png and reward.png; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    names = {"run": "run", "findings": "findings", "drift": "drift", "reward": "frontier"}
    pages = {"runs": "/"} | {name: f"/{page}?run={quote(run)}" for name, page in names.items()}
    with (
        # A relative URL, which is what a picture should show, is one from here.
        serve_dashboard(store_url, directory=Path.cwd()) as address,
        sync_playwright() as play,
    ):
        browser = launch_chromium(play)
        taken = [take_picture(browser, address + path, out / f"{name}.png", width=width, dark=dark) for name, path in pages.items()]
        browser.close()
    return taken


def take_picture(browser: Browser, address: str, path: Path, *, width: int, dark: bool) -> Path:
    """One page, from its head to its end or to `TALLEST`."""
    context = browser.new_context(
        viewport={"width": width, "height": 1000},
        device_scale_factor=1.5,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address)
    wait_until_drawn(page)
    page.set_viewport_size({"width": width, "height": TALLEST})
    page.wait_for_timeout(3000)
    end = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.stVerticalBlock > *')].map(one => one.getBoundingClientRect().bottom))"
    )
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": width, "height": min(TALLEST, int(end) + 24)})
    context.close()
    return path


def wait_until_drawn(page: Page) -> None:
    """Until the script has run, every part of the page is there, and every chart has its lines."""
    page.locator("h1").first.wait_for(timeout=60_000)
    page.locator('[data-testid="stStatusWidget"]').wait_for(state="detached", timeout=60_000)
    page.wait_for_function("!document.querySelector('[data-testid=\"stSkeleton\"]')", timeout=60_000)
    page.wait_for_function(
        "[...document.querySelectorAll('[data-testid=\"stPlotlyChart\"]')].every(one => one.querySelector('.scatterlayer, .barlayer'))",
        timeout=60_000,
    )


def main() -> None:
    """Read the arguments, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    for path in take_pictures(given.store, run=given.run, out=given.out, width=given.width, dark=given.dark):
        print(path)


if __name__ == "__main__":
    main()
