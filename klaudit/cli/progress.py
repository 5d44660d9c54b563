"""Progress bars of the long commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from klaudit.cli.output import messages


@contextmanager
def track_training(n_steps: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A bar with the live KL, beta and score of each step; gives the function to call with step and logs."""
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages) as progress:
        task = progress.add_task("sampling the first batch", total=n_steps)

        def show(step: int, logs: dict[str, float]) -> None:
            # A batch of one sequence has no standard error.
            error = f" ± {logs['kl_full_se']:.3f}" if "kl_full_se" in logs else ""
            description = (
                f"KL {logs['kl_full']:.3f}{error} nats/sequence (full)  beta {logs['beta']:.3g}  score {logs['score']:+.3f}"
                f"  held-out {logs['heldout_score']:+.3f}"
            )
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
