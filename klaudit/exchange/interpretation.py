"""From what a file says of each step to a run: keys are given their meaning, and steps their order."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidRecord
from klaudit.exchange.metric_map import (
    EVALUATION,
    UNKNOWN_TRAINER,
    Framework,
    detect_framework,
    find_beta,
    find_framework,
    find_scales,
    is_step,
    read_logs,
    resolve_series,
)
from klaudit.exchange.own_keys import extend_framework
from klaudit.exchange.reader import ImportedRun, LoggedValues, ReadOptions, name_run, refuse, shorten
from klaudit.exchange.secrets import describe_arguments
from klaudit.records import PRIMARY, UNDECLARED, KLSeries, Run, StepRecord, find_governing_series
from klaudit.records.non_finite import NON_FINITE

PEEKED = 500
"""Entries that are looked at before it is said what the keys mean."""
KL_NAMES = ("kl", "kl_div", "kl_divergence", "kl_mean", "mean_kl")
"""What a trainer that nobody knows may call its KL, behind whatever prefix; of what kind it is, the name does not say."""
PLACES = frozenset({"step", "segment", "time"})
"""Columns that say where a number belongs; the readers look at them."""
MOST_KEYS = 10_000
"""Names in one run; a file with more is no log of steps."""
LONGEST_KEY = 500
LARGEST_STEP = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a file says of a run besides its steps."""

    name: str | None = None
    began_at: datetime | None = None
    """Also the time of steps that have none; without it that is the time of the first step, else of the file's last change."""
    planned_steps: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """The trainer's arguments, as JSON."""
    framework: str | None = None
    """Label of the trainer, such as `trl-grpo`, where the format is its own."""
    part: str = ""
    """Which run of the file, where it may hold several: its id or name there."""


def interpret(
    logged: Iterable[LoggedValues], *, path: Path, options: ReadOptions, facts: RunFacts = RunFacts(), notes: Iterable[str] = ()
) -> ImportedRun:
    """A run from what a file says of each step.

    The first 500 entries tell what the keys mean. Entries of one step that follow each other are one step. A step smaller than the one
    before it begins a new segment, as a resume does. What is no number is left out, and a note says so.

    Args:
        logged: in the order in which it was logged.
        path: of the file.
        options: what the person says of it, which goes before what the file says.
        facts: what the file says of the run.
        notes: for the person; a list may be added to while the steps are read.

    Raises:
        InvalidImportFile: no step, a column or a framework that does not exist; while the steps are read, also one that cannot be kept.
    """
    stream = iter(logged)
    peeked = list(islice(stream, PEEKED))
    if not peeked:
        raise refuse(path, "expected steps; there are none")
    keys = dict.fromkeys(key for one in peeked for key in one.values)
    meaning = _find_meaning(keys, path=path, options=options, facts=facts)
    began_at = facts.began_at or peeked[0].logged_at or datetime.fromtimestamp(path.stat().st_mtime, UTC)
    name = options.name or facts.name or name_run(path, options)
    try:
        run = Run(
            id="",
            name=name,
            status="finished",
            started_at=began_at,
            algorithm=meaning.framework.algorithm if meaning.is_known else None,
            framework=meaning.framework.name if meaning.is_known else None,
            beta=find_beta(meaning.framework, facts.config),
            planned_steps=facts.planned_steps,
            series=meaning.series,
            config=describe_arguments(facts.config),
        )
    except InvalidRecord as error:
        raise refuse(path, error) from error
    said: list[str] = notes if isinstance(notes, list) else list(notes)
    said.extend(meaning.notes)
    steps = _read_steps(chain(peeked, stream), meaning=meaning, began_at=began_at, notes=said)
    return ImportedRun(run=run, steps=steps, notes=said, part=facts.part)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What the keys of a file mean."""

    framework: Framework
    series: Mapping[str, KLSeries]
    arguments: Mapping[str, Any]
    """The trainer's."""
    notes: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        return self.framework.name != UNKNOWN_TRAINER.name

    def list_numbers(self) -> frozenset[str]:
        """Keys, without the framework's prefix, whose values must be numbers."""
        return frozenset({one.source_key or key for key, one in self.series.items()} | {*self.framework.score, *self.framework.beta})


