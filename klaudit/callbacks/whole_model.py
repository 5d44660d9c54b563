"""The language model inside of what a trainer holds, and whether it is there as a whole."""

import itertools
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from klaudit.errors import InvalidConfig

WRAPPERS = ("_orig_mod", "module", "policy", "pretrained_model")
"""Names under which torch.compile, DDP and DeepSpeed, TRL's PPO, and value heads hold the language model."""


def unwrap_model(model: Any) -> Any:
    """The language model inside of what trainers put around it: DDP, torch.compile, DeepSpeed, TRL's PPO wrapper, a value head."""
    while isinstance(model, nn.Module) and not isinstance(model, PreTrainedModel):
        inside = vars(model)["_modules"]
        name = next((name for name in WRAPPERS if inside.get(name) is not None), None)
        if name is None:
            break
        model = inside[name]
    return model


def explain_unavailable(model: Any) -> str | None:
    """Why a model cannot be sampled from where it is; None where it can.

    Args:
        model: as the trainer holds it.
    """
    if not isinstance(model, nn.Module):
        return f"expected a model; got {type(model).__name__}"
    return explain_incomplete(model) or _explain_adapter(model) or _explain_kind(unwrap_model(model))


def explain_incomplete(model: nn.Module) -> str | None:
    """Why this rank does not have the whole model; None where it has. Needs neither DeepSpeed nor FSDP to recognise them.

    Args:
        model: as the trainer holds it.
    """
    reasons = itertools.chain(map(_explain_module, model.modules()), map(_explain_parameter, model.parameters()))
    return next((reason for reason in reasons if reason is not None), None)


def require_available(model: Any, *, what: str) -> None:
    """Raise InvalidConfig with the reason why a model cannot be measured."""
    reason = explain_unavailable(model)
    if reason is not None:
        raise InvalidConfig(f"the {what} cannot be measured here: {reason}")


def _explain_module(module: nn.Module) -> str | None:
    names = {one.__name__ for one in type(module).__mro__}
    if names & {"FullyShardedDataParallel", "FSDPModule"} or "_is_fsdp_managed_module" in vars(module):
        return "its weights are sharded over ranks (FSDP), and no rank has the whole model"
    return None


def _explain_parameter(parameter: nn.Parameter) -> str | None:
    if hasattr(parameter, "ds_id"):
        return "its weights are sharded over ranks (DeepSpeed ZeRO-3), and no rank has the whole model"
    if hasattr(parameter, "device_mesh") and hasattr(parameter, "placements"):
        return "its weights are distributed tensors (FSDP2 or tensor parallel), and no rank has the whole model"
    return "some of its weights are offloaded (meta device)" if parameter.is_meta else None


def _explain_adapter(model: nn.Module) -> str | None:
    if any(getattr(module, "merged_adapters", None) for module in model.modules()):
        return "its adapter is merged into the weights, and switching it off would change them"
    return None


def _explain_kind(language_model: nn.Module) -> str | None:
    config = getattr(language_model, "config", None)
    if not hasattr(config, "vocab_size") or getattr(config, "is_encoder_decoder", False):
        return f"expected a causal language model of transformers; got {type(language_model).__name__}"
    if getattr(getattr(language_model, "active_peft_config", None), "is_prompt_learning", False):
        return "its adapter is a learned prompt, which klaudit cannot sample from"
    return None
