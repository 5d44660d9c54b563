"""What was recorded of a run: what each KL is, who wrote it and lost what, what trained and was trained, and what the ledger holds of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from klaudit.records import UNIT_LABELS, KLSeries, Run, RunSummary, Segment
from klaudit.records.ledger import LedgerEntry
from klaudit.records.series import KIND_LABELS
from klaudit.report.views.figure import format_count, format_number
from klaudit.report.views.run import sort_series

AGGREGATIONS = {
    "batch_mean": "mean over sequences",
    "token_mean": "mean over tokens",
    "window_mean": "mean over several steps",
    "unknown": "unknown",
}
DIRECTIONS = {
    ("reference", "reverse"): "KL(policy || reference)",
    ("reference", "forward"): "KL(reference || policy)",
    ("update", "forward"): "KL(old policy || policy)",
    ("mismatch", "forward"): "KL(rollout engine || trainer)",
}
"""Direction in full, where there is no doubt which two models are meant."""

PARTS = {"policy": "Policy", "reference": "Reference", "tokenizer": "Tokenizer", "chat_template": "Chat template"}
"""Parts of an identity that have a digest, and what people call them."""

DIGESTS = {"digest": "", "parameters_digest": "of the weights in memory", "base_digest": "of the weights of its base model"}
"""Where a part's digest may stand, best first, and what it is of."""

MOST_BYTES = 2**63
"""No model is larger; what says so is no size."""

OLDER = "it is older than the ledger"


@dataclass(frozen=True, slots=True)
class RecordedSeries:
    """One KL of the run: everything without which its number says nothing. What nobody declared is `unknown`."""

    key: str
    name: str
    """Which KL, such as `KL to reference`."""
    label: str
    """Name, estimator and unit."""
    estimator: str
    unit: str
    aggregation: str
    direction: str
    temperature: str
    source: str
    """The trainer's own key."""
    is_governing: bool
    """Whether budgets and change rules look at it."""


@dataclass(frozen=True, slots=True)
class RecordedSegment:
    """One uninterrupted stretch of the run."""

    index: int
    began: str
    ended: str
    writer: str
    """Host and process."""
    resumed_from: str
    lost: str
    """How many of its steps could not be kept, which and why; empty where none was lost."""
    reference_digest: str | None
    is_other_reference: bool
    """Whether it is not the reference of the segment before."""


@dataclass(frozen=True, slots=True)
class RecordedPart:
    """A model, a tokenizer or a template, known by its content."""

    title: str
    name: str
    details: str
    digest: str | None
    """`sha256:` and 64 hex digits."""
    digest_of: str
    """What the digest is of, where that is not the part's own content; without a digest, why there is none."""


@dataclass(frozen=True, slots=True)
class RecordedCode:
    """State of the code that trained."""

    commit: str
    branch: str
    is_dirty: bool | None
    """Whether tracked files differed from the commit; None: not known."""
    remote: str


@dataclass(frozen=True, slots=True)
class ImportedFrom:
    """The file of another tool that the run was read from."""

    format: str
    file: str
    digest: str | None
    at: datetime | None
    """When it was imported; None: not known."""
    part: str


@dataclass(frozen=True, slots=True)
class RunLedger:
    """What the ledger holds of one run; nothing of it was checked."""

    seq: int = 0
    """Of its last entry, over the whole store; 0: it has none."""
    hash: str = ""
    at: datetime | None = None
    n_entries: int = 0
    n_steps: int = 0
    """Steps that entries tell of."""
    imported_at: datetime | None = None

    def follow(self, entries: Iterable[LedgerEntry]) -> "RunLedger":
        """With the entries behind `seq`, in order."""
        ledger = self
        for entry in entries:
            told = entry.body.get("n_steps") if entry.kind == "steps" else 0
            ledger = replace(
                ledger,
                seq=entry.seq,
                hash=entry.hash,
                at=entry.at,
                n_entries=ledger.n_entries + 1,
                n_steps=ledger.n_steps + (told if isinstance(told, int) else 0),
                imported_at=entry.at if entry.kind == "run_imported" else ledger.imported_at,
            )
        return ledger