def _find_meaning(keys: Mapping[str, object], *, path: Path, options: ReadOptions, facts: RunFacts) -> _Meaning:
    for name, column in options.columns.items():
        if name not in PLACES and column not in keys:
            raise refuse(path, f"expected a column {column!r} for {name}; there are {shorten(', '.join(keys), 300)}")
    framework = _find_framework(keys, options, facts)
    if framework is UNKNOWN_TRAINER:
        # That nobody knows the keys is said by what the KL is taken for.
        framework = replace(framework, standard_error_suffix="_se", notes=())
    own = _find_own_keys(keys, framework, options)
    names = {column.removeprefix(framework.prefix): name for name, column in options.columns.items() if name in options.series}
    extended = replace(extend_framework(framework, own), series_keys={**framework.series_keys, **names})
    series, notes = resolve_series(extended, arguments=facts.config, logged=keys)
    return _Meaning(extended, _promote(series, own), facts.config, notes)


def _find_own_keys(keys: Mapping[str, object], framework: Framework, options: ReadOptions) -> dict[str, KLSeries | str]:
    """What the person says of keys, and what the keys of a trainer that nobody knows are by their names; without the framework's prefix."""
    columns = {name: column for name, column in options.columns.items() if name not in PLACES}
    own: dict[str, KLSeries | str] = dict(options.metric_map)
    if framework.name == UNKNOWN_TRAINER.name:
        guessed = {name: name for name in ("score", "beta") if name in keys and name not in own.values()}
        free = [key for key in keys if key not in own and key not in columns.values()]
        kl = next((key for name in KL_NAMES for key in free if key.rpartition("/")[2] == name), None)
        columns = {**guessed, **({} if kl is None else {PRIMARY: kl}), **columns}
    elif PRIMARY in options.series:
        primary = resolve_series(framework, arguments={}, logged=keys)[0][PRIMARY].source_key
        columns = {PRIMARY: primary or PRIMARY, **columns}
    for key, declared in options.series.items():
        own[columns.get(key, key)] = declared
    for name, column in columns.items():
        if name not in options.series:
            own[column] = UNDECLARED if name == PRIMARY else name
    return {key.removeprefix(framework.prefix): meaning for key, meaning in own.items()}


def _promote(series: Mapping[str, KLSeries], own: Mapping[str, KLSeries | str]) -> Mapping[str, KLSeries]:
    """The step's own `kl` is the governing series; where none governs, it is what the person, or its name, says to be a KL."""
    sources = {one.source_key: key for key, one in series.items()}
    kls = (key for key, meaning in own.items() if isinstance(meaning, KLSeries) and meaning.kind in ("reference", "unknown"))
    promoted = next((sources[key] for key in kls if key in sources), PRIMARY)
    if promoted == PRIMARY or find_governing_series(series) is not None:
        return series
    return {PRIMARY: series[promoted]} | {key: one for key, one in series.items() if key not in (promoted, PRIMARY)}


def _find_framework(keys: Mapping[str, object], options: ReadOptions, facts: RunFacts) -> Framework:
    if options.framework is not None:
        return find_framework(options.framework)
    if facts.framework is not None:
        return find_framework(facts.framework)
    return detect_framework(keys, arguments=facts.config) or UNKNOWN_TRAINER


def _read_steps(logged: Iterator[LoggedValues], *, meaning: _Meaning, began_at: datetime, notes: list[str]) -> Iterator[StepRecord]:
    """Records in order of segment and step; `notes` is complete after the last."""
    names: set[str] = set()
    left_out: set[str] = set()
    n_evaluations = 0
    place: tuple[int, int] | None = None
    beta, scales = find_beta(meaning.framework, meaning.arguments), find_scales(meaning.framework, meaning.arguments)
    prefix, must_be_numbers = meaning.framework.prefix, meaning.list_numbers()
    for one, is_training in _join_entries(logged, meaning.framework):
        if not is_training:
            n_evaluations += 1
            continue
        place = _find_place(one, after=place)
        numbers = _take_numbers(one, names=names, left_out=left_out, must_be=lambda key: key.removeprefix(prefix) in must_be_numbers)
        try:
            yield read_logs(
                numbers,
                framework=meaning.framework,
                series=meaning.series,
                step=place[1],
                segment=place[0],
                logged_at=one.logged_at or began_at,
                beta=beta,
                scales=scales,
            )
        except InvalidRecord as error:
            raise refuse(one.where, error) from error
    if n_evaluations:
        notes.append(f"{n_evaluations} entries of evaluations between the logged steps are left out: they are no steps of training")
    if left_out:
        notes.append(f"what is no number is left out: {shorten(', '.join(sorted(left_out)), 200)}")


