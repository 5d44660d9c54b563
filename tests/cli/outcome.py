import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line that a failed command prints: on standard error, with nothing beside it."""
        (line,) = self.err.splitlines()
        assert line.startswith("klaudit: ")
        assert self.out == ""
        return line


def look_at(directory: Path) -> dict[str, str]:
    """Every file under a directory and what it holds, so that nothing written means nothing changed."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.rglob("*") if path.is_file()
    }
