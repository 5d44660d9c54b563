import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(port: int, *, is_open: bool) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until and answers(port) is not is_open:
        time.sleep(0.1)
    return answers(port) is is_open


@pytest.mark.timeout(180)
def test_ending_the_dashboard_ends_its_server(store_file: Path) -> None:
    port = find_free_port()
    command = [sys.executable, "-c", "from klaudit.cli import main; main()", "dashboard", "--port", str(port)]
    dashboard = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        assert wait_until(port, is_open=True)
        dashboard.send_signal(signal.SIGTERM)
        assert dashboard.wait(timeout=60) == 0
        assert wait_until(port, is_open=False)
    finally:
        dashboard.kill()
