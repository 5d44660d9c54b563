"""What dead sessions left in their journals."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from klaudit.errors import InvalidJournal, InvalidRecord, KlauditError, StoreUnreachable
from klaudit.records import KLSeries, LoggedStep, Run
from klaudit.records.session import Session
from klaudit.store.intake import BATCH, UNREACHABLE, apply_entry, store_steps
from klaudit.store.journal.claim import CLAIM_S, claim_journal, is_journal_held
from klaudit.store.journal.content import read_entries, read_journal, read_session
from klaudit.store.journal.directories import ELSEWHERE_SUFFIX, UNREADABLE_SUFFIX, find_journals, remove_leftovers
from klaudit.store.journal.entry import STEPS, Entry, decode_series, decode_step
from klaudit.store.journal.loss import Loss
from klaudit.store.sessions import Begun, begin_session, end_session

if TYPE_CHECKING:
    from klaudit.store.opening import Store


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a dead session had left in its journal."""

    run: Run
    segment: int
    n_steps: int
    """Steps that were not in the store yet."""
    n_lost: int


def replay_journals(store: "Store", directories: Sequence[Path]) -> tuple[Replayed, ...]:
    """Carry into the store what dead sessions left, each step once however often this is tried, and remove their journals.

    A journal that cannot be read is put aside under another name; one that the store does not take stays. Both are said in `store.warnings`.
    """
    replayed: list[Replayed] = []
    with contextlib.ExitStack() as claims:
        files = sorted(_claim_dead(store, directories, claims), key=_order)
        for _, group in groupby(files, key=lambda one: one[0].id):
            sessions, paths = zip(*group, strict=True)
            try:
                replayed.append(_replay(store, sessions[0], paths))
                for path in (*paths, *(directory / f"{sessions[0].id}{ELSEWHERE_SUFFIX}" for directory in directories)):
                    path.unlink(missing_ok=True)
            except StoreUnreachable as error:
                store.warn(f"{paths[0]}: steps wait there, as in any other journal, until the store answers: {error}")
                break
            except (KlauditError, OSError, ValueError, TypeError) as error:
                store.warn(f"{paths[0]}: steps wait there, and the store did not take all of them, or the file cannot be removed: {error}")
    remove_leftovers(directories)
    return tuple(replayed)


def _claim_dead(store: "Store", directories: Sequence[Path], claims: contextlib.ExitStack) -> list[tuple[Session, Path]]:
    """The journals that nobody writes any more, held until `claims` is closed."""
    until = time.monotonic() + CLAIM_S
    files: list[tuple[Session, Path]] = []
    foreign: Counter[Path] = Counter()
    for path in find_journals(directories):
        try:
            if claims.enter_context(claim_journal(path, until=until)):
                files.append((read_session(path)[0], path))
        except FileNotFoundError:
            # Its writer has stored everything meanwhile.
            continue
        except PermissionError:
            foreign[path.parent] += 1
        except InvalidJournal as error:
            store.warn(f"{error}; {_put_aside(path)}")
        except (OSError, ValueError, TypeError) as error:
            store.warn(f"{path}: a journal that cannot be read: {error}")
    for directory, n in foreign.items():
        store.warn(f"{n} journals in {directory} belong to somebody else and cannot be read: run this as that user")
    return files


def _put_aside(path: Path) -> str:
    aside = path.with_suffix(UNREADABLE_SUFFIX)
    try:
        path.replace(aside)
    except OSError as error:
        return f"it could not be put aside: {error}"
    return f"it was put aside as {aside.name}"


def _order(file: tuple[Session, Path]) -> tuple[datetime, str, int]:
    session, path = file
    directories = session.journals
    return session.started_at, session.id, directories.index(str(path.parent)) if str(path.parent) in directories else len(directories)


def _replay(store: "Store", session: Session, paths: Sequence[Path]) -> Replayed:
    begun = begin_session(store, replace(session, in_use="rename"), anew=True)
    n_before = store.steps.count(begun.run.id)
    replay = _Replay(store, begun)
    for path in paths:
        replay.carry(path)
    if replay.refusals:
        store.warn(
            f"{len(replay.refusals)} entries in the journal of run {begun.run.name!r} could not be stored as they are; first: "
            f"{replay.refusals[0]}"
        )
    n_lost = replay.report_loss(max((read_session(path)[1] for path in paths), key=lambda loss: loss.n))
    segment = store.runs.segments(begun.run.id)[begun.segment]
    last = store.steps.last(begun.run.id, segment=begun.segment)
    ended_at = segment.heartbeat_at if last is None else last.logged_at
    end_session(store, begun, failed=replay.failed, at=ended_at or datetime.now(UTC))
    return Replayed(begun.run, begun.segment, store.steps.count(begun.run.id) - n_before, n_lost)


