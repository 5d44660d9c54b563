"""The language model is found inside of what trainers make of it, and sharded weights are recognised."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from klaudit.callbacks.probe import LiveProbe
from klaudit.callbacks.whole_model import explain_unavailable, unwrap_model
from klaudit.models.language_model import LanguageModel


class PolicyAndValueWrapper(nn.Module):
    """As in TRL 1.12.0 ppo_trainer.py:275."""

    def __init__(self, policy: nn.Module, value_model: nn.Module) -> None:
        super().__init__()
        self.policy, self.value_model = policy, value_model


class FullyShardedDataParallel(nn.Module):
    """Of the name of torch's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def compile_model(model: nn.Module) -> Any:
    """Nothing is compiled before the first call."""
    return torch.compile(model)


WRAPPINGS: list[Callable[[Any], Any]] = [
    lambda model: model,
    compile_model,
    lambda model: PolicyAndValueWrapper(model, nn.Linear(1, 1)),
    lambda model: compile_model(PolicyAndValueWrapper(compile_model(model), nn.Linear(1, 1))),
    nn.DataParallel,
]


@pytest.mark.parametrize("wrap", WRAPPINGS)
def test_the_language_model_is_found_and_measured_inside(tiny: LanguageModel, wrap: Callable[[Any], Any]) -> None:
    wrapped = wrap(tiny.model)
    assert unwrap_model(wrapped) is tiny.model
    assert explain_unavailable(wrapped) is None
    probe = LiveProbe(("w1", "w2 w3"), max_new_tokens=3)
    probe.begin(wrapped, tokenizer=SimpleNamespace(tokenizer=tiny.tokenizer))
    full = probe.measure(wrapped, step=1).readings["kl_probe"].value
    assert full is not None
    assert 0 <= full < 1e-9


@pytest.mark.usefixtures("process_group")
def test_replicated_weights_are_whole(tiny: LanguageModel) -> None:
    wrapped = DistributedDataParallel(tiny.model)
    assert unwrap_model(wrapped) is tiny.model
    assert explain_unavailable(wrapped) is None


@pytest.mark.usefixtures("process_group")
def test_fsdp2_is_recognised_as_torch_makes_it_the_whole_model_or_a_layer_of_it(tiny: LanguageModel) -> None:
    layer: Any = tiny.model.get_submodule("model.layers.0")
    fully_shard(layer)
    assert "FSDP" in (explain_unavailable(tiny.model) or "")


@pytest.mark.parametrize(
    ("shard", "reason"),
    [
        (FullyShardedDataParallel, "FSDP"),
        (lambda model: mark(model, _is_fsdp_managed_module=True), "FSDP"),
        (lambda model: mark_weights(model, ds_id=3), "DeepSpeed ZeRO-3"),
        (lambda model: mark_weights(model, device_mesh=0, placements=()), "distributed tensors"),
        (lambda model: model.to("meta"), "meta device"),
    ],
)
def test_weights_that_are_not_whole_are_a_reason(tiny: LanguageModel, shard: Callable[[Any], Any], reason: str) -> None:
    assert reason in (explain_unavailable(shard(tiny.model)) or "")


def test_what_is_no_language_model_is_a_reason() -> None:
    assert explain_unavailable(nn.Linear(1, 1)) == "expected a causal language model of transformers; got Linear"
    assert explain_unavailable("model") == "expected a model; got str"
    both_ways: Any = nn.Linear(1, 1)
    both_ways.config = SimpleNamespace(vocab_size=3, is_encoder_decoder=True)
    assert explain_unavailable(both_ways) == "expected a causal language model of transformers; got Linear"


def mark(model: Any, **attributes: Any) -> Any:
    inside = model.get_submodule("model.layers.1")
    for name, value in attributes.items():
        setattr(inside, name, value)
    return model


def mark_weights(model: Any, **attributes: Any) -> Any:
    last = list(model.parameters())[-1]
    for name, value in attributes.items():
        setattr(last, name, value)
    return model
