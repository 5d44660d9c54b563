"""Track B: recorded curves, and what is planted on them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from klaudit.assets import locate_asset
from klaudit.detectors.score import Planted
from klaudit.records.non_finite import decode_float, encode_float
from tests.bench.detection.kinds import CURVE_KINDS
from tests.bench.detection.labelled_run import LabelledRun

HERE = Path(__file__).parent
LEAST_BEFORE, LEAST_AFTER = 30, 21
"""Steps before an onset, and from it to the end of the curve."""
LEAST_STEPS = 100
"""Of a curve that something is planted in; shorter ones tell of false alarms only."""
NEAR = 40
"""Steps to either side of an onset that its noise is measured on."""
LEAST_LOG_SD = 0.02
OVER_OPTIMISED = ("sweep/beta-0.001", "sweep/beta-0.01")
"""Sample runs whose held-out score falls while their score rises (sample_runs/README.md): nobody planted it, and healthy they are not."""
LONGEST_GROWTH = 40
"""Steps of an exponential growth or a slope, so that it does not overflow."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """A recorded run in which nothing is known to have gone wrong."""

    name: str
    source: str
    header: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]

    def as_healthy_run(self) -> LabelledRun:
        """The curve as it is."""
        return LabelledRun(self.name, self.header, self.steps, about={"curve": self.name})


def read_curves(more: Path | None = None) -> list[Curve]:
    """The recorded curves of the repository, and those of a directory outside it.

    Args:
        more: JSON files with `name`, `header` and `steps`, the latter as in `klaudit-steps/1`.
    """
    curves = [*_read_sample_runs(), _read_unsloth(), _read_kardenia()]
    names = tuple(curve.name for curve in curves)
    for path in sorted(more.glob("*.json")) if more else ():
        content = json.loads(path.read_text(encoding="utf-8"))
        if not content["name"].startswith(names):
            curves.append(Curve(content["name"], f"{path.name}, not part of the repository", content["header"], content["steps"]))
    return [curve for curve in curves if len(curve.steps) >= LEAST_BEFORE]


def _read_sample_runs() -> Iterator[Curve]:
    """Healthy sample runs whole, the others up to what was planted in them."""
    root = locate_asset("sample_runs")
    for path in sorted(root.rglob("steps.jsonl")):
        name = str(path.parent.relative_to(root))
        if name in OVER_OPTIMISED:
            continue
        truth_path = path.with_name("truth.json")
        truth = json.loads(truth_path.read_text(encoding="utf-8")) if truth_path.exists() else {}
        header, *steps = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        onsets = [find_onset(planted, steps) for planted in truth.get("planted", ())]
        end = min(onsets, default=None)
        kept = steps if end is None else [step for step in steps if step["step"] < end]
        source = "whole" if end is None else f"before step {end}, where it goes wrong"
        yield Curve(name, f"sample run, {source}", header, kept)


def find_onset(planted: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> int:
    """The step at which something planted begins: given, or the first over a level of KL."""
    onset = planted["onset"]
    if isinstance(onset, int):
        return onset
    if "step" in onset:
        return int(onset["step"])
    return next(int(step["step"]) for step in steps if decode_float(step["kl"]) > onset["first_kl_over"])


def _read_unsloth() -> Curve:
    logs = json.loads((HERE / "curves/unsloth_grpo.trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    kept = {"grad_norm": "grad_norm", "learning_rate": "learning_rate", "completion_length": "response_length"}
    steps = [
        {
            "step": log["step"],
            "kl": log["kl"],
            "score": log["reward"],
            "metrics": {name: log[key] for key, name in kept.items() if key in log},
        }
        for log in logs
        if "kl" in log
    ]
    return Curve("unsloth_grpo", "IMJONEZZ/UnslothGRPO, MIT", _describe("unsloth_grpo", "k3", "nats_per_token"), steps)


def _read_kardenia() -> Curve:
    with (HERE / "curves/custom_grpo_failing.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [
        {
            "step": int(row["step"]),
            "kl": float(row["kl_div"]),
            "score": float(row["success_rate"]),
            "metrics": {"entropy": float(row["policy_entropy"]), "grad_norm": float(row["grad_norm"])},
        }
        for row in rows
    ]
    header = _describe("custom_grpo_failing", "k3", "nats_per_token")
    return Curve("custom_grpo_failing", "KardeniaPoyu/SLM-RL-Comparation, MIT", header, steps)


def _describe(name: str, estimator: str, unit: str) -> dict[str, Any]:
    series = {"kind": "reference", "estimator": estimator, "unit": unit, "aggregation": "token_mean"}
    return {"format": "klaudit-steps/1", "run": {"name": name, "algorithm": "grpo"}, "kl": series}


def plant_on_curves(curves: Iterable[Curve], kinds: Sequence[str], *, n_placements: int, seed: int) -> Iterator[LabelledRun]:
    """Every kind at several onsets on every curve that is long enough.

    Args:
        n_placements: onsets of each kind on each curve.
        seed: of the onsets and the noise.
    """
    for at, curve in enumerate(curves):
        for kind in kinds:
            rng = np.random.default_rng([seed, at, list(CURVE_KINDS).index(kind)])
            possible = range(LEAST_BEFORE, len(curve.steps) - LEAST_AFTER + 1) if len(curve.steps) >= LEAST_STEPS else ()
            chosen = rng.choice(possible, size=min(n_placements, len(possible)), replace=False) if possible else ()
            for onset in sorted(int(one) for one in chosen):
                yield plant_on_curve(curve, kind, onset, rng)


def plant_on_curve(curve: Curve, kind: str, onset: int, rng: Generator) -> LabelledRun:
    """A curve with something planted in all its reference KLs.

    Args:
        onset: position, not step number.
    """
    governing = _take(curve.steps, _find_reference_keys(curve.header)[0])
    log_sd = measure_log_sd(governing, onset)
    gains = CURVE_PLANTERS[kind](np.arange(len(governing)) - onset, log_sd, rng)
    where = CURVE_KINDS[kind]
    number = int(curve.steps[onset]["step"])
    return LabelledRun(
        name=f"{curve.name}-{kind}-{number}",
        header=curve.header,
        steps=_rewrite(curve, onset, gains),
        planted=Planted(kind, number, where.codes, where.horizon),
        about={"curve": curve.name, "log_sd": round(log_sd, 3)},
    )


def measure_log_sd(values: Array, onset: int) -> float:
    """Robust sd of log KL about its running median over 15 steps, within 40 steps of the onset; 0.02 at least."""
    window = values[max(onset - NEAR, 0) : onset + NEAR]
    logs = np.log(window[np.isfinite(window) & (window > 0)])
    if len(logs) < 10:
        return LEAST_LOG_SD
    residuals = [log - np.median(logs[max(at - 7, 0) : at + 8]) for at, log in enumerate(logs)]
    return max(1.4826 * float(np.median(np.abs(residuals))), LEAST_LOG_SD)


def _spike(since: Array, sd: float, rng: Generator) -> Array:
    del rng
    return np.where(since == 0, max(8 * sd, np.log(2)), 0.0)


def _level(since: Array, sd: float, rng: Generator) -> Array:
    del rng
    return np.where(since >= 0, max(3 * sd, np.log(1.3)), 0.0)


def _slope(since: Array, sd: float, rng: Generator) -> Array:
    del rng
    return 0.3 * sd * np.clip(since + 1, 0, LONGEST_GROWTH)


def _burst(since: Array, sd: float, rng: Generator) -> Array:
    return np.where((since >= 0) & (since < 20), 4 * sd * rng.normal(size=len(since)), 0.0)


def _collapse(since: Array, sd: float, rng: Generator) -> Array:
    del sd, rng
    return 0.15 * np.clip(since + 1, 0, LONGEST_GROWTH)


def _drop(since: Array, sd: float, rng: Generator) -> Array:
    del rng
    return np.where(since >= 0, -max(4 * sd, np.log(2)), 0.0)


def _freeze(since: Array, sd: float, rng: Generator) -> Array:
    del sd, rng
    return np.where((since > 0) & (since < 20), np.inf, 0.0)


def _nan(since: Array, sd: float, rng: Generator) -> Array:
    del sd, rng
    return np.where((since >= 0) & (since < 3), np.nan, 0.0)


CURVE_PLANTERS: Mapping[str, Callable[[Any, float, Generator], Array]] = {
    "spike": _spike,
    "level": _level,
    "slope": _slope,
    "burst": _burst,
    "collapse": _collapse,
    "drop": _drop,
    "freeze": _freeze,
    "nan": _nan,
}
"""What is added to log KL, from steps since the onset and the local sd of log KL. Infinity: the reading of the onset again."""


def _find_reference_keys(header: Mapping[str, Any]) -> list[str]:
    """Keys of the reference KLs, the governing one first: the order of estimators is that of klaudit-steps/1's own rules."""
    series = {"kl": header.get("kl", {})} | dict(header.get("series", {}))
    order = ["full", "k3", "k1"]
    references = [key for key, one in series.items() if one.get("kind", "reference") == "reference"]
    return sorted(
        references, key=lambda key: order.index(series[key]["estimator"]) if series[key].get("estimator") in order else len(order)
    )