@dataclass(frozen=True, slots=True)
class CaptureView:
    """What the page Run shows of how its numbers came to be."""

    statement: str
    """All of it in one line."""
    series: tuple[RecordedSeries, ...]
    """The governing one first."""
    notes: tuple[str, ...]
    """What a reader must know of the numbers, in sentences without a full stop."""
    segments: tuple[RecordedSegment, ...]
    n_lost: int
    """Steps that were logged and could not be kept."""
    parts: tuple[RecordedPart, ...]
    """Policy, reference, tokenizer, chat template; those of which nothing is known are left out."""
    packages: Mapping[str, str]
    """Version by package."""
    platform: str
    code: RecordedCode | None
    imported: ImportedFrom | None
    ledger: RunLedger
    ledger_statement: str
    """How many of the run's steps the ledger covers."""


def view_capture(
    summary: RunSummary, *, segments: Sequence[Segment], ledger: RunLedger, live_segment: int | None, now: datetime
) -> CaptureView:
    """Say what was recorded of a run.

    Args:
        summary: of the run.
        segments: of the run, in order.
        ledger: what the store's ledger holds of it.
        live_segment: the segment whose writer lives; None: none.
        now: the time that others are told relative to.
    """
    run, identity = summary.run, as_mapping(summary.run.identity)
    series = tuple(describe_recorded_series(key, one, run=run) for key, one in sort_series(run, run.series).items())
    imported = describe_import(identity, at=ledger.imported_at)
    packages = {str(name): str(version) for name, version in as_mapping(identity.get("packages")).items()}
    system = as_mapping(identity.get("platform"))
    python = f"Python {system['python']}" if system.get("python") else ""
    notes, reasons = part_notes(identity)
    view = CaptureView(
        statement="",
        series=series,
        notes=notes,
        segments=describe_segments(segments, live_segment=live_segment, is_imported=imported is not None, now=now),
        n_lost=summary.n_lost,
        parts=describe_parts(run, identity, reasons=reasons),
        packages=packages,
        platform=", ".join(one for one in (python, as_text(system.get("system"))) if one),
        code=describe_code(as_mapping(identity.get("git"))),
        imported=imported,
        ledger=ledger,
        ledger_statement=state_ledger(ledger, n_steps=summary.n_steps),
    )
    return replace(view, statement=state_capture(run, view))


def describe_recorded_series(key: str, series: KLSeries, *, run: Run) -> RecordedSeries:
    """A series in words."""
    return RecordedSeries(
        key=key,
        name=KIND_LABELS[series.kind],
        label=series.label,
        estimator=series.estimator,
        unit=UNIT_LABELS[series.unit],
        aggregation=AGGREGATIONS[series.aggregation],
        direction=DIRECTIONS.get((series.kind, series.direction), series.direction),
        temperature="not declared" if series.temperature is None else format_number(series.temperature),
        source=series.source_key or "not declared",
        is_governing=key == run.governing_key,
    )


def describe_segments(
    segments: Sequence[Segment], *, live_segment: int | None, is_imported: bool, now: datetime
) -> tuple[RecordedSegment, ...]:
    """Segments in words."""
    described = []
    known: str | None = None
    for one in segments:
        is_other = None not in (known, one.reference_digest) and known != one.reference_digest
        known = one.reference_digest or known
        described.append(
            RecordedSegment(
                index=one.index,
                began=format_time(one.started_at, now=now),
                ended=state_end(one, is_live=one.index == live_segment, now=now),
                writer=name_writer(one, is_imported=is_imported),
                resumed_from="started" if one.resumed_from_step is None else f"resumed from step {one.resumed_from_step:,}",
                lost=state_loss(one),
                reference_digest=one.reference_digest,
                is_other_reference=is_other,
            )
        )
    return tuple(described)


