"""From the trainer to the store, in a thread of its own: a step never waits for a disk or for somebody else's lock."""

import atexit
import queue
import threading
from collections.abc import Callable

from klaudit.callbacks.recording import Guard

Job = Callable[[], object]

MOST_WAITING = 10_000
"""Jobs that may wait for a store that does not answer; more are lost, and counted."""
LAST_JOBS_TIMEOUT_S = 10.0
"""How long the end of a run waits for what was handed over."""


class Handover:
    """Does what it is given in order, one after another. A job that fails is counted and not tried again.

    A process that is killed loses what waits here: for steps that are seconds apart, nothing or the last one.

    Args:
        guard: counts the failures.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._jobs: queue.Queue[Job | None] = queue.Queue(MOST_WAITING)
        self._worker = threading.Thread(target=self._work, name="klaudit-store", daemon=True)
        self._worker.start()
        atexit.register(self.drain)

    def put(self, job: Job) -> None:
        """Hand a job over; returns at once."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._guard.note("storing", RuntimeError(f"{MOST_WAITING} steps wait for the store, and this one is lost"))

    def drain(self, timeout_s: float = LAST_JOBS_TIMEOUT_S) -> bool:
        """Wait until everything that was handed over is done; False when that took longer than `timeout_s` seconds."""
        done = threading.Event()
        try:
            self._jobs.put(done.set, timeout=timeout_s)
        except queue.Full:
            return False
        return done.wait(timeout_s) if self._worker.is_alive() else done.is_set()

    def close(self) -> None:
        """Do what waits, within bounded time, and end the thread."""
        atexit.unregister(self.drain)
        if not self.drain():
            self._guard.note("storing", RuntimeError(f"the store did not take the last steps within {LAST_JOBS_TIMEOUT_S:g} s"))
            return
        self._jobs.put(None)
        self._worker.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._guard.note("storing", error)
