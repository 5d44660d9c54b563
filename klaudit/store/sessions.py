"""Sessions: which run and segment a process writes, held by a lease; and what dead ones left in their journals."""

import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klaudit.errors import InvalidJournal, InvalidRecord, KlauditError, NameTaken, RunInUse, RunNotFound, StoreError, StoreUnreachable
from klaudit.records import Checkpoint, Finding, KLBudget, KLSeries, LoggedStep, Run, Segment
from klaudit.records.session import Session
from klaudit.store.journal import (
    CLAIM_S,
    ELSEWHERE_SUFFIX,
    STEPS,
    UNREADABLE_SUFFIX,
    Entry,
    Loss,
    claim_journal,
    decode_series,
    decode_step,
    find_journals,
    is_journal_held,
    is_process_alive,
    read_entries,
    read_journal,
    read_session,
    remove_leftovers,
)

if TYPE_CHECKING:
    from klaudit.store.opening import Store

LEASE_S = 60.0
"""How long a run stays taken after the last sign of life of its writer, where that writer is on another host."""

BATCH = 1_000
"""Steps that are carried into the store at once."""

PLACINGS = 5
"""How often a session looks for its place in a run while others take it."""

UNREACHABLE = (StoreError, RunNotFound, OSError)
"""What may pass by itself: the steps are kept and tried again. Anything else is about one of them."""

Refusal = Callable[[Exception, LoggedStep | None], None]
"""Is told why the store refused a step, or, with None, a batch of them or their findings."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session writes."""

    run: Run
    segment: int
    budgets: tuple[KLBudget, ...]
    """The run's, as they stand in the store."""
    earlier: Segment | None = None
    """The segment that this one goes on from."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a dead session had left in its journal."""

    run: Run
    segment: int
    n_steps: int
    """Steps that were not in the store yet."""
    n_lost: int


def begin_session(store: "Store", session: Session, *, anew: bool = False) -> Begun:
    """Begin a run, or the next segment of one; for a session that has begun already, say what it writes.

    A trainer that resumes goes on with its run in a new segment. One that starts again under an old name gets a new run, `name-2`.
    Of several runs that came of one name, a trainer goes on with the one that wrote to its own output directory.

    Args:
        store: that it writes to.
        session: what is declared of it.
        anew: the session has steps already, so that a run that must be there, and is not any more, is made.

    Raises:
        RunInUse: a live process writes the run that would be gone on with.
        RunNotFound: `resume="must"` and there is no such run.
        StoreError: the store failed.
    """
    for n_left in reversed(range(PLACINGS)):
        try:
            # Whole or not at all: a run without a segment has no writer that anybody could tell.
            with store.together():
                return _find_begun(store, session) or _begin(store, session, anew=anew)
        except NameTaken:
            # Another trainer went on with the same run in between.
            if not n_left:
                raise
    raise AssertionError("unreachable")


def _find_begun(store: "Store", session: Session) -> Begun | None:
    segment = store.runs.find_session(session.id)
    if segment is None:
        return None
    run = store.runs.get(segment.run_id)
    return Begun(run, segment.index, tuple(store.budgets.for_run(run)))


def _begin(store: "Store", session: Session, *, anew: bool) -> Begun:
    run, index, earlier = _place_session(store, session, anew=anew)
    now = datetime.now(UTC)
    standing = {describe_limit(budget) for budget in store.budgets.for_run(run)}
    for budget in session.budgets:
        if describe_limit(budget) not in standing:
            store.budgets.add(replace(budget, run_id=run.id, match=None, created_at=now))
    store.runs.add_segment(
        Segment(
            run.id,
            index,
            session.started_at,
            host=session.host,
            pid=session.pid,
            process_started=session.process_started,
            resumed_from_step=session.resumed_from_step or None,
            session=session.id,
            heartbeat_at=now,
            lease_until=now + timedelta(seconds=LEASE_S),
            reference_digest=None if session.run.reference is None else session.run.reference.digest,
            controller=session.controller,
        )
    )
    if session.audit_policy is not None:
        store.ledger.note("policy_set", {"segment": index, **session.audit_policy}, run_id=run.id)
    return Begun(run, index, tuple(store.budgets.for_run(run)), earlier)


