"""A dashboard of planted runs, and pages of a Chromium that report what goes wrong in them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.browser.dashboard import CHROMIUM, launch_chromium, serve_dashboard
from tests.browser.planted_store import write_planted_store

ALLOWED_404 = {f"/{page}/_stcore/{name}" for page in ("run", "findings", "drift", "frontier") for name in ("health", "host-config")}
"""What Streamlit itself asks for below the path of a deep link before it finds the root."""


@dataclass
class Watch:
    """What a page did that it should not have."""

    address: str
    console_errors: list[str] = field(default_factory=list)
    page_errors: list[str] = field(default_factory=list)
    requests_outside: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Keep errors of the console, but for Streamlit's own two."""
        path = urlsplit(str(message.location.get("url", ""))).path
        if message.type == "error" and not ("404" in message.text and path in ALLOWED_404):
            self.console_errors.append(f"{message.text} ({path})")

    def see(self, request: Request) -> None:
        """Keep requests that leave the dashboard."""
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != urlsplit(self.address).netloc:
            self.requests_outside.append(request.url)

    @property
    def complaints(self) -> list[str]:
        """All of it."""
        return [*self.console_errors, *self.page_errors, *self.requests_outside]


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of planted runs."""
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'klaudit.db'}"
    write_planted_store(url, now=datetime.now(UTC))
    return url


@pytest.fixture(scope="session")
def dashboard(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a dashboard of that store."""
    with serve_dashboard(store_url, directory=tmp_path_factory.mktemp("dashboard")) as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; where it is missing, CI fails and anybody else is told what is not tested."""
    if not CHROMIUM.exists():
        reason = f"no Chromium at {CHROMIUM}: the pages are not tested in a browser (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as play:
        browser = launch_chromium(play)
        yield browser
        browser.close()


@pytest.fixture
def watch(dashboard: str) -> Watch:
    """What the page of this test does wrong."""
    return Watch(dashboard)


@pytest.fixture
def page(chromium: Browser, watch: Watch, tmp_path: Path) -> Iterator[Page]:
    """A fresh page, 1440 pixels wide."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    expect.set_options(timeout=30_000)
    page = context.new_page()
    page.on("console", watch.hear)
    page.on("pageerror", lambda error: watch.page_errors.append(str(error)))
    page.on("request", watch.see)
    page.on("websocket", lambda socket: watch.requests_outside.extend([socket.url] if urlsplit(socket.url).hostname != "127.0.0.1" else []))
    yield page
    context.close()
