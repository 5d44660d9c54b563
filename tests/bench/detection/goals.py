"""What klaudit must reach on each track, and what it missed."""

import math
from collections.abc import Callable, Iterator, Mapping

from klaudit.detectors.score import Score
from tests.bench.detection.kinds import Kind

Kinds = Mapping[str, Kind]


def list_missed_a(score: Score, kinds: Kinds) -> Iterator[str]:
    """Recall 0.95 over the change kinds, 0.9 of every other kind, one false alarm per 1,000 healthy steps, a delay of two steps."""
    changes = score.average_recall(kind.name for kind in kinds.values() if kind.is_change)
    if changes < 0.95:
        yield f"recall of changes {changes:.3f}; the goal is 0.95"
    for recall in score.recalls:
        if not kinds[recall.kind].is_change and recall.share < 0.9:
            yield f"recall of {recall.kind} {recall.share:.2f}; the goal is 0.9"
        if recall.kind in ("spike", "level") and not recall.median_delay <= 2:
            yield f"median delay of {recall.kind} {recall.median_delay:g} steps; the goal is 2"
    if score.false_alarms.value > 1:
        yield f"{score.false_alarms.value:.2f} false alarms per 1,000 healthy steps; the goal is 1"


def list_missed_b(score: Score, kinds: Kinds) -> Iterator[str]:
    """Macro recall 0.85, two false alarms per 1,000 steps of clean curves."""
    del kinds
    recall = score.average_recall()
    if not math.isnan(recall) and recall < 0.85:
        yield f"macro recall {recall:.3f}; the goal is 0.85"
    if score.false_alarms.value > 2:
        yield f"{score.false_alarms.value:.2f} false alarms per 1,000 steps of clean curves; the goal is 2"


def list_missed_c(score: Score, kinds: Kinds) -> Iterator[str]:
    """Every cause found and rightly named."""
    del kinds
    for recall in score.recalls:
        if recall.n_named < recall.n_planted:
            yield f"{recall.kind}: found {recall.n_found} of {recall.n_planted}, rightly named {recall.n_named}"


GOALS: Mapping[str, Callable[[Score, Kinds], Iterator[str]]] = {"a": list_missed_a, "b": list_missed_b, "c": list_missed_c}
