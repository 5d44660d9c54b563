import os
from pathlib import Path
from typing import Any

import pytest
import torch

from klaudit.digests import digest_file, digest_weights
from klaudit.errors import ModelNotFound
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.models.output_head import find_output_head

gguf: Any = pytest.importorskip("gguf", reason="the extra that reads GGUF files is not installed")

WORDS = ["<eos>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab", "cd"]


@pytest.fixture
def file(tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model's first tokens as llama.cpp would store them, at full width."""
    monkeypatch.setenv("KLAUDIT_CACHE", str(tmp_path / "cache"))
    config: Any = tiny.model.config
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, *[1] * (len(WORDS) - 1)])
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    names = {
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
    }
    weights = {name: parameter.detach().numpy() for name, parameter in tiny.model.named_parameters()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"][: len(WORDS)].copy())
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    for layer in range(config.num_hidden_layers):
        for name, stored in names.items():
            writer.add_tensor(f"blk.{layer}.{stored}.weight", weights[f"model.layers.{layer}.{name}.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_converted_once_and_loaded_as_any_other_model(file: Path, tiny: LanguageModel, tmp_path: Path) -> None:
    loaded = load_language_model(file)
    assert loaded.path == file.resolve()
    for name in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        assert torch.equal(loaded.model.get_parameter(name), tiny.model.get_parameter(name))
    assert loaded.tokenizer.encode("ab") == [WORDS.index("ab")]
    assert find_output_head(loaded.model).n_vocabulary == len(WORDS)
    (converted,) = (tmp_path / "cache" / "gguf").iterdir()
    written = converted.stat().st_mtime_ns
    load_language_model(str(file))
    assert [(one, one.stat().st_mtime_ns) for one in (tmp_path / "cache" / "gguf").iterdir()] == [(converted, written)]
    assert digest_weights(file) == digest_file(file)


def test_a_file_that_changed_is_converted_again(file: Path, tmp_path: Path) -> None:
    load_language_model(file)
    os.utime(file, ns=(1, 1))
    load_language_model(file)
    assert len(list((tmp_path / "cache" / "gguf").iterdir())) == 2


def test_a_damaged_file_is_said_in_one_line_and_leaves_nothing(file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelNotFound, match=r"tiny\.gguf") as caught:
        load_language_model(file)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []
