"""What the pages show: reads of the store, turned into views."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from klaudit.records import Run
from klaudit.report.views import DriftView, RunsView, RunView, SampleView, view_drift, view_run, view_runs, view_sample
from klaudit.store import Store, open_store


@dataclass(frozen=True, slots=True)
class RunState:
    """What says whether a page must be drawn again."""

    run_id: str
    status: str
    n_steps: int
    last_logged_at: datetime | None


class Pages:
    """The reads of one store. Every call is a read of its own, so that it may be shared by threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def store_url(self) -> str:
        """Of the store, without its password."""
        return self._store.url

    def show_runs(self) -> RunsView:
        """The list of runs."""
        return view_runs(self._store.runs.list(), budgets=self._store.budgets.list())

    def find_run(self, name: str) -> Run:
        """One run by id or name.

        Raises:
            RunNotFound: none has it.
        """
        return self._store.runs.get(name)

    def read_state(self, run_id: str) -> RunState:
        """Whether anything has changed; cheap.

        Raises:
            RunNotFound: no run has that id.
        """
        run = self._store.runs.get(run_id)
        last = self._store.steps.last(run_id)
        return RunState(run.id, run.status, self._store.steps.count(run_id), last.logged_at if last else None)

    def show_run(self, run_id: str, *, max_points: int = 2000) -> RunView:
        """One run: curves, budgets, findings.

        Raises:
            RunNotFound: no run has that id.
        """
        run = self._store.runs.get(run_id)
        return view_run(
            run,
            steps=self._store.steps.list(run.id),
            findings=self._store.findings.list(run.id),
            budgets=self._store.budgets.for_run(run),
            checkpoints=self._store.checkpoints.list(run.id),
            max_points=max_points,
        )

    def show_drift(self, run_id: str) -> DriftView:
        """The measured drift of a run's checkpoints.

        Raises:
            RunNotFound: no run has that id.
        """
        run = self._store.runs.get(run_id)
        return view_drift(
            run,
            measurements=self._store.drift.list(run.id),
            steps=self._store.steps.list(run.id),
            budgets=self._store.budgets.for_run(run),
        )

    def list_sample_steps(self, run_id: str) -> Sequence[int]:
        """Steps that sampled texts were kept of."""
        return self._store.samples.steps_with_samples(run_id)

    def show_samples(self, run_id: str, *, step: int) -> tuple[SampleView, ...]:
        """The sampled texts of one step."""
        return tuple(view_sample(one) for one in self._store.samples.list(run_id, step=step))


def open_pages(url: str) -> Pages:
    """Open a store for its pages.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    return Pages(open_store(url, read_only=True))
