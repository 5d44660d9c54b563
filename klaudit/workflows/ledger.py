"""Hold a store to its ledger."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidConfig, InvalidRecord
from klaudit.ledger import GENESIS, Chain, Expectation, merkle_root
from klaudit.ledger.spans import decode_spans, describe_spans, span_steps
from klaudit.records.checkpoint import require_digest
from klaudit.records.ledger import LedgerBreak, LedgerEntry, LedgerHead
from klaudit.store import LedgerSnapshot, Store
from klaudit.store.ledger_snapshot import Unreadable

Progress = Callable[[int, int], None]
"""Called with entries done and entries in all."""

MOST_BREAKS = 1_000
"""Breaks that are described; the others are counted."""

ENTRIES_A_REPORT = 100


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of holding a store to its ledger."""

    n_entries: int
    n_batches: int
    """Entries that cover steps."""
    n_steps: int
    """Steps that the ledger covers and that were recomputed from the store."""
    n_older_runs: int
    """Runs that have steps from before the ledger began."""
    n_older_steps: int
    """Steps that no entry covers because they are older than the ledger."""
    n_deleted_runs: int
    """Runs whose deletion the ledger tells of; their entries are checked, their steps are gone."""
    head: LedgerHead
    """The last entry that was read; without heads of runs."""
    anchor: LedgerHead | None
    """What the store was held to besides itself."""
    breaks: tuple[LedgerBreak, ...]
    """The first `MOST_BREAKS`."""
    n_breaks: int

    @property
    def is_intact(self) -> bool:
        """Whether nothing was found that is not as the ledger says."""
        return self.n_breaks == 0


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that was kept outside the store."""

    head: LedgerHead
    store: str | None
    """Of which store, as it was called then."""


def read_anchor(path: Path) -> Anchor:
    """A head that `klaudit ledger head --json` printed earlier.

    Raises:
        InvalidConfig: the file cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        head = _take(content, "head")
        seq, digest = _take(head, "seq"), _take(head, "hash")
        if isinstance(seq, bool) or not isinstance(seq, int) or not isinstance(digest, str):
            raise InvalidRecord(f"seq is {seq!r}, hash is {digest!r}")
        require_digest("head", digest)
        if (seq == 0) != (digest == GENESIS):
            raise InvalidRecord(f"no entry number {seq} can have the hash {digest}")
        store = content.get("store")
        return Anchor(LedgerHead(seq, digest), store if isinstance(store, str) else None)
    except OSError as error:
        raise InvalidConfig(f"expected an anchor at {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, InvalidRecord) else "it is no JSON"
        raise InvalidConfig(
            f"{path}: expected what `klaudit ledger head --json` printed, with the head's seq and hash; got something else: {why}"
        ) from error


def _take(content: object, field: str) -> Any:
    if not isinstance(content, dict):
        raise InvalidRecord(f"expected a JSON object where {field!r} is")
    if field not in content:
        raise InvalidRecord(f"no field {field!r}")
    return content[field]


def verify_ledger(store: Store, *, anchor: LedgerHead | None = None, on_progress: Progress | None = None) -> Verification:
    """Check that the ledger holds together and that the store holds what it says; changes nothing.

    Args:
        store: to be checked, in one state of it.
        anchor: a head of earlier that was kept elsewhere: the ledger must still contain it.
        on_progress: told how far it is.
    """
    with store.take_snapshot() as snapshot:
        return _Verifier(snapshot, anchor, on_progress).verify()


class _Verifier:
    def __init__(self, snapshot: LedgerSnapshot, anchor: LedgerHead | None, on_progress: Progress | None) -> None:
        self._snapshot = snapshot
        self._anchor = anchor
        self._on_progress = on_progress
        self._expectation = Expectation()
        self._present = snapshot.run_ids()
        self._deletions = snapshot.last_deletions()
        self._breaks: list[LedgerBreak] = []
        self._n_breaks = self._n_entries = self._n_batches = self._n_steps = 0

    def verify(self) -> Verification:
        head = self._follow_entries()
        for row in self._snapshot.rows():
            self._report(self._expectation.check_row(row))
        n_older_runs, n_older_steps = self._check_totals()
        self._report(self._expectation.list_missing())
        return Verification(
            n_entries=self._n_entries,
            n_batches=self._n_batches,
            n_steps=self._n_steps,
            n_older_runs=n_older_runs,
            n_older_steps=n_older_steps,
            n_deleted_runs=len(self._deletions.keys() - self._present),
            head=head,
            anchor=self._anchor,
            breaks=tuple(self._breaks),
            n_breaks=self._n_breaks,
        )

    def _report(self, found: Iterator[LedgerBreak] | list[LedgerBreak]) -> None:
        for one in found:
            self._n_breaks += 1
            if len(self._breaks) < MOST_BREAKS:
                self._breaks.append(one)

    def _follow_entries(self) -> LedgerHead:
        chain, last_seq, at = Chain(), self._snapshot.last_seq(), None
        anchored = GENESIS if self._anchor is not None and self._anchor.seq == 0 else None
        for entry in self._snapshot.entries():
            self._n_entries += 1
            at = entry.at
            if found := chain.follow(entry):
                self._report(found)
                self._expectation.note_damage(entry)
            elif unread := self._expectation.note(entry):
                self._report([unread])
            elif entry.kind == "steps":
                self._report(self._check_batch(entry))
            if self._anchor is not None and entry.seq == self._anchor.seq:
                anchored = entry.hash
            if self._on_progress is not None and (self._n_entries % ENTRIES_A_REPORT == 0 or entry.seq == last_seq):
                self._on_progress(entry.seq, last_seq)
        self._report(self._check_anchor(anchored, chain.seq))
        return LedgerHead(chain.seq, chain.hash, at, self._n_entries)

    def _check_anchor(self, anchored: str | None, last_seq: int) -> Iterator[LedgerBreak]:
        if self._anchor is None or anchored == self._anchor.hash:
            return
        seq = self._anchor.seq
        expected = f"entry {seq} with hash {self._anchor.hash}"
        if anchored is None:
            yield LedgerBreak(
                f"the ledger was cut off, or the anchor is of another store: it ends before the anchored entry {seq}",
                expected,
                f"last entry {last_seq}",
                seq,
            )
        else:
            yield LedgerBreak(
                f"the ledger was made anew, or the anchor is of another store: entry {seq} is not the anchored one",
                expected,
                f"hash {anchored}",
                seq,
            )

    def _check_batch(self, entry: LedgerEntry) -> Iterator[LedgerBreak]:
        """Recompute a batch from the steps of the store; of a run that is gone there are none, and whether it may be is said once for the run."""
        run_id = entry.run_id
        if run_id is None or run_id not in self._present or entry.seq < self._deletions.get(run_id, 0):
            return
        segment, spans = entry.body["segment"], decode_spans(entry.body["spans"])
        leaves: list[bytes] = []
        missing: list[int] = []
        self._n_batches += 1
        for step in (step for span in spans for step in span):
            leaf = self._snapshot.leaf(run_id, segment, step)
            if isinstance(leaf, Unreadable):
                what = f"step {step} of segment {segment} cannot be read"
                yield LedgerBreak(what, "the step as it was logged", leaf.reason, entry.seq, run_id)
                missing.append(step)
            elif leaf is None:
                missing.append(step)
            else:
                leaves.append(leaf)
        self._n_steps += len(leaves)
        place, n_steps = f"{describe_spans(spans)} of segment {segment}", len(leaves) + len(missing)
        gone = [step for step in missing if self._snapshot.leaf(run_id, segment, step) is None]
        if gone:
            what = f"{describe_spans(span_steps(gone))} of segment {segment}: deleted from the store"
            yield LedgerBreak(what, f"{n_steps} steps in entry {entry.seq}", f"{n_steps - len(gone)} steps", entry.seq, run_id)
        elif not missing and (root := merkle_root(leaves)) != entry.body["root"]:
            yield LedgerBreak(
                f"{place}: edited in the store", f"Merkle root {entry.body['root']}", f"Merkle root {root}", entry.seq, run_id
            )

    def _check_totals(self) -> tuple[int, int]:
        """Look for steps and text samples that no entry covers; gives runs and steps that are older than the ledger."""
        older: dict[str, int] = {}
        samples = self._snapshot.count_samples()
        for (run_id, index), n_steps in self._snapshot.count_steps().items():
            run = self._expectation.of(run_id)
            expected = run.segment(index)
            if run.is_older and not expected.began:
                older[run_id] = older.get(run_id, 0) + n_steps - expected.n_steps
                continue
            if n_steps != expected.n_steps or self._n_breaks:
                numbers = self._snapshot.step_numbers(run_id, index)
                self._report([one for one in (self._expectation.check_steps(run_id, index, numbers),) if one is not None])
            n_samples = samples.get((run_id, index), 0)
            if n_samples != expected.n_samples and not run.is_damaged:
                what = f"text samples of segment {index} were added or deleted"
                self._report([LedgerBreak(what, f"{expected.n_samples} samples", f"{n_samples} samples", run_id=run_id)])
        return len(older), sum(older.values())
