"""What gets killed: `python -m tests.soak.victim ACT STORE_URL FILE`; says what it promised in FILE, one line each, flushed."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import klaudit
from klaudit.store import open_store, upgrade_store
from klaudit.workflows.recorder import worker

K1 = klaudit.KLSeries(estimator="k1", unit="nats_per_sequence")


def log_steps(url: str, said: Callable[[str], None]) -> None:
    """Log until killed; a step is promised when its `log()` has returned."""
    first = int(Path(sys.argv[3]).with_suffix(".first").read_text())
    run = klaudit.start_run("run", kl=K1, batch_size=16, beta=0.05, store=url, resumed_from_step=first - 1 or None)
    said(f"segment {run.segment}")
    for step in range(first, first + 100_000):
        run.log(step=step, kl=0.001 * (step % 700), score=0.5, metrics={"entropy": 2.0, "response_length": 16.0})
        said(f"{step}")
        if step % 40 == 0:
            time.sleep(0.01)


def log_without_carrying(url: str, said: Callable[[str], None]) -> None:
    """As `log_steps`, but nothing reaches the store: a journal that the next opening replays."""
    worker.POLL_S = 3600.0
    log_steps(url, said)


def replay(url: str, said: Callable[[str], None]) -> None:
    """Open the store, which takes in what waits."""
    with open_store(url) as store:
        said(f"replayed {sum(one.n_steps for one in store.replayed)}")
    time.sleep(60)


def upgrade(url: str, said: Callable[[str], None]) -> None:
    """Bring an old store to the newest schema."""
    upgrade_store(url)
    said("upgraded")
    time.sleep(60)


def main() -> None:
    """Do one act until killed."""
    act, url, path = sys.argv[1:]
    with Path(path).open("w", buffering=1) as file:
        {"log": log_steps, "log-without-carrying": log_without_carrying, "replay": replay, "upgrade": upgrade}[act](
            url, lambda line: print(line, file=file, flush=True)
        )


if __name__ == "__main__":
    main()
