"""The thread in which steps are carried into the store, again and again until the run is ended."""

import contextlib
import threading
import time

from klaudit.store.intake import UNREACHABLE
from klaudit.workflows.recorder.carrier import Carrier
from klaudit.workflows.recorder.queue import StepQueue
from klaudit.workflows.recorder.reporter import Reporter

POLL_S = 0.1
"""How long a step waits for its batch, in seconds."""
LONGEST_PAUSE_S = 5.0
"""Between two attempts at a store that does not answer, in seconds."""
LONGEST_HOLD_S = 0.05
"""How long the worker waits for a step to begin behind, and a fork for the worker, in seconds."""


class Worker:
    """Has a carrier carry what waits, at once when the store answers and ever later when it does not."""

    def __init__(self, carrier: Carrier, queue: StepQueue, *, reporter: Reporter) -> None:
        self._carrier = carrier
        self._queue = queue
        self._reporter = reporter
        self._is_away = False
        self._n_stored_before = 0
        self._pause_s = 0.0
        self._closing: bool | None = None
        self._wake = threading.Event()
        self._carried = threading.Condition()
        self._carrying = threading.Lock()
        """Held while the thread is inside the store."""
        self._thread = threading.Thread(target=self._work, name="klaudit-recorder", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stay_away(self) -> None:
        """The store was not reached, and a person knows it."""
        self._is_away = True

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits; False when that took longer than `timeout_s` seconds."""
        until = time.monotonic() + timeout_s
        with self._carried:
            while not self._queue.is_empty:
                if time.monotonic() >= until or not self._thread.is_alive():
                    return False
                self._wake.set()
                self._carried.wait(min(max(until - time.monotonic(), 0.0), POLL_S))
        return True

    def close(self, *, failed: bool, timeout_s: float) -> bool:
        """End the run with the last step; False where the store has not taken everything after `timeout_s` seconds."""
        self._closing = failed
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def keep_out(self) -> bool:
        """Keep the thread out of the store, for a fork; False where it did not come out in time."""
        return self._carrying.acquire(timeout=LONGEST_HOLD_S)

    def let_in(self) -> None:
        """After `keep_out`."""
        self._carrying.release()

    def _work(self) -> None:
        is_ended = False
        while not is_ended:
            self._wake.wait(self._pause_s or POLL_S)
            self._fall_in_step()
            self._wake.clear()
            # Whatever a reporter of somebody else's raises, the thread that stores the steps lives.
            with contextlib.suppress(Exception):
                is_ended = self._try_to_carry()
            with self._carried:
                self._carried.notify_all()

    def _try_to_carry(self) -> bool:
        try:
            with self._carrying:
                is_ended = self._carrier.carry(closing=self._closing)
        except UNREACHABLE as error:
            self._go_away(error)
        except Exception as error:
            self._pause_s = LONGEST_PAUSE_S
            self._reporter.note("storing", error)
        else:
            self._come_back()
            return is_ended
        return False

    def _fall_in_step(self) -> None:
        """Begin just behind a step: Python runs one thread at a time, and so the work is over before the next step is logged."""
        last, until = self._queue.last_step, time.monotonic() + LONGEST_HOLD_S
        while len(self._queue) and self._queue.last_step == last and not self._wake.is_set() and time.monotonic() < until:
            time.sleep(0.001)

    def _go_away(self, error: Exception) -> None:
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s or POLL_S)
        if not self._is_away:
            self._is_away, self._n_stored_before = True, self._carrier.n_stored
            where = "in memory" if self._queue.directory is None else f"in {self._queue.directory}"
            self._reporter.warn(f"the store does not take steps; they wait {where} and training goes on. {error}")

    def _come_back(self) -> None:
        self._pause_s = 0.0
        if self._is_away:
            self._is_away = False
            n = self._carrier.n_stored - self._n_stored_before
            self._reporter.warn(f"the store takes steps again; {n} that had waited were carried over")
