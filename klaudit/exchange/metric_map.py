"""From what a trainer logs to a record: whose keys they are, what its arguments make of them, and one step's numbers.

A trainer's `logs` are a flat mapping of names to numbers. Here a name is turned into a KL series with kind, estimator and unit, into
one of klaudit's metric names (`METRIC_NAMES`), or kept as it is. The tables are in `klaudit/exchange/frameworks/`.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from klaudit.errors import InvalidConfig
from klaudit.exchange.frameworks import FRAMEWORKS, HUGGING_FACE_TRAINER, KLAUDIT_PPO, TRL_PPO, Framework
from klaudit.exchange.frameworks.framework import (
    Arguments,
    Series,
    Settled,
    describe_place,
    find_argument,
    find_estimator,
    find_number,
)
from klaudit.records import PRIMARY, UNDECLARED, KLReading, KLSeries, StepRecord, find_governing_series
from klaudit.records.series import Aggregation, Estimator

__all__ = [
    "FRAMEWORKS",
    "KLAUDIT_PPO",
    "TRL_PPO",
    "UNKNOWN_TRAINER",
    "Framework",
    "declare_series",
    "detect_framework",
    "find_beta",
    "find_framework",
    "find_scales",
    "imply_beta",
    "is_step",
    "read_logs",
    "resolve_series",
]

UNKNOWN_TRAINER = Framework(
    name="unknown",
    algorithm="unknown",
    title="unknown",
    slug="unknown",
    source="none: no key is known, and what is logged under `kl` may be anything",
    series={PRIMARY: UNDECLARED},
    prefix="",
    optional=frozenset({PRIMARY}),
    metrics={"lr": "learning_rate"},
    ignored=frozenset({"epoch"}),
    notes=("no trainer that klaudit knows logs these keys; a KL among them is of unknown kind until metric_map says what it is",),
)

END_OF_TRAINING = frozenset({"train_runtime", "train_samples_per_second"})
"""Keys of the summary that Hugging Face's Trainer logs once at the end; it is no step."""

EVALUATION = "eval_"
"""What the keys of an evaluation begin with, which the Trainer logs beside the step that it followed."""

IMPLIED_BETA = "implied_beta"
SMALLEST_KL_FOR_BETA = 1e-4
"""In nats: below it, KL and penalty are rounding of float32 and their ratio says nothing."""

LOGGED_KL = "logged_kl"
"""Series key of a trainer's own `kl` where another series of the run is the primary one."""


def is_step(logs: Mapping[str, Any]) -> bool:
    """Whether logs are those of a training step, and not an evaluation or the summary at the end."""
    return not END_OF_TRAINING & logs.keys() and not any(key.startswith(EVALUATION) for key in logs)


def find_framework(name: str) -> Framework:
    """The framework that a person names, such as `trl-grpo`.

    Raises:
        InvalidConfig: none is called that; the message names those that are.
    """
    for framework in (*FRAMEWORKS, UNKNOWN_TRAINER):
        if name == framework.label:
            return framework
    known = ", ".join(framework.label for framework in FRAMEWORKS)
    raise InvalidConfig(f"expected the name of a trainer; got {name!r}; known are {known}")


def detect_framework(
    logs: Mapping[str, Any],
    *,
    trainer_class: str | None = None,
    arguments_class: str | None = None,
    arguments: Arguments | None = None,
) -> Framework | None:
    """The framework whose keys these are. Never a guess.

    The keys decide where they can. Where several trainers log them, the class of the trainer does, else that of its arguments, else
    an argument that only one of them has. Where those do not tell either, it is UNKNOWN_TRAINER with a note of what it may be.

    Args:
        logs: of one step, or all keys of a file.
        trainer_class: `type(trainer).__name__`.
        arguments_class: `type(args).__name__`, such as `GRPOConfig`.
        arguments: the trainer's arguments by name.

    Returns:
        None where no trainer is known that logs these keys.
    """
    candidates = [one for one in FRAMEWORKS if _match(one, logs)]
    if len(candidates) > 1:
        candidates = [one for one in candidates if one is not HUGGING_FACE_TRAINER]
    by_trainer = [one for one in FRAMEWORKS if trainer_class in one.trainer_classes]
    by_arguments = [one for one in FRAMEWORKS if arguments_class in one.argument_classes]
    given = arguments or {}
    by_names = [one for one in FRAMEWORKS if one.argument_names and all(name in given for name in one.argument_names)]
    for named in (by_trainer, by_arguments, by_names):
        both = [one for one in named if one in candidates]
        if len(both) == 1:
            return both[0]
    # A class says which trainer it is also before it logs what it is known by.
    for named in (by_trainer, by_arguments):
        if len(named) == 1 and (not candidates or candidates == [HUGGING_FACE_TRAINER]):
            return named[0]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    titles = ", ".join(one.title for one in candidates)
    if all(one.series == candidates[0].series for one in candidates):
        most_like = max(candidates, key=lambda one: max(len(needed) for needed in _match(one, logs)))
        note = f"these keys are logged by {titles}, and mean the same in each"
        return replace(most_like, notes=(*most_like.notes, note))
    note = f"these keys are logged by {titles}, and mean different things in each; name the trainer, or say with metric_map what they are"
    return replace(UNKNOWN_TRAINER, notes=(note,))


