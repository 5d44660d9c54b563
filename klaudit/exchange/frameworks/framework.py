"""What one trainer's keys mean, as data; and what its arguments change about it."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from klaudit.records import KLSeries
from klaudit.records.series import Aggregation, Direction, Estimator, Kind, Unit

Series: TypeAlias = Mapping[str, KLSeries]
"""The trainer's key -> what that KL is."""
Arguments: TypeAlias = Mapping[str, Any]
"""A trainer's arguments: flat, nested, or flat with dots in the names."""
Checked: TypeAlias = Literal["run", "logger", "read"]

Place: TypeAlias = Literal["loss", "reward"]
"""Where a trainer puts the KL that it penalises."""

CHECKED_LABELS: Mapping[Checked, str] = {
    "run": "trained with in klaudit's tests",
    "logger": "its own logger is driven in klaudit's tests, no training",
    "read": "read in its source, never run",
}

ESTIMATOR_NAMES: Mapping[str, Estimator] = {
    "k1": "k1",
    "kl": "k1",
    "k2": "k2",
    "mse": "k2",
    "k3": "k3",
    "low_var_kl": "k3",
    "full": "full",
}
"""What trainers call an estimator -> what it is; `abs` and whatever else is `unknown`. A `+` at the end changes the gradient only."""


FALLS_BACK = ", so its KL falls back each time; drift from where training began is not this KL"


class Misleading(str):
    """A note of something that certainly does not do, or is not, what it is called."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """What a trainer's arguments make of its series."""

    series: Series
    notes: tuple[str, ...] = ()
    """For a person: sentences without a full stop."""


Settle: TypeAlias = Callable[[Series, Arguments, str | None], Settled]
"""(the framework's series, the trainer's arguments, the trainer's version) -> what they are in this run."""


@dataclass(frozen=True, slots=True)
class Framework:
    """How one trainer names what it logs."""

    name: str
    algorithm: str
    title: str
    """For people, with the versions that it holds for."""
    source: str
    """Where the meanings were read: project, version, file and lines."""
    detected_by: tuple[frozenset[str], ...] = ()
    """Sets of keys; a trainer that logs all of one of them may be this one."""
    series: Series = field(default_factory=dict)
    """The trainer's key -> what that KL is by its defaults; `source_key` is filled in from the key."""
    checked: Checked = "read"
    """How klaudit knows that the table holds."""
    page: str = "others"
    """Of `docs/trainers/`, without the ending."""
    slug: str = ""
    """What a person calls it on the command line; name and algorithm where they are enough."""
    excluded_by: frozenset[str] = frozenset()
    """Keys that this trainer never logs."""
    trainer_classes: frozenset[str] = frozenset()
    """Class names of the trainer."""
    argument_classes: frozenset[str] = frozenset()
    """Class names of its arguments."""
    argument_names: frozenset[str] = frozenset()
    """Arguments that only this trainer has, all of them."""
    prefix: str = "train/"
    """What trackers put before this trainer's keys, and klaudit takes away."""
    series_keys: Mapping[str, str] = field(default_factory=dict)
    """The trainer's key -> klaudit's series key, where it differs."""
    optional: frozenset[str] = frozenset()
    """Keys of series that are logged under some settings only; where one is not logged, nothing is said of it."""
    declared_by_user: frozenset[str] = frozenset()
    """Keys of series that a person declared: no argument of the trainer changes them."""
    standard_error_suffix: str | None = None
    """A KL's standard error is logged under its key and this suffix."""
    estimator_arguments: Mapping[str, str] = field(default_factory=dict)
    """The trainer's key -> the argument that names its estimator."""
    temperature_argument: str | None = "temperature"
    """The argument that holds the temperature at which both policies are scored."""
    clamps: Mapping[str, float] = field(default_factory=dict)
    """The trainer's key -> the value per token, in nats, at which the estimate is cut off on both sides."""
    clamped_estimators: frozenset[Estimator] = frozenset(("k1", "k2", "k3"))
    """The estimators that are cut off, where `clamps` says so."""
    is_window_mean: bool = False
    """Each line is a mean over the steps since the one before: `logging_steps` of Hugging Face's Trainer."""
    score: tuple[str, ...] = ()
    """Keys of the raw reward; the first that is logged counts."""
    beta: tuple[str, ...] = ()
    """Keys of the KL coefficient; the first that is logged counts. Empty: only the arguments know it."""
    beta_arguments: tuple[str, ...] = ()
    """Arguments that hold the KL coefficient; the first that is there counts."""
    adaptive_argument: str | None = None
    """The argument whose presence says that beta changes, so that the arguments do not know it."""
    penalty: str | None = None
    """Key of beta x KL (or minus that, where it is in `negated`), in the unit of the series below: beta can be implied from the two."""
    penalised: str | None = None
    """Key of the KL that `penalty` is made of."""
    beta_multiples: Mapping[str, float] = field(default_factory=dict)
    """Keys of series that are logged as beta x KL x this number."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The trainer's key -> klaudit's metric name, where it differs."""
    negated: frozenset[str] = frozenset()
    """Keys of metrics whose sign is the opposite of klaudit's."""
    ignored: frozenset[str] = frozenset(("epoch", "global_step"))
    """Keys that say nothing about a step."""
    find_scales: Callable[[Arguments], Mapping[str, float]] | None = None
    """The arguments -> by which number the trainer multiplies what it logs under a key, and should not."""
    find_places: Callable[[Arguments], Mapping[str, Place]] | None = None
    """The arguments -> where the KL of a key is penalised, for those whose gradient is the plain one of their estimator."""
    settle: Settle | None = None
    notes: tuple[str, ...] = ()
    """What holds for every run of this trainer: sentences without a full stop."""
    reads_should_stop: bool = True
    """Whether the trainer heeds `control.should_training_stop`."""

    @property
    def label(self) -> str:
        """What a person calls it: `trl-grpo`."""
        return self.slug or f"{self.name}-{self.algorithm}"


