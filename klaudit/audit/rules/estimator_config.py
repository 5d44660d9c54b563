"""KLA404 estimator_config."""

from collections.abc import Iterator, Sequence

from klaudit.audit.episode import Judgement
from klaudit.audit.observation import Observation
from klaudit.audit.rule import NOTHING, Rule, RuleParameters
from klaudit.exchange.frameworks import FRAMEWORKS, Framework
from klaudit.exchange.frameworks.framework import Misleading, describe_moving_reference, describe_truncated_sampling
from klaudit.exchange.frameworks.trl_grpo import NO_REFERENCE
from klaudit.exchange.metric_map import resolve_series
from klaudit.records import PRIMARY, Finding, Run, Severity
from klaudit.records.series import KIND_LABELS

REMEDY_INFO = "Read and compare the KL of this run as what it is; klaudit drift measure gives a KL of the checkpoints that is the same for every trainer."
REMEDY_WARNING = "Change the setting: use k2 in the loss, or k1 in the reward, whose gradients are that of the KL."


class EstimatorConfigParameters(RuleParameters):
    """Parameters of KLA404: none."""


class EstimatorConfig(Rule[EstimatorConfigParameters]):
    """A KL is not quite what its name says, by the trainer's settings.

    What it checks:
        What klaudit's table of the run's trainer says of its KLs under the run's arguments: estimators whose gradient is another in the
        loss or the reward, KLs that are no drift (KTO, AsyncGRPO), sums over padding (OnlineDPO), square roots (trlX), means over several
        steps (logging_steps), estimates that are cut off. Of a run without a known trainer: what its declared series say of themselves.
        A reference that moves is told by KLA401, truncated sampling by KLA703, a KL that cannot be had by KLA301.

    Formula:
        One finding a trap, at the first step. Warning where a setting certainly does not do what it is for: k1 in the loss, whose
        gradient is 0 on average. Else info: know what the number is.

    Why it matters:
        The same name is another number in another trainer: `kl` alone means four things within TRL 1.16. Limits and comparisons that do
        not know it are wrong without a sign of it.

    Parameters and where the defaults come from:
        None (rule R29 of the catalogue). The tables are klaudit/exchange/frameworks, each with file and lines of the trainer that it was
        read from; gradients: Tang and Munos, arXiv 2506.09477, and Liu et al., arXiv 2510.01555.

    What to do:
        Change a setting that does nothing. Otherwise compare this KL with none of another kind, estimator or unit; klaudit drift measure
        gives one of the checkpoints that is the same for every trainer.

    Example finding:
        verl: actor/kl_loss is k1 in the loss, whose gradient is 0 on average: the penalty holds the policy to nothing.
    """

    code = "KLA404"
    name = "estimator_config"
    version = 1
    severities = (Severity.INFO, Severity.WARNING)
    parameters_model = EstimatorConfigParameters

    def __init__(self, run: Run, *, parameters: EstimatorConfigParameters, budgets: object = ()) -> None:
        super().__init__(run, parameters=parameters)
        self.framework = find_table(run)
        self.is_declared_otherwise = False
        self._has_begun = False

    def observe(self, observation: Observation) -> Sequence[Finding]:
        """See Rule."""
        if self._has_begun:
            return ()
        self._has_begun = True
        self.needs = NOTHING
        findings: list[Finding] = []
        for note in self._list_traps():
            is_misleading = isinstance(note, Misleading)
            episode = self.start_episode(series=None, subject=note, quiet_steps=1)
            judgement = Judgement(
                severity=Severity.WARNING if is_misleading else Severity.INFO,
                badness=float(is_misleading),
                message=f"{'By its series' if self.framework is None else self.framework.title}: {note}.",
                remedy=REMEDY_WARNING if is_misleading else REMEDY_INFO,
                evidence={
                    "trainer": None if self.framework is None else self.framework.title,
                    "source": None if self.framework is None else self.framework.source,
                    "told": note,
                },
            )
            finding = episode.observe(observation.record, judgement)
            self.episodes.remove(episode)
            if finding is not None:
                findings.append(finding)
        return findings

    def explain_silence(self) -> Iterator[str]:
        """See Rule."""
        if self.framework is None:
            yield "the run names no trainer whose settings klaudit knows; only the declared series were looked at"
        elif self.is_declared_otherwise:
            yield f"the run declares its KL otherwise than {self.framework.title} by its table, so only the declared series were looked at"

    def _list_traps(self) -> list[str]:
        run, framework = self.run, self.framework
        if framework is None:
            return list_declared_traps(run)
        # Not by the version: a live audit does not know it yet at the first step, and must say what a later one says.
        series, notes = resolve_series(framework, arguments=run.config, logged=list_source_keys(run))
        declared, expected = run.series.get(PRIMARY), series.get(PRIMARY)
        if declared is None or expected is None or (declared.kind, declared.estimator) != (expected.kind, expected.estimator):
            self.is_declared_otherwise = True
            return list_declared_traps(run)
        told_elsewhere = {NO_REFERENCE, *describe_moving_reference(run.config), *describe_truncated_sampling(run.config)}
        return [note for note in dict.fromkeys(notes) if note not in told_elsewhere]


def find_table(run: Run) -> Framework | None:
    """The table of a run's trainer; of several with its name and algorithm the one that has most of its keys."""
    fitting = [one for one in FRAMEWORKS if (one.name, one.algorithm) == (run.framework, run.algorithm)]
    keys = list_source_keys(run)
    return max(fitting, key=lambda one: len(keys & one.series.keys()), default=None)


def list_source_keys(run: Run) -> set[str]:
    """The trainer's names of a run's KLs."""
    return {one.source_key for one in run.series.values() if one.source_key is not None}


def list_declared_traps(run: Run) -> list[str]:
    """What the series of a run say of themselves."""
    traps = []
    primary = run.series.get(PRIMARY)
    if primary is not None and primary.kind in ("baseline", "mismatch", "update"):
        traps.append(f"kl is the {KIND_LABELS[primary.kind]} and no drift from the reference")
    governing = run.governing_key
    if governing is not None and run.series[governing].aggregation == "window_mean":
        traps.append(f"each reading of {governing} is a mean over several steps, so single steps cannot be seen")
    traps += [
        f"{key} is k2, whose mean is above the KL to the reference, the more so the further away the policy is"
        for key, one in sorted(run.series.items())
        if one.kind == "reference" and one.estimator == "k2"
    ]
    return traps