def name_writer(segment: Segment, *, is_imported: bool) -> str:
    """Who wrote a segment."""
    if segment.host is None or segment.pid is None:
        return "imported" if is_imported else segment.host or "not recorded"
    return f"process {segment.pid} on {segment.host}"


def state_end(segment: Segment, *, is_live: bool, now: datetime) -> str:
    """When a segment ended, or how its writer stands."""
    if segment.ended_at is not None:
        return format_time(segment.ended_at, now=now)
    if is_live:
        return "being written"
    sign = segment.heartbeat_at
    return "not recorded" if sign is None else f"no sign of life since {format_time(sign, now=now)}"


def state_loss(segment: Segment) -> str:
    """`3 steps (40 to 52): the journal was damaged`; empty where nothing was lost."""
    if not segment.n_lost:
        return ""
    first, last = segment.lost_first_step, segment.lost_last_step
    between = "" if first is None or last is None else f" (step {first:,})" if first == last else f" (between {first:,} and {last:,})"
    return f"{format_count(segment.n_lost, 'step')}{between}: {segment.lost_reason or 'the reason was not recorded'}"


def part_notes(identity: Mapping[str, Any]) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Notes for the reader, and of those that say why a part has no digest the reason by part."""
    notes: list[str] = []
    reasons: dict[str, str] = {}
    for line in identity.get("notes") or () if isinstance(identity.get("notes"), (list, tuple)) else ():
        part, _, reason = str(line).partition(": ")
        if part in PARTS and reason:
            reasons[part] = reason
        else:
            notes.append(str(line))
    return tuple(notes), reasons


def describe_parts(run: Run, identity: Mapping[str, Any], *, reasons: Mapping[str, str]) -> tuple[RecordedPart, ...]:
    """What is known of each part, from the identity, else from what the run declared."""
    declared: dict[str, dict[str, Any]] = {"policy": {"name": run.policy}}
    if run.reference is not None:
        declared["reference"] = {"name": run.reference.name, "digest": run.reference.digest}
    parts = []
    for part, title in PARTS.items():
        known = {name: value for name, value in declared.get(part, {}).items() if value}
        known |= {name: value for name, value in as_mapping(identity.get(part)).items() if value}
        if known or part in reasons:
            parts.append(describe_part(title, known, reason=reasons.get(part, "no digest was computed")))
    return tuple(parts)


def describe_part(title: str, known: Mapping[str, Any], *, reason: str) -> RecordedPart:
    """One part in words."""
    where = next((name for name in DIGESTS if known.get(name)), None)
    adapters, n_bytes, size = known.get("adapters"), known.get("n_bytes"), known.get("vocab_size")
    details = (
        as_text(known.get("class")),
        f"revision {known['revision']}" if known.get("revision") else "",
        f"adapter {', '.join(map(str, adapters))}" if isinstance(adapters, (list, tuple)) and adapters else "",
        f"on {known['base_model']}" if known.get("base_model") else "",
        f"{n_bytes / 1e9:,.2f} GB" if isinstance(n_bytes, int) and 0 < n_bytes < MOST_BYTES else "",
        f"{size:,} tokens" if isinstance(size, int) else "",
    )
    return RecordedPart(
        title=title,
        name=as_text(known.get("name")),
        details=", ".join(one for one in details if one),
        digest=None if where is None else str(known[where]),
        digest_of=reason if where is None else DIGESTS[where],
    )


def describe_code(git: Mapping[str, Any]) -> RecordedCode | None:
    """State of the code; None where it is not known."""
    if not git.get("commit"):
        return None
    dirty = git.get("is_dirty")
    return RecordedCode(
        str(git["commit"]), as_text(git.get("branch")), dirty if isinstance(dirty, bool) else None, as_text(git.get("remote"))
    )


def describe_import(identity: Mapping[str, Any], *, at: datetime | None) -> ImportedFrom | None:
    """Where an imported run comes from; None for a recorded one."""
    origin = as_mapping(identity.get("imported"))
    if not origin:
        return None
    digest = origin.get("digest")
    return ImportedFrom(
        as_text(origin.get("format")) or "unknown format",
        as_text(origin.get("file")) or "a file",
        None if digest is None else str(digest),
        at,
        as_text(origin.get("part")),
    )


def state_ledger(ledger: RunLedger, *, n_steps: int) -> str:
    """How many of a run's steps the ledger covers."""
    if not ledger.n_entries:
        return f"The ledger has no entry of this run: {OLDER}."
    if ledger.n_steps >= n_steps:
        return f"The ledger covers all {format_count(n_steps, 'step')}." if n_steps != 1 else "The ledger covers the one step."
    return f"The ledger covers {ledger.n_steps:,} of {format_count(n_steps, 'step')}; the others have no entry in it."


