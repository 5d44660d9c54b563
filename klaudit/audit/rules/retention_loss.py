"""KLA610 retention_loss."""

import math
from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field, model_validator

from klaudit.audit.checkpoint_profiles import list_latest_profiles
from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import NOTHING, Rule, RuleParameters
from klaudit.records import DriftProfile, Finding, KLBudget, Run, Severity
from klaudit.records.non_finite import encode_json


class RetentionLossParameters(RuleParameters):
    """Parameters of KLA610."""

    warning_nats: float = Field(default=0.05, gt=0, description="rise of the negative log-likelihood that is a warning, in nats/token")
    critical_nats: float = Field(default=0.25, gt=0, description="rise of the negative log-likelihood that is critical, in nats/token")

    @model_validator(mode="after")
    def _check_order(self) -> "RetentionLossParameters":
        if self.critical_nats < self.warning_nats:
            raise ValueError(f"critical_nats must not be below warning_nats; got {self.critical_nats!r} and {self.warning_nats!r}")
        return self


class RetentionLoss(Rule[RetentionLossParameters]):
    """The policy predicts ordinary text worse than the reference does.

    What it checks:
        What `klaudit drift measure` found of each checkpoint on text that neither was sampled from: negative log-likelihood per token of
        checkpoint and reference on the same passages. Of a checkpoint measured twice, the later measurement.

    Formula:
        Lower end of the 95% interval of the rise (checkpoint minus reference, paired by passage) > critical_nats: critical; > warning_nats:
        warning. Perplexity grows by the factor exp(rise).

    Why it matters:
        KL is measured where the policy goes, and so says little of what it no longer says: a policy that has forgotten most of what the
        reference knew can be near it on its own few sentences. Perplexity on text of the reference's kind shows the loss.

    Parameters and where the defaults come from:
        warning_nats 0.05 is 5% more perplexity, critical_nats 0.25 is 28%: judgements. The text is the project's small default unless a
        file was given, and the default stands for general English prose only.

    What to do:
        Read what the checkpoint writes on prompts far from training. Mix pretraining text into the updates (PPO-ptx, Ouyang et al. 2022),
        raise beta, or go back to an earlier checkpoint. Measure with text of the domain that has to be kept.

    Example finding:
        Checkpoint checkpoint-60 predicts 'passages' worse than the reference by 0.31 nats/token (0.27 to 0.35): perplexity 29.4 instead of 21.6.
    """

    code = "KLA610"
    name = "retention_loss"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = RetentionLossParameters
    needs = NOTHING

    def __init__(self, run: Run, *, parameters: RetentionLossParameters, budgets: Iterable[KLBudget] = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.episode = self.start_episode(series="drift", quiet_steps=1)
        self._is_measured = False

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule: steps say nothing of retention."""
        del observation
        return ()

    def observe_profiles(self, profiles: Iterable[DriftProfile]) -> Iterator[Finding]:
        """See Rule."""
        for profile in list_latest_profiles(profiles, run_id=self.run.id):
            if profile.retention is None:
                continue
            self._is_measured = True
            finding = self.episode.observe_at(profile.step or 0, self._judge(profile), segment=0)
            if finding is not None:
                yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self._is_measured:
            yield "no measured retention of a checkpoint"

    def _judge(self, profile: DriftProfile) -> Judgement | None:
        retention, parameters = profile.retention, self.parameters
        assert retention is not None
        rise = retention.rise
        is_lost = not math.isfinite(rise.value)
        if not is_lost and rise.low <= parameters.warning_nats:
            return None
        before, after = (_find_perplexity(one) for one in (retention.reference_nats.value, retention.policy_nats.value))
        is_critical = is_lost or rise.low > parameters.critical_nats
        by = "without bound" if is_lost else f"by {rise.value:.3g} nats/token ({rise.low:.3g} to {rise.high:.3g})"
        return Judgement(
            severity=Severity.CRITICAL if is_critical else Severity.WARNING,
            badness=math.inf if is_lost else rise.value,
            message=f"Checkpoint {profile.checkpoint} predicts {retention.text!r} worse than the reference {by}: "
            f"perplexity {after:.3g} instead of {before:.3g}.",
            remedy="Read what it writes far from training; mix pretraining text into the updates, raise beta, or go back to an earlier checkpoint.",
            value=rise.value,
            threshold=parameters.critical_nats if is_critical else parameters.warning_nats,
            unit="nats_per_token",
            evidence=encode_json(
                {
                    "checkpoint": profile.checkpoint,
                    "step": profile.step,
                    "text": retention.text,
                    "text_digest": retention.text_digest,
                    "policy_nats_per_token": retention.policy_nats.value,
                    "reference_nats_per_token": retention.reference_nats.value,
                    "rise_nats_per_token": [rise.value, rise.low, rise.high],
                    "n_tokens": retention.n_tokens,
                    "n_passages": retention.n_passages,
                }
            ),
        )


def _find_perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
