"""The governing KL as the change rules see it: what has changed, and what became of the last jump."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from klaudit.audit.detection import DetectionParameters
from klaudit.audit.detection import Detector as DetectorName
from klaudit.detectors.baseline import RollingMedian
from klaudit.detectors.change import Change
from klaudit.detectors.kl_change import KLChangeDetector
from klaudit.detectors.resolution import count_decimals
from klaudit.detectors.window_change import WindowChangeDetector
from klaudit.detectors.z_score import ZScoreDetector
from klaudit.records import KLReading, Run

NOMINAL_LENGTH = 100.0
"""Tokens a sequence where a series in nats per token comes without lengths."""
NOMINAL_BATCH = 64
"""Sequences a step where nobody says how many."""
LEAST_KL = 2.25e-4
"""Nats per sequence: d = 0.015, below which no KL is told from zero."""
NOTABLE_KL = 0.05
"""Nats per sequence: d = 0.22, at which no observer tells more than 16% of the samples apart (Pinsker's inequality)."""
SMALL_KL = 1.0
"""Nats per sequence: the slope of a smaller KL must be clearer. No change below it is critical either (rule R06 of the catalogue)."""
LEAST_SD = 7e-4
"""Nats per sequence: the least noise."""
COARSE = 4
"""Decimals up to which a series counts as rounded by a log."""
SE_SHARE = 0.8
"""Share of the standard error that the batches give, below which the noise is never taken to be."""
SE_WINDOW = 41
"""Readings whose median standard error is meant: a burst of noise is a change and must not excuse itself."""
OUTLIER_ERRORS = 1.5
"""Standard errors of its own batch within which an outlier lies: it is 1 if one sequence made it, and 1.4 or more if two did."""
OUTLIER_SHARE = 1.5
"""Times its usual share of the KL that the standard error of an outlier is at least: in a jump that all sequences share it grows with them."""
KEPT = 20
"""Readings that go with a finding as evidence."""
SPIKE_STEPS = 3
"""Readings within which a jump must be back to have been a spike."""
BACK_SHARE = 0.5
"""Of the jump that must be gone."""

Outcome = Literal["spike", "level shift"]


class Detector(Protocol):
    """What a change detector does."""

    def observe(self, value: float, *, position: float) -> Change | None:
        """Judge the next value, then take it in."""


@dataclass(frozen=True, slots=True)
class KLChange:
    """A change of the governing KL at one step."""

    change: Change
    detector: DetectorName
    """Who says so."""
    reading: KLReading
    sd: float
    """Of one reading around what was expected, in the series' unit; NaN where the detector has none."""
    is_outlier: bool
    """A jump that one or two sequences of the batch make, by the batch's own standard error."""
    expected_per_sequence: float
    """What was expected, in nats per sequence, of NOMINAL_LENGTH where no length is known."""
    value_per_sequence: float
    """What came, in nats per sequence, likewise."""
    window: tuple[tuple[int, float], ...]
    """Step and value of the readings before, in the series' unit."""


@dataclass(frozen=True, slots=True)
class JumpOutcome:
    """What became of a jump."""

    kind: Outcome
    step: int
    """Of the reading that decided it."""
    last_off_step: int
    """The last step at which the KL was still off."""
    n_readings: int
    """After the jump, up to and with the one that decided it."""
    value: float
    """The reading that decided it, in the series' unit."""
    expected: float
    """What was expected at the jump, in the series' unit."""


class ChangeWatch:
    """Feeds the governing series to the policy's detector, segment by segment."""

    def __init__(self, run: Run, detection: DetectionParameters) -> None:
        self.run = run
        self.detection = detection
        self.begin_segment()

    def begin_segment(self) -> None:
        """Forget the last segment."""
        self._detector: Detector | None = None
        self._window: deque[tuple[int, float]] = deque(maxlen=KEPT)
        self._jump: tuple[float, float, int] | None = None
        self._n_since_jump = 0

    def observe(self, reading: KLReading | None, *, step: int) -> tuple[KLChange | None, JumpOutcome | None]:
        """Judge the next governing reading; one that is absent, NaN or infinite is left out, so that nothing is told of its step."""
        if reading is None or reading.value is None or not math.isfinite(reading.value):
            return None, None
        if self._detector is None:
            self._detector = build_detector(self.detection, run=self.run, first=reading)
        if isinstance(self._detector, KLWatch):
            self._detector.take_error(reading.standard_error)
        change = self._detector.observe(reading.value, position=step)
        outcome = self._follow_jump(reading.value, step=step)
        told = None if change is None else self._describe(change, reading=reading)
        # Only klaudit's own jumps are followed: the others are told as W&B tells them.
        if change is not None and change.kind == "jump" and isinstance(self._detector, KLWatch):
            self._jump, self._n_since_jump = (change.expected, reading.value, step), 0
        self._window.append((step, reading.value))
        return told, outcome

    def _follow_jump(self, value: float, *, step: int) -> JumpOutcome | None:
        if self._jump is None:
            return None
        expected, height, last_off = self._jump
        self._n_since_jump += 1
        if value < expected + (1 - BACK_SHARE) * (height - expected):
            self._jump = None
            return JumpOutcome("spike", step=step, last_off_step=last_off, n_readings=self._n_since_jump, value=value, expected=expected)
        self._jump = (expected, height, step)
        if self._n_since_jump < SPIKE_STEPS:
            return None
        self._jump = None
        return JumpOutcome("level shift", step=step, last_off_step=step, n_readings=SPIKE_STEPS, value=value, expected=expected)

    def _describe(self, change: Change, *, reading: KLReading) -> KLChange:
        assert reading.value is not None
        own = self._detector if isinstance(self._detector, KLWatch) else None
        factor = (reading.mean_length or NOMINAL_LENGTH) if reading.series.unit == "nats_per_token" else 1.0
        return KLChange(
            change=change if self.detection.detector == "klaudit" else replace(change, kind="jump"),
            detector=self.detection.detector,
            reading=reading,
            sd=math.nan if own is None else own.sd,
            is_outlier=own is not None and own.is_outlier(change, reading.value),
            expected_per_sequence=change.expected * factor,
            value_per_sequence=reading.value * factor,
            window=tuple(self._window),
        )


class KLWatch:
    """klaudit's own detector, told the noise that a reading has at least."""

    def __init__(self, *, run: Run, first: KLReading, false_alarms_per_1000: float) -> None:
        per_token = first.series.unit == "nats_per_token"
        length = (first.mean_length or NOMINAL_LENGTH) if per_token else 1.0
        is_sampled = first.series.estimator == "k1"
        n_sequences = first.n_sequences or run.batch_size or NOMINAL_BATCH
        least = max(LEAST_KL, 0.5 / n_sequences) if is_sampled else LEAST_KL
        self._least_sd = LEAST_SD / length
        self._errors = RollingMedian(SE_WINDOW)
        self._error: float | None = None
        self._decimals = 0
        self._detector = KLChangeDetector(
            noise="sampling" if is_sampled else "proportional",
            least=least / length,
            notable=NOTABLE_KL / length,
            small=SMALL_KL / length,
            false_alarms_per_1000=false_alarms_per_1000,
        )

    @property
    def sd(self) -> float:
        """Of the last value around its forecast, in the series' unit."""
        return math.nan if self._detector.surprise is None else self._detector.surprise.sd

    def take_error(self, standard_error: float | None) -> None:
        """The standard error of the reading that comes next, in the series' unit."""
        self._error = standard_error
        if standard_error is not None:
            self._errors.observe(standard_error)

    def is_outlier(self, change: Change, value: float) -> bool:
        """Whether one or two sequences of the latest batch explain a jump: with one of them off by D, x - e = D / n = s."""
        usual = self._errors.find()
        if change.kind != "jump" or self._error is None or usual is None or not math.isfinite(self._error):
            return False
        return value - change.expected < OUTLIER_ERRORS * self._error and self._error * change.expected > OUTLIER_SHARE * usual * value

    def observe(self, value: float, *, position: float) -> Change | None:
        """See Detector."""
        error = SE_SHARE * (self._errors.find() or 0.0)
        rounding = 0.0
        if self._decimals <= COARSE:
            self._decimals = max(self._decimals, count_decimals(value))
            rounding = 10.0**-self._decimals if self._decimals <= COARSE else 0.0
        return self._detector.observe(value, position=position, least_sd=max(math.hypot(self._least_sd, error), rounding))

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"errors": self._errors.state_dict(), "decimals": self._decimals, "detector": self._detector.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._errors.load_state_dict(state["errors"])
        self._decimals = state["decimals"]
        self._detector.load_state_dict(state["detector"])


def build_detector(detection: DetectionParameters, *, run: Run, first: KLReading) -> Detector:
    """The detector that a policy asks for, made for the series that `first` is of."""
    if detection.detector == "z_score":
        return ZScoreDetector(window=detection.z_window, limit=detection.z_limit)
    if detection.detector == "window_change":
        return WindowChangeDetector(recent=detection.recent_window, earlier=detection.earlier_window, limit=detection.change_limit)
    return KLWatch(run=run, first=first, false_alarms_per_1000=detection.false_alarms_per_1000)
