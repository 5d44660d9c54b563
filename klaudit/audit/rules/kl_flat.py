"""KLA302 kl_flat."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.resolution import count_decimals, estimate_repeat_share, find_resolution
from klaudit.records import PRIMARY, UNIT_LABELS, Finding, KLReading, Run, Severity, StepRecord

HISTORY = 40
"""Readings before a flat stretch that tell how often values repeat."""
LEAST_HISTORY = 10
"""Readings below which nothing is known of how often values repeat."""
SMALLEST = 2
"""Steps of a rounded series' resolution below which its values say next to nothing."""
FINE_DECIMALS = 6
"""A number written with as many decimals or more is not rounded for people."""


class KLFlatParameters(RuleParameters):
    """Parameters of KLA302."""

    zero_nats: float = Field(default=1e-12, ge=0, description="a KL whose absolute value is below this counts as zero, in the series' unit")
    zero_steps: int = Field(default=5, ge=2, le=1_000_000, description="steps at zero in a row that make a finding")
    rounded_zero_steps: int = Field(
        default=30,
        ge=2,
        le=1_000_000,
        description="steps in a row at zero, or next to it, that make a warning where rounding may be the reason",
    )
    leading_zero_steps: int = Field(
        default=12,
        ge=2,
        le=1_000_000,
        description="steps at zero from the start that make a warning where rounding is not the reason, but a slow start may be",
    )
    frozen_steps: int = Field(
        default=4, ge=2, le=1_000_000, description="steps at exactly the same value in a row that a finding needs at least"
    )
    chance: float = Field(
        default=1e-4, gt=0, lt=1, description="probability below which a stretch of repeats is no chance of rounding, a share of the steps"
    )


