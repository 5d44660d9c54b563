"""`klaudit.attach`: the callback, and what only the trainer itself knows."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from klaudit.audit import Policy
from klaudit.callbacks.recording import say
from klaudit.callbacks.trainer_callback import KLAuditCallback, name_model
from klaudit.digests import digest_weights
from klaudit.errors import InvalidConfig, KlauditError
from klaudit.records import KLBudget, ReferenceModel


def attach(
    trainer: Any,
    run: str,
    *,
    budget: KLBudget | Iterable[KLBudget] | None = None,
    store: str | None = None,
    policy: Policy | Path | str | None = None,
    webhook: str | None = None,
) -> KLAuditCallback:
    """Attach klaudit to a Hugging Face style trainer.

    Args:
        trainer: anything with `add_callback`.
        run: name of the run.
        budget: see KLAuditCallback, as are `store`, `policy` and `webhook`.
        store: where the run is kept.
        policy: of the live audit.
        webhook: URL that alerts are posted to.

    Raises:
        InvalidConfig: the trainer takes no callbacks.
    """
    if not hasattr(trainer, "add_callback"):
        raise InvalidConfig(
            f"klaudit.attach needs a trainer with add_callback; got {type(trainer).__name__}. For a loop of your own: klaudit.start_run"
        )
    reference = find_reference(trainer)
    callback = KLAuditCallback(
        run, budget=budget, store=store, policy=policy, webhook=webhook, policy_model=find_policy_name(trainer), reference=reference
    )
    trainer.add_callback(callback)
    return callback


def find_policy_name(trainer: Any) -> str | None:
    """As a person wrote it, where the trainer knows: the embedded PPO does."""
    name = getattr(getattr(trainer, "policy", None), "name", None)
    return name if isinstance(name, str) else None


def find_reference(trainer: Any) -> ReferenceModel | None:
    """The trainer's reference model: `reference` of the embedded PPO, `ref_model` of TRL; with a digest where its weights lie in a directory."""
    reference = getattr(trainer, "reference", None) or getattr(trainer, "ref_model", None)
    name = getattr(reference, "name", None) or name_model(reference)
    if not isinstance(name, str) or not name:
        return None
    return ReferenceModel(name, digest_local_weights(Path(getattr(reference, "path", None) or name)))


def digest_local_weights(path: Path) -> str | None:
    """Digest of the safetensors in a directory; None on ranks that record nothing, and where there are none or they cannot be read."""
    if os.environ.get("RANK", "0") != "0" or not any(path.glob("*.safetensors")):
        return None
    try:
        return digest_weights(path)
    except (OSError, KlauditError) as error:
        say(f"the reference's weights in {path} have no digest on record: {error}")
        return None
