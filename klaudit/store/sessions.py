"""Sessions: which run and segment a process writes, held by a lease; and what dead ones left in their journals."""

import contextlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klaudit.errors import InvalidJournal, KlauditError, NameTaken, RunInUse, RunNotFound
from klaudit.records import Checkpoint, KLBudget, KLSeries, Run, Segment
from klaudit.records.session import Session
from klaudit.store.journal import (
    STEPS,
    UNREADABLE_SUFFIX,
    Entry,
    JournalContent,
    claim_journal,
    decode_series,
    decode_step,
    find_journals,
    is_process_alive,
    read_journal,
)

if TYPE_CHECKING:
    from klaudit.store.opening import Store

LEASE_S = 60.0
"""How long a run stays taken after the last sign of life of its writer, where that writer is on another host."""

BATCH = 1_000
"""Steps that are carried into the store at once."""


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


def begin_session(store: "Store", session: Session) -> Begun:
    """Begin a run, or the next segment of one; for a session that has begun already, say what it writes.

    A trainer that resumes goes on with its run in a new segment. One that starts again under an old name gets a new run, `name-2`.
    Of several runs that came of one name, a trainer goes on with the one that wrote to its own output directory.

    Raises:
        RunInUse: a live process writes the run that would be gone on with.
        RunNotFound: `resume="must"` and there is no such run.
        StoreError: the store failed.
    """
    begun = store.runs.find_session(session.id)
    if begun is not None:
        run = store.runs.get(begun.run_id)
        return Begun(run, begun.index, tuple(store.budgets.for_run(run)))
    run, index, earlier = _place_session(store, session)
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
    return Begun(run, index, tuple(store.budgets.for_run(run)), earlier)


def _place_session(store: "Store", session: Session) -> tuple[Run, int, Segment | None]:
    resumed = _find_resumed_run(store, session)
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


def _find_resumed_run(store: "Store", session: Session) -> Run | None:
    """The run that a session goes on with: the latest of `name`, `name-2` and so on with its output directory, else `name` itself."""
    run = session.run
    wanted = session.resume == "must" or (session.resume == "auto" and bool(session.resumed_from_step))
    if not wanted:
        return None
    if run.name not in store.runs.names_like(run.name):
        if session.resume == "must":
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
    """Whether the process that writes a segment still does: by its process on this host, by its lease on another."""
    if segment.ended_at is not None or segment.lease_until is None:
        return False
    if segment.host == socket.gethostname() and segment.pid is not None:
        return is_process_alive(segment.pid, segment.process_started)
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


def replay_journals(store: "Store", directories: Sequence[Path]) -> tuple[Replayed, ...]:
    """Carry into the store what dead sessions left, each step once however often this is tried, and remove their journals.

    A journal that cannot be read is put aside under another name; one that the store does not take stays. Both are said in `store.warnings`.
    """
    replayed: list[Replayed] = []
    with contextlib.ExitStack() as claims:
        files: list[tuple[Session, Path]] = []
        for path in find_journals(directories):
            try:
                if claims.enter_context(claim_journal(path)):
                    files.append((read_journal(path).session, path))
            except InvalidJournal as error:
                path.replace(path.with_suffix(UNREADABLE_SUFFIX))
                store.warn(f"{error}; it was put aside as {path.with_suffix(UNREADABLE_SUFFIX).name}")
            except OSError as error:
                store.warn(f"{path}: a journal that cannot be read: {error}")
        for _, group in groupby(sorted(files, key=_order), key=lambda one: one[0].id):
            paths = [path for _, path in group]
            try:
                replayed.append(_replay(store, [read_journal(path) for path in paths]))
            except KlauditError as error:
                store.warn(f"{paths[0]}: steps wait there, and the store did not take them: {error}")
                continue
            for path in paths:
                path.unlink(missing_ok=True)
    return tuple(replayed)


def _order(file: tuple[Session, Path]) -> tuple[datetime, str, int]:
    session, path = file
    directories = session.journals
    return session.started_at, session.id, directories.index(str(path.parent)) if str(path.parent) in directories else len(directories)


def _replay(store: "Store", contents: Sequence[JournalContent]) -> Replayed:
    session = contents[0].session
    begun = begin_session(store, replace(session, in_use="rename"))
    n_new, failed = 0, True
    for content in contents:
        series: dict[str, KLSeries] = {}
        for kind, entries in groupby(content.entries, key=lambda entry: entry[0]):
            if kind in STEPS:
                n_new += sum(_store_steps(store, begun, list(batch), series) for batch in _split(entries))
                continue
            for entry in entries:
                if kind == "series":
                    series |= decode_series(entry)
                elif kind == "end":
                    failed = bool(entry[1])
                else:
                    apply_entry(store, begun.run.id, begun.segment, entry)
    at_risk = max((content.at_risk for content in contents), key=lambda loss: loss.n)
    n_lost = at_risk.n + sum(content.n_damaged for content in contents)
    if n_lost:
        reason = "the process ended while no disk took its steps" if at_risk.n else "the journal was damaged"
        store.runs.set_loss(
            begun.run.id, begun.segment, n_lost=n_lost, first_step=at_risk.first_step, last_step=at_risk.last_step, reason=reason
        )
    _end_dead_segment(store, begun, failed=failed)
    return Replayed(begun.run, begun.segment, n_new, n_lost)


def _end_dead_segment(store: "Store", begun: Begun, *, failed: bool) -> None:
    segments = store.runs.segments(begun.run.id)
    last = store.steps.last(begun.run.id)
    if segments[begun.segment].ended_at is None:
        ended_at = segments[begun.segment].heartbeat_at if last is None or last.segment != begun.segment else last.logged_at
        store.runs.end_segment(begun.run.id, begun.segment, ended_at or datetime.now(UTC))
    if begun.segment == len(segments) - 1 and store.runs.get(begun.run.id).status == "running":
        store.runs.set_status(begun.run.id, "failed" if failed else "finished", segments[begun.segment].ended_at or datetime.now(UTC))


def _store_steps(store: "Store", begun: Begun, entries: Sequence[Entry], series: dict[str, KLSeries]) -> int:
    return store.steps.add_all(begun.run.id, [decode_step(entry, segment=begun.segment, series=series) for entry in entries])


def _split(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
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
        except (OSError, InvalidJournal):
            continue
        segment = store.runs.find_session(content.session.id)
        stored = -1
        if segment is not None and (last := store.steps.last(segment.run_id, segment=segment.index)) is not None:
            stored = last.step
        n = sum(1 for entry in content.entries if entry[0] in STEPS and entry[1] > stored)
        if n:
            with claim_journal(path) as is_dead:
                run_id = content.session.run.id if segment is None else segment.run_id
                waiting.append(Waiting(content.session.run.name, run_id, n, is_live=not is_dead))
    return tuple(waiting)
