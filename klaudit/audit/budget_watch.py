"""The number of each kind of budget that is compared with its limit, and its lower bound."""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from klaudit.records import DriftMeasurement, KLBudget, KLReading, Run, find_update_series
from klaudit.records.series import ONE_SIDED_95

LEAST_KNOWN_WEIGHT = 0.99
"""Share of an EWMA's weight that must come from readings with a standard error before the EWMA has one."""

ONE_SIDED = "its one-sided 95% lower bound"
OF_INTERVAL = "the lower end of its 95% interval over prompts"


@dataclass(frozen=True, slots=True)
class BudgetLevel:
    """What one step or checkpoint has of a budget."""

    step: int
    value: float
    """In the budget's unit."""
    lower_bound: float | None
    """In the budget's unit; None where no standard error is known."""
    subject: str
    """What it is, for people."""
    bound_name: str = ONE_SIDED


class Statistic(Protocol):
    """Takes in one reading after another; gives value and standard error so far, both in the readings' unit."""

    def observe(self, value: float, *, standard_error: float | None) -> tuple[float, float | None]:
        """The statistic with this reading in it."""


class Latest:
    """The reading itself."""

    def observe(self, value: float, *, standard_error: float | None) -> tuple[float, float | None]:
        """See Statistic."""
        return value, standard_error


class ExponentialMean:
    """EWMA of weight 2 / (n_steps + 1), started by the first reading; independent errors: SE^2 = (1 - a)^2 SE^2 + a^2 SE_x^2."""

    def __init__(self, n_steps: int) -> None:
        self.weight = 2 / (n_steps + 1)
        self.mean: float | None = None
        self.variance = 0.0
        self.known_weight = 0.0

    def observe(self, value: float, *, standard_error: float | None) -> tuple[float, float | None]:
        """See Statistic."""
        weight = 1.0 if self.mean is None else self.weight
        self.mean = value if self.mean is None else (1 - weight) * self.mean + weight * value
        error = weight * (standard_error or 0.0)
        self.variance = (1 - weight) ** 2 * self.variance + error * error
        self.known_weight = (1 - weight) * self.known_weight + weight * (standard_error is not None)
        return self.mean, math.sqrt(self.variance) if self.known_weight >= LEAST_KNOWN_WEIGHT else None


class Total:
    """Sum of all readings; independent errors add in squares, and one unknown error leaves the sum's unknown."""

    def __init__(self) -> None:
        self.total = 0.0
        self.variance: float | None = 0.0

    def observe(self, value: float, *, standard_error: float | None) -> tuple[float, float | None]:
        """See Statistic."""
        self.total += value
        self.variance = None if self.variance is None or standard_error is None else self.variance + standard_error * standard_error
        return self.total, None if self.variance is None else math.sqrt(self.variance)


class BudgetWatch:
    """One budget on the steps of a run."""

    def __init__(self, budget: KLBudget, *, run: Run, n_kept: int) -> None:
        self.budget = budget
        self.key = find_update_series(run.series) if budget.scope == "path" else run.governing_key
        self._statistic = self._start_statistic()
        self._kept: deque[dict[str, Any]] = deque(maxlen=n_kept)
        self._n_finite = 0
        self._n_left_out = 0
        self._why_left_out = ""
        self._series: dict[str, Any] = {}

    def begin_segment(self) -> None:
        """Windows start again; a path goes on, because what was spent stays spent."""
        if self.budget.scope != "path":
            self._statistic = self._start_statistic()
            self._kept.clear()

    def observe(self, reading: KLReading, *, step: int) -> BudgetLevel | None:
        """The level with this reading in it; None where the reading cannot be compared."""
        if not reading.is_finite:
            return None
        self._n_finite += 1
        converted = convert_reading(reading, budget=self.budget)
        if converted.value is None or not converted.is_finite:
            self._n_left_out += 1
            self._why_left_out = converted.not_measured or "too large a number in the budget's unit"
            return None
        standard_error = converted.effective_standard_error
        value, error = self._statistic.observe(converted.value, standard_error=standard_error)
        bound = None if error is None else value - ONE_SIDED_95 * error
        self._kept.append({"step": step, "kl": converted.value, "standard_error": standard_error, "value": value, "lower_bound": bound})
        self._series = {"key": self.key, "kind": reading.series.kind, "estimator": reading.series.estimator, "unit": reading.series.unit}
        return BudgetLevel(step=step, value=value, lower_bound=bound, subject=self._name(converted))

    @property
    def not_compared(self) -> str | None:
        """Why the budget could not be compared with some or all readings so far."""
        if self.key is None:
            wanted = "policy-update KL of known unit" if self.budget.scope == "path" else "reference KL of known estimator and unit"
            return f"no {wanted}"
        if not self._n_finite:
            return f"no finite reading of {self.key!r}"
        if self._n_left_out:
            return f"{self._n_left_out} of {self._n_finite} readings of {self.key!r} were not compared: {self._why_left_out}"
        return None

    def evidence(self) -> dict[str, Any]:
        """The readings behind the level, in the budget's unit, and what series they are of."""
        return {"series": self._series, "n_left_out": self._n_left_out, "window": list(self._kept)}

    def _start_statistic(self) -> Statistic:
        if self.budget.window_steps is not None:
            return ExponentialMean(self.budget.window_steps)
        return Total() if self.budget.scope == "path" else Latest()

    def _name(self, reading: KLReading) -> str:
        if self.budget.scope == "window":
            return f"EWMA over {self.budget.window_steps} steps of {reading.series.label}"
        return f"Sum of {reading.series.label}" if self.budget.scope == "path" else reading.series.label


