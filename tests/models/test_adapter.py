import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file

from klaudit.digests import digest_weights
from klaudit.errors import ModelNotFound, UnsupportedModel
from klaudit.models.encoding import encode_text
from klaudit.models.language_model import LanguageModel, find_model_files, load_language_model, load_outline
from klaudit.models.output_head import find_output_head
from klaudit.models.parameters import compare_layers
from tests.models.tiny import make_tiny_model

IDS = torch.tensor([[1, 2, 3, 4]])


@pytest.fixture
def base(tiny: LanguageModel, tmp_path: Path) -> Path:
    tiny.model.save_pretrained(tmp_path / "base")
    tiny.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def save_adapter(directory: Path, *, base: Path, **settings: Any) -> torch.Tensor:
    """Train an adapter a little at random, save it, and give the logits that it makes."""
    model = load_language_model(base).model
    torch.manual_seed(1)
    adapted: Any = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", **settings)
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad or "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
        logits: torch.Tensor = adapted.eval()(IDS).logits
    adapted.save_pretrained(directory)
    return logits


def project(language_model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = language_model.model(IDS).logits
    return logits


@pytest.mark.parametrize("settings", [{}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens", "lm_head"]}])
def test_an_adapter_is_merged_into_its_base_and_has_an_output_head(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = save_adapter(tmp_path / "adapter", base=base, **settings)
    loaded = load_language_model(tmp_path / "adapter")
    torch.testing.assert_close(project(loaded), expected, rtol=1e-4, atol=1e-4)
    assert (loaded.path, loaded.base_path) == ((tmp_path / "adapter").resolve(), base.resolve())
    assert not hasattr(loaded.model, "peft_config")
    assert loaded.tokenizer.encode("w5 w6") == [5, 6]
    assert not loaded.model.training
    find_output_head(loaded.model)


def test_an_adapter_with_new_tokens_brings_their_embeddings(base: Path, tmp_path: Path) -> None:
    model = load_language_model(base).model
    model.resize_token_embeddings(103, mean_resizing=False)
    adapted: Any = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    loaded = load_language_model(tmp_path / "adapter")
    with torch.no_grad():
        expected = adapted.eval()(torch.tensor([[1, 102]])).logits
        torch.testing.assert_close(loaded.model(torch.tensor([[1, 102]])).logits, expected)
    assert find_output_head(loaded.model).n_vocabulary == 103
    outline = load_outline(tmp_path / "adapter")
    assert outline.model.config.vocab_size == 103
    assert encode_text(outline, "w5") == [5]


def test_a_small_difference_survives_sixteen_bits(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base=base)
    full, half = load_language_model(tmp_path / "adapter"), load_language_model(tmp_path / "adapter", dtype=torch.bfloat16)
    for name, weights in half.model.named_parameters():
        assert torch.equal(weights, full.model.get_parameter(name).to(torch.bfloat16))


def test_a_base_that_is_given_takes_the_place_of_the_one_that_is_named(base: Path, tmp_path: Path) -> None:
    expected = save_adapter(tmp_path / "adapter", base=base)
    moved = tmp_path / "elsewhere"
    base.rename(moved)
    with pytest.raises(ModelNotFound, match=r"The adapter in .*adapter belongs on '.*base', which cannot be had") as caught:
        load_language_model(tmp_path / "adapter")
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(project(load_language_model(tmp_path / "adapter", base=moved)), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_names_no_base_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base=base)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(ModelNotFound, match="does not name the model that it was trained on"):
        load_language_model(tmp_path / "adapter")


def test_an_adapter_on_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base=base)
    with pytest.raises(UnsupportedModel, match="which is an adapter itself"):
        load_language_model(tmp_path / "adapter", base=shutil.copytree(tmp_path / "adapter", tmp_path / "below"))


def test_an_adapter_that_changes_no_weights_is_refused_by_its_type(base: Path, tmp_path: Path) -> None:
    model: Any = load_language_model(base).model
    adapted: Any = get_peft_model(model, PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UnsupportedModel, match="of type PROMPT_TUNING, which changes no weights"):
        load_language_model(tmp_path / "adapter")


def test_a_pickled_adapter_is_refused_unless_pickles_are_allowed(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base=base)
    expected = project(load_language_model(tmp_path / "adapter"))
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(weights), tmp_path / "adapter" / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(UnsupportedModel, match=r"adapter_model\.bin.*--allow-pickle"):
        load_language_model(tmp_path / "adapter")
    assert torch.equal(project(load_language_model(tmp_path / "adapter", allow_pickle=True)), expected)


def test_the_layers_and_the_digest_of_an_adapter_are_those_of_both_together(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", base=base)
    layers = compare_layers(tmp_path / "adapter", base)
    assert [one.layer for one in layers if one.relative_l2 > 0] == ["layer 0", "layer 1"]
    files = find_model_files(tmp_path / "adapter")
    digest = digest_weights(files.path, base=files.base)
    other = make_tiny_model(seed=1)
    other.model.save_pretrained(base)
    assert digest_weights(files.path, base=files.base) != digest
    assert digest_weights(files.path) not in (digest, digest_weights(base))
