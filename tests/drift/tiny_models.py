"""Random models of eight tokens: small enough that every completion can be visited."""

import copy
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from klaudit.models.language_model import LanguageModel

WORDS = ("</s>", "a", "b", "c", "d", "e", "f", "g")
"""The vocabulary; the first ends a text."""


def build_tokenizer(words: tuple[str, ...]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    built: PreTrainedTokenizerFast = fast(tokenizer_object=tokenizer, eos_token=words[0], unk_token=words[0])
    return built


def add_first_token(language_model: LanguageModel) -> LanguageModel:
    """The same weights and vocabulary, with a tokenizer that begins every text with the token that ends one."""
    tokenizer: Any = build_tokenizer(WORDS)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{WORDS[0]} $A", special_tokens=[(WORDS[0], 0)])
    return LanguageModel(model=language_model.model, tokenizer=tokenizer, name=f"{language_model.name}-bos")


def build_model(*, words: tuple[str, ...] = WORDS, seed: int = 0) -> LanguageModel:
    """A Llama of one layer with random weights, float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.3,
    )
    model: Any = LlamaForCausalLM(config)
    return LanguageModel(model=model.eval(), tokenizer=build_tokenizer(words), name=f"tiny-{seed}")


@torch.no_grad()
def add_weight_noise(language_model: LanguageModel, *, relative: float, seed: int = 1) -> LanguageModel:
    """A copy with N(0, relative x standard deviation) added to every matrix."""
    model = copy.deepcopy(language_model.model)
    generator = torch.Generator().manual_seed(seed)
    for matrix in (weights for weights in model.parameters() if weights.ndim > 1):
        matrix.add_(relative * matrix.std() * torch.randn(matrix.shape, generator=generator))
    return LanguageModel(model=model, tokenizer=language_model.tokenizer, name=f"{language_model.name}-noisy")
