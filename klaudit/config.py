"""Settings of the entry points, from a file and from the environment; nothing below them reads either.

| setting | in `klaudit.toml` | in the environment |
|---|---|---|
| where runs are kept | `store` | `KLAUDIT_STORE` |
| where alerts go besides the console | `webhook` | `KLAUDIT_WEBHOOK` |
| where steps wait for the store: one directory, or two with a `:` between them | `journal` | `KLAUDIT_JOURNAL` |
| the name that a person's actions go into the ledger under | `actor` | `KLAUDIT_ACTOR` |

The environment wins over the file, an argument wins over both.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidConfig

SETTINGS_FILE = "klaudit.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What an entry point needs to know before it can do anything."""

    store: str = "sqlite:///klaudit.db"
    """SQLAlchemy URL of the store."""
    webhook: str | None = None
    """URL that alerts are posted to."""
    journal: str | None = None
    """Directories for the journal, best first, with a `:` between them."""
    actor: str | None = None
    """Name that a person's actions go into the ledger under."""

    @property
    def journals(self) -> tuple[str, ...]:
        """Directories for the journal, best first; none: the usual one."""
        return tuple(filter(None, (self.journal or "").split(os.pathsep)))


def read_settings(*, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Settings of this process.

    Raises:
        InvalidConfig: the file cannot be read, or holds a key that does not exist.
    """
    environment = os.environ if environment is None else environment
    path = (directory or Path.cwd()) / SETTINGS_FILE
    settings = replace(Settings(), **_read_file(path)) if path.is_file() else Settings()
    named = {field.name: f"KLAUDIT_{field.name.upper()}" for field in fields(Settings)}
    return replace(settings, **{name: environment[variable] for name, variable in named.items() if environment.get(variable)})


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file that a person wrote.

    Raises:
        InvalidConfig: it is missing, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidConfig(f"expected a TOML file at {path}; there is none") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"{path}: expected TOML; {error}") from error


def require_known_keys(given: Mapping[str, Any], *, known: tuple[str, ...], where: str) -> None:
    """Refuse keys that do not exist.

    Raises:
        InvalidConfig: naming the keys that came and those that are known.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidConfig(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}")


def _read_file(path: Path) -> dict[str, str]:
    given = read_toml(path)
    require_known_keys(given, known=tuple(field.name for field in fields(Settings)), where=str(path))
    for name, value in given.items():
        if not isinstance(value, str):
            raise InvalidConfig(f"{path}: {name} must be a string; got {value!r}")
    return given