def _place_session(store: "Store", session: Session, *, anew: bool) -> tuple[Run, int, Segment | None]:
    resumed = _find_resumed_run(store, session, anew=anew)
    if resumed is not None:
        segments = store.runs.segments(resumed.id)
        writer = next((one for one in segments if is_segment_live(one, at=datetime.now(UTC)) and not _is_ours(one, session)), None)
        if writer is None:
            store.runs.set_status(resumed.id, "running", None)
            return resumed, len(segments), segments[-1] if segments else None
        if session.in_use == "refuse":
            until = (
                "" if writer.lease_until is None else f"; its lease ends at {writer.lease_until:%Y-%m-%d %H:%M:%S} UTC unless it is renewed"
            )
            raise RunInUse(
                f"expected run {resumed.name!r} to have no writer; process {writer.pid} on {writer.host} writes its segment {writer.index}{until}. "
                'End that process, or record this one as a new run with resume="never"'
            )
    while True:
        run = replace(session.run, name=find_free_name(session.run.name, taken=store.runs.names_like(session.run.name)))
        try:
            store.runs.add(run)
        except NameTaken:
            # Another trainer took the name in between, or this session was killed between its run and its segment.
            with contextlib.suppress(RunNotFound):
                return store.runs.get(run.id), 0, None
        else:
            return run, 0, None


def _find_resumed_run(store: "Store", session: Session, *, anew: bool) -> Run | None:
    """The run that a session goes on with: the latest of `name`, `name-2` and so on with its output directory, else `name` itself."""
    run = session.run
    wanted = session.resume == "must" or (session.resume == "auto" and bool(session.resumed_from_step))
    if not wanted:
        return None
    if run.name not in store.runs.names_like(run.name):
        if session.resume == "must" and not anew:
            raise RunNotFound(f'expected a run {run.name!r} to go on with, because of resume="must"; the store has none of that name')
        return None
    directory = run.config.get("output_dir")
    pattern = re.compile(rf"{re.escape(run.name)}(-\d+)?")
    same = [
        one.run
        for one in store.runs.list()
        if directory is not None and pattern.fullmatch(one.run.name) and one.run.config.get("output_dir") == directory
    ]
    return max(same, key=lambda one: one.started_at) if same else store.runs.get(run.name)


def is_segment_live(segment: Segment, *, at: datetime) -> bool:
    """Whether the process that writes a segment still does: by its process on this host, by its lease on another or in another container."""
    if segment.ended_at is not None or segment.lease_until is None:
        return False
    if segment.host == socket.gethostname() and segment.pid is not None:
        is_alive = is_process_alive(segment.pid, segment.process_started)
        if is_alive is not None:
            return is_alive
    return segment.lease_until > at


def _is_ours(segment: Segment, session: Session) -> bool:
    return (segment.host, segment.pid, segment.process_started) == (session.host, session.pid, session.process_started)


def describe_limit(budget: KLBudget) -> tuple[object, ...]:
    """What makes two budgets the same to a run."""
    return (budget.limit, budget.unit, budget.scope, budget.window_steps, budget.on, budget.action)


def find_free_name(name: str, *, taken: Sequence[str]) -> str:
    """`name`, or `name-2`, `name-3` and so on when it is taken."""
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def end_session(store: "Store", begun: Begun, *, failed: bool, at: datetime) -> None:
    """End a segment, and with its last one the run; what has ended already stays as it was.

    Args:
        store: that holds it.
        begun: what the session writes.
        failed: whether the trainer did.
        at: the end.

    Raises:
        RunNotFound: the run is not there any more.
        StoreError: the store failed.
    """
    with store.together():
        run = store.runs.get(begun.run.id)
        segments = store.runs.segments(run.id)
        ended_at = segments[begun.segment].ended_at
        if ended_at is None:
            store.runs.end_segment(run.id, begun.segment, at)
        if begun.segment == len(segments) - 1 and (ended_at is None or run.status == "running"):
            store.runs.set_status(run.id, "failed" if failed else "finished", ended_at or at)


