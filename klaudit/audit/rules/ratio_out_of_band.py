"""KLA502 ratio_out_of_band."""

from collections.abc import Iterator, Sequence

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Severity

RATIO = "ratio"
MOST_RATIOS = ("ratio_max", "sampling/importance_sampling_ratio/max", "probs_ratio_max")
"""Largest ratio of any token or sequence: of the embedded PPO, of TRL's GRPO, of NeMo-RL."""


class RatioOutOfBandParameters(RuleParameters):
    """Parameters of KLA502."""

    most: float = Field(default=2.0, gt=1, description="mean of new over old probability above which it is critical")
    least: float = Field(default=0.1, gt=0, lt=1, description="mean of new over old probability below which it is critical")
    most_of_one: float = Field(
        default=1000.0, gt=1, description="largest ratio of any one token or sequence above which it is critical, where it is logged"
    )
    quiet_steps: int = Field(default=3, ge=1, le=1_000_000, description="steps within the band that end an episode")


class RatioOutOfBand(Rule[RatioOutOfBandParameters]):
    """The ratio of new to old token probabilities has left its band.

    What it checks:
        The metric `ratio`, the mean of new over old probability over tokens; and the largest of all ratios where a trainer logs it:
        ratio_max, sampling/importance_sampling_ratio/max or probs_ratio_max. Numbers that are absent, NaN or infinite are left out.

    Formula:
        critical: ratio > most, ratio < least, or the largest > most_of_one.

    Why it matters:
        Its expectation is 1 under the policy that sampled. A mean of 2 says that one update has doubled the probability of its own
        samples, a single ratio of 1,000 that new and old log-probabilities are not of the same thing: another precision,
        temperature or mask. PPO's clipping bounds the gain of such a token, not the damage of one with a negative advantage.

    Parameters and where the defaults come from:
        most 2 and least 0.1: TRL's documentation of val/ratio names them as updates that are too drastic. most_of_one 1,000: rule R12
        of the catalogue; users of OpenRLHF report 5e8 before a collapse, the embedded PPO far from its reference shows 22.
        On nine recorded curves of TRL's PPO and the embedded one the mean stays between 0.93 and 1.12. quiet_steps 3 is a convention.

    What to do:
        Lower the learning rate or the number of epochs; if the largest ratio is the cause, compare precision, temperature and masks
        of the two passes that scored the sample.

    Example finding:
        ratio was 2.31 at step 47, above 2: one update has changed the probability of its own samples that much.
    """

    code = "KLA502"
    name = "ratio_out_of_band"
    version = 1
    severities = (Severity.CRITICAL,)
    parameters_model = RatioOutOfBandParameters
    needs = frozenset({RATIO, *MOST_RATIOS})

    def __init__(self, run: Run, *, parameters: RatioOutOfBandParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.mean = self.start_episode(series=RATIO, quiet_steps=parameters.quiet_steps)
        self.by_name = {name: self.start_episode(series=name, quiet_steps=parameters.quiet_steps) for name in MOST_RATIOS}
        self.n_readings = 0

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        limits, record = self.parameters, observation.record
        findings: list[Finding] = []
        for name, episode in ((RATIO, self.mean), *self.by_name.items()):
            if name not in record.metrics:
                continue
            ratio = observation.number(name)
            if ratio is None:
                continue
            self.n_readings += 1
            most = limits.most if name == RATIO else limits.most_of_one
            is_low = name == RATIO and ratio < limits.least
            if not is_low and ratio <= most and not episode.is_open:
                continue
            is_out = is_low or ratio > most
            finding = episode.observe(record, self._judge(name, ratio, is_low=is_low, step=record.step) if is_out else None)
            if finding is not None:
                findings.append(finding)
        return findings

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self.n_readings:
            yield f"none of the metrics {', '.join((RATIO, *MOST_RATIOS))}"

    def _judge(self, name: str, ratio: float, *, is_low: bool, step: int) -> Judgement:
        limits = self.parameters
        limit = limits.least if is_low else limits.most if name == RATIO else limits.most_of_one
        meaning = "one update has changed the probability of its own samples that much"
        if name != RATIO:
            meaning = "new and old log-probabilities of one sample can hardly be of the same thing"
        return Judgement(
            severity=Severity.CRITICAL,
            badness=limit / max(ratio, 1e-12) if is_low else ratio / limit,
            message=f"{name} was {ratio:.3g} at step {step}, {'below' if is_low else 'above'} {limit:g}: {meaning}.",
            remedy="Lower the learning rate or the number of epochs; compare precision, temperature and masks of the passes that score a sample.",
            value=ratio,
            threshold=limit,
            unit="new over old probability",
            evidence={"metric": name, "step": step, "ratio": ratio, "limits": limits.model_dump()},
        )
