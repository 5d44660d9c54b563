"""Two hash chains in one: every entry is bound to the entry before it in the store, and to its run's entry before it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import datetime

from klaudit.ledger.canonical import digest_canonical
from klaudit.records.ledger import Actor, LedgerBreak, LedgerDraft, LedgerEntry, LedgerHead, RunHead
from klaudit.records.moment import format_moment

GENESIS = "sha256:" + "0" * 64
"""What stands before the first entry."""

EMPTY_HEAD = LedgerHead(seq=0, hash=GENESIS)


def hash_entry(entry: LedgerEntry) -> str:
    """`sha256:` and 64 hex digits over every field but `hash` itself.

    Raises:
        InvalidRecord: a body that JSON cannot hold.
    """
    sealed = {
        "seq": entry.seq,
        "run_id": entry.run_id,
        "run_seq": entry.run_seq,
        "kind": entry.kind,
        "at": format_moment(entry.at),
        "actor": asdict(entry.actor),
        "body": entry.body,
        "prev_hash": entry.prev_hash,
        "run_prev_hash": entry.run_prev_hash,
    }
    return digest_canonical("klaudit-ledger-entry/1", sealed)


def seal(draft: LedgerDraft, *, at: datetime, actor: Actor, after: LedgerHead, run_head: RunHead | None) -> LedgerEntry:
    """The draft as the next entry of the chain.

    Args:
        draft: what it says.
        at: now, with a time zone.
        actor: who says it.
        after: the last entry of the store; `EMPTY_HEAD` before the first.
        run_head: the last entry of the draft's run; None before its first, and where there is no run.

    Raises:
        InvalidRecord: a body that JSON cannot hold, or a time without zone.
    """
    run_seq = None if draft.run_id is None else 1 if run_head is None else run_head.run_seq + 1
    entry = LedgerEntry(
        seq=after.seq + 1,
        run_id=draft.run_id,
        run_seq=run_seq,
        kind=draft.kind,
        at=at,
        actor=actor,
        body=draft.body,
        prev_hash=after.hash,
        run_prev_hash=None if run_head is None else run_head.hash,
        hash="",
    )
    return replace(entry, hash=hash_entry(entry))


class Chain:
    """Follows entries in order and says where they do not hold together; remembers one head a run."""

    def __init__(self) -> None:
        self.seq = 0
        self.hash = GENESIS
        self._heads: dict[str, tuple[int, str]] = {}

    def follow(self, entry: LedgerEntry) -> list[LedgerBreak]:
        """What is wrong with the next entry: its place, its bond to the one before, or its own content; empty where nothing is."""
        found = [*self._check_place(entry), *self._check_run(entry)]
        if (recomputed := hash_entry(entry)) != entry.hash:
            found.append(
                LedgerBreak(
                    f"entry {entry.seq} ({entry.kind}) was edited", f"hash {recomputed}", f"hash {entry.hash}", entry.seq, entry.run_id
                )
            )
        self.seq, self.hash = entry.seq, entry.hash
        if entry.run_id is not None:
            self._heads[entry.run_id] = (entry.run_seq or 0, entry.hash)
        return found

    def _check_place(self, entry: LedgerEntry) -> Iterator[LedgerBreak]:
        if entry.seq != self.seq + 1:
            missing = f"entry {self.seq + 1} is" if entry.seq == self.seq + 2 else f"entries {self.seq + 1} to {entry.seq - 1} are"
            yield LedgerBreak(f"{missing} missing", f"entry {self.seq + 1}", f"entry {entry.seq}", entry.seq, entry.run_id)
        elif entry.prev_hash != self.hash:
            what = f"entry {entry.seq} ({entry.kind}) does not follow entry {self.seq}"
            yield LedgerBreak(what, f"previous hash {self.hash}", f"previous hash {entry.prev_hash}", entry.seq, entry.run_id)

    def _check_run(self, entry: LedgerEntry) -> Iterator[LedgerBreak]:
        run_seq, run_hash = (0, None) if entry.run_id is None else self._heads.get(entry.run_id, (0, None))
        expected = (None if entry.run_id is None else run_seq + 1, run_hash)
        came = (entry.run_seq, entry.run_prev_hash)
        if came != expected:
            what = f"entry {entry.seq} ({entry.kind}) does not follow the entry of its run before it"
            yield LedgerBreak(what, _describe_run_link(expected), _describe_run_link(came), entry.seq, entry.run_id)


def verify_entries(entries: Iterable[LedgerEntry]) -> Iterator[LedgerBreak]:
    """Where a ledger does not hold together, as far as it shows by itself: an entry edited, deleted inside, inserted or moved.

    A tail that was cut off, and a ledger that was made anew from some entry on, hold together; only a head kept elsewhere shows them.
    """
    chain = Chain()
    for entry in entries:
        yield from chain.follow(entry)


def _describe_run_link(link: tuple[int | None, str | None]) -> str:
    run_seq, run_prev_hash = link
    return f"number {run_seq} of the run after {run_prev_hash or 'none'}"
