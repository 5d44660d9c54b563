"""CSV that was exported from W&B: of a chart, or a run's history."""

from collections.abc import Iterator
from pathlib import Path

from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.places import drop_missing, read_time, read_whole
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, is_wanted, refuse, shorten
from klaudit.exchange.readers.csv_columns import read_cell, read_rows, split_names
from klaudit.exchange.scattered_values import ScatteredValues

SEPARATOR = " - "
"""Between a run and what it logged, in a column of a chart's export."""
BOUNDS = ("__MIN", "__MAX")
"""After a column's name: the range of the points that one point of the chart stands for."""
LOG_CALLS = "_step"
"""W&B's own step, which counts calls of `log`."""
CLOCKS = ("_timestamp", "_runtime")
STEP_AXES = ("Step", "train/global_step", "trainer/global_step", "global_step", "step")
"""What a chart's horizontal axis may be, to be imported."""
SAMPLED = "the file holds the points that the chart shows, which can be fewer than were logged"
TRAINER_STEPS = ("train/global_step", "trainer/global_step")
"""What Hugging Face's trainers and Lightning log beside W&B's own step."""


class WandbChart:
    """Reads the CSV of a chart, which has a column for each run and metric."""

    name = "wandb-chart"
    describes = "CSV of a W&B chart, with columns such as `my-run - train/loss`"

    def recognises(self, head: FileHead) -> bool:
        """By its first column, and the ranges that W&B exports with every metric."""
        names = split_names(head.text.partition("\n")[0])
        return len(names) > 1 and names[0] in STEP_AXES and any(SEPARATOR in name and name.endswith(BOUNDS) for name in names)

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The runs of the chart, in the order of the columns; the file is read once for each."""
        first = next(read_rows(path, options), None)
        if first is None:
            raise refuse(path, "expected rows below the names of the columns; there are none")
        axis, *columns = first[1]
        runs = _find_runs(columns)
        if axis not in STEP_AXES or not runs:
            names = shorten(", ".join(first[1]))
            raise refuse(first[0], f"expected a column of steps, then columns such as 'my-run - train/loss'; got {names}")
        for run, metrics in runs.items():
            logged = ScatteredValues(f"{path} run {shorten(run)!r}")
            if is_wanted(options, run):
                for where, row in read_rows(path, options):
                    step = read_whole(row[axis], where, axis)
                    for column, metric in metrics.items():
                        if row[column]:
                            logged.add(step, metric, read_cell(row[column]), at=None, where=where)
            if not logged.is_empty:
                facts = RunFacts(name=run, part=run)
                yield interpret(logged.read(), path=path, options=options, facts=facts, notes=(*logged.notes, SAMPLED))


def _find_runs(columns: list[str]) -> dict[str, dict[str, str]]:
    """What each run logged: the metric by its column."""
    runs: dict[str, dict[str, str]] = {}
    for column in columns:
        run, separator, metric = column.rpartition(SEPARATOR)
        if separator and not metric.endswith(BOUNDS):
            runs.setdefault(run, {})[column] = metric
    return runs


class WandbHistory:
    """Reads a run's history, as `run.history()` or `run.scan_history()` of W&B's API gives it."""

    name = "wandb-history"
    describes = "CSV of a W&B run's history, with the columns `_step` and `_timestamp` or `_runtime`"

    def recognises(self, head: FileHead) -> bool:
        """By W&B's own columns."""
        names = split_names(head.text.partition("\n")[0])
        return LOG_CALLS in names and any(clock in names for clock in CLOCKS)

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The one run of the file."""
        logged = ScatteredValues(str(path))
        step: int | None = None
        for where, row in read_rows(path, options):
            column = options.columns.get("step") or next((name for name in TRAINER_STEPS if name in row), LOG_CALLS)
            values = {key: read_cell(cell) for key, cell in drop_missing(row).items()}
            # What is logged without the trainer's step belongs to the last one.
            if column in values or column == LOG_CALLS:
                step = read_whole(values.pop(column, None), where, column)
            if step is None:
                continue
            moment = read_time(values.get("_timestamp"))
            for key, value in values.items():
                # The first column of what pandas wrote has no name and counts rows.
                if key and not key.startswith("_"):
                    logged.add(step, key, value, at=None if moment is None else moment.timestamp(), where=where)
        yield interpret(logged.read(), path=path, options=options, notes=logged.notes)
