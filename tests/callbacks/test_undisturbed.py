"""A model in the middle of its training is used, and is left as it was found."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from klaudit.callbacks.undisturbed import fork_random_state, leave_undisturbed, run_plainly
from klaudit.models.language_model import LanguageModel


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def describe(model: nn.Module) -> list[Any]:
    """What training depends on beside the numbers of the weights."""
    return [
        (
            name,
            module.training,
            list_plain(module),
            list(vars(module)),
            [(key, id(one)) for key, one in module.named_buffers(recurse=False)],
        )
        for name, module in model.named_modules()
    ] + [(name, weights.requires_grad, id(weights)) for name, weights in model.named_parameters()]


def list_plain(module: nn.Module) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in vars(module).items() if isinstance(value, (bool, int, float, str))]


class MadeItsOwnTrain(nn.Linear):
    def train(self, mode: bool = True) -> Any:
        raise AssertionError("a model's own train() may do anything")


@pytest.fixture
def mixed(tiny: LanguageModel) -> Any:
    """In training, but for one dropout and one layer that are not; some weights frozen."""
    model: Any = tiny.model
    model.extra = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2), MadeItsOwnTrain(2, 2))
    for module in model.modules():
        module.training = True
    model.extra[0].training = False
    model.model.layers[1].training = False
    model.model.layers[0].mlp.requires_grad_(False)
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_modes_attributes_buffers_and_what_is_trained_come_back_also_after_an_exception(mixed: Any, fails: bool) -> None:
    before = describe(mixed)

    def use() -> None:
        with leave_undisturbed(mixed):
            assert not any(module.training for module in mixed.modules())
            assert not torch.is_grad_enabled()
            mixed.extra[1](torch.rand(3, 2))
            mixed.requires_grad_(False)
            mixed.model.register_buffer("frequencies", torch.ones(2))
            mixed.model.rotary_emb.register_buffer("inv_freq", torch.ones(4), persistent=False)
            mixed.model.gradient_checkpointing = "changed"
            del mixed.extra[1].running_mean
            if fails:
                raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            use()
    else:
        use()
    assert describe(mixed) == before
    assert torch.is_grad_enabled()


def test_every_generator_goes_on_where_it_was(mixed: Any) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = draw()
    for guard in (leave_undisturbed, fork_random_state):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(3)
        with guard(mixed):
            draw()
            torch.manual_seed(9)
        assert draw() == expected


def test_what_comes_out_can_be_used_in_training(mixed: Any) -> None:
    with leave_undisturbed(mixed):
        output: Tensor = mixed(input_ids=torch.tensor([[1, 2]])).logits
    assert not output.is_inference()
    weights = torch.ones(1, requires_grad=True)
    (gradient,) = torch.autograd.grad((weights * output).sum(), weights)
    assert gradient.item() == pytest.approx(output.sum().item(), rel=1e-4)


def test_two_models_are_put_back_each_as_it_was(mixed: Any) -> None:
    other = nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).train(False)
    with leave_undisturbed(mixed, other):
        other[0].train()
    assert not other[0].training
    assert mixed.training


def test_the_weights_run_in_their_own_precision_inside_of_autocast(tiny: LanguageModel) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = tiny.model(input_ids=ids).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert tiny.model(input_ids=ids).logits.dtype == torch.bfloat16
            with leave_undisturbed(tiny.model), run_plainly(tiny.model):
                assert torch.equal(tiny.model(input_ids=ids).logits, plain)
            assert torch.is_autocast_enabled("cpu")
