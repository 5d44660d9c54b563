"""A KL never travels alone: the series says what a number is, the reading is one number of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from klaudit.errors import InvalidRecord

Kind = Literal["reference", "update", "mismatch", "baseline", "unknown"]
Estimator = Literal["k1", "k2", "k3", "full", "unknown"]
Unit = Literal["nats_per_token", "nats_per_sequence", "unknown"]
Aggregation = Literal["batch_mean", "token_mean", "window_mean", "unknown"]
Direction = Literal["reverse", "forward", "unknown"]

UNIT_LABELS: Mapping[str, str] = {"nats_per_token": "nats/token", "nats_per_sequence": "nats/sequence", "unknown": "unknown unit"}
KIND_LABELS: Mapping[str, str] = {
    "reference": "KL to reference",
    "update": "policy-update KL",
    "mismatch": "rollout-mismatch KL",
    "baseline": "KL baseline",
    "unknown": "KL of unknown kind",
}

PRIMARY = "kl"
"""Key of the series that a step's own `kl` belongs to."""

GOVERNING_ORDER: tuple[Estimator, ...] = ("full", "k3", "k1")
"""Best first: which reference series of a run budgets and change rules look at."""

ONE_SIDED_95 = 1.6448536269514722
"""Standard normal quantile of a one-sided 95% bound."""


def require_member(record: str, field: str, value: object, literal: object) -> None:
    """Raise InvalidRecord unless `value` is one of the strings of a `Literal`."""
    allowed = get_args(literal)
    if value not in allowed:
        raise InvalidRecord(f"{record}.{field} must be one of {', '.join(allowed)}; got {value!r}")


@dataclass(frozen=True, slots=True)
class KLSeries:
    """What a stream of KL numbers is. Whatever a trainer does not declare is `unknown`, and is never compared with a budget.

    Raises:
        InvalidRecord: a field outside its vocabulary, or a temperature that is not positive.
    """

    kind: Kind = "reference"
    """Which two distributions: policy and reference, old policy and policy, or rollout engine and trainer."""
    estimator: Estimator = "unknown"
    """k1, k2, k3 (Schulman 2020, joschu.net/blog/kl-approx.html) or full (whole vocabulary along sampled text)."""
    unit: Unit = "unknown"
    """Nats per token or nats per sequence."""
    aggregation: Aggregation = "unknown"
    """How one number came of a batch: mean over sequences, over tokens, or over several steps."""
    direction: Direction = "reverse"
    """reverse: KL(policy || reference), the governed one; forward: the reference first."""
    temperature: float | None = None
    """Sampling temperature at which both distributions were scored; None: not declared."""
    source_key: str | None = None
    """The trainer's own name of the number, such as `objective/kl`."""

    def __post_init__(self) -> None:
        require_member("KLSeries", "kind", self.kind, Kind)
        require_member("KLSeries", "estimator", self.estimator, Estimator)
        require_member("KLSeries", "unit", self.unit, Unit)
        require_member("KLSeries", "aggregation", self.aggregation, Aggregation)
        require_member("KLSeries", "direction", self.direction, Direction)
        if self.temperature is not None and not self.temperature > 0:
            raise InvalidRecord(f"KLSeries.temperature must be above 0; got {self.temperature!r}")

    @property
    def label(self) -> str:
        """For people: `KL to reference (full, nats/sequence)`."""
        estimator = "unknown estimator" if self.estimator == "unknown" else self.estimator
        return f"{KIND_LABELS[self.kind]} ({estimator}, {UNIT_LABELS[self.unit]})"


UNDECLARED = KLSeries(kind="unknown", direction="unknown")
"""What a KL belongs to that nobody declared."""


def find_governing_series(series: Mapping[str, KLSeries]) -> str | None:
    """Key of the best reference series: `full`, else k3, else k1; None where no reference KL of known estimator and unit exists.

    Of several by one estimator it is the primary one, else the first by name, in whatever order they were declared.
    """
    for estimator in GOVERNING_ORDER:
        for key in sort_keys(series):
            one = series[key]
            if one.kind == "reference" and one.direction == "reverse" and one.estimator == estimator and one.unit != "unknown":
                return key
    return None


