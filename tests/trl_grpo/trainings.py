"""Trainings of TRL 1.16.0 and of transformers' own Trainer on a tiny language model: seconds each, and every line of the trainers is real."""

import importlib
from pathlib import Path
from typing import Any

import transformers

from tests.callbacks.trainings import PROMPTS
from tests.models.tiny import make_tiny_model

# Imported by name, because the environment that the type checker looks at has another TRL or none, and as Any: their constructors have no types.
trl = importlib.import_module("trl")
datasets = importlib.import_module("datasets")
hf: Any = transformers

SETTINGS = {
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "seed": 7,
    "save_strategy": "no",
    "logging_steps": 1,
    "max_steps": 3,
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 8,
}
SAMPLING = {"num_generations": 4, "max_completion_length": 8, "temperature": 0.9}


def save_tiny_model(path: Path) -> Path:
    """As a directory, because TRL loads the reference from where the policy came from."""
    tiny = make_tiny_model()
    tiny.model.save_pretrained(path)
    tiny.tokenizer.save_pretrained(path)
    return path


def load_tokenizer(model: Path) -> Any:
    return hf.AutoTokenizer.from_pretrained(model, padding_side="left")


def load_model(model: Path) -> Any:
    return hf.AutoModelForCausalLM.from_pretrained(model)


def count_distinct_words(completions: list[str], **_: Any) -> list[float]:
    return [len(set(text.split())) / 8 for text in completions]


def make_prompts() -> Any:
    return datasets.Dataset.from_dict({"prompt": list(PROMPTS) * 16})


def make_grpo(
    model: Path, output_dir: Path, *, policy: Any = None, peft_config: Any = None, eval_dataset: Any = None, **settings: Any
) -> Any:
    return trl.GRPOTrainer(
        model=policy or str(model),
        args=trl.GRPOConfig(output_dir=str(output_dir), **(SETTINGS | SAMPLING | {"beta": 0.05} | settings)),
        reward_funcs=count_distinct_words,
        train_dataset=make_prompts(),
        eval_dataset=eval_dataset,
        processing_class=load_tokenizer(model),
        peft_config=peft_config,
    )


def make_rloo(model: Path, output_dir: Path, **settings: Any) -> Any:
    return trl.RLOOTrainer(
        model=str(model),
        args=trl.RLOOConfig(output_dir=str(output_dir), **(SETTINGS | SAMPLING | {"beta": 0.05} | settings)),
        reward_funcs=count_distinct_words,
        train_dataset=make_prompts(),
        processing_class=load_tokenizer(model),
    )


def make_online_dpo(model: Path, output_dir: Path, **settings: Any) -> Any:
    online_dpo = importlib.import_module("trl.experimental.online_dpo")
    sampling = {"max_new_tokens": 8, "temperature": 0.9, "beta": 0.1}
    return online_dpo.OnlineDPOTrainer(
        model=load_model(model),
        ref_model=load_model(model),
        args=online_dpo.OnlineDPOConfig(output_dir=str(output_dir), **(SETTINGS | sampling | settings)),
        reward_funcs=count_distinct_words,
        train_dataset=make_prompts(),
        processing_class=load_tokenizer(model),
    )


def make_dpo(model: Path, output_dir: Path, *, policy: Any = None, peft_config: Any = None, **settings: Any) -> Any:
    pairs = {"prompt": list(PROMPTS) * 16, "chosen": [" w7 w8 w9"] * 48, "rejected": [" w10 w11"] * 48}
    return trl.DPOTrainer(
        model=policy or str(model),
        args=trl.DPOConfig(output_dir=str(output_dir), **(SETTINGS | {"beta": 0.1} | settings)),
        train_dataset=datasets.Dataset.from_dict(pairs),
        processing_class=load_tokenizer(model),
        peft_config=peft_config,
    )


def make_kto(model: Path, output_dir: Path, **settings: Any) -> Any:
    answers = {"prompt": list(PROMPTS) * 16, "completion": [" w7 w8", " w9 w10 w11"] * 24, "label": [True, False] * 24}
    return trl.KTOTrainer(
        model=str(model),
        args=trl.KTOConfig(output_dir=str(output_dir), **(SETTINGS | {"beta": 0.1} | settings)),
        train_dataset=datasets.Dataset.from_dict(answers),
        processing_class=load_tokenizer(model),
    )


def make_trainer(model: Path, output_dir: Path, *, trainer_class: Any = hf.Trainer, **settings: Any) -> Any:
    """Next-word training by transformers' own Trainer, which knows of no reference and logs no KL."""
    texts = [load_tokenizer(model)(prompt + " w7 w8 w9")["input_ids"][:4] for prompt in PROMPTS] * 16
    rows = [{"input_ids": one, "labels": one} for one in texts]
    return trainer_class(
        model=load_model(model),
        args=hf.TrainingArguments(output_dir=str(output_dir), **(SETTINGS | settings)),
        train_dataset=rows,
        eval_dataset=rows[:8],
    )
