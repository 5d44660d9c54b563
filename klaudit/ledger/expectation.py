"""What a store should hold by its ledger, and how what it does hold differs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klaudit.errors import InvalidRecord
from klaudit.ledger.canonical import canonicalize
from klaudit.ledger.spans import decode_spans, describe_spans, extend_spans, find_outside, span_steps
from klaudit.records.ledger import LedgerBreak, LedgerEntry

MOST_STEPS_A_BATCH = 10_000_000
"""No writer makes greater ones; a forged one must not keep a verification busy for ever."""

MEASURED = {"drift": "drift measurement", "distance": "distance between checkpoints", "profile": "drift profile"}
"""What people call a row that was measured of checkpoints."""

RowKey = tuple[str | int, ...]
"""What kind of row, and which: `("run",)`, `("series", key)`, `("segment", index)`, `("checkpoint", segment, step, path)`, `("budget", id)`,
`("drift", digest)`, `("distance", digest)`, `("profile", digest)`."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of the store in the words of `klaudit.ledger.bodies`."""

    run_id: str | None
    key: RowKey
    body: Mapping[str, Any]
    number: int | None = None
    """Of a drift measurement, rising."""
    unreadable: str | None = None
    """Why its columns make no record."""


@dataclass(slots=True)
class SegmentExpectation:
    """What the store should hold of one segment's steps."""

    began: bool = False
    """Whether the ledger saw it begin; else steps without an entry may be older than the ledger."""
    spans: list[range] = field(default_factory=list)
    n_steps: int = 0
    n_samples: int = 0

    def cover(self, batch: Mapping[str, Any]) -> None:
        """The steps of a batch belong to it from now on.

        Args:
            batch: body of a `steps` entry.

        Raises:
            InvalidRecord: it does not hold together.
        """
        spans, n_steps = decode_spans(batch["spans"]), batch["n_steps"]
        if not 0 < sum(map(len, spans)) == n_steps <= MOST_STEPS_A_BATCH:
            raise InvalidRecord(f"{n_steps} steps, in ranges of {sum(map(len, spans))}")
        for span in spans:
            extend_spans(self.spans, span)
        self.n_steps += n_steps
        self.n_samples += batch["n_samples"]


@dataclass(slots=True)
class RunExpectation:
    """What the store should hold of one run; of no run, under None."""

    rows: dict[RowKey, dict[str, Any]] = field(default_factory=dict)
    segments: dict[int, SegmentExpectation] = field(default_factory=dict)
    is_damaged: bool = False
    """An entry of the run is not intact, so that what it covered is not known."""
    is_older: bool = False
    """Opened before the ledger began."""

    def segment(self, index: int) -> SegmentExpectation:
        """The segment of that index."""
        return self.segments.setdefault(index, SegmentExpectation())

    def change(self, key: RowKey, values: Mapping[str, Any]) -> None:
        """Some fields of a row have these values from now on; of one from before the ledger, only they are known."""
        self.rows[key] = {**self.rows.get(key, {}), **values}


