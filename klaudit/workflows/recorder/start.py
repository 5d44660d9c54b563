"""A recording begins: its journal is made, and its run is begun in the store where that answers."""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from klaudit.alerts import Channel
from klaudit.audit import Policy, describe_policy
from klaudit.errors import JournalUnwritable, NotAStore, RunInUse, SchemaTooNew, SchemaTooOld, StoreError
from klaudit.records import KLBudget, Run
from klaudit.records.session import InUse, Resume, Session
from klaudit.store.journal.directories import list_journal_directories
from klaudit.store.journal.writer import Journal
from klaudit.store.process import describe_process_start
from klaudit.workflows.recorder.reporter import Reporter, Silence
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.worker import POLL_S

Durability = Literal["step", "batch"]
"""`step`: a step whose `log()` returned survives the death of the process; `batch`: all but those of the last `POLL_S` seconds do."""


def start_recording(
    url: str,
    *,
    run: Run,
    resumed_from_step: int | None = None,
    resume: Resume = "auto",
    in_use: InUse = "refuse",
    budgets: Sequence[KLBudget] = (),
    policy: Policy,
    channels: Sequence[Channel] = (),
    durability: Durability = "step",
    journals: Sequence[str | Path] = (),
    controller: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    actor: str | None = None,
    must_be_closed: bool = False,
) -> RunRecorder:
    """Begin to record a run, or the next segment of one. A store that does not answer now is no hindrance where there is a journal.

    Args:
        url: of the store; made when it is not there.
        run: what is known of it; its `id` is given here.
        resumed_from_step: the step that the trainer goes on from; None or 0 for a fresh start.
        resume: whether it goes on with its run.
        in_use: what to do when a live process writes that run.
        budgets: set in code for this run; those in the store that cover the run are added. A resume adds what it brings and takes nothing
            back: a limit ends when a person removes it.
        policy: of the live audit.
        channels: that alerts go to.
        durability: what survives the death of the process.
        journals: directories for the journal, best first; default: beside an SQLite file, in the user's state directory for another store.
        controller: state of the beta controller, as JSON.
        reporter: is told what goes wrong.
        actor: name of the person behind the process, for the ledger.
        must_be_closed: whether a run that nobody closed before the interpreter ends has failed, as with trainers that tell of their end.

    Raises:
        InvalidConfig: not the URL of a store.
        RunInUse: a live process writes that run.
        RunNotFound: `resume="must"` and there is no such run.
        StoreError: neither the store nor a journal can be written.
    """
    reporter = reporter or Silence()
    directories = list_journal_directories(url, journals)
    session = Session(
        id=uuid.uuid4().hex,
        run=replace(run, id=uuid.uuid4().hex[:12]),
        started_at=datetime.now(UTC),
        host=socket.gethostname(),
        pid=os.getpid(),
        process_started=describe_process_start(os.getpid()),
        resumed_from_step=resumed_from_step or None,
        resume=resume,
        in_use=in_use,
        budgets=tuple(budgets),
        controller=controller,
        audit_policy=describe_policy(policy),
        journals=tuple(map(str, directories)),
    )
    journal = _open_journal(directories, session, reporter, usual=list_journal_directories(url))
    recorder = RunRecorder(
        url,
        session=session,
        journal=journal,
        policy=policy,
        channels=channels,
        reporter=reporter,
        actor=actor,
        is_prompt=durability == "step",
        must_be_closed=must_be_closed,
    )
    try:
        recorder.begin()
    except StoreError as error:
        if (
            journal is None
            or isinstance(error, RunInUse)
            or (in_use == "refuse" and isinstance(error, (NotAStore, SchemaTooOld, SchemaTooNew)))
        ):
            recorder.give_up()
            raise
        reporter.warn(f"the store cannot be used yet, and steps wait in {journal.directory}: {error}")
        recorder.stay_away()
    except BaseException:
        recorder.give_up()
        raise
    recorder.start()
    return recorder


def _open_journal(directories: Sequence[Path], session: Session, reporter: Reporter, *, usual: Sequence[Path]) -> Journal | None:
    if not directories:
        return None
    try:
        return Journal(directories, session, usual=usual)
    except JournalUnwritable as error:
        reporter.warn(f"steps wait in memory alone, and those of the last {POLL_S:g} s are lost when the process is killed: {error}")
        return None
