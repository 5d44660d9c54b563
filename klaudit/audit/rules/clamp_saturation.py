"""KLA305 clamp_saturation."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation, complete_reading
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.detectors.resolution import find_resolution
from klaudit.exchange.frameworks import FRAMEWORKS
from klaudit.records import PRIMARY, UNIT_LABELS, Finding, KLReading, KLSeries, Run, Severity, StepRecord


class ClampSaturationParameters(RuleParameters):
    """Parameters of KLA305."""

    clamp_share: float = Field(default=0.5, gt=0, le=1, description="mean KL per token over the trainer's clamp that is a finding")
    window: int = Field(default=12, ge=4, le=1000, description="last readings that are looked at for a ceiling")
    ties: int = Field(
        default=3, ge=2, le=1000, description="readings of the window exactly at its highest value that a ceiling needs at least"
    )
    chance: float = Field(default=1e-4, gt=0, lt=1, description="probability below which so many ties are no chance of rounding")


class ClampSaturation(Rule[ClampSaturationParameters]):
    """The KL is cut off at a ceiling, so the true one is higher and unknown.

    What it checks:
        The series that the trainer is known to clamp, else the governing one, else the step's own `kl`. Its mean per token against the
        clamp in klaudit's table of trainers (10 nats per token in OpenRLHF, verl, SkyRL, NeMo-RL, AReaL and Unsloth). Metrics whose
        names hold `kl` and `max`, against the same clamp. And, of any trainer, whether the series sits at a ceiling.

    Formula:
        Mean KL per token > clamp_share x clamp. Largest token >= clamp. Ceiling: of the last `window` readings at least `ties` equal
        their maximum exactly, with smaller ones between them, and C(window - 1, n - 1) p^(n - 1) < chance, where n is the number of
        ties and p = r / (maximum - mean of the smaller ones), r the resolution in which the readings are written. Readings of 0 or
        below are no ceiling. Equal readings in one row are KLA302's.

    Why it matters:
        A clamped estimate has no gradient and no upper end: the policy moves on while KL, penalty and every budget stand still.

    Parameters and where the defaults come from:
        clamp_share 0.5: rule R26 of the catalogue; a mean of half the clamp needs many tokens at it. window and ties: a value of many
        digits does not come back even once by chance, so three of twelve are beyond doubt, and twelve are enough where a third of the readings is cut off; chance keeps out series that are printed with
        few decimals, where the highest value is often shared: at 1e-4 simulated ones of two to nine decimals give fewer than 0.01 false
        alarms per 1,000 steps, because only a reading that is a tie is asked for its chance.

    What to do:
        Stop, take the last checkpoint before the ceiling, and go on with a lower learning rate or a higher beta. Measure the KL without
        a clamp: klaudit's probe, or `klaudit drift measure`.

    Example finding:
        KL to reference (k3, nats/token) sits at a ceiling: 3 of the last 12 readings are exactly 0.412731 nats/token and none is above, at step 57.
    """

    code = "KLA305"
    name = "clamp_saturation"
    version = 1
    severities = (Severity.CRITICAL,)
    parameters_model = ClampSaturationParameters

    def __init__(self, run: Run, *, parameters: ClampSaturationParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        clamps = find_clamps(run)
        self.key = next(iter(clamps), run.governing_key or PRIMARY)
        self.clamp = clamps.get(self.key)
        self.episode = self.start_episode(series=self.key, quiet_steps=parameters.window)
        self.n_readings = 0
        self.reset()

    def reset(self) -> None:
        """See Rule."""
        self._window: deque[float] = deque(maxlen=self.parameters.window)
        self._maxima: list[str] = []
        self._n_metrics = -1

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        record = observation.record
        reading = record.kl if self.key == PRIMARY else record.readings.get(self.key)
        if reading is None or reading.value is None or not math.isfinite(reading.value):
            return ()
        self.n_readings += 1
        judgement = self._judge_ceiling(reading, reading.value, step=record.step)
        if self.clamp is not None:
            judgement = self._judge_mean(record, clamp=self.clamp) or self._judge_token(record, clamp=self.clamp) or judgement
        if judgement is None and not self.episode.is_open:
            return ()
        finding = self.episode.observe(record, judgement)
        return () if finding is None else (finding,)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_readings:
            yield f"no finite reading of the series {self.key!r}"
        elif self.clamp is None:
            yield "klaudit knows no clamp of this trainer's KL, so only a ceiling in the series itself would be seen"

    def _judge_ceiling(self, reading: KLReading, value: float, *, step: int) -> Judgement | None:
        window = self._window
        is_tie = value > 0 and value in window
        window.append(value)
        if not is_tie:
            return None
        values = list(window)
        n_ties = values.count(value)
        if n_ties < self.parameters.ties or value < max(values) or not self._is_ceiling(values, value, n_ties=n_ties):
            return None
        unit = UNIT_LABELS[reading.series.unit]
        return Judgement(
            severity=Severity.CRITICAL,
            badness=n_ties,
            message=f"{reading.series.label} sits at a ceiling: {n_ties} of the last {len(values)} readings are exactly {value:.6g} {unit} "
            f"and none is above, at step {step}.",
            remedy="Take the last checkpoint before the ceiling and go on with a lower learning rate or a higher beta; measure the KL without a clamp.",
            value=value,
            threshold=value,
            unit=reading.series.unit,
            evidence={"kind": "ceiling", "ceiling": value, "n_ties": n_ties, "readings": values},
        )

    def _is_ceiling(self, values: list[float], ceiling: float, *, n_ties: int) -> bool:
        first, last = values.index(ceiling), len(values) - 1 - values[::-1].index(ceiling)
        below = [value for value in values if value < ceiling]
        if not below or last - first + 1 == n_ties:
            return False
        share = min(find_resolution(values) / (ceiling - sum(below) / len(below)), 1.0)
        others = n_ties - 1
        return math.comb(len(values) - 1, others) * share**others < self.parameters.chance

    def _judge_mean(self, record: StepRecord, *, clamp: float) -> Judgement | None:
        reading = complete_reading(record, key=self.key, run=self.run)
        mean = None if reading is None else reading.value_in("nats_per_token")
        if mean is None or not self.parameters.clamp_share * clamp < mean < math.inf:
            return None
        return self._judge_clamped(f"The mean KL per token was {mean:.3g} nats/token", mean, clamp=clamp, kind="mean", step=record.step)

    def _judge_token(self, record: StepRecord, *, clamp: float) -> Judgement | None:
        metrics = record.metrics
        if len(metrics) != self._n_metrics:
            self._n_metrics = len(metrics)
            self._maxima = [name for name in metrics if "kl" in name.lower() and "max" in name.lower()]
        for name in self._maxima:
            largest = metrics.get(name, 0.0)
            if clamp <= largest < math.inf:
                return self._judge_clamped(f"{name} was {largest:.3g} nats", largest, clamp=clamp, kind="token", step=record.step)
        return None

    def _judge_clamped(self, what: str, value: float, *, clamp: float, kind: str, step: int) -> Judgement:
        share = self.parameters.clamp_share if kind == "mean" else 1.0
        return Judgement(
            severity=Severity.CRITICAL,
            badness=value,
            message=f"{what} at step {step}; the trainer cuts each token off at {clamp:g} nats, so the true KL is higher and unknown.",
            remedy="Take the last checkpoint before the ceiling and go on with a lower learning rate or a higher beta; measure the KL without a clamp.",
            value=value,
            threshold=share * clamp,
            unit="nats_per_token",
            evidence={"kind": kind, "clamp": clamp, "value": value},
        )


def find_clamps(run: Run) -> Mapping[str, float]:
    """The run's reference series that its trainer clamps: key -> clamp in nats per token, the governing one first."""
    keys = sorted(run.series, key=lambda key: (key != run.governing_key, key != PRIMARY, key))
    found = {key: _find_clamp(run, run.series[key]) for key in keys if run.series[key].kind == "reference"}
    return {key: clamp for key, clamp in found.items() if clamp is not None}


def _find_clamp(run: Run, series: KLSeries) -> float | None:
    for framework in FRAMEWORKS:
        if framework.name == run.framework and series.estimator in framework.clamped_estimators:
            for key, clamp in framework.clamps.items():
                # A run that was imported by hand says the trainer's name, and not always its keys.
                if series.source_key in (None, key):
                    return clamp
    return None
