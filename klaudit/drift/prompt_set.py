"""The prompts that drift is measured on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785

from klaudit.errors import InvalidConfig

NOT_YET = ("slice", "weight")
"""Keys that a later version reads; until then a file with them is refused, since ignoring them would give another number than was asked for."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts under a name.

    Raises:
        InvalidConfig: no name, no prompts, a prompt that is blank or no valid Unicode.
    """

    name: str
    prompts: tuple[str, ...]
    """In the order of the file; a prompt that stands twice counts twice in the mean, and is one prompt in the interval."""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.prompts:
            raise InvalidConfig(f"A prompt set needs a name and at least one prompt; got {self.name!r} with {len(self.prompts)} prompts")
        for number, prompt in enumerate(self.prompts, start=1):
            require_prompt(prompt, where=f"prompt set {self.name!r}, prompt {number}")

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over the prompts as canonical JSON (RFC 8785); the name has no part in it."""
        return "sha256:" + hashlib.sha256(rfc8785.dumps(list(self.prompts))).hexdigest()


def read_prompt_set(path: str | Path) -> PromptSet:
    """Read prompts from `*.jsonl` (one `{"prompt": "..."}` a line) or `*.txt` (one prompt a line); blank lines are left out.

    Spaces around a prompt are kept, because a tokenizer sees them. The file's name without its ending names the set.

    Raises:
        InvalidConfig: no such file, another ending, not UTF-8, a bad line (file, line and field are named), no prompts.
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".txt"):
        raise InvalidConfig(
            f'Expected prompts in a file *.jsonl ({{"prompt": "..."}} a line) or *.txt (one prompt a line); got {str(path)!r}'
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"Cannot read prompts from {str(path)!r}: {error}. Expected a UTF-8 file.") from error
    # Not splitlines(): it also breaks at characters that JSON allows inside a string.
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InvalidConfig(f"{path} holds no prompts; expected at least one line")
    if path.suffix == ".txt":
        return PromptSet(name=path.stem, prompts=tuple(line for _, line in lines))
    return PromptSet(name=path.stem, prompts=tuple(_read_line(line, where=f"{path}, line {number}") for number, line in lines))


def require_prompt(prompt: object, *, where: str) -> str:
    """The prompt itself.

    Raises:
        InvalidConfig: no text, blank, or half of a surrogate pair in it, which no tokenizer takes.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidConfig(f"{where}, field prompt: expected a text that is not blank; got {prompt!r}")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise InvalidConfig(f"{where}, field prompt: expected valid Unicode; got a lone surrogate in {prompt!r}")
    return prompt


def _read_line(line: str, *, where: str) -> str:
    try:
        fields: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidConfig(f'{where}: expected one JSON object such as {{"prompt": "..."}}; {error}') from error
    if not isinstance(fields, dict) or "prompt" not in fields:
        raise InvalidConfig(f"{where}: expected a JSON object with the field prompt; got {line[:80]!r}")
    for key in sorted(set(fields) - {"prompt"}):
        remedy = "slices and weights come with a later version; take it out" if key in NOT_YET else "the only field is prompt"
        raise InvalidConfig(f"{where}, field {key}: {remedy}")
    return require_prompt(fields["prompt"], where=where)
