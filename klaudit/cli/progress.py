"""Progress bars of the long commands."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from klaudit.cli.output import messages

MANY_STEPS = 20_000
"""From how many on going over a run's steps takes long enough for a bar; seconds."""
MANY_BYTES = 10 << 20
"""From how many on reading a file takes long enough for a bar."""


@contextmanager
def track_training(n_steps: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A bar with the live KL (full), beta and score of each step; gives the function to call with step and logs."""
    columns = (
        MofNCompleteColumn(table_column=Column(min_width=len(f"{n_steps}/{n_steps}"))),
        BarColumn(bar_width=None),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(min_width=7)),
    )
    with Progress(*columns, console=messages, expand=True) as progress:
        task = progress.add_task("sampling the first batch", total=n_steps)

        def show(step: int, logs: dict[str, float]) -> None:
            # A batch of one sequence has no standard error.
            error = f" ± {logs['kl_full_se']:.2f}" if "kl_full_se" in logs else ""
            kl = f"KL {logs['kl_full']:.2f}{error} nats/sequence"
            description = f"{kl}  beta {logs['beta']:.2g}  score {logs['score']:+.2f}  held-out {logs['heldout_score']:+.2f}"
            progress.update(task, completed=step, description=description)

        yield show


@contextmanager
def track_verification() -> Iterator[Callable[[int, int], None]]:
    """A bar over the ledger's entries, gone at the end; gives the function to call with entries done and entries in all."""
    columns = (TextColumn("verified"), MofNCompleteColumn(), TextColumn("entries"), BarColumn(bar_width=24), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task("verification", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show


@contextmanager
def track_drift() -> Iterator[Callable[[int, int], None]]:
    """A bar over all checkpoints; gives the function to call with sequences done and sequences in all. The first call is the start."""
    columns = (
        TextColumn("sampled and scored"),
        MofNCompleteColumn(),
        TextColumn("sequences"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages) as progress:
        task = progress.add_task("drift", total=None)
        has_begun = False

        def show(done: int, total: int) -> None:
            nonlocal has_begun
            if has_begun:
                progress.update(task, completed=done, total=total)
            else:
                # What was measured before took no time: it must not count as speed.
                progress.reset(task, completed=done, total=total)
                has_begun = True

        yield show


def track_steps(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar over a run's steps, shown only where there are many; gives the function to call with steps done and steps in all."""
    return _track_large(what, TextColumn("{task.percentage:.0f}%"), TimeRemainingColumn(), shown_from=MANY_STEPS)


def track_bytes(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar over a file, shown only where it is large; gives the function to call with bytes done and bytes in all."""
    return _track_large(what, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), shown_from=MANY_BYTES)


@contextmanager
def _track_large(what: str, *columns: ProgressColumn, shown_from: int) -> Iterator[Callable[[int, int], None]]:
    shown = (TextColumn(what), BarColumn(bar_width=24), *columns)
    with Progress(*shown, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        task = bar.add_task(what, total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total >= shown_from)

        yield show
