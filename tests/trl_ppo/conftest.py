"""A tiny random language model under the real PPO trainer of TRL 1.12.0."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import TrainerCallback

# Imported by name, because the environment that the type checker looks at has no TRL, and as Any, because transformers' constructors have no types.
trl_ppo = importlib.import_module("trl.experimental.ppo")
hf: Any = transformers

# The model is too small to share out: threads only wait for each other.
torch.set_num_threads(1)

PROMPTS = ["the film was", "a very long film", "we saw it and", "it is", "they liked the bright film and", "so dull"]
WORDS = ["<pad>", "<eos>", *sorted({word for prompt in PROMPTS for word in prompt.split()})]


def make_tokenizer() -> Any:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def make_config() -> Any:
    """Phi, because its language-model head has a bias: the way to say how often a sequence ends."""
    return hf.PhiConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.3,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=WORDS.index("<pad>"),
        bos_token_id=None,
        eos_token_id=WORDS.index("<eos>"),
    )


def make_language_model(seed: int) -> Any:
    """A random policy that ends about every tenth token and never samples padding."""
    torch.manual_seed(seed)
    model = hf.PhiForCausalLM(make_config())
    with torch.no_grad():
        model.lm_head.bias[WORDS.index("<eos>")] = 0.2
        model.lm_head.bias[WORDS.index("<pad>")] = -50.0
    return model


def make_scoring_model(seed: int) -> Any:
    torch.manual_seed(seed)
    return hf.PhiForSequenceClassification(make_config())


@pytest.fixture(scope="session")
def build_trainer() -> Callable[..., Any]:
    """`build_trainer(output_dir, callbacks=..., **settings of PPOConfig)`: 16 sequences of at most 8 tokens an update, two updates."""

    def build(output_dir: Path, *, callbacks: list[TrainerCallback] | None = None, **settings: Any) -> Any:
        defaults = {
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "num_mini_batches": 2,
            "num_ppo_epochs": 2,
            "total_episodes": 32,
            "response_length": 8,
            "stop_token": "eos",
            "missing_eos_penalty": 1.0,
            "learning_rate": 1e-2,
            "temperature": 0.7,
            "kl_coef": 0.05,
            "num_sample_generations": 0,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "seed": 7,
        }
        tokenizer = make_tokenizer()
        hf.set_seed(7)  # TRL shuffles its minibatches with numpy's global generator and never seeds it
        prompts = [{"input_ids": tokenizer(prompt)["input_ids"]} for prompt in PROMPTS * 8]
        return trl_ppo.PPOTrainer(
            args=trl_ppo.PPOConfig(output_dir=str(output_dir), **(defaults | settings)),
            processing_class=tokenizer,
            model=make_language_model(seed=1),
            ref_model=make_language_model(seed=2),
            reward_model=make_scoring_model(seed=3),
            value_model=make_scoring_model(seed=4),
            train_dataset=prompts,
            eval_dataset=prompts[:8],
            callbacks=callbacks,
        )

    return build
