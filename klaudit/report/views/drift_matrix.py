"""KL between every two checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from klaudit.records import UNIT_LABELS, DriftMeasurement
from klaudit.report.views.drift import keep_newest
from klaudit.report.views.figure import format_estimate


@dataclass(frozen=True, slots=True)
class MatrixView:
    """KL(row ‖ column): the row's model wrote the text."""

    names: tuple[str, ...]
    """Steps of the checkpoints, or their names: of rows and columns alike."""
    values: tuple[tuple[float, ...], ...]
    """In `unit`; NaN where a pair was not measured, 0 of a checkpoint with itself."""
    texts: tuple[tuple[str, ...], ...]
    """Value, interval and unit."""
    estimator: str
    unit: str
    """For people."""

    @property
    def furthest(self) -> tuple[str, str, str]:
        """Row, column and text of the largest value."""
        places = [(i, j) for i in range(len(self.names)) for j in range(len(self.names)) if math.isfinite(self.values[i][j])]
        row, column = max(places, key=lambda place: self.values[place[0]][place[1]])
        return self.names[row], self.names[column], self.texts[row][column]


def view_matrix(distances: Sequence[DriftMeasurement]) -> MatrixView | None:
    """The matrix of the best estimator that was measured; None without a pair.

    Args:
        distances: measurements whose reference is the other checkpoint. Only KL(checkpoint ‖ other) over all prompts is shown.
    """
    kept = [one for one in distances if one.series.direction == "reverse" and one.slice is None and one.series.estimator == "full"]
    pairs: dict[tuple[str, str], DriftMeasurement] = {}
    for other in sorted({one.reference.name for one in kept}):
        pairs |= {(one.checkpoint, other): one for one in keep_newest([one for one in kept if one.reference.name == other])}
    if not pairs:
        return None
    steps = {row: one.step for (row, _), one in pairs.items()}
    models = sorted({name for pair in pairs for name in pair}, key=lambda name: (steps.get(name) is None, steps.get(name) or 0, name))
    unit = UNIT_LABELS[kept[0].series.unit]
    return MatrixView(
        names=tuple(name_model(steps.get(one), one) for one in models),
        values=tuple(tuple(read_value(pairs.get((row, column)), is_same=row == column) for column in models) for row in models),
        texts=tuple(tuple(tell_pair(pairs.get((row, column)), unit, is_same=row == column) for column in models) for row in models),
        estimator=kept[0].series.estimator,
        unit=unit,
    )


def name_model(step: int | None, model: str) -> str:
    """A checkpoint's step, or the name of a model of no run."""
    return f"{step:,}" if step is not None else PurePath(model).name or model


def read_value(measurement: DriftMeasurement | None, *, is_same: bool) -> float:
    """KL of one pair; a model is 0 from itself."""
    return (0.0 if is_same else math.nan) if measurement is None else measurement.value


def tell_pair(measurement: DriftMeasurement | None, unit: str, *, is_same: bool) -> str:
    """Value, interval and unit of one pair."""
    if measurement is None:
        return "the same checkpoint" if is_same else "not measured"
    return f"{format_estimate(measurement.value, measurement.low, measurement.high)} {unit}"