def find_update_series(series: Mapping[str, KLSeries]) -> str | None:
    """Key of the policy-update KL that path budgets add up: the primary one, else the first by name; None where none of known unit exists."""
    return next((key for key in sort_keys(series) if series[key].kind == "update" and series[key].unit != "unknown"), None)


def sort_keys(series: Mapping[str, KLSeries]) -> list[str]:
    """The keys in an order of their own: the primary one first, then by name."""
    return sorted(series, key=lambda key: (key != PRIMARY, key))


@dataclass(frozen=True, slots=True)
class KLReading:
    """One number of a series, or the reason why there is none: absent is not zero.

    Raises:
        InvalidRecord: both a value and a reason, or neither; a negative standard error; a count below 1.
    """

    series: KLSeries
    value: float | None
    """In the series' unit; may be NaN or infinite, because that is what the trainer computed. None: not measured."""
    standard_error: float | None = None
    """Of `value`, over the sequences of the batch, in the series' unit."""
    n_sequences: int | None = None
    """Sequences that the value is a mean of."""
    mean_length: float | None = None
    """Mean response length of those sequences, in tokens; the bridge between the two units."""
    not_measured: str | None = None
    """Why there is no value."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.not_measured is None):
            raise InvalidRecord(
                f"KLReading holds a value or a reason why there is none; got value={self.value!r}, not_measured={self.not_measured!r}"
            )
        if self.standard_error is not None and self.standard_error < 0:
            raise InvalidRecord(f"KLReading.standard_error must be 0 or more; got {self.standard_error!r}")
        if self.n_sequences is not None and self.n_sequences < 1:
            raise InvalidRecord(f"KLReading.n_sequences must be 1 or more; got {self.n_sequences!r}")

    @classmethod
    def absent(cls, series: KLSeries, reason: str) -> Self:
        """The NOT_MEASURED reading."""
        return cls(series=series, value=None, not_measured=reason)

    @property
    def is_finite(self) -> bool:
        """Measured, and neither NaN nor infinite."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def lower_bound(self) -> float | None:
        """One-sided 95% lower bound of the value, in the series' unit; None without a standard error.

        For k1 without a measured standard error, Var(k1) = 2 KL gives sqrt(2 KL / B) (research/trainers.md 2.2, derived).
        """
        standard_error = self.effective_standard_error
        if self.value is None or standard_error is None:
            return None
        return self.value - ONE_SIDED_95 * standard_error

    @property
    def effective_standard_error(self) -> float | None:
        """The measured standard error; for k1 in nats per sequence without one, sqrt(2 KL / B); else None."""
        if self.standard_error is not None and math.isfinite(self.standard_error):
            return self.standard_error
        if self.series.estimator == "k1" and self.series.unit == "nats_per_sequence" and self.n_sequences and self.is_finite:
            assert self.value is not None
            return math.sqrt(2 * max(self.value, 0.0) / self.n_sequences)
        return None

    def to_unit(self, unit: Unit) -> "KLReading":
        """The same reading in another unit: KL per sequence = KL per token x mean length.

        NOT_MEASURED where either unit is unknown, or no positive, finite mean length is known.
        """
        if self.value is None or self.series.unit == unit:
            return self
        factor = self._find_factor(unit)
        if factor is None:
            why = "" if "unknown" in (self.series.unit, unit) else " without a mean response length"
            reason = f"cannot turn {UNIT_LABELS[self.series.unit]} into {UNIT_LABELS[unit]}{why}"
            return KLReading.absent(replace(self.series, unit=unit), reason)
        standard_error = None if self.standard_error is None else self.standard_error * factor
        return replace(self, series=replace(self.series, unit=unit), value=self.value * factor, standard_error=standard_error)

    def value_in(self, unit: Unit) -> float | None:
        """The value that `to_unit` gives, in a fraction of the time; None where it gives none."""
        if self.value is None or self.series.unit == unit:
            return self.value
        factor = self._find_factor(unit)
        return None if factor is None else self.value * factor

    def _find_factor(self, unit: Unit) -> float | None:
        """What turns the series' unit into another one; None where that is not known."""
        if "unknown" in (self.series.unit, unit) or self.mean_length is None or not 0 < self.mean_length < math.inf:
            return None
        return self.mean_length if unit == "nats_per_sequence" else 1 / self.mean_length