def state_capture(run: Run, view: CaptureView) -> str:
    """What was recorded, in one line."""
    governing = next((one for one in view.series if one.is_governing), None)
    source = "" if governing is None or governing.source == "not declared" else f" from {governing.source}"
    kl = "no reference KL of known estimator and unit" if governing is None else f"{governing.label}{source}"
    return f"{kl}; {name_trainer(run)}; {format_count(len(view.segments), 'segment')}. {view.ledger_statement}"


def name_trainer(run: Run) -> str:
    """`ppo by trl`."""
    return f"{run.algorithm or 'unknown algorithm'} by {run.framework or 'unknown trainer'}"


def find_silence(
    run: Run,
    *,
    last_logged_at: datetime | None,
    n_steps: int,
    writer: Segment | None,
    is_writer_live: bool,
    now: datetime,
) -> str | None:
    """`no sign of life since 14:03 UTC` for a run that says that it is running and that nobody writes; None for every other.

    Args:
        run: as it stands in the store.
        last_logged_at: time of its last step.
        n_steps: of the run.
        writer: its last segment.
        is_writer_live: whether that segment's process lives, or its lease runs.
        now: the time.
    """
    if run.status != "running" or is_writer_live:
        return None
    has_lease = writer is not None and writer.lease_until is not None
    if not has_lease and not is_stalled(started_at=run.started_at, last_logged_at=last_logged_at, n_steps=n_steps, now=now):
        return None
    signs = [run.started_at, last_logged_at, *((writer.started_at, writer.heartbeat_at, writer.ended_at) if writer is not None else ())]
    return f"no sign of life since {format_time(max(one for one in signs if one is not None), now=now)}"


def is_stalled(*, started_at: datetime, last_logged_at: datetime | None, n_steps: int, now: datetime) -> bool:
    """Whether a running run has been silent for ten of its own steps, and for a minute at least."""
    last = last_logged_at or started_at
    pace = (last - started_at) / n_steps if n_steps else timedelta(minutes=5)
    return now - last > max(timedelta(minutes=1), 10 * pace)


@dataclass(frozen=True, slots=True)
class WaitingSteps:
    """Steps that stand in a journal and not in the store."""

    run_id: str
    statement: str
    """How many, and who carries them over."""


def state_waiting(run_name: str, n_steps: int, *, is_live: bool) -> str:
    """Say who carries over the steps that stand in a journal and not in the store."""
    who = "its trainer carries" if is_live else "its trainer is gone; the next klaudit command that writes to this store carries"
    verb, them = ("waits", "it") if n_steps == 1 else ("wait", "them")
    return f"{format_count(n_steps, 'step')} of run {run_name} {verb} in its journal: {who} {them} over"


def format_time(moment: datetime, *, now: datetime) -> str:
    """`14:03 UTC`, with the day where it is another one: `21 Nov, 14:03 UTC`."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    if moment.date() == now.date():
        return f"{moment:%H:%M} UTC"
    return f"{moment.day} {moment:%b}{'' if moment.year == now.year else f' {moment.year}'}, {moment:%H:%M} UTC"


def as_mapping(value: object) -> Mapping[str, Any]:
    """What an identity says of a part; empty where it says nothing or something else."""
    return value if isinstance(value, Mapping) else {}


def as_text(value: object) -> str:
    """What is said, or nothing."""
    return "" if value is None else str(value)
