"""KLA703 truncated_sampling."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from klaudit.audit.episode import Judgement
from klaudit.audit.mismatch import MEAN_WEIGHTS
from klaudit.audit.observation import Observation
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.records import Finding, Run, Severity

TRUNCATIONS = ("top_k", "top_p", "min_p")
NOT_OF_TRAINING = ("val", "eval", "test")
"""Settings under names that begin so are of validation."""


class TruncatedSamplingParameters(RuleParameters):
    """Parameters of KLA703."""

    least_mass: float = Field(default=0.98, gt=0, lt=1, description="mean importance weight below which sampling counts as truncated")
    steps: int = Field(default=20, ge=2, le=10_000, description="readings in a row below least_mass that make a finding")


class TruncatedSampling(Rule[TruncatedSamplingParameters]):
    """Texts are sampled from a part of the vocabulary and scored as if from all of it.

    What it checks:
        top_k, top_p and min_p among the trainer's arguments, however deep and under whatever prefix, those of validation left out; and
        the mean importance weight between trainer and rollout engine, where TRL or verl log it per token.

    Formula:
        By the arguments: top_k >= 1, top_p < 1 or min_p > 0, told at the run's first step. warning where a KL of the run is estimated
        from sampled tokens (k1, k2, k3) or samples are weighed; info where every KL is `full` or none is known. By the weights:
        warning, the mean weight is below least_mass on `steps` readings in a row. An engine that renormalises over the tokens that
        it kept reports a probability that is too high by their mass, so the mean weight is that mass.

    Why it matters:
        k1 and k3 are unbiased only for samples of the distribution that scores them. Cut sampling shifts them, k1 even below 0, and
        the penalty with them; ratios of new to old then measure the cut and not the update.

    Parameters and where the defaults come from:
        top_k 0, -1 or none and top_p 1 mean the whole vocabulary in TRL, vLLM and verl. least_mass 0.98: rule R22 of the catalogue;
        TRL's issue has a mean weight of 0.896 at top_p 0.8. steps 20, in a row, because the mean weight of a batch scatters; a weight
        per sequence, whose truncation moves its mean, is not judged.

    What to do:
        Sample at top_k 0 and top_p 1 while training, or measure the KL by `full`, with klaudit's probe if the trainer has none.

    Example finding:
        Sampling is truncated (top_k 50, top_p 0.9) and scoring is not: k1 is estimated from samples of another distribution.
    """

    code = "KLA703"
    name = "truncated_sampling"
    version = 1
    severities = (Severity.INFO, Severity.WARNING)
    parameters_model = TruncatedSamplingParameters

    def __init__(self, run: Run, *, parameters: TruncatedSamplingParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.cuts = find_truncations(run.config)
        self.by_arguments = self.start_episode(series=None, subject="arguments", quiet_steps=1)
        self.by_weights = self.start_episode(series=None, subject="weights", quiet_steps=parameters.steps)
        self.is_per_token = not _weighs_sequences(run.config)
        self.needs = None if self.cuts else frozenset(MEAN_WEIGHTS)
        self.is_told = False
        self.n_weights = 0
        self.reset()

    def reset(self) -> None:
        """See Rule; what the arguments say is of the run, and told once."""
        self.recent: deque[tuple[int, float]] = deque(maxlen=self.parameters.steps)
        self._n_below = 0

    def observe(self, observation: Observation) -> Iterator[Finding]:
        """See Rule."""
        if self.cuts and (not self.is_told or self.by_arguments.is_open):
            finding = self.by_arguments.observe(observation.record, None if self.is_told else self._judge_arguments(observation))
            self.is_told = True
            if finding is not None:
                yield finding
        name = next((one for one in MEAN_WEIGHTS if one in observation.record.metrics), None)
        weight = None if name is None else observation.number(name)
        if name is not None and weight is not None and self.is_per_token and not self.cuts:
            yield from self._observe_weight(name, weight, observation=observation)

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if not any(name in TRUNCATIONS for name, _ in _list_settings(self.run.config)) and not self.n_weights:
            yield "neither top_k, top_p nor min_p among the trainer's arguments, and no mean importance weight per token"

    def _observe_weight(self, name: str, weight: float, *, observation: Observation) -> Iterator[Finding]:
        self.n_weights += 1
        self.recent.append((observation.step, weight))
        self._n_below = self._n_below + 1 if weight < self.parameters.least_mass else 0
        if not self._n_below and not self.by_weights.is_open:
            return
        judgement = self._judge_weights(name) if self._n_below >= self.parameters.steps else None
        finding = self.by_weights.observe(observation.record, judgement)
        if finding is not None:
            yield finding

    def _judge_arguments(self, observation: Observation) -> Judgement:
        cut = ", ".join(f"{name} {value:g}" for name, value in self.cuts.items())
        estimators = sorted({one.estimator for one in self.run.series.values()} & {"k1", "k2", "k3"})
        is_weighed = any(name in observation.record.metrics for name in MEAN_WEIGHTS)
        if estimators:
            matters = f"{' and '.join(estimators)} {'are' if len(estimators) > 1 else 'is'} estimated from samples of another distribution"
        elif is_weighed:
            matters = "importance weights take the cut for a difference of policies"
        else:
            matters = "no KL of this run is estimated from samples alone, so it is the texts that differ"
        return Judgement(
            severity=Severity.WARNING if estimators or is_weighed else Severity.INFO,
            badness=0.0,
            message=f"Sampling is truncated ({cut}) and scoring is not: {matters}.",
            remedy="Sample from the whole vocabulary while training (top_k 0, top_p 1), or measure the KL by `full`, with klaudit's probe.",
            evidence={"settings": dict(self.cuts), "estimators": estimators},
        )

    def _judge_weights(self, name: str) -> Judgement:
        weights = [weight for _, weight in self.recent]
        mean = sum(weights) / len(weights)
        return Judgement(
            severity=Severity.WARNING,
            badness=1 - mean,
            message=f"The mean importance weight ({name}) has been below {self.parameters.least_mass:g} for {len(weights)} steps up to step "
            f"{self.recent[-1][0]}, {mean:.3g} on average: the engine samples from a part of the vocabulary, or its weights are cut off.",
            remedy="Look at top_k, top_p and min_p of the rollout engine and whether it reports raw log-probabilities.",
            value=mean,
            threshold=self.parameters.least_mass,
            unit="trainer over engine",
            evidence={"metric": name, "window": {"steps": [step for step, _ in self.recent], "weights": weights}},
            first_step=self.recent[0][0],
        )


def find_truncations(config: Mapping[str, Any]) -> dict[str, float]:
    """Which settings of sampling leave tokens out, by name; those of validation do not count."""
    cuts = {}
    for name, value in _list_settings(config):
        is_cut = (name == "top_k" and value >= 1) or (name == "top_p" and 0 < value < 1) or (name == "min_p" and value > 0)
        if is_cut and name not in cuts:
            cuts[name] = value
    return {name: cuts[name] for name in TRUNCATIONS if name in cuts}


def _list_settings(config: Mapping[str, Any], *, depth: int = 0) -> Iterator[tuple[str, float]]:
    """Numbers of the settings that end in a name of TRUNCATIONS, at most eight levels deep."""
    for key, value in config.items():
        parts = str(key).split(".")
        if any(part.startswith(NOT_OF_TRAINING) for part in parts):
            continue
        if isinstance(value, Mapping) and depth < 8:
            yield from _list_settings(value, depth=depth + 1)
        name = parts[-1].removeprefix("rollout_")
        if name in TRUNCATIONS and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def _weighs_sequences(config: Mapping[str, Any], *, depth: int = 0) -> bool:
    """Whether the arguments say that importance weights are of whole sequences."""
    for key, value in config.items():
        if isinstance(value, Mapping) and depth < 8 and _weighs_sequences(value, depth=depth + 1):
            return True
        name = str(key).split(".")[-1]
        if name in ("vllm_importance_sampling_mode", "importance_sampling_level", "rollout_is") and str(value).startswith("sequence"):
            return True
    return False
