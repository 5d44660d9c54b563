"""A random two-layer Llama with a word tokenizer: real code paths in milliseconds."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from klaudit.models.language_model import LanguageModel

EOS = 0
N_WORDS = 99


def make_tiny_model(seed: int = 0, *, scale: float = 0.3) -> LanguageModel:
    """Words w1 to w99 are tokens 1 to 99; 0 ends a text and, as in many real models, also pads."""
    vocabulary = {"<eos>": EOS, **{f"w{i}": i for i in range(1, N_WORDS + 1)}}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<eos>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")  # type: ignore[no-untyped-call]
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        # Far from uniform, so that a wrong position or mask shows in the third digit and not in the ninth.
        initializer_range=scale,
        eos_token_id=EOS,
        bos_token_id=None,
        pad_token_id=EOS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    model.train(False)
    return LanguageModel(model=model, tokenizer=tokenizer, name="tiny")
