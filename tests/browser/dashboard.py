"""The dashboard as a process of its own, and a Chromium to look at it with."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Playwright

APP = Path(__file__).resolve().parents[2] / "app" / "streamlit_app.py"
CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def serve_dashboard(store_url: str, *, directory: Path) -> Iterator[str]:
    """The address of a dashboard of that store, which ends with the block."""
    port = find_free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(port)]
    environment = {**os.environ, "KLAUDIT_STORE": store_url, "PYTHONPATH": str(APP.parents[1])}
    with (directory / "dashboard.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=directory, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_up(address, process)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=20)


def find_free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_up(address: str, process: subprocess.Popen[bytes], *, patience_s: float = 60.0) -> None:
    """Return once the server answers that it is healthy.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"the dashboard did not come up at {address}; exit status {process.poll()}, see dashboard.log")


def launch_chromium(playwright: Playwright) -> Browser:
    """Debian's Chromium, told to call nobody."""
    return playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*QUIET])