class KLFlat(Rule[KLFlatParameters]):
    """The KL to the reference does not move although the policy is trained.

    What it checks:
        The governing series, or the step's own `kl` where no series governs. Steps at learning rate 0 or gradient norm 0 and step 0 and
        1, where the policy still is the reference, do not count. Metrics of six decimals and more that stopped at the same step are
        named: then it is the log that repeats itself.

    Formula:
        zero, before any other value: |KL| < zero_nats for zero_steps steps in a row. It is info, and a warning with a
        standard error of exactly 0, after leading_zero_steps in nats per sequence, and after rounded_zero_steps otherwise. frozen: KL exactly equal
        to the last one for n steps in a row, with n the least for which p^(n - 1) < chance, and at least frozen_steps (zero_steps of a
        zero). p is the chance that a value repeats lawfully, from the 40 readings before the stretch: the larger of the share of
        repeats among them, plus 1.5 of its standard deviations, and 0.399 r / sd, for Gaussian noise of sd written in steps of r,
        decimal or binary. With fewer than 10 readings before it p is 0.6 of a series of less than 6 decimals and 0 of others. A value of
        at most 2 r needs rounded_zero_steps.

    Why it matters:
        A KL that is exactly zero means that policy and reference are the same object, that the adapter is not trained, or that
        a placeholder is logged. One that repeats to the last digit is a stale metric. Either way no budget watches anything.

    Parameters and where the defaults come from:
        zero_nats and zero_steps: rule R02 of the catalogue, from reports on Unsloth and OpenRLHF. leading_zero_steps: GRPO and
        verl runs log up to 9 zeros before they move. rounded_zero_steps: verl prints three decimals, and its recorded runs show up to 8 zeros in nats per token before the first 0.001; slow starts show more. frozen_steps:
        a number of 7 digits or more never repeats by chance, but trainers that skip an update may log it twice or three times. chance:
        simulated series of three decimals give fewer than 0.02 false alarms per 1,000 steps with 1e-4, because p is an upper estimate.

    What to do:
        Check that the reference is a separate frozen copy, that the optimiser holds the policy's parameters, and that the metric is
        computed anew each step.

    Example finding:
        KL to reference (k1, nats/sequence) has been zero for 5 steps, from step 2 to step 6, while the policy is trained.
    """

    code = "KLA302"
    name = "kl_flat"
    version = 2
    severities = (Severity.INFO, Severity.WARNING)
    parameters_model = KLFlatParameters

    def __init__(self, run: Run, *, parameters: KLFlatParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = run.governing_key or PRIMARY
        self.episode = self.start_episode(series=self.key, quiet_steps=1)
        self.n_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._value = math.nan
        self._first_step = 0
        self._n_steps = 0
        self._needed = 0
        self._had_value = False
        self._last: Mapping[str, float] = {}
        self._before: Mapping[str, float] = {}
        self._at_start: Mapping[str, float] = {}

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        reading = record.kl if self.key == PRIMARY else record.readings.get(self.key)
        if reading is None or reading.value is None or not math.isfinite(reading.value):
            return ()
        self.n_readings += 1
        metrics = record.metrics
        if record.step <= 1 or metrics.get("learning_rate") == 0 or metrics.get("grad_norm") == 0:
            return ()
        value = 0.0 if abs(reading.value) < self.parameters.zero_nats else reading.value
        if value != self._value:
            self._begin_stretch(value, record)
        self._n_steps += 1
        self._last = metrics
        if self._n_steps < self.parameters.frozen_steps and not self.episode.is_open:
            return ()
        finding = self.episode.observe(record, self._judge(reading, record) if self._n_steps >= self._find_needed() else None)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_readings:
            yield f"no finite reading of the series {self.key!r}"

    def _begin_stretch(self, value: float, record: StepRecord) -> None:
        for _ in range(min(self._n_steps, HISTORY)):
            self._history.append(self._value)
        self._had_value = self._had_value or value != 0
        self._value, self._first_step, self._n_steps, self._needed = value, record.step, 0, 0
        self._before, self._at_start = self._last, record.metrics

    def _find_needed(self) -> int:
        """Steps at the same value that make a finding; worked out once a stretch."""
        if not self._needed:
            least = self.parameters.frozen_steps if self._value else self.parameters.zero_steps
            self._needed = max(least, self._find_unlikely_steps()) if self._had_value else least
        return self._needed

    def _find_unlikely_steps(self) -> int:
        history = [*self._history, self._value]
        resolution = find_resolution(history)
        is_rounded = resolution > 10.0**-FINE_DECIMALS
        if is_rounded and abs(self._value) <= SMALLEST * resolution:
            return self.parameters.rounded_zero_steps
        share = 0.6 if is_rounded else 0.0
        if len(history) > LEAST_HISTORY:
            share = estimate_repeat_share(history, resolution=resolution)
        if share >= 1:
            return 1_000_000
        return 1 + math.ceil(math.log(self.parameters.chance) / math.log(share)) if share > 0 else 1

    def _find_certain_steps(self, reading: KLReading) -> int:
        """Zeros from the start that no rounding and no slow start explains."""
        limits = self.parameters
        return limits.leading_zero_steps if reading.series.unit == "nats_per_sequence" else limits.rounded_zero_steps

    def _judge(self, reading: KLReading, record: StepRecord) -> Judgement:
        unit = UNIT_LABELS[reading.series.unit]
        state = f"exactly {self._value:g} {unit}" if self._value else "zero"
        stopped = self._list_stopped(record)
        others = f"; {', '.join(stopped)} stopped with it" if stopped else ""
        is_doubtful = not self._had_value and reading.standard_error != 0 and self._n_steps < self._find_certain_steps(reading)
        doubt = ", unless it has hardly moved yet" if is_doubtful else ""
        return Judgement(
            severity=Severity.INFO if is_doubtful else Severity.WARNING,
            badness=self._n_steps,
            message=f"{reading.series.label} has been {state} for {self._n_steps} steps, from step {self._first_step} to step {record.step}, "
            f"while the policy is trained{doubt}{others}.",
            remedy="Check that the reference is a frozen copy of its own, that the policy's parameters are in the optimiser, and that the KL is computed anew each step.",
            value=float(self._n_steps),
            threshold=float(self._needed),
            unit="steps",
            evidence={
                "kind": "frozen" if self._value else "zero",
                "kl": self._value,
                "unit": reading.series.unit,
                "n_steps": self._n_steps,
                "before": list(islice(self._history, max(len(self._history) - 20, 0), None)),
                "stopped_with_it": stopped,
            },
            first_step=self._first_step,
        )

    def _list_stopped(self, record: StepRecord) -> list[str]:
        """Metrics that changed as the stretch began and not since, rounded ones left out."""
        before, now = self._before, record.metrics
        return [
            name
            for name, value in self._at_start.items()
            if now.get(name) == value and before.get(name, value) != value and count_decimals(value) >= FINE_DECIMALS
        ]
