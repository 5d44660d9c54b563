"""Progress bars of the long commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from klaudit.cli.output import messages


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
def track_drift() -> Iterator[Callable[[int, int], None]]:
    """A bar over all checkpoints; gives the function to call with sequences done and sequences in all."""
    columns = (
        TextColumn("sampled and scored"),
        MofNCompleteColumn(),
        TextColumn("sequences"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, TimeRemainingColumn(), console=messages) as progress:
        task = progress.add_task("drift", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show