def _match(framework: Framework, logs: Mapping[str, Any]) -> list[frozenset[str]]:
    """The sets of keys that this trainer is known by and that are there; none where one is there that it never logs."""
    keys = {key.removeprefix(framework.prefix) for key in logs}
    return [] if framework.excluded_by & keys else [needed for needed in framework.detected_by if needed <= keys]


def resolve_series(
    framework: Framework,
    *,
    arguments: Arguments,
    version: str | None = None,
    logged: Collection[str] | None = None,
) -> tuple[dict[str, KLSeries], tuple[str, ...]]:
    """A run's series by klaudit's keys, the best reference series as the primary one `kl`; and what a person should know of them.

    Args:
        framework: whose keys they are.
        arguments: the trainer's, flat or nested; empty where they are not known.
        version: of the trainer, such as `1.16.0`; None where it is not known.
        logged: the keys that the run logs, where they are known: a series that some settings leave out is declared only with its key.

    Returns:
        The series, and notes: sentences without a full stop.
    """
    settled = _settle(framework, arguments, version, logged)
    notes = [*framework.notes, *settled.notes]
    series, more = _apply_estimators(framework, settled.series, arguments)
    notes += more
    series, more = _apply_window(framework, series, arguments)
    notes += more
    notes += _describe_clamps(framework, series)
    notes += _describe_places(framework, series, arguments)
    temperature = find_number(arguments, framework.temperature_argument) if framework.temperature_argument else None
    return _name_series(framework, series, temperature=temperature if temperature and temperature > 0 else None), tuple(notes)


def declare_series(framework: Framework, *, temperature: float | None = None, estimator: Estimator | None = None) -> dict[str, KLSeries]:
    """The series of a framework by its defaults, every one of them; of its arguments only these two are known.

    Args:
        framework: whose keys they are.
        temperature: at which the trainer samples and scores.
        estimator: the trainer's own setting, where it has one (`kl_estimator` of TRL's PPOConfig).
    """
    series = {
        key: replace(one, estimator=estimator) if estimator is not None and key in framework.estimator_arguments else one
        for key, one in framework.series.items()
    }
    return _name_series(framework, series, temperature=temperature)


def _settle(framework: Framework, arguments: Arguments, version: str | None, logged: Collection[str] | None) -> Settled:
    keys = None if logged is None else {key.removeprefix(framework.prefix) for key in logged}
    series = {key: one for key, one in framework.series.items() if keys is None or key in keys or key not in framework.optional}
    if framework.settle is None:
        return Settled(series)
    settled = framework.settle(series, arguments, version)
    given = {key: one for key, one in series.items() if key in framework.declared_by_user}
    return Settled({**settled.series, **given}, settled.notes)


def _apply_estimators(framework: Framework, series: Series, arguments: Arguments) -> tuple[Series, list[str]]:
    changed, notes = dict(series), []
    for key, name in framework.estimator_arguments.items():
        if key not in series or key in framework.declared_by_user or series[key].estimator == "unknown":
            continue
        estimator = find_estimator(arguments, name)
        if estimator is None:
            notes.append(f"{key} is taken for {series[key].estimator}, the default of {name}, which is not among the arguments")
            continue
        changed[key] = replace(series[key], estimator=estimator)
        if estimator == "unknown":
            notes.append(f"{name} is {find_argument(arguments, name)!r}, which is no estimate of a KL that klaudit knows")
    return changed, notes


