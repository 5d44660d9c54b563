"""Heads of families whose `forward` does something to the logits, at random weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from klaudit.errors import UnsupportedHead
from klaudit.models.language_model import LanguageModel
from klaudit.models.output_head import find_output_head
from klaudit.models.sampling import sample_completions
from klaudit.models.scoring import score_completions, score_hidden
from klaudit.models.uniforms import draw_uniforms

ENDS: dict[str, Any] = {"vocab_size": 100, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
LLAMA: dict[str, Any] = {
    **ENDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
SIZES: dict[str, Any] = {**LLAMA, "num_key_value_heads": 2}
GPT: dict[str, Any] = {**ENDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}
BLOOM: dict[str, Any] = {**ENDS, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
OPT: dict[str, Any] = {
    **ENDS,
    "hidden_size": 32,
    "ffn_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "word_embed_proj_dim": 16,
    "init_std": 0.3,
}
MAMBA: dict[str, Any] = {"mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}

FAMILIES: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, Any]]] = {
    "Gemma 2 soft-caps": (lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=5.0)), {"softcap": 5.0}),
    "Cohere multiplies": (lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.3)), {"scale": 0.3}),
    "Granite divides": (lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=4.0)), {"scale": 0.25}),
    "Falcon H1 multiplies": (lambda: FalconH1ForCausalLM(FalconH1Config(**SIZES, **MAMBA, lm_head_multiplier=0.7)), {"scale": 0.7}),
    "Phi has a bias": (lambda: PhiForCausalLM(PhiConfig(**SIZES)), {}),
    "OPT projects before its head": (lambda: OPTForCausalLM(OPTConfig(**OPT)), {}),
    "GPT-2": (lambda: GPT2LMHeadModel(GPT2Config(**GPT)), {}),
    "GPT-NeoX": (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**LLAMA)), {}),
    "Bloom takes no positions": (lambda: BloomForCausalLM(BloomConfig(**BLOOM)), {}),
    "Mistral with a sliding window": (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)), {}),
}


def build(tiny: LanguageModel, family: str) -> LanguageModel:
    torch.manual_seed(0)
    model: Any = FAMILIES[family][0]()
    model.train(False)
    if (bias := getattr(getattr(model, "lm_head", None), "bias", None)) is not None:
        torch.nn.init.normal_(bias)
    return replace(tiny, model=model)


@pytest.mark.parametrize("family", FAMILIES)
def test_head_and_hidden_states_give_the_logits_of_the_model(tiny: LanguageModel, family: str) -> None:
    language_model = build(tiny, family)
    head = find_output_head(language_model.model)
    expected = {"softcap": None, "scale": 1.0, **FAMILIES[family][1]}
    assert {"softcap": head.softcap, "scale": pytest.approx(head.scale)} == expected
    prompts = ["w1", "w2 w3 w4 w5 w6", "w7 w8 w9", "w2 w3 w4 w5 w6"]
    uniforms = draw_uniforms([*prompts[:3], "again"], n=8)
    rollout = sample_completions(language_model, prompts=prompts, max_new_tokens=8, uniforms=uniforms, head=head)
    without = sample_completions(language_model, prompts=prompts, max_new_tokens=8, uniforms=uniforms)
    assert torch.equal(rollout.completion_ids, without.completion_ids)
    with torch.no_grad():
        logits = score_completions(language_model.model, rollout=rollout).logits[rollout.mask]
    hidden = score_hidden(language_model.model, rollout=rollout)[rollout.mask]
    torch.testing.assert_close(head.project(hidden), logits, rtol=1e-4, atol=1e-4)
    assert rollout.hidden is not None
    torch.testing.assert_close(rollout.hidden[rollout.mask], hidden, rtol=1e-4, atol=1e-4 * float(hidden.abs().max()))


def test_a_head_shares_the_weights_of_its_model(tiny: LanguageModel) -> None:
    assert find_output_head(tiny.model).weight.data_ptr() == tiny.model.get_parameter("model.embed_tokens.weight").data_ptr()


def test_a_model_that_does_something_else_to_its_logits_is_refused_by_name(tiny: LanguageModel) -> None:
    head = tiny.model.get_submodule("lm_head")
    head.register_forward_hook(lambda _module, _inputs, output: output.sin())
    with pytest.raises(UnsupportedHead, match=r"LlamaForCausalLM \(llama\) does something to its logits") as caught:
        find_output_head(tiny.model)
    assert caught.value.exit_code == 2


def test_a_model_without_an_output_matrix_is_refused_by_name(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.model, "get_output_embeddings", lambda: None)
    with pytest.raises(UnsupportedHead, match="has no output matrix"):
        find_output_head(tiny.model)


def test_half_precision_weights_are_given_their_rounding(tiny: LanguageModel) -> None:
    head = find_output_head(tiny.model.to(torch.bfloat16))  # type: ignore[arg-type]
    assert head.weight.dtype == torch.bfloat16
    assert (head.scale, head.softcap) == (1.0, None)


def test_weights_that_have_become_nan_still_have_a_head(tiny: LanguageModel) -> None:
    with torch.no_grad():
        tiny.model.get_parameter("model.norm.weight").fill_(float("nan"))
    assert find_output_head(tiny.model).n_vocabulary == 100
