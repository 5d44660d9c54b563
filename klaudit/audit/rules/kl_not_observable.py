"""KLA301 kl_not_observable."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.reference_series import list_reference_series
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import PRIMARY, Finding, Run, Severity, StepRecord


class KLNotObservableParameters(RuleParameters):
    """Parameters of KLA301."""

    absent_steps: int = Field(default=5, ge=1, le=1_000_000, description="recorded steps in a row without a KL that make a finding")
    first_steps: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="the same, of a declared series that was measured once or never: a probe may be due later",
    )
    spacings: float = Field(default=2.0, ge=1, description="the same, in multiples of the widest spacing that was usual before")
    quiet_steps: int = Field(default=100, ge=1, le=1_000_000, description="measured steps that end an episode")


class KLNotObservable(Rule[KLNotObservableParameters]):
    """No KL to the reference of known estimator and unit is on record.

    What it checks:
        Whether a step has a reading of any reference series whose estimator and unit are declared. A reading that is NaN counts: that
        is what KLA303 tells of. A run with beta 0 whose KL is measured, by klaudit's probe or by the trainer, is observable: the
        coefficient does not matter here, the measurement does.

    Formula:
        n steps in a row without such a reading, n >= absent_steps where no series is declared, n >= first_steps where one is and has
        been measured at one step or none, else n >= max(absent_steps, spacings x the widest spacing between two readings so far).

    Why it matters:
        Without a KL there is no distance to the reference, and no budget, change rule or report can say anything of it. GRPO of TRL
        with its default beta 0 loads no reference and logs no KL at all; a KL whose unit nobody declared cannot be held against a budget.

    Parameters and where the defaults come from:
        absent_steps 5: rule R01 of the catalogue. first_steps 20: twice the spacing of klaudit's probe, 10 steps. spacings 2: a probe
        that misses its turn once is late, not gone. quiet_steps 100: one finding a segment, unless the KL is back for good.

    What to do:
        Attach klaudit's probe, which needs no beta, or set beta so that the trainer loads a reference; declare estimator and unit of
        what is logged.

    Example finding:
        No KL to the reference was measured for 5 steps, from step 1 to step 5: no series of known estimator and unit is declared.
    """

    code = "KLA301"
    name = "kl_not_observable"
    version = 1
    severities = (Severity.WARNING,)
    parameters_model = KLNotObservableParameters

    def __init__(self, run: Run, *, parameters: KLNotObservableParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.keys = list_reference_series(run)
        self.governing_key = run.governing_key
        self.episode = self.start_episode(series=self.governing_key, quiet_steps=parameters.quiet_steps)
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._n_absent = 0
        self._n_measured = 0
        self._widest = 1
        self._first_step = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        if observation.governing is not None or self._is_measured(record):
            self._count_reading()
            finding = self.episode.observe(record, None) if self.episode.is_open else None
        else:
            self._first_step = self._first_step if self._n_absent else record.step
            self._n_absent += 1
            finding = self.episode.observe(record, self._judge(observation)) if self._n_absent >= self._find_needed() else None
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule; there is always something to look at."""
        yield from ()

    def _is_measured(self, record: StepRecord) -> bool:
        readings = (record.reading(key) for key in self.keys)
        return any(reading is not None and reading.value is not None for reading in readings)

    def _count_reading(self) -> None:
        if self._n_measured and self._n_absent < self._find_needed():
            self._widest = max(self._widest, self._n_absent + 1)
        self._n_measured += 1
        self._n_absent = 0

    def _find_needed(self) -> float:
        parameters = self.parameters
        if not self.keys:
            return parameters.absent_steps
        if self._n_measured < 2:
            return max(parameters.absent_steps, parameters.first_steps)
        return max(parameters.absent_steps, parameters.spacings * self._widest)

    def _judge(self, observation: Observation) -> Judgement:
        record = observation.record
        reading = record.reading(self.governing_key or PRIMARY)
        if not self.keys:
            why = "no series of known estimator and unit is declared"
        elif reading is not None and reading.not_measured:
            why = reading.not_measured
        else:
            why = f"the step has no {' or '.join(self.keys)}"
        needed = self._find_needed()
        return Judgement(
            severity=Severity.WARNING,
            badness=self._n_absent,
            message=f"No KL to the reference was measured for {self._n_absent} steps, from step {self._first_step} to step {record.step}: {why}.",
            remedy="Attach klaudit's probe, which needs no beta, or set beta so that the trainer loads a reference; declare estimator and unit of what is logged.",
            value=float(self._n_absent),
            threshold=float(needed),
            unit="steps",
            evidence={
                "n_absent": self._n_absent,
                "n_measured": self._n_measured,
                "widest_spacing": self._widest,
                "declared": self.keys,
                "beta": observation.number("beta"),
            },
            first_step=self._first_step,
        )
