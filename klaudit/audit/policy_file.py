"""The TOML file that a person writes a policy in, and other places that a policy comes from."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klaudit.audit.policy import PRESET_NAMES, Policy
from klaudit.audit.policy_content import derive_policy, find_differences, suggest
from klaudit.audit.presets import PRESETS
from klaudit.audit.rules import RULES
from klaudit.errors import InvalidConfig

MOST_BYTES = 100_000
"""Of a policy file; one with every value of every rule has a tenth of it."""
LONGEST_LINE = 2_000
"""In bytes; Python's TOML parser takes time in proportion to the square of a dotted key's length."""


def read_policy(path: Path) -> Policy:
    """Read a policy file (TOML).

    Example of one: `name = "lab"`, `extends = "strict"`, then a table `[rules.KLA201]` with `enabled`, `severity` and the rule's parameters, such
    as `critical_kl = 2.0`. What a file leaves out is as in the preset that it extends.

    Raises:
        InvalidConfig: no such file, no TOML, an unknown key or a value out of range; one line that names file, key and what is known.
    """
    content = _read_toml(path)
    base = content.get("extends", "default")
    if not isinstance(base, str) or base not in PRESETS:
        nearest = suggest(base, PRESET_NAMES) if isinstance(base, str) else ""
        raise InvalidConfig(
            f"{path}: key 'extends': expected the name of a preset; {nearest}known: {', '.join(PRESET_NAMES)}; got {base!r:.80}"
        )
    return derive_policy(PRESETS[base], content, where=str(path))


def find_policy(name_or_path: str) -> Policy:
    """A preset by its name, else the policy file at that path.

    Raises:
        InvalidConfig: as `read_policy`.
    """
    preset = PRESETS.get(name_or_path)
    if preset is not None:
        return preset
    nearest = suggest(name_or_path, PRESET_NAMES)
    if nearest and not Path(name_or_path).exists():
        raise InvalidConfig(f"{name_or_path}: expected a policy file or a preset; {nearest}known presets: {', '.join(PRESET_NAMES)}")
    return read_policy(Path(name_or_path))


def describe_policy(policy: Policy) -> dict[str, Any]:
    """A policy as the ledger keeps it: its digest, and what differs from the preset that it extends."""
    return {**find_differences(policy, base=PRESETS[policy.extends]), "digest": policy.digest}


def restore_policy(described: Mapping[str, Any]) -> Policy:
    """The policy that `describe_policy` described, perhaps in another version of klaudit.

    Rules and parameters that are not known any more are left out; what cannot be read at all is `default`.
    """
    base = PRESETS.get(str(described.get("extends")), PRESETS["default"])
    content = {name: described[name] for name in ("name", "version", "detection", "rules") if name in described}
    try:
        return derive_policy(base, _drop_unknown(content), where="the run's policy")
    except (InvalidConfig, TypeError, AttributeError):
        return PRESETS["default"]


def _drop_unknown(content: Mapping[str, Any]) -> dict[str, Any]:
    known = {rule.code: {"enabled", "severity", *rule.parameters_model.model_fields} for rule in RULES}
    rules = {
        code: {name: value for name, value in table.items() if name in known[code]}
        for code, table in content.get("rules", {}).items()
        if code in known
    }
    fields = type(PRESETS["default"].detection).model_fields
    return {
        **content,
        "detection": {name: value for name, value in content.get("detection", {}).items() if name in fields},
        "rules": rules,
    }


def _read_toml(path: Path) -> dict[str, Any]:
    data = _read_bytes(path)
    if len(data) > MOST_BYTES:
        raise InvalidConfig(f"{path}: expected a policy file of {MOST_BYTES // 1000} kB at most; this one is larger")
    if max(map(len, data.splitlines()), default=0) > LONGEST_LINE:
        raise InvalidConfig(f"{path}: expected TOML in lines of {LONGEST_LINE:,} bytes at most; there is a longer one")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise InvalidConfig(f"{path}: expected TOML; its lists or tables are nested too deeply") from error
    except ValueError as error:
        raise InvalidConfig(f"{path}: expected TOML; {error}") from error


def _read_bytes(path: Path) -> bytes:
    """The start of a file, as much as a policy can be and one byte more."""
    what = ""
    try:
        if path.is_file() or not path.exists():
            with path.open("rb") as file:
                return file.read(MOST_BYTES + 1)
        what = "a directory" if path.is_dir() else "a pipe or a device, which may never end"
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path}: expected a policy file; {getattr(error, 'strerror', None) or error}") from error
    raise InvalidConfig(f"{path}: expected a policy file; it is {what}")
