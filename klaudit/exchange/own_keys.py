"""Keys that a person says the meaning of, because no trainer that klaudit knows logs them: `metric_map=` and its file."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidConfig, InvalidRecord
from klaudit.exchange.frameworks.framework import Framework
from klaudit.records import PRIMARY, KLSeries

METRIC_NAMES = (
    "entropy",
    "response_length",
    "heldout_score",
    "kl_penalty",
    "rlhf_reward",
    "clip_fraction",
    "ratio",
    "grad_norm",
    "eos_fraction",
    "distinct_2",
    "learning_rate",
)
"""Metrics with a meaning."""

TARGETS = ("score", "beta", *METRIC_NAMES)
"""What a key may be said to be, besides a KL and a name of the person's own."""

SERIES_FIELDS = tuple(field.name for field in fields(KLSeries))


def extend_framework(framework: Framework, metric_map: Mapping[str, KLSeries | str]) -> Framework:
    """A framework that also knows a person's keys; what the person says goes before what the table says.

    Args:
        framework: whose keys the others are; UNKNOWN_TRAINER where nobody knows them.
        metric_map: the trainer's key -> what that KL is, or `score`, `beta`, a metric of klaudit's such as `entropy`, or a name of
            one's own.

    Raises:
        InvalidConfig: a name that looks like a slip of one of klaudit's, two keys with one name, a KL that is given a name in place of
            a KLSeries, or a KLSeries for what the trainer logs as something else.
    """
    _require_targets(framework, metric_map)
    series = {key: one for key, one in metric_map.items() if isinstance(one, KLSeries)}
    names = {key: one for key, one in metric_map.items() if isinstance(one, str)}
    score, beta = (tuple(key for key, name in names.items() if name == field) for field in ("score", "beta"))
    metrics = {key: name for key, name in names.items() if name not in ("score", "beta")}
    kept = {key: name for key, name in framework.metrics.items() if name not in metrics.values() and key not in {*names, *series}}
    return replace(
        framework,
        series={**framework.series, **series},
        declared_by_user=framework.declared_by_user | series.keys(),
        optional=framework.optional - series.keys(),
        beta_multiples={key: factor for key, factor in framework.beta_multiples.items() if key not in series},
        estimator_arguments={key: name for key, name in framework.estimator_arguments.items() if key not in series},
        clamps={key: limit for key, limit in framework.clamps.items() if key not in series},
        score=score or framework.score,
        beta=beta or framework.beta,
        metrics=kept | metrics,
        negated=framework.negated - metrics.keys(),
        ignored=framework.ignored - metric_map.keys(),
    )


def read_metric_map(path: Path) -> dict[str, KLSeries | str]:
    """Read a metric map (TOML): the trainer's key, in quotes, and what it is.

    Example of one: `"my/reward" = "score"`, and `"my/kl" = { kind = "reference", estimator = "k1", unit = "nats_per_token" }`.

    Raises:
        InvalidConfig: no such file, no TOML, or an entry that is neither a name nor a KL's description; one line that names file and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path}: expected a metric map; {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidConfig(f"{path}: expected TOML; {error or 'nested too deep'}") from error
    return {key: value if isinstance(value, str) else _read_series(value, where=f"{path}: {key!r}") for key, value in content.items()}


def _read_series(value: Any, *, where: str) -> KLSeries:
    if not isinstance(value, dict):
        raise InvalidConfig(f'{where}: expected a name such as "score" or a table such as {{ estimator = "k1" }}; got {value!r:.80}')
    unknown = sorted(value.keys() - set(SERIES_FIELDS))
    if unknown:
        raise InvalidConfig(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(SERIES_FIELDS)}")
    try:
        return KLSeries(**value)
    except (InvalidRecord, TypeError) as error:
        raise InvalidConfig(f"{where}: {error}") from error


def _require_targets(framework: Framework, metric_map: Mapping[str, KLSeries | str]) -> None:
    taken: dict[str, str] = {}
    for key, target in metric_map.items():
        where = f"metric_map[{key!r}]"
        if not isinstance(key, str) or not key:
            raise InvalidConfig(f"metric_map: expected the name of a logged number; got {key!r}")
        if isinstance(target, KLSeries):
            _require_kl(framework, key, target, where=where)
        elif isinstance(target, str):
            _require_name(framework, key, target, where=where)
            if target in taken:
                raise InvalidConfig(f"{where}: {target!r} is already what {taken[target]!r} is; one name has one key")
            taken[target] = key
        else:
            raise InvalidConfig(f"{where}: expected a KLSeries or a name such as 'score'; got {target!r:.80}")


def _require_kl(framework: Framework, key: str, series: KLSeries, *, where: str) -> None:
    if series.source_key not in (None, key):
        raise InvalidConfig(f"{where}: its source_key is {series.source_key!r}; leave it out or write {key!r}")
    known = dict.fromkeys(framework.score, "its score") | dict.fromkeys(framework.beta, "its beta")
    known |= {one: f"{name}, which is no KL" for one, name in framework.metrics.items() if name in METRIC_NAMES}
    if key in known:
        raise InvalidConfig(f"{where}: {framework.title} logs {known[key]} under this key; a KLSeries does not describe it")


def _require_name(framework: Framework, key: str, name: str, *, where: str) -> None:
    if not name.strip():
        raise InvalidConfig(f"{where}: expected a name such as 'score'; got {name!r}")
    series_keys = {PRIMARY, *framework.series_keys.values(), *framework.series}
    if name in series_keys or name == "kl_update":
        raise InvalidConfig(f"{where}: {name!r} is a KL, and a KL never travels alone; give a KLSeries that says its estimator and unit")
    if key in framework.series and framework.series[key].kind != "unknown":
        raise InvalidConfig(f"{where}: {framework.title} logs a KL under this key; it cannot be {name!r}")
    if name not in TARGETS and (near := difflib.get_close_matches(name.lower(), TARGETS, n=1, cutoff=0.75)):
        raise InvalidConfig(f"{where}: {name!r} is no name of klaudit's; did you mean {near[0]!r}? Its names are {', '.join(TARGETS)}")
