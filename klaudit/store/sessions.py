"""Sessions: which run and segment a process writes, held by a lease."""

import contextlib
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from klaudit.errors import NameTaken, RunInUse, RunNotFound
from klaudit.records import KLBudget, Run, Segment
from klaudit.records.session import Session
from klaudit.store.process import is_process_alive

if TYPE_CHECKING:
    from klaudit.store.opening import Store

LEASE_S = 60.0
"""How long a run stays taken after the last sign of life of its writer, where that writer is on another host."""

PLACINGS = 5
"""How often a session looks for its place in a run while others take it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session writes."""

    run: Run
    segment: int
    budgets: tuple[KLBudget, ...]
    """The run's, as they stand in the store."""
    earlier: Segment | None = None
    """The segment that this one goes on from."""


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
