"""What trainers logged, taken into the store: steps in batches, other entries of a journal one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from klaudit.errors import InvalidJournal, RunNotFound, StoreError
from klaudit.records import Checkpoint, Finding, LoggedStep
from klaudit.store.journal.entry import Entry, decode_series

if TYPE_CHECKING:
    from klaudit.store.opening import Store

BATCH = 1_000
"""Steps that are carried into the store at once."""

UNREACHABLE = (StoreError, RunNotFound, OSError)
"""What may pass by itself: the steps are kept and tried again. Anything else is about one of them."""

OnRefused = Callable[[Exception, LoggedStep | None], None]
"""Is told why the store refused a step, or, with None, a batch of them or a finding."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What the store cannot hold."""

    steps: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()


def store_steps(
    store: "Store", run_id: str, logged: Sequence[LoggedStep], *, findings: Sequence[Finding] = (), on_refused: OnRefused
) -> Refused:
    """Store some steps with what they made; what the store refuses because of one of them, without that one's texts, else without that one.

    A value that does not fit and a row that a constraint refuses are the same here.

    Args:
        store: that takes them.
        run_id: of the run.
        logged: the steps, in the segment that they belong to.
        findings: that they made or revised.
        on_refused: is told why.

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
        return Refused()
    lost = _store_parts(store, run_id, logged, on_refused)
    return Refused(tuple(lost), store_findings(store, run_id, findings, on_refused=on_refused))


def store_findings(store: "Store", run_id: str, findings: Sequence[Finding], *, on_refused: OnRefused) -> tuple[Finding, ...]:
    """Store some findings of a run, without those that the store refuses; gives those.

    Raises:
        StoreError: the store failed; try again with all.
        RunNotFound: no run has this id.
        OSError: as StoreError.
    """
    try:
        store.findings.upsert(run_id, findings)
    except UNREACHABLE:
        raise
    except Exception as error:
        if len(findings) > 1:
            return tuple(refused for one in findings for refused in store_findings(store, run_id, [one], on_refused=on_refused))
        on_refused(error, None)
        return tuple(findings)
    return ()


def _store_parts(store: "Store", run_id: str, logged: Sequence[LoggedStep], on_refused: OnRefused) -> list[int]:
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
        case ("stopped", said):
            body = {"segment": segment, **said}
            if all(one.body != body for one in store.ledger.list(run_id=run_id, kind="stopped")):
                store.ledger.note("stopped", body, run_id=run_id)
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
