"""Content digests: a model is what its weights are, not what it is called."""

import hashlib
from pathlib import Path

from klaudit.errors import ModelNotFound


def digest_weights(directory: str | Path) -> str:
    """`sha256:` and 64 hex digits over the names and contents of a model's `*.safetensors`, in order of name.

    Each file goes in as its name, its length and its bytes, so that no two sets of files give the same stream.

    Raises:
        ModelNotFound: no safetensors there.
    """
    files = sorted(Path(directory).glob("*.safetensors"))
    if not files:
        raise ModelNotFound(f"Expected *.safetensors in {directory} to digest; there are none")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
