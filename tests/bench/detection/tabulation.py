"""Scores as tables, and the list of what went wrong."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from klaudit.detectors.score import Rate, Score, find_hits, list_false_alarms, score_runs
from tests.bench.detection.judgement import Judgement
from tests.bench.detection.kinds import Kind
from tests.bench.tables import Figures


def tabulate_detectors(title: str, scores: Mapping[str, Score], kinds: Mapping[str, Kind]) -> Figures:
    """A row for each detector: recall over the change kinds and over the others, delay, false alarms."""
    changes = [kind.name for kind in kinds.values() if kind.is_change]
    others = [kind.name for kind in kinds.values() if not kind.is_change]
    rows = [
        (
            name,
            _format(score.average_recall(changes)),
            _format(min((recall.share for recall in score.recalls if recall.kind in changes), default=math.nan)),
            _format_delay(score, ("spike", "level")),
            _format(score.average_recall(others)),
            _format(min((recall.share for recall in score.recalls if recall.kind in others), default=math.nan)),
            _format(score.average_recall()),
            *_format_rate(score.false_alarms),
        )
        for name, score in scores.items()
    ]
    columns = (
        "detector",
        "changes",
        "worst",
        "delay",
        "others",
        "worst",
        "macro",
        "FA/1,000",
        "95% interval",
        "steps",
    )
    return Figures(title, columns, rows)


def tabulate_kinds(title: str, scores: Mapping[str, Score]) -> Figures:
    """A row for each kind: what each detector found of it; of the first one also the delay and the share that is rightly named."""
    first, *rest = scores.items()
    by_name = {name: {recall.kind: recall for recall in score.recalls} for name, score in rest}
    rows = [
        (
            recall.kind,
            f"{recall.n_planted}",
            _format(recall.share),
            f"{recall.median_delay:g}",
            _format(recall.named_share),
            *(_format(recalls[recall.kind].share) for recalls in by_name.values()),
        )
        for recall in first[1].recalls
    ]
    return Figures(title, ("planted", "runs", f"{first[0]}: found", "delay", "rightly named", *by_name), rows)


def score_detectors(judgements: Sequence[Judgement]) -> dict[str, Score]:
    """By detector, in the order in which they were asked."""
    names = list(judgements[0].by_detector) if judgements else []
    return {name: score_runs(judgement.by_detector[name] for judgement in judgements) for name in names}


def list_mistakes(judgements: Sequence[Judgement], detector: str) -> Iterator[str]:
    """Every miss, wrong name and false alarm of a detector, one a line."""
    for judgement in judgements:
        judged, run = judgement.by_detector[detector], judgement.run
        about = " ".join(f"{name}={value}" for name, value in run.about.items())
        planted = judged.planted
        if planted is not None:
            hits = find_hits(judged)
            seen = ", ".join(f"{alarm.code}@{alarm.detected_step}" for alarm in judged.alarms) or "nothing"
            if not hits:
                yield f"MISS   {run.name} {planted.kind}@{planted.onset}; alarms: {seen}; {about}"
            elif planted.codes.isdisjoint(alarm.code for alarm in hits):
                yield f"NAME   {run.name} {planted.kind}@{planted.onset}; alarms: {seen}; {about}"
        for alarm in list_false_alarms(judged):
            yield f"FALSE  {run.name} {alarm.code}@{alarm.detected_step}..{alarm.last_step}; {about}"


def _format(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2f}"


def _format_delay(score: Score, kinds: Collection[str]) -> str:
    delays = [recall.median_delay for recall in score.recalls if recall.kind in kinds]
    return " / ".join("-" if math.isnan(delay) else f"{delay:g}" for delay in delays) or "-"


def _format_rate(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return f"{rate.value:.2f}", f"{low:.2f} to {high:.2f}", f"{rate.n_steps:,}"