class _Replay:
    """Carries the journal of one dead session into the store; an entry that the store cannot hold does not keep the others out."""

    def __init__(self, store: "Store", begun: Begun) -> None:
        self.refusals: list[Exception] = []
        self.failed = True
        self._store = store
        self._begun = begun
        self._refused = Loss()
        self._n_damaged = 0

    def carry(self, path: Path) -> None:
        """Store what one file holds."""
        series: dict[str, KLSeries] = dict(self._begun.run.series)
        for are_steps, entries in groupby(self._read(path), key=lambda entry: entry[0] in STEPS):
            if are_steps:
                for batch in _split(entries):
                    self._store_steps(batch, series)
                continue
            for entry in entries:
                if entry[0] == "series":
                    series |= decode_series(entry)
                elif entry[0] == "end":
                    self.failed = bool(entry[1])
                else:
                    self._apply(entry)

    def report_loss(self, at_risk: Loss) -> int:
        """Put down how many steps are nowhere. A damaged line counts as one, since what stood there cannot be known."""
        begun, refused = self._begun, self._refused
        reasons = {
            "the process ended while no disk took its steps": at_risk.n,
            "the store cannot hold them": refused.n,
            "damaged lines in the journal": self._n_damaged,
        }
        n_lost = sum(reasons.values())
        if n_lost:
            self._store.runs.set_loss(
                begun.run.id,
                begun.segment,
                n_lost=n_lost,
                first_step=min((one.first_step for one in (at_risk, refused) if one.first_step is not None), default=None),
                last_step=max((one.last_step for one in (at_risk, refused) if one.last_step is not None), default=None),
                reason="; ".join(f"{n}: {reason}" if n != n_lost else reason for reason, n in reasons.items() if n),
            )
        return n_lost

    def _read(self, path: Path) -> Iterator[Entry]:
        for entry in read_entries(path):
            if entry is None:
                self._n_damaged += 1
            else:
                yield entry

    def _store_steps(self, entries: Sequence[Entry], series: Mapping[str, KLSeries]) -> None:
        logged: list[LoggedStep] = []
        for entry in entries:
            try:
                logged.append(decode_step(entry, segment=self._begun.segment, series=series))
            except InvalidRecord as error:
                self.refusals.append(error)
                self._refused = self._refused.add(entry[1])
        for step in store_steps(self._store, self._begun.run.id, logged, on_refused=self._note).steps:
            self._refused = self._refused.add(step)

    def _apply(self, entry: Entry) -> None:
        try:
            apply_entry(self._store, self._begun.run.id, self._begun.segment, entry)
        except UNREACHABLE:
            raise
        except Exception as error:
            self.refusals.append(error)

    def _note(self, error: Exception, step: LoggedStep | None) -> None:
        if step is not None:
            self.refusals.append(error)


def _split(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Waiting:
    """Steps of one session that stand in its journal and not in the store."""

    run_name: str
    run_id: str
    n_steps: int
    is_live: bool
    """Whether their writer still runs, and will carry them over itself."""


def list_waiting(store: "Store", directories: Sequence[Path]) -> tuple[Waiting, ...]:
    """What waits in journals, without touching them."""
    waiting = []
    for path in find_journals(directories):
        try:
            content = read_journal(path)
            is_live = is_journal_held(path)
        except (OSError, InvalidJournal, ValueError, TypeError):
            continue
        segment = store.runs.find_session(content.session.id)
        stored = -1
        if segment is not None and (last := store.steps.last(segment.run_id, segment=segment.index)) is not None:
            stored = last.step
        n = sum(1 for entry in content.entries if entry[0] in STEPS and entry[1] > stored)
        if n:
            run_id = content.session.run.id if segment is None else segment.run_id
            waiting.append(Waiting(content.session.run.name, run_id, n, is_live=is_live))
    return tuple(waiting)
