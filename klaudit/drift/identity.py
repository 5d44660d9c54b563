"""What a model is, by content: two that say the same have one identity, wherever they lie."""

import hashlib
import json
from pathlib import Path

from klaudit.digests import Progress, digest_weights
from klaudit.drift.plan import ModelIdentity
from klaudit.models.language_model import find_model_files

SETUP_FILES = (
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""What decides, beside the weights, which text becomes which tokens, what the model computes, and where a completion ends."""

VOLATILE = ("_name_or_path", "transformers_version", "truncation", "padding")
"""Keys that say who saved a config, or how a tokenizer was last used."""


def identify_model(name_or_path: str | Path, *, allow_pickle: bool = False, on_progress: Progress | None = None) -> ModelIdentity:
    """Digests of a model's files, without loading it. Fetches a hub id.

    Args:
        name_or_path: as for `load_language_model`.
        allow_pickle: likewise.
        on_progress: called with bytes digested and bytes in all.

    Raises:
        ModelNotFound: no model lies there, or it cannot be fetched; IncompleteWeights where files are missing or change.
        UnsupportedModel: pickles that are not allowed.
    """
    files = find_model_files(name_or_path, allow_pickle=allow_pickle)
    digest = digest_weights(files.path, base=files.base, on_progress=on_progress)
    setup = hashlib.sha256()
    for directory in (files.path, files.base):
        for name in SETUP_FILES:
            if directory is not None and (directory / name).is_file():
                setup.update(f"{name}\0{_read_setup(directory / name)}\0".encode())
    return ModelIdentity(name=str(name_or_path), digest=digest, setup_digest=f"sha256:{setup.hexdigest()}")


def _read_setup(path: Path) -> str:
    """Text of the file without what changes from one saving to the next; a file that is damaged shows when the model is loaded."""
    text = path.read_text(encoding="utf-8", errors="backslashreplace")
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    return json.dumps({key: fields[key] for key in fields if key not in VOLATILE}, sort_keys=True) if isinstance(fields, dict) else text
