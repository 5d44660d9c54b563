"""What a trainer says of itself: the beta in force, the batch, and which models it holds."""

import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from klaudit.callbacks.probe import TRL_REFERENCE_ADAPTER
from klaudit.callbacks.whole_model import unwrap_model
from klaudit.records import ReferenceModel

LIBRARIES = ("trl", "transformers")


def read_arguments(args: Any) -> Mapping[str, Any]:
    """A trainer's arguments by name."""
    arguments: Mapping[str, Any] = args.to_dict() if hasattr(args, "to_dict") else vars(args)
    return arguments


def name_library_class(one: Any) -> str | None:
    """Class name of a trainer or of its arguments: for a class of somebody's own, that of the first class of a known library that it is made from."""
    if one is None:
        return None
    known = (cls.__name__ for cls in type(one).__mro__ if cls.__module__.partition(".")[0] in LIBRARIES)
    return next(known, type(one).__name__)


def find_trl_version(*ones: Any) -> str | None:
    """Version of TRL, where a trainer or its arguments are made from its classes; what some of its numbers mean depends on it."""
    if any(cls.__module__.partition(".")[0] == "trl" for one in ones for cls in type(one).__mro__):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version("trl")
    return None


def find_beta(args: Any, trainer: Any = None) -> float | None:
    """The KL coefficient in force: `beta` of a trainer that copied its arguments', else `kl_coef` of TRL's PPOConfig, else `beta` of the arguments.

    Args:
        args: the trainer's arguments.
        trainer: where it is at hand; TRL's GRPO, RLOO, DPO and KTO read their own `beta` and never the arguments' again.
    """
    for holder, name in ((trainer, "beta"), (args, "kl_coef"), (args, "beta")):
        value = getattr(holder, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def find_batch_size(args: Any) -> int | None:
    """Sequences of one rollout: `batch_size` of PPO's arguments, else a rank's batch x ranks x accumulation."""
    batch_size = getattr(args, "batch_size", None)
    if isinstance(batch_size, int) and batch_size > 0:
        return batch_size
    per_device = getattr(args, "per_device_train_batch_size", None)
    if not isinstance(per_device, int):
        return None
    return per_device * int(getattr(args, "world_size", 1)) * int(getattr(args, "gradient_accumulation_steps", 1))


def name_model(model: Any) -> str | None:
    """The name or path that a model was loaded from."""
    config = getattr(model, "config", None)
    return getattr(config, "_name_or_path", None) or None


def find_policy_name(trainer: Any) -> str | None:
    """As a person wrote it, where the trainer knows: the embedded PPO does."""
    name = getattr(getattr(trainer, "policy", None), "name", None)
    return name if isinstance(name, str) else None


def find_reference_model(trainer: Any) -> Any:
    """The trainer's reference model: `reference` of the embedded PPO, `ref_model` of TRL; None where it has none of its own."""
    reference = getattr(trainer, "reference", None)
    return reference if reference is not None else getattr(trainer, "ref_model", None)


def find_reference(trainer: Any) -> ReferenceModel | None:
    """The model that KL is measured against, by name; a PEFT policy's base model, its adapter off."""
    reference = find_reference_model(trainer)
    if reference is None:
        return find_base_model(getattr(trainer, "model", None))
    name = getattr(reference, "name", None) or name_model(unwrap_model(reference))
    return name_reference(name)


def find_base_model(policy: Any) -> ReferenceModel | None:
    """What a PEFT policy is with its adapter off; None for any other policy."""
    model = unwrap_model(policy)
    configs = getattr(model, "peft_config", None)
    if not configs:
        return None
    named = next((one.base_model_name_or_path for one in configs.values() if one.base_model_name_or_path), None) or name_model(model)
    if TRL_REFERENCE_ADAPTER in configs:
        return None if named is None else ReferenceModel(f"{named} with adapter {TRL_REFERENCE_ADAPTER!r}")
    return name_reference(named)


def note_reference(policy: Any, *, trainer: Any = None) -> str | None:
    """What to know of a reference that is part of the policy; None where it is a model of its own."""
    configs = getattr(unwrap_model(policy), "peft_config", None)
    if not configs or find_reference_model(trainer) is not None:
        return None
    if TRL_REFERENCE_ADAPTER in configs:
        return "reference: the base model with the adapter that training began with"
    return "reference: the base model, adapter off"


def name_reference(name: Any) -> ReferenceModel | None:
    """A model by its name; what it is by its weights is computed while it trains."""
    return ReferenceModel(name) if isinstance(name, str) and name else None