def _apply_window(framework: Framework, series: Series, arguments: Arguments) -> tuple[Series, list[str]]:
    keys = [key for key in series if key not in framework.declared_by_user]
    if not framework.is_window_mean or not keys:
        return series, []
    aggregation, note = _describe_window(arguments)
    return {key: replace(one, aggregation=aggregation or one.aggregation) if key in keys else one for key, one in series.items()}, note


def _describe_window(arguments: Arguments) -> tuple[Aggregation | None, list[str]]:
    every, strategy = find_number(arguments, "logging_steps"), find_argument(arguments, "logging_strategy")
    # An enum of transformers, or its value.
    if getattr(strategy, "value", strategy) == "epoch":
        return "window_mean", ["each line is a mean over an epoch (logging_strategy), so single steps cannot be seen"]
    if every is None:
        return "unknown", ["each line is a mean over logging_steps steps (10 by TRL's default), and how many is not known"]
    if every == 1:
        return None, []
    many = f"{every:g} steps" if every > 1 else f"{every:.3g} of the training"
    return "window_mean", [f"each line is a mean over {many} (logging_steps), so single steps cannot be seen"]


def _describe_clamps(framework: Framework, series: Series) -> list[str]:
    return [
        f"each token's part of {key} is cut off at {limit:g} nats on both sides, so a large KL reads low"
        for key, limit in framework.clamps.items()
        if key in series and series[key].estimator in framework.clamped_estimators
    ]


def _describe_places(framework: Framework, series: Series, arguments: Arguments) -> list[str]:
    places = {} if framework.find_places is None else framework.find_places(arguments)
    notes: list[str] = []
    for key, place in places.items():
        # A `+` makes the gradient another one, that of k2 (verl 0.9.1 core_algos.py lines 2188-2247).
        is_corrected = str(find_argument(arguments, framework.estimator_arguments.get(key, ""))).endswith("+")
        if key in series and not is_corrected:
            notes += describe_place(key, place=place, estimator=series[key].estimator)
    return notes


def _name_series(framework: Framework, series: Series, *, temperature: float | None) -> dict[str, KLSeries]:
    primary = _find_primary(framework, series)
    declared: dict[str, KLSeries] = {}
    for source_key, one in series.items():
        own = source_key in framework.declared_by_user
        key = PRIMARY if source_key == primary else framework.series_keys.get(source_key, source_key)
        if key == PRIMARY and source_key != primary:
            key = LOGGED_KL
        declared[key] = replace(one, source_key=source_key, temperature=one.temperature if own else temperature)
    if PRIMARY not in declared:
        declared[PRIMARY] = replace(UNDECLARED, source_key=PRIMARY if framework.name == UNKNOWN_TRAINER.name else None)
    return declared


def _find_primary(framework: Framework, series: Series) -> str | None:
    """The governing series; where none governs, what the trainer calls `kl`, else its KL to the reference, else one without another name."""
    governing = find_governing_series(series)
    if governing is not None or not series:
        return governing
    if PRIMARY in series:
        return PRIMARY
    unnamed = (key for key in series if key not in framework.series_keys)
    return next((key for key, one in series.items() if one.kind == "reference"), None) or next(unnamed, None)


def find_scales(framework: Framework, arguments: Arguments) -> Mapping[str, float]:
    """The trainer's key -> the number by which the trainer multiplies what it logs there, and should not; `read_logs` divides by it."""
    return {} if framework.find_scales is None else framework.find_scales(arguments)


def find_beta(framework: Framework, arguments: Arguments) -> float | None:
    """The KL coefficient of a trainer's arguments; None where they do not know it, because it is adaptive or not there.

    A list, as OnlineDPO takes one for each epoch, has a beta where it holds a single one.
    """
    if framework.adaptive_argument is not None and find_argument(arguments, framework.adaptive_argument):
        return None
    found: list[float] = []
    for name in framework.beta_arguments:
        value = find_argument(arguments, name)
        number = find_number({name: value[0]} if isinstance(value, (list, tuple)) and len(value) == 1 else arguments, name)
        found += [] if number is None else [number]
    # Of several coefficients one is in use and the others are 0.
    return next((number for number in found if number), found[0] if found else None)