def store_steps(
    store: "Store", run_id: str, logged: Sequence[LoggedStep], *, findings: Sequence[Finding] = (), on_refused: Refusal
) -> list[int]:
    """Store some steps with what they made; what the store refuses because of one of them, without that one's texts, else without that one.

    Args:
        store: that takes them.
        run_id: of the run.
        logged: the steps, in the segment that they belong to.
        findings: that they made or revised.
        on_refused: is told why.

    Returns:
        The steps that the store cannot hold.

    Raises:
        StoreError: the store failed, and some of the steps may be stored; try again with all.
        RunNotFound: no run has this id.
        OSError: as StoreError.
    """
    try:
        store.steps.add_all(run_id, logged, findings=findings)
    except UNREACHABLE:
        raise
    except Exception as error:
        on_refused(error, None)
    else:
        return []
    lost = _store_parts(store, run_id, logged, on_refused)
    if findings:
        try:
            store.steps.add_all(run_id, (), findings=findings)
        except UNREACHABLE:
            raise
        except Exception as error:
            on_refused(error, None)
    return lost


def _store_parts(store: "Store", run_id: str, logged: Sequence[LoggedStep], on_refused: Refusal) -> list[int]:
    """Store a batch half by half, until those stand alone that are refused; gives those that are refused without their texts too."""
    if not logged:
        return []
    try:
        store.steps.add_all(run_id, logged)
    except UNREACHABLE:
        raise
    except Exception as error:
        if len(logged) > 1:
            middle = len(logged) // 2
            return [step for half in (logged[:middle], logged[middle:]) for step in _store_parts(store, run_id, half, on_refused)]
        (one,) = logged
        on_refused(error, one)
        return _store_parts(store, run_id, [replace(one, samples=())], on_refused) if one.samples else [one.record.step]
    return []


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
        for step in store_steps(self._store, self._begun.run.id, logged, on_refused=self._note):
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


def apply_entry(store: "Store", run_id: str, segment: int, entry: Entry) -> None:
    """Store what a journal's entry says besides steps and their series; once or again, it comes to the same."""
    match entry:
        case ("declared", series, framework, algorithm, *_):
            store.runs.set_series(run_id, decode_series(("series", series)))
            if framework is not None and algorithm is not None:
                store.runs.set_trainer(run_id, framework=framework, algorithm=algorithm)
        case ("checkpoint", step, path, saved_at, digest):
            checkpoint = Checkpoint(
                run_id=run_id, step=step, path=path, saved_at=datetime.fromisoformat(saved_at), segment=segment, digest=digest
            )
            places = {(one.step, one.path): one for one in store.checkpoints.list(run_id) if one.segment == segment}
            known = places.get((step, path))
            if known is None:
                store.checkpoints.add(checkpoint)
            elif known.digest is None and digest is not None:
                store.checkpoints.add(replace(known, digest=digest))
        case ("identity", identity):
            store.runs.set_identity(run_id, identity)
            if (digest := find_reference_digest(identity)) is not None:
                store.runs.set_reference_digest(run_id, segment, digest)
        case _:
            raise InvalidJournal(
                f"expected an entry that klaudit knows; got one of kind {entry[0]!r}, written by a newer klaudit. Upgrade it"
            )


def find_reference_digest(identity: Mapping[str, Any]) -> str | None:
    """What the reference is by its weights: `sha256:` of its files, else `params:` of the tensors in memory; None where neither is known."""
    reference = identity.get("reference") or {}
    if reference.get("digest"):
        return str(reference["digest"])
    parameters = reference.get("parameters_digest")
    return f"params:{str(parameters).rpartition(':')[2]}" if parameters else None


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