def _take(steps: Sequence[Mapping[str, Any]], key: str) -> Array:
    values = (step.get(key) if key == "kl" else step.get("metrics", {}).get(key) for step in steps)
    return np.array([np.nan if value is None else decode_float(value) for value in values])


def _rewrite(curve: Curve, onset: int, gains: Array) -> tuple[Mapping[str, Any], ...]:
    """The curve's steps with every reference KL moved, and penalty and reward following the KL that they are made of."""
    moved: dict[str, Array] = {}
    for key in _find_reference_keys(curve.header):
        before = _take(curve.steps, key)
        moved[key] = _move(before, onset, gains)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved[key + "_se"] = _take(curve.steps, key + "_se") * np.where(np.isinf(gains), 1.0, np.exp(gains))
    penalised = _find_penalised(curve)
    return tuple(_rewrite_step(step, at, moved, penalised) if gains[at] else step for at, step in enumerate(curve.steps))


def _move(before: Array, onset: int, gains: Array) -> Array:
    """A reading of zero or less has no log: it moves by as much as the local median would."""
    near = before[max(onset - NEAR, 0) : onset]
    usual = float(np.nanmedian(np.abs(near))) if len(near) else 0.0
    factors = np.exp(np.where(np.isinf(gains), 0.0, gains))
    after = np.where(before > 0, before * factors, before + usual * (factors - 1))
    return np.where(np.isinf(gains), before[onset], after)


