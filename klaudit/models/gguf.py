"""GGUF files, llama.cpp's form of a model: converted once to safetensors, in the user's cache.

transformers reads them, dequantised, with the package `gguf`; that takes seconds to minutes, and the converted copy is loaded as any other model.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from klaudit.errors import MissingExtra
from klaudit.models.progress import hide_progress_bars


def prepare_gguf(file: Path) -> Path:
    """Directory of a GGUF file's model as safetensors; converts it on first use, and again when the file has changed.

    Raises:
        MissingExtra: `gguf`, which reads it, is not installed.
    """
    state = file.stat()
    version = hashlib.sha256(f"{file.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()[:16]
    return convert_once(file, target=locate_cache() / "gguf" / f"{file.stem}-{version}")


def convert_once(source: Path, *, target: Path) -> Path:
    """The directory `target`, which appears whole or not at all.

    Raises:
        MissingExtra: `gguf`, which reads the source, is not installed.
    """
    if target.is_dir():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra(f"Converting {source.name}", "demo")
    target.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _convert(source, target=workspace)
        try:
            workspace.rename(target)
        except OSError:
            # Another process was faster: its copy is as good.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return target


def locate_cache() -> Path:
    """$KLAUDIT_CACHE, else $XDG_CACHE_HOME/klaudit, else ~/.cache/klaudit."""
    if chosen := os.environ.get("KLAUDIT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "klaudit"


def _convert(source: Path, *, target: Path) -> None:
    location: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    with hide_progress_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **location)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **location)
    # The loader leaves the marks of a quantised model on weights that no longer are, and save_pretrained refuses them.
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with hide_progress_bars():
        model.save_pretrained(target)
    tokenizer.save_pretrained(target)
