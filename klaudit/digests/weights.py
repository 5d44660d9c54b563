"""Digests of saved models: whole, in shards, an adapter, or a GGUF file."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from klaudit.digests.file import Progress, digest_file, read_blocks
from klaudit.errors import IncompleteWeights, ModelNotFound

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Names the shard of every tensor of a model that was saved in several files."""
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_CONFIG = "adapter_config.json"
PICKLES = ("pytorch_model*.bin", "adapter_model.bin")
"""Weights of a model without safetensors. Their bytes are read, never what they would run."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that hold a model's weights."""

    files: tuple[Path, ...]
    """In order of name; the config of an adapter is one of them, since it holds the adapter's scale and its base model."""
    unused: tuple[Path, ...]
    """Other safetensors in the directory, which loading the model does not read."""
    base_model: str | None = None
    """Of an adapter: the model that it is applied to."""

    @property
    def n_bytes(self) -> int:
        """Of all files."""
        return sum(file.stat().st_size for file in self.files)


def digest_weights(path: str | Path, *, base: str | Path | None = None, on_progress: Progress | None = None) -> str:
    """`sha256:` and 64 hex digits over the names and contents of the files that `find_weights` finds, in order of name.

    Each file goes in as its name, its length and its bytes, so that no two sets of files give the same stream. The same weights saved
    in other shards or as another type are other bytes, and have another digest. A GGUF file has the digest of its bytes.

    Args:
        path: directory of the model, or its GGUF file.
        base: of an adapter, the model that it is applied to: its digest goes in last, so that what is named are the weights of both together.
        on_progress: called with bytes done and bytes in all, after each block; of `path` first, then of `base`.

    Raises:
        ModelNotFound: no weights there.
        IncompleteWeights: a shard is missing, or a file changed while it was read.
        OSError: a file cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return digest_file(path, on_progress=on_progress)
    weights = find_weights(path)
    n_all, n_done = weights.n_bytes, 0
    digest = hashlib.sha256()
    for file in weights.files:
        n_bytes = file.stat().st_size
        digest.update(f"{file.name}\0{n_bytes}\0".encode())
        for block in read_blocks(file, n_bytes=n_bytes):
            digest.update(block)
            n_done += len(block)
            if on_progress is not None:
                on_progress(n_done, n_all)
    if base is not None:
        digest.update(f"base\0{digest_weights(base, on_progress=on_progress)}".encode())
    return f"sha256:{digest.hexdigest()}"


def find_weights(directory: str | Path) -> Weights:
    """The files that hold a model's weights: every `*.safetensors`, or the shards that the index names where the model is in shards; else pickles.

    Raises:
        ModelNotFound: neither there.
        IncompleteWeights: the index names a shard that is not there, or cannot be read.
    """
    directory = Path(directory)
    present = {file.name: file for file in directory.glob("*.safetensors")}
    shards = _read_shards(directory / INDEX)
    # Where both forms lie side by side the whole file is the one that is loaded.
    used = present.keys() - shards if WHOLE in present else shards or present.keys()
    if missing := sorted(used - present.keys()):
        raise IncompleteWeights(f"{directory / INDEX} names {len(used)} shards and {len(missing)} are missing: {', '.join(missing[:3])}")
    if not used:
        present = {file.name: file for pattern in PICKLES for file in directory.glob(pattern)}
        used = present.keys()
    if not used:
        raise ModelNotFound(f"Expected *.safetensors in {directory} to digest; there are none")
    files = [present[name] for name in used]
    base_model = None
    if not used.isdisjoint(ADAPTERS) and (directory / ADAPTER_CONFIG).is_file():
        files.append(directory / ADAPTER_CONFIG)
        base_model = _read_base_model(directory / ADAPTER_CONFIG)
    return Weights(
        files=tuple(sorted(files)),
        unused=tuple(sorted(present[name] for name in present.keys() - used)),
        base_model=base_model,
    )


def _read_shards(index: Path) -> frozenset[str]:
    """Empty where there is no index."""
    if not index.is_file():
        return frozenset()
    try:
        return frozenset(Path(shard).name for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IncompleteWeights(
            f'Expected {{"weight_map": {{tensor: file}}}} in {index}; it cannot be read: {type(error).__name__}: {error}'
        ) from error


def _read_base_model(config: Path) -> str | None:
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError, RecursionError):
        return None
    return name if isinstance(name, str) else None