def imply_beta(*, penalty: float | None, kl: float | None) -> float | None:
    """The KL coefficient that a penalty was made with: penalty / KL. None where either is missing or the KL is too small to tell.

    Args:
        penalty: beta x KL, in units of reward.
        kl: in the nats that the penalty was made of.
    """
    if penalty is None or kl is None or not (math.isfinite(penalty) and math.isfinite(kl)) or abs(kl) < SMALLEST_KL_FOR_BETA:
        return None
    implied = penalty / kl
    return implied if math.isfinite(implied) else None


def read_logs(
    logs: Mapping[str, Any],
    *,
    framework: Framework,
    series: Mapping[str, KLSeries],
    step: int,
    segment: int,
    logged_at: datetime,
    beta: float | None = None,
    n_sequences: int | None = None,
    scales: Mapping[str, float] | None = None,
) -> StepRecord:
    """One step's logs as a record.

    A number that is None, as TRL logs it when every micro-batch was NaN, is NaN: it was computed, and was not a number. What is no
    number at all, such as a histogram, is left out.

    Args:
        logs: what the trainer logged.
        framework: whose keys they are.
        series: the run's series, as `resolve_series` or `declare_series` made them.
        step: the trainer's global step.
        segment: of the run.
        logged_at: now, with a time zone.
        beta: KL coefficient from the trainer's arguments, for trainers that do not log it.
        n_sequences: sequences in the batch.
        scales: the trainer's key -> by what to divide its number, as `find_scales` gives it.
    """
    numbers = {key.removeprefix(framework.prefix): number for key, value in logs.items() if (number := _to_number(value)) is not None}
    for key in (scales or {}).keys() & numbers.keys():
        numbers[key] /= (scales or {})[key]
    logged_beta = _find_first(numbers, framework.beta)
    beta = beta if logged_beta is None else logged_beta
    mean_length = _find_first(numbers, [key for key in numbers if framework.metrics.get(key, key) == "response_length"])
    consumed = {*framework.ignored, *framework.score, *framework.beta}
    readings: dict[str, KLReading] = {}
    for key, described in series.items():
        source_key = described.source_key or key
        consumed |= {source_key, f"{source_key}{framework.standard_error_suffix or ''}"}
        reading = _read_kl(numbers, described, framework=framework, beta=beta)
        if reading.value is not None:
            reading = replace(reading, n_sequences=n_sequences, mean_length=mean_length)
        elif key != PRIMARY and source_key in framework.optional:
            continue
        readings[key] = reading
    metrics = {
        framework.metrics.get(key, key): -number if key in framework.negated else number
        for key, number in numbers.items()
        if key not in consumed
    }
    implied = _imply_beta_of(numbers, framework)
    return StepRecord(
        step=step,
        segment=segment,
        logged_at=logged_at,
        kl=readings.pop(PRIMARY),
        readings=readings,
        beta=beta,
        score=_find_first(numbers, framework.score),
        metrics=metrics if implied is None else {**metrics, IMPLIED_BETA: implied},
    )


def _read_kl(numbers: Mapping[str, float], described: KLSeries, *, framework: Framework, beta: float | None) -> KLReading:
    key = described.source_key
    if key is None:
        return KLReading.absent(described, "this trainer logs no KL to the reference")
    if key not in numbers:
        return KLReading.absent(described, f"the trainer did not log {key} at this step")
    value = numbers[key]
    if key in framework.beta_multiples:
        divisor = framework.beta_multiples[key] * (beta or 0.0)
        if not divisor or not math.isfinite(divisor):
            return KLReading.absent(described, f"{key} is a multiple of beta, and beta is not known at this step")
        value /= divisor
    error = numbers.get(key + framework.standard_error_suffix) if framework.standard_error_suffix else None
    # A negative one is no standard error, whatever wrote it.
    return KLReading(described, value, None if error is not None and error < 0 else error)


def _imply_beta_of(numbers: Mapping[str, float], framework: Framework) -> float | None:
    if framework.penalty is None or framework.penalised is None:
        return None
    implied = imply_beta(penalty=numbers.get(framework.penalty), kl=numbers.get(framework.penalised))
    return -implied if implied is not None and framework.penalty in framework.negated else implied


def _find_first(numbers: Mapping[str, float], keys: Iterable[str]) -> float | None:
    return next((numbers[key] for key in keys if key in numbers), None)


def _to_number(value: Any) -> float | None:
    if value is None:
        return math.nan
    if isinstance(value, str):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
