from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from klaudit.errors import IncompleteWeights, ModelNotFound
from klaudit.models import parameters
from klaudit.models.language_model import LanguageModel
from klaudit.models.parameters import compare_layers, locate_layer
from tests.models.tiny import make_tiny_model


def save(language_model: LanguageModel, directory: Path, *, max_shard_size: str = "1GB") -> Path:
    language_model.model.save_pretrained(directory, max_shard_size=max_shard_size)
    language_model.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def moved(tiny: LanguageModel) -> LanguageModel:
    """Every weight of layer 1 is 1.5 times what it was, and one of the embedding is moved by 3."""
    other = make_tiny_model()
    with torch.no_grad():
        for parameter in other.model.get_submodule("model.layers.1").parameters():
            parameter.mul_(1.5)
        other.model.get_parameter("model.embed_tokens.weight")[5, 5] += 3.0
    return other


def test_each_layer_is_as_far_as_its_weights_moved(tiny: LanguageModel, moved: LanguageModel) -> None:
    layers = compare_layers(moved, tiny)
    assert [(one.layer, one.index) for one in layers] == [("embedding", 0), ("layer 0", 1), ("layer 1", 2), ("final norm", 3)]
    norm = float(tiny.model.get_parameter("model.embed_tokens.weight").detach().norm())
    assert [one.relative_l2 for one in layers] == pytest.approx([3.0 / norm, 0.0, 0.5, 0.0], rel=1e-5)
    assert sum(one.n_parameters for one in layers) == sum(parameter.numel() for parameter in tiny.model.parameters())


def test_files_are_read_in_pieces_and_give_the_same(
    tiny: LanguageModel, moved: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = compare_layers(moved, tiny)
    monkeypatch.setattr(parameters, "PIECE_ELEMENTS", 100)
    monkeypatch.setattr(parameters, "load_language_model", None)
    whole, sharded = save(tiny, tmp_path / "whole"), save(moved, tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    for policy, reference in ((sharded, whole), (moved, whole), (sharded, tiny)):
        measured = compare_layers(policy, reference)
        assert [one.layer for one in measured] == [one.layer for one in expected]
        assert [one.relative_l2 for one in measured] == pytest.approx([one.relative_l2 for one in expected], rel=1e-9)


def test_weights_that_do_not_match_by_name_give_nothing(tiny: LanguageModel) -> None:
    other = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4))
    assert compare_layers(replace(tiny, model=other), tiny) == ()


def test_a_tensor_that_only_one_side_has_is_left_out(tiny: LanguageModel) -> None:
    with_value_head = make_tiny_model()
    with_value_head.model.add_module("v_head", torch.nn.Linear(32, 1))
    assert compare_layers(with_value_head, tiny) == compare_layers(make_tiny_model(), tiny)


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("model.layers.11.mlp.experts.3.up_proj.weight", "layer 11"),
        ("transformer.h.0.attn.c_attn.bias", "layer 0"),
        ("gpt_neox.layers.2.input_layernorm.weight", "layer 2"),
        ("transformer.ln_f.weight", "final norm"),
        ("model.norm.weight", "final norm"),
        ("lm_head.weight", "head"),
        ("embed_out.weight", "head"),
        ("model.project_in.weight", "other"),
    ],
)
def test_a_layer_is_the_first_number_in_a_path(parameter: str, layer: str) -> None:
    assert locate_layer(parameter)[2] == layer


def test_a_damaged_and_a_missing_file_are_said_in_one_line(tiny: LanguageModel, tmp_path: Path) -> None:
    directory = save(tiny, tmp_path / "model")
    (directory / "model.safetensors").write_bytes(b"garbage" * 9)
    with pytest.raises(IncompleteWeights, match=r"model\.safetensors cannot be read") as caught:
        compare_layers(directory, tiny)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelNotFound, match="No model directory"):
        compare_layers(tmp_path / "missing", tiny)