def describe_reference(estimator: Estimator, unit: Unit, *, aggregation: Aggregation | None = None) -> KLSeries:
    """KL(policy || reference): nats per sequence as a mean over sequences, nats per token as a mean over tokens, unless said otherwise."""
    usual: Aggregation = "batch_mean" if unit == "nats_per_sequence" else "token_mean"
    return KLSeries(kind="reference", estimator=estimator, unit=unit, aggregation=aggregation or usual)


def describe_token_kl(kind: Kind, estimator: Estimator, *, direction: Direction, aggregation: Aggregation = "token_mean") -> KLSeries:
    """A KL in nats per token that is not the governed one; `forward` where the samples are of the older distribution, which stands first."""
    return KLSeries(kind=kind, estimator=estimator, unit="nats_per_token", aggregation=aggregation, direction=direction)


def describe_log_ratio() -> KLSeries:
    """Mean log(policy / reference) over texts that the policy did not sample: drift of a kind, and the KL of nothing.

    Its expectation is KL(policy || reference) only under the policy's own samples. So its kind and estimator stay unknown, and it is
    drawn but compared with no budget.
    """
    return KLSeries(kind="unknown", unit="nats_per_sequence", aggregation="batch_mean", direction="unknown")


def find_argument(arguments: Arguments, name: str) -> Any:
    """An argument by its name, whose dots may be part of the name or lead into nested mappings; None where there is none."""
    if name in arguments:
        return arguments[name]
    found: Any = arguments
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def find_number(arguments: Arguments, name: str) -> float | None:
    """A finite number among the arguments; None for anything else, also for true and false."""
    value = find_argument(arguments, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def find_estimator(arguments: Arguments, name: str) -> Estimator | None:
    """The estimator that an argument names: `unknown` for a name that klaudit does not know, None where the argument is not there."""
    value = find_argument(arguments, name)
    if value is None:
        return None
    return ESTIMATOR_NAMES.get(str(value).removesuffix("+"), "unknown")


def is_at_least(version: str, least: tuple[int, ...]) -> bool:
    """Whether a version such as `1.12.0.dev0` is at or after a release."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return numbers is not None and tuple(map(int, numbers[0].split("."))) >= least


def change_series(series: Series, keys: frozenset[str] | set[str], **changes: Any) -> Series:
    """The same series, those under some keys with other fields."""
    return {key: replace(one, **changes) if key in keys else one for key, one in series.items()}


def describe_moving_reference(arguments: Arguments) -> tuple[str, ...]:
    """What to say of a trainer whose reference follows its policy (TRL 1.16.0 trl/trainer/callbacks.py lines 116-154; slime's --ref-update-interval)."""
    interval = find_number(arguments, "ref_update_interval")
    if interval is not None and interval > 0:
        return (f"ref_update_interval makes the policy the reference every {interval:g} rollouts{FALLS_BACK}",)
    if not find_argument(arguments, "sync_ref_model"):
        return ()
    alpha, every = find_number(arguments, "ref_model_mixup_alpha"), find_number(arguments, "ref_model_sync_steps")
    how = "" if alpha is None or every is None else f": every {every:g} steps {alpha:g} of the policy is mixed into it"
    return (f"sync_ref_model moves the reference{how}{FALLS_BACK}",)


def describe_place(key: str, *, place: Place, estimator: Estimator) -> tuple[str, ...]:
    """What to say of a KL that is penalised where its estimator's gradient is not that of KL(policy || reference).

    Source: Tang and Munos, arXiv 2506.09477; Liu et al., arXiv 2510.01555. It is with k2 in the loss, and with k1 in the reward.
    """
    if place == "loss" and estimator == "k1":
        return (Misleading(f"{key} is k1 in the loss, whose gradient is 0 on average: the penalty holds the policy to nothing"),)
    if place == "loss" and estimator == "k3":
        return (f"{key} is k3 in the loss, whose gradient is that of KL(reference || policy) and not of KL(policy || reference)",)
    if place == "reward" and estimator in ("k2", "k3"):
        return (f"{key} is {estimator} in the reward, whose gradient is not that of KL(policy || reference)",)
    return ()


def describe_truncated_sampling(arguments: Arguments) -> tuple[str, ...]:
    """What to say where sampling leaves out tokens that scoring knows."""
    top_k, top_p, min_p = (find_number(arguments, name) for name in ("top_k", "top_p", "min_p"))
    # Which value of top_k samples from the whole vocabulary: 0, -1 or nothing, by version.
    cut = [f"top_k {top_k:g}"] if top_k is not None and top_k > 0 else []
    cut += [f"top_p {top_p:g}"] if top_p is not None and top_p < 1 else []
    cut += [f"min_p {min_p:g}"] if min_p is not None and min_p > 0 else []
    if not cut:
        return ()
    return (f"sampling is truncated ({', '.join(cut)}) and scoring is not, so the estimate is biased",)