class Expectation:
    """Follows intact entries in order, then says where rows differ."""

    def __init__(self) -> None:
        self._runs: dict[str | None, RunExpectation] = {None: RunExpectation()}
        self._older_budgets: frozenset[str] = frozenset()
        self._last_older_drift = 0
        self._began = False

    def of(self, run_id: str | None) -> RunExpectation:
        """What is expected of a run, or of what belongs to none."""
        return self._runs.setdefault(run_id, RunExpectation(is_older=not self._began))

    def note(self, entry: LedgerEntry) -> LedgerBreak | None:
        """Take in an entry; gives a break where it says what this klaudit cannot read."""
        try:
            self._take(entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
            self.of(entry.run_id).is_damaged = True
            what = f"entry {entry.seq} ({entry.kind}) cannot be read"
            return LedgerBreak(what, f"a body of kind {entry.kind}", f"{type(exc).__name__}: {exc}", entry.seq, entry.run_id)
        return None

    def note_damage(self, entry: LedgerEntry) -> None:
        """Take in that an entry is not intact."""
        self.of(entry.run_id).is_damaged = True

    def _take(self, entry: LedgerEntry) -> None:
        body, run = entry.body, self.of(entry.run_id)
        match entry.kind:
            case "ledger_began":
                self._began = True
                self._older_budgets = frozenset(body["budgets"])
                self._last_older_drift = body["last_drift_measurement"]
                for run_id in body["runs"]:
                    older = self.of(run_id)
                    older.is_older = True
                    # That it is there is all that is known of it.
                    older.change(("run",), {})
            case "run_opened":
                run = self._runs[entry.run_id] = RunExpectation()
            case "run_deleted":
                del self._runs[entry.run_id]
            case "segment_began":
                run.segment(body["segment"]).began = True
            case "steps":
                run.segment(body["segment"]).cover(body)
        for key, values in list_changes(entry.kind, body):
            run.change(key, values)

    def check_row(self, row: StoredRow) -> Iterator[LedgerBreak]:
        """How a row differs from what the ledger says of it; each row is checked once."""
        run = self._runs.get(row.run_id, RunExpectation(is_older=not self._began))
        expected = run.rows.pop(row.key, None)
        if expected is None:
            if not self._may_be_older(row, run):
                what = f"{describe_row(row.key)} is in the store, but no {'intact ' if run.is_damaged else ''}entry tells of it"
                yield LedgerBreak(what, "no such row", _shorten(row.body), run_id=row.run_id)
            return
        if row.unreadable is not None:
            yield LedgerBreak(f"{describe_row(row.key)} cannot be read", _shorten(expected), row.unreadable, run_id=row.run_id)
        for name, value in expected.items():
            if name in row.body and canonicalize(row.body[name]) != canonicalize(value):
                what = f"{describe_row(row.key)} was edited: {name}"
                yield LedgerBreak(what, _shorten(value), _shorten(row.body[name]), run_id=row.run_id)

    def check_steps(self, run_id: str, segment_index: int, steps: Iterator[int]) -> LedgerBreak | None:
        """Which of the rising steps of a segment in the store no entry covers."""
        run = self.of(run_id)
        segment = run.segment(segment_index)
        try:
            outside = span_steps(find_outside(steps, segment.spans))
        except TypeError as exc:
            return LedgerBreak(f"a step of segment {segment_index} has no number", "whole numbers", str(exc), run_id=run_id)
        if outside:
            intact = "intact " if run.is_damaged else ""
            what = f"{describe_spans(outside)} of segment {segment_index}: in the store, but no {intact}entry covers them"
            return LedgerBreak(what, f"{segment.n_steps} steps", f"{sum(map(len, outside))} steps more", run_id=run_id)
        return None

    def list_missing(self) -> Iterator[LedgerBreak]:
        """Rows that the ledger tells of, and that were not checked because they are not there. Ask last."""
        for run_id, run in self._runs.items():
            # With the run everything of it is gone: one break says so.
            keys: Sequence[RowKey] = [("run",)] if ("run",) in run.rows else list(run.rows)
            for key in keys:
                what = f"{describe_row(key)} is not in the store any more, and no entry says that it was removed"
                yield LedgerBreak(what, _shorten(run.rows[key]), "no such row", run_id=run_id)

    def _may_be_older(self, row: StoredRow, run: RunExpectation) -> bool:
        match row.key[0]:
            case "budget":
                return not self._began or row.key[1] in self._older_budgets
            case "drift":
                return not self._began or (row.number is not None and row.number <= self._last_older_drift)
            case "distance" | "profile":
                # No store was without a ledger when these came.
                return not self._began
            case "checkpoint" | "segment":
                return run.is_older and not run.segment(int(row.key[1])).began
            case _:
                return run.is_older


def list_changes(kind: str, body: Mapping[str, Any]) -> Iterator[tuple[RowKey, Mapping[str, Any]]]:
    """Which fields of which rows an entry gives which values."""
    match kind:
        case "run_opened" | "trainer_declared" | "identity_declared":
            yield ("run",), body
        case "segment_began" | "segment_ended" | "steps_lost":
            yield ("segment", body["segment"]), body
        case "reference_declared":
            yield ("segment", body["segment"]), {"reference_digest": body["reference_digest"]}
            if body["is_the_runs"]:
                yield ("run",), {"reference_digest": body["reference_digest"]}
        case "checkpoint":
            yield ("checkpoint", body["segment"], body["step"], body["path"]), body
        case "budget_set" | "budget_removed":
            yield ("budget", body["budget"]), body
        case "series_declared":
            yield from ((("series", key), series) for key, series in body["series"].items())
        case "drift_measured":
            yield from ((("drift", digest), {}) for digest in body.get("measurements", ()))
            yield from ((("distance", digest), {}) for digest in body.get("distances", ()))
            if "profile" in body:
                yield ("profile", body["profile"]), {"completions": body["contents_digest"]}


def describe_row(key: RowKey) -> str:
    """A row for people."""
    match key:
        case ("checkpoint", segment, step, path):
            return f"checkpoint {path} of segment {segment}, step {step}"
        case ("series", name):
            return f"KL series {name!r}"
        case ("drift" | "distance" | "profile" as kind, digest):
            return f"{MEASURED[str(kind)]} {digest}"
        case ("run",):
            return "the run"
    return " ".join(map(str, key))


def _shorten(value: Any) -> str:
    text = canonicalize(value).decode()
    return text if len(text) <= 200 else f"{text[:197]}..."
