"""Looking at a model in the middle of its training, and leaving everything as it was found."""

import random
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn

WITHOUT_OWN_STATE = ("cpu", "meta", "mps")
"""Device types that `torch.random.fork_rng` needs no list of devices for, or, as for Apple's MPS, takes none."""


@contextmanager
def leave_undisturbed(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards, also after an exception, everything is what it was.

    Restored are the random generators of torch (CPU and the accelerators that hold the models), NumPy and Python, and of every module its mode,
    its other attributes (adapters switched on or off, caching flags), its buffers by name, and which of its parameters are trained: a training with a
    measurement in it is the same to the bit as one without.

    Args:
        models: the policy, and what it is compared with.
    """
    modules = list({id(module): module for model in models for module in model.modules()}.values())
    kept = [(vars(module), dict(vars(module))) for module in modules]
    kept += [(vars(module)["_buffers"], dict(vars(module)["_buffers"])) for module in modules]
    is_trained = [(parameter, parameter.requires_grad) for model in models for parameter in model.parameters()]
    with fork_random_state(*models), torch.no_grad():
        try:
            # not model.train(False), which a model may have made its own
            for module in modules:
                module.training = False
            yield
        finally:
            for now, before in kept:
                _put_back(now, before)
            for parameter, requires_grad in is_trained:
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)


@contextmanager
def fork_random_state(*models: nn.Module) -> Iterator[None]:
    """Afterwards the global generators of Python, NumPy, torch, and the accelerators that hold the models go on where they were."""
    devices = {parameter.device for model in models for parameter in model.parameters()}
    accelerators = sorted({device.index or 0 for device in devices if device.type not in WITHOUT_OWN_STATE})
    kind = next((device.type for device in devices if device.type not in WITHOUT_OWN_STATE), "cuda")
    python_state: Any = random.getstate()
    numpy_state: Any = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=accelerators, device_type=kind):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextmanager
def run_plainly(*models: nn.Module) -> Iterator[None]:
    """The weights in their own precision, uncompiled: policy and reference round alike. To be used inside of `leave_undisturbed`."""
    with ExitStack() as stack:
        for device_type in {parameter.device.type for model in models for parameter in model.parameters()}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        if "torch._dynamo" in sys.modules:
            stack.enter_context(cast(Any, torch.compiler).set_stance("force_eager"))
        for module in (module for model in models for module in model.modules()):
            # accelerate keeps the forward without its autocast here (accelerator.py:1825)
            if "_original_forward" in vars(module):
                vars(module)["forward"] = vars(module)["_original_forward"]
        yield


def _put_back(now: MutableMapping[str, Any], before: Mapping[str, Any]) -> None:
    """Make a mapping hold what it held, in its order; what did not change is not touched."""
    if list(now) != list(before):
        now.clear()
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value