class CheckpointWatch:
    """One budget on what was measured of a run's checkpoints."""

    def __init__(self, budget: KLBudget) -> None:
        self.budget = budget
        self._kept: list[dict[str, Any]] = []
        self._left_out: list[str] = []

    def observe(self, measurement: DriftMeasurement) -> BudgetLevel | None:
        """The level of one checkpoint, infinity included: it is over every limit. None where the measurement cannot be compared."""
        unit = KLReading(measurement.series, 1.0, mean_length=measurement.mean_length).to_unit(self.budget.unit)
        value, low, high = (number * (unit.value or math.nan) for number in (measurement.value, measurement.low, measurement.high))
        if measurement.step is None or not value > -math.inf:
            self._left_out.append(f"{measurement.checkpoint}: {unit.not_measured or f'its drift is {value}'}")
            return None
        self._kept.append({"checkpoint": measurement.checkpoint, "step": measurement.step, "value": value, "low": low, "high": high})
        return BudgetLevel(
            step=measurement.step,
            value=value,
            lower_bound=value if value == math.inf else low,
            subject=name_measured(measurement),
            bound_name=OF_INTERVAL,
        )

    @property
    def not_compared(self) -> str | None:
        """Which checkpoints could not be compared, and why."""
        if self._left_out:
            n = len(self._left_out) + len(self._kept)
            return f"{len(self._left_out)} of {n} measured checkpoints were not compared: {'; '.join(self._left_out)}"
        return None if self._kept else "no measured drift of a checkpoint (full vocabulary, all prompts)"

    def evidence(self) -> dict[str, Any]:
        """The measurements so far, in the budget's unit."""
        return {"series": {"kind": "reference", "estimator": "full"}, "measurements": list(self._kept)}


def convert_reading(reading: KLReading, *, budget: KLBudget) -> KLReading:
    """The reading in the budget's unit, with the standard error that its estimator implies where none was measured."""
    if reading.standard_error is None and reading.is_finite:
        reading = replace(reading, standard_error=reading.effective_standard_error)
    if reading.value is not None and reading.series.unit == "unknown":
        return KLReading.absent(reading.series, "its unit is unknown")
    return reading.to_unit(budget.unit)


def list_latest_drift(measurements: Iterable[DriftMeasurement], *, run_id: str) -> list[DriftMeasurement]:
    """KL(policy || reference) over vocabulary and all prompts of the run's checkpoints, by step; of one measured twice, the later one."""
    latest: dict[int, DriftMeasurement] = {}
    for one in sorted(measurements, key=lambda measurement: measurement.measured_at):
        is_governed = one.slice is None and one.series.estimator == "full" and one.series.direction == "reverse"
        if one.step is not None and one.run_id in {None, run_id} and is_governed:
            latest[one.step] = one
    return [latest[step] for step in sorted(latest)]


def describe_budget(budget: KLBudget) -> dict[str, Any]:
    """A budget as JSON evidence."""
    names = ("id", "limit", "unit", "scope", "window_steps", "on", "action", "owner", "reason")
    return {name: getattr(budget, name) for name in names}


def name_measured(one: DriftMeasurement) -> str:
    """Which checkpoint was measured, and on what, for people."""
    n_prompts, prompt_set = one.settings.get("n_prompts"), one.settings.get("prompt_set")
    of_prompts = f" of the {n_prompts} prompts {prompt_set!r}" if n_prompts and prompt_set else ""
    return f"The measured drift of checkpoint {one.checkpoint} (full vocabulary, {one.n_sequences:,} completions{of_prompts})"