def _find_penalised(curve: Curve) -> str | None:
    """Key of the KL that kl_penalty is beta times of."""
    penalty, beta = _take(curve.steps, "kl_penalty"), np.array([decode_float(step.get("beta") or 0.0) for step in curve.steps])
    for key in _find_reference_keys(curve.header):
        if _agree(penalty, beta * _take(curve.steps, key)):
            return key
    return None


def _agree(one: Array, other: Array) -> bool:
    both = np.isfinite(one) & np.isfinite(other)
    return bool(both.any()) and bool(np.allclose(one[both], other[both], rtol=1e-3, atol=1e-9))


def _rewrite_step(step: Mapping[str, Any], at: int, moved: Mapping[str, Array], penalised: str | None) -> Mapping[str, Any]:
    metrics = dict(step.get("metrics", {}))
    rewritten = dict(step)
    for key, values in moved.items():
        holder = rewritten if key in ("kl", "kl_se") else metrics
        if key in holder:
            holder[key] = encode_float(float(values[at]))
    if penalised is not None and "kl_penalty" in metrics:
        metrics["kl_penalty"] = encode_float(float(decode_float(step["beta"]) * moved[penalised][at]))
        if "rlhf_reward" in metrics and step.get("score") is not None:
            metrics["rlhf_reward"] = encode_float(decode_float(step["score"]) - decode_float(metrics["kl_penalty"]))
    return rewritten | {"metrics": metrics}
