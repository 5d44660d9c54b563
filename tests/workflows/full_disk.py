"""Logs steps while no file may grow: `python -m tests.workflows.full_disk STORE_URL recovers|is killed`; prints steps logged and steps lost."""

import os
import resource
import signal
import sys
from pathlib import Path

from klaudit.workflows.recorder import queue
from tests.workflows.test_nothing_lost import log_all, start


def main() -> None:
    """Fill both disks, then recover or die."""
    url, ending = sys.argv[1:]
    # Without this the system ends a process whose file would grow too large.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    queue.MOST_WAITING = 20
    recorder = start(url)
    log_all(recorder, range(1, 21))
    assert recorder.flush()
    largest = max(path.stat().st_size for path in Path(url.removeprefix("sqlite:///")).parent.glob("klaudit.db*") if path.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    log_all(recorder, range(21, 201))
    assert not recorder.flush(0.5)
    assert largest > 4096
    if ending == "is killed":
        at_risk = recorder.n_lost + len(recorder._queue._unjournaled)
        print(200, at_risk, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert recorder.flush(20)
    log_all(recorder, range(201, 211))
    recorder.close()
    print(210, recorder.n_lost, flush=True)


if __name__ == "__main__":
    main()
