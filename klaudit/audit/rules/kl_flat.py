"""KLA302 kl_flat."""

from collections.abc import Iterator

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import PRIMARY, UNIT_LABELS, Finding, KLReading, Run, Severity, StepRecord


class KLFlatParameters(RuleParameters):
    """Parameters of KLA302."""

    zero_nats: float = Field(default=1e-12, ge=0, description="a KL whose absolute value is below this counts as zero, in the series' unit")
    zero_steps: int = Field(default=5, ge=2, le=1_000_000, description="steps at zero in a row that make a finding")
    frozen_steps: int = Field(default=10, ge=2, le=1_000_000, description="steps at exactly the same value in a row that make a finding")


class KLFlat(Rule[KLFlatParameters]):
    """The KL to the reference does not move although the policy is trained.

    What it checks:
        The governing series, or the step's own `kl` where no series governs. Steps at learning rate 0 and step 0 and 1, where the
        policy still is the reference, do not count.

    Formula:
        zero: |KL| < zero_nats for zero_steps steps in a row. frozen: KL exactly equal to the last one, and not zero, for frozen_steps
        steps in a row.

    Why it matters:
        A KL that is exactly zero means that policy and reference are the same object, that the adapter is not trained, or that
        a placeholder is logged. One that repeats to the last digit is a stale metric. Either way no budget watches anything.

    Parameters and where the defaults come from:
        zero_nats and zero_steps: rule R02 of the catalogue, from reports on Unsloth and OpenRLHF. frozen_steps: 10, because trainers
        that print three decimals repeat a value for a few steps quite lawfully.

    What to do:
        Check that the reference is a separate frozen copy, that the optimiser holds the policy's parameters, and that the metric is
        computed anew each step.

    Example finding:
        KL to reference (k1, nats/sequence) has been zero for 5 steps, from step 2 to step 6, while the policy is trained.
    """

    code = "KLA302"
    name = "kl_flat"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = KLFlatParameters

    def __init__(self, run: Run, *, parameters: KLFlatParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.key = run.governing_key or PRIMARY
        self.episode = self.start_episode(series=self.key, quiet_steps=1)
        self.n_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._value: float | None = None
        self._first_step = 0
        self._n_steps = 0

    def observe(self, record: StepRecord) -> Iterator[Finding]:
        """See Rule."""
        reading = record.reading(self.key)
        if reading is None or reading.value is None or not reading.is_finite:
            return
        self.n_readings += 1
        if record.step <= 1 or record.metrics.get("learning_rate") == 0:
            return
        value = 0.0 if abs(reading.value) < self.parameters.zero_nats else reading.value
        if value != self._value:
            self._value, self._first_step, self._n_steps = value, record.step, 0
        self._n_steps += 1
        needed = self.parameters.frozen_steps if value else self.parameters.zero_steps
        finding = self.episode.observe(record, self._judge(reading, step=record.step) if self._n_steps >= needed else None)
        if finding is not None:
            yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_readings:
            yield f"no finite reading of the series {self.key!r}"

    def _judge(self, reading: KLReading, *, step: int) -> Judgement:
        assert self._value is not None
        needed = self.parameters.frozen_steps if self._value else self.parameters.zero_steps
        state = f"exactly {self._value:g} {UNIT_LABELS[reading.series.unit]}" if self._value else "zero"
        return Judgement(
            severity=Severity.WARNING,
            badness=self._n_steps,
            message=f"{reading.series.label} has been {state} for {self._n_steps} steps, from step {self._first_step} to step {step}, while the policy is trained.",
            remedy="Check that the reference is a frozen copy of its own, that the policy's parameters are in the optimiser, and that the KL is computed anew each step.",
            value=float(self._n_steps),
            threshold=float(needed),
            unit="steps",
            evidence={
                "kind": "frozen" if self._value else "zero",
                "kl": self._value,
                "unit": reading.series.unit,
                "n_steps": self._n_steps,
            },
            first_step=self._first_step,
        )
