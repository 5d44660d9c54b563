"""`klaudit.attach`: the callback, and what only the trainer itself knows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from klaudit.audit import Policy
from klaudit.callbacks.heldout import HeldoutScore
from klaudit.callbacks.probe import LiveProbe
from klaudit.callbacks.trainer_callback import KLAuditCallback
from klaudit.errors import InvalidConfig
from klaudit.records import KLBudget, KLSeries, ReferenceModel
from klaudit.records.session import Resume
from klaudit.workflows.recorder.start import Durability


def attach(
    trainer: Any,
    run: str,
    *,
    budget: KLBudget | Iterable[KLBudget] | None = None,
    store: str | None = None,
    policy: Policy | Path | str | None = None,
    webhook: str | None = None,
    policy_model: str | None = None,
    reference: ReferenceModel | None = None,
    metric_map: Mapping[str, KLSeries | str] | None = None,
    heldout: HeldoutScore | str | None = None,
    probe: LiveProbe | None = None,
    resume: Resume = "auto",
    durability: Durability = "step",
    journal: Path | str | Iterable[Path | str] | None = None,
) -> KLAuditCallback:
    """Attach klaudit to a Hugging Face style trainer.

    The callback learns from the trainer what callbacks are not told: its class, its reference model and the beta in force.

    Args:
        trainer: anything with `add_callback`.
        run: name of the run.
        budget: see KLAuditCallback, as are all others.
        store: where the run is kept.
        policy: of the live audit.
        webhook: URL that alerts are posted to.
        policy_model: name of the model that is trained.
        reference: the model that KL is measured against.
        metric_map: what keys of your own mean.
        heldout: a reward that the policy is not trained on.
        probe: measures the KL itself.
        resume: whether a trainer that goes on from a step goes on with its run.
        durability: what survives the death of the process.
        journal: directory for the journal, or two of them.

    Raises:
        InvalidBudget: an action that cannot be taken.
        InvalidConfig: the trainer takes no callbacks, or an argument that cannot be read.
    """
    if not hasattr(trainer, "add_callback"):
        raise InvalidConfig(
            f"klaudit.attach needs a trainer with add_callback; got {type(trainer).__name__}. For a loop of your own: klaudit.start_run"
        )
    callback = KLAuditCallback(
        run,
        budget=budget,
        store=store,
        policy=policy,
        webhook=webhook,
        policy_model=policy_model,
        reference=reference,
        metric_map=metric_map,
        heldout=heldout,
        probe=probe,
        resume=resume,
        durability=durability,
        journal=journal,
        trainer=trainer,
    )
    trainer.add_callback(callback)
    return callback