def _join_entries(logged: Iterator[LoggedValues], framework: Framework) -> Iterator[tuple[LoggedValues, bool]]:
    """Entries of one step that follow each other as one, and whether it is one of training."""
    current: LoggedValues | None = None
    is_training = False
    for one in logged:
        if current is not None and (one.step, one.segment) == (current.step, current.segment):
            current = replace(current, values=_join_values(current, one, framework), logged_at=one.logged_at or current.logged_at)
            is_training = is_training or _is_training(one.values)
            continue
        if current is not None:
            yield current, is_training
        current, is_training = one, _is_training(one.values)
    if current is not None:
        yield current, is_training


def _is_training(values: Mapping[str, Any]) -> bool:
    """Trackers write `eval/loss` for the trainer's `eval_loss`, and `train/` before everything else."""
    names = {key.removeprefix("train/"): value for key, value in values.items()}
    return is_step(names) and any(not name.startswith("eval/") for name in names)


def _join_values(current: LoggedValues, one: LoggedValues, framework: Framework) -> dict[str, Any]:
    for key in one.values.keys() & current.values.keys():
        if key not in framework.ignored and not key.startswith(EVALUATION) and not _is_same(one.values[key], current.values[key]):
            came = f"{shorten(repr(current.values[key]))} and {shorten(repr(one.values[key]))}"
            raise refuse(one.where, f"expected one value a step; step {one.step} has {came}", field=key)
    return {**current.values, **one.values}


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) or (isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other))


def _find_place(one: LoggedValues, *, after: tuple[int, int] | None) -> tuple[int, int]:
    """Segment and step."""
    if not 0 <= one.step <= LARGEST_STEP:
        raise refuse(one.where, f"expected a whole number from 0 to 2^63 - 1; got {shorten(one.step)}", field="step")
    if after is None:
        return (one.segment or 0, one.step)
    segment, step = after
    if one.segment is None:
        return (segment + (one.step <= step), one.step)
    place = (one.segment, one.step)
    if place <= after:
        raise refuse(
            one.where, f"expected steps that go up; segment {one.segment}, step {one.step} comes after segment {segment}, step {step}"
        )
    return place


def _take_numbers(one: LoggedValues, *, names: set[str], left_out: set[str], must_be: Callable[[str], bool]) -> dict[str, float | None]:
    numbers: dict[str, float | None] = {}
    for key, value in one.values.items():
        if key not in names:
            _require_key(key, one.where, names)
        number = NON_FINITE.get(value, value) if isinstance(value, str) else value
        if number is None or isinstance(number, (int, float)):
            try:
                numbers[key] = None if number is None else float(number)
            except OverflowError as error:
                raise refuse(one.where, f"expected a number that a float can hold; got {shorten(number, 40)}", field=key) from error
        elif must_be(key):
            raise refuse(one.where, f"expected a number; got {shorten(repr(value))}", field=key)
        elif len(left_out) < MOST_KEYS:
            left_out.add(key)
    return numbers


def _require_key(key: str, where: str, names: set[str]) -> None:
    if len(key) > LONGEST_KEY or len(names) >= MOST_KEYS:
        what = f"names of at most {LONGEST_KEY} characters" if len(key) > LONGEST_KEY else f"at most {MOST_KEYS} names in a run"
        raise refuse(where, f"expected {what}; got {shorten(key)!r}{'' if len(key) > LONGEST_KEY else ' beyond them'}")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise refuse(where, f"expected names in UTF-8; got {shorten(ascii(key))}") from error
    names.add(key)
