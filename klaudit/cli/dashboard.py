"""`klaudit dashboard`."""

import os
import signal
import subprocess
import sys
from typing import Annotated

import typer

from klaudit.assets import locate_asset
from klaudit.cli.options import StoreOption, find_store_url, require_installed
from klaudit.cli.output import messages
from klaudit.errors import KlauditError
from klaudit.store import open_store


def open_dashboard(
    port: Annotated[int, typer.Option("--port", help="On 127.0.0.1.", min=1, max=65535)] = 8501,
    store: StoreOption = None,
) -> int:
    """The pages in a browser: runs, one run, drift. Listens on 127.0.0.1 only; ends with Ctrl-C."""
    url = find_store_url(store)
    require_installed("streamlit", "plotly", what="The dashboard", extra="dashboard")
    open_store(url, read_only=True).close()
    messages.print(f"klaudit dashboard of {url}: http://127.0.0.1:{port}", markup=False)
    return serve_pages(url, port=port)


def serve_pages(url: str, *, port: int) -> int:
    """Serve until the person ends it; returns 0, or 3 when the server could not: a port in use, for one."""
    command = [sys.executable, "-m", "streamlit", "run", str(locate_asset("app") / "streamlit_app.py")]
    flags = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
    }
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    server = subprocess.Popen([*command, *arguments], env={**os.environ, "KLAUDIT_STORE": url})
    # Who ends this process means the server: left alone it would keep the port.
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        return 0 if server.wait() in (0, -signal.SIGTERM) else KlauditError.exit_code
    except KeyboardInterrupt:
        server.wait()
        return 0
