"""KLA609 slice_divergence."""

import math
from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field

from klaudit.audit.checkpoint_profiles import list_latest_profiles
from klaudit.audit.episode import Episode, Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import NOTHING, Rule, RuleParameters
from klaudit.records import DriftProfile, Finding, KLBudget, Run, Severity, SliceContrast
from klaudit.records.non_finite import encode_json


class SliceDivergenceParameters(RuleParameters):
    """Parameters of KLA609."""

    significance: float = Field(
        default=0.01, gt=0, lt=1, description="p value, corrected for the number of slices, below which noise does not explain a difference"
    )
    warning_ratio: float = Field(default=2.0, gt=1, description="KL per token of a slice over that of all other prompts that is told")
    critical_ratio: float = Field(default=10.0, gt=1, description="lower end of the 95% interval of that ratio that is critical")
    least_nats: float = Field(default=1e-3, ge=0, description="KL of a slice below which nothing is told, in nats/token")


class SliceDivergence(Rule[SliceDivergenceParameters]):
    """The policy is far from the reference on one slice of the prompts, and near it on the others.

    What it checks:
        What `klaudit drift measure` found of each checkpoint on prompts that name their slice: each slice against all other prompts, by
        whole-vocabulary KL in nats per token. Of a checkpoint measured twice, the later measurement.

    Formula:
        p < significance, KL of the slice / KL of the rest > warning_ratio, and the lower end of the slice's 95% interval > least_nats:
        warning. The lower end of the ratio's 95% interval > critical_ratio as well: critical. p is two-sided, of log ratio 0 with prompts as
        clusters, and corrected for the number of slices (Holm 1979).

    Why it matters:
        A mean over all prompts hides a change that shows only under a condition: a trigger phrase, a language, a topic. A budget on the
        mean is then kept while the behaviour that matters has moved.

    Parameters and where the defaults come from:
        significance 0.01 a checkpoint. warning_ratio 2 and critical_ratio 10 are judgements: a policy drifts more on the prompts that it
        is trained on than on others without anything being hidden. least_nats 1e-3 is the mismatch that NeMo-RL's guide accepts.

    What to do:
        Read the completions of the slice side by side on the page Drift. If the slice is what was trained on, expect it; if it is not,
        look for what it shares: a phrase, a format, a source of training data. Measure again with more prompts of the slice.

    Example finding:
        On slice 'trigger' checkpoint checkpoint-40 is 0.81 nats/token from the reference, 31 times (12 to 78 times) as far as on the other prompts.
    """

    code = "KLA609"
    name = "slice_divergence"
    version = 1
    severities = (Severity.WARNING, Severity.CRITICAL)
    parameters_model = SliceDivergenceParameters
    needs = NOTHING

    def __init__(self, run: Run, *, parameters: SliceDivergenceParameters, budgets: Iterable[KLBudget] = ()) -> None:
        super().__init__(run, parameters=parameters)
        self._has_contrasts = False

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule: steps say nothing of slices."""
        del observation
        return ()

    def observe_profiles(self, profiles: Iterable[DriftProfile]) -> Iterator[Finding]:
        """See Rule."""
        episodes: dict[str, Episode] = {}
        for profile in list_latest_profiles(profiles, run_id=self.run.id):
            for contrast in profile.contrasts:
                self._has_contrasts = True
                if contrast.slice not in episodes:
                    episodes[contrast.slice] = self.start_episode(series="drift", subject=contrast.slice, quiet_steps=1)
                finding = episodes[contrast.slice].observe_at(profile.step or 0, self._judge(contrast, profile=profile), segment=0)
                if finding is not None:
                    yield finding

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not self._has_contrasts:
            yield "no measured drift of a checkpoint on prompts of two or more slices"

    def _judge(self, contrast: SliceContrast, *, profile: DriftProfile) -> Judgement | None:
        parameters, ratio = self.parameters, contrast.ratio
        is_beyond_noise = contrast.p_value < parameters.significance
        if not (is_beyond_noise and ratio.value > parameters.warning_ratio and contrast.value.low > parameters.least_nats):
            return None
        far = (
            f"{ratio.value:.3g} times ({ratio.low:.3g} to {ratio.high:.3g} times) as far as"
            if math.isfinite(ratio.value)
            else "and not at all"
        )
        return Judgement(
            severity=Severity.CRITICAL if ratio.low > parameters.critical_ratio else Severity.WARNING,
            badness=ratio.value,
            message=f"On slice {contrast.slice!r} checkpoint {profile.checkpoint} is {contrast.value.value:.3g} nats/token from the reference, "
            f"{far} on the other prompts.",
            remedy="Read the slice's completions side by side, look for what they share, and measure again with more prompts of the slice.",
            value=ratio.value,
            threshold=parameters.warning_ratio,
            unit="times the KL of the other prompts",
            evidence=encode_json(
                {
                    "checkpoint": profile.checkpoint,
                    "step": profile.step,
                    "slice": contrast.slice,
                    "slice_nats_per_token": [contrast.value.value, contrast.value.low, contrast.value.high],
                    "rest_nats_per_token": [contrast.rest.value, contrast.rest.low, contrast.rest.high],
                    "ratio": [ratio.value, ratio.low, ratio.high],
                    "p_value_holm": contrast.p_value,
                    "n_prompts": contrast.n_prompts,
                }
            ),
        )
