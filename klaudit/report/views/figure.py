"""Numbers as people read them: never without a unit."""

import math
from dataclasses import dataclass

from klaudit.records import UNIT_LABELS, KLReading


@dataclass(frozen=True, slots=True)
class Figure:
    """One headline number."""

    key: str
    """Such as `kl` or `budget_used`."""
    label: str
    """What it is, estimator included where it is a KL."""
    value: float | None
    """In `unit`; may be NaN or infinite. None: there is none, and `text` says why."""
    unit: str
    """For people, such as `nats/sequence`; empty for a plain number."""
    text: str
    """Value, standard error and unit, such as `7.9 ± 0.2 nats/sequence`."""
    note: str = ""
    """What a reader must know to use the number."""
    standard_error: float | None = None
    """In `unit`."""


def format_number(value: float) -> str:
    """Four significant digits, thousands parted by commas; NaN and infinities by name."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = 0 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_significant(value: float) -> str:
    """Three significant digits, zeros kept, so that numbers below each other are as precise: `2.10`, `0.0338`, `104`, `6,144`."""
    if value == 0 or not math.isfinite(value) or not 1e-4 <= abs(value) < 1e6:
        return format_number(value)
    return f"{value:,.{count_decimals(value)}f}"


def count_decimals(value: float) -> int:
    """Decimals that give a finite number other than 0 its three significant digits."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return max(0, 2 - exponent)


def format_to_error(value: float, error: float) -> str:
    """As many decimals as its error deserves, which has two significant digits: 1.4031 with an error of 0.2033 is `1.40`."""
    if not (math.isfinite(value) and math.isfinite(error) and 1e-6 < error < 1e6):
        return format_number(value)
    return f"{value:,.{max(0, 1 - math.floor(math.log10(error)))}f}"


def format_estimate(value: float, low: float, high: float) -> str:
    """`3.18 [2.73, 3.63]`, for columns: the value to three significant digits, its interval to the same decimals.

    A value that is small beside its interval has the decimals of the interval's wider end, and one more. Beside an interval that is narrower than
    three digits tell, up to two decimals more show it.
    """
    ends = (low, value, high)
    widest = max(map(abs, ends))
    if not (all(map(math.isfinite, ends)) and 1e-4 <= widest < 1e6):
        return f"{format_significant(value)} [{format_significant(low)}, {format_significant(high)}]"
    decimals = min(count_decimals(value or widest), count_decimals(widest) + 1)
    if high > low:
        # one significant digit of the interval's width
        decimals = max(decimals, min(count_decimals(high - low) - 2, decimals + 2))
    return f"{value:,.{decimals}f} [{low:,.{decimals}f}, {high:,.{decimals}f}]"


def format_interval(value: float, low: float, high: float) -> str:
    """`3.18 [2.73, 3.63]`: to the decimals that half the interval deserves."""
    error = (high - low) / 2
    return f"{format_to_error(value, error)} [{format_to_error(low, error)}, {format_to_error(high, error)}]"


def format_count(n: int, noun: str) -> str:
    """`1 step`, `1,204 steps`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def format_percent(percent: float) -> str:
    """`7%`, `99.9%`; a share below 100 never reads as 100."""
    if not math.isfinite(percent):
        return format_number(percent)
    if percent < 100 <= round(percent, 1):
        return "99.9%"
    return f"{percent:,.1f}".removesuffix(".0") + "%"


def format_reading(reading: KLReading | None) -> str:
    """`7.9 ± 0.2 nats/sequence`, or why there is no number."""
    if reading is None:
        return "not measured"
    if reading.value is None:
        return f"not measured: {reading.not_measured}"
    unit = UNIT_LABELS[reading.series.unit]
    if reading.standard_error is None:
        return f"{format_number(reading.value)} {unit}"
    error = reading.standard_error
    return f"{format_to_error(reading.value, error)} ± {format_to_error(error, error)} {unit}"
