"""The prompts that drift is measured on."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785

from klaudit.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts under a name, cut into slices where that is wanted.

    Raises:
        InvalidConfig: no name, no prompts; a prompt or slice that is blank or no valid Unicode; a weight that is not a positive finite number;
            slices or weights that are not one a prompt.
    """

    name: str
    prompts: tuple[str, ...]
    """In the order of the file; a prompt that stands twice counts twice in the mean, and is one prompt in the interval."""
    slices: tuple[str | None, ...] = ()
    """One a prompt, or empty for none at all; a prompt whose slice is None counts only among all."""
    weights: tuple[float, ...] = ()
    """One a prompt, in means over prompts; empty for 1 each."""

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.prompts:
            raise InvalidConfig(f"A prompt set needs a name and at least one prompt; got {self.name!r} with {len(self.prompts)} prompts")
        for field, values in (("slices", self.slices), ("weights", self.weights)):
            if values and len(values) != len(self.prompts):
                raise InvalidConfig(
                    f"Prompt set {self.name!r} needs one of {field} a prompt; got {len(values)} for {len(self.prompts)} prompts"
                )
        for index, prompt in enumerate(self.prompts):
            where = f"prompt set {self.name!r}, prompt {index + 1}"
            require_text(prompt, where=f"{where}, field prompt")
            if (name := self.slice_of(index)) is not None:
                require_text(name, where=f"{where}, field slice")
            require_weight(self.weight_of(index), where=f"{where}, field weight")

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over the prompts as canonical JSON (RFC 8785); the name has no part in it.

        Slices and weights go in where there are any: a set without them has the digest that it had before there were slices.
        """
        content: Any = list(self.prompts)
        if any(name is not None for name in self.slices) or any(weight != 1 for weight in self.weights):
            content = [[prompt, self.slice_of(index), self.weight_of(index)] for index, prompt in enumerate(self.prompts)]
        return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()

    def slice_of(self, index: int) -> str | None:
        """The slice of a prompt, counted from 0."""
        return self.slices[index] if self.slices else None

    def weight_of(self, index: int) -> float:
        """The weight of a prompt, counted from 0."""
        return float(self.weights[index]) if self.weights else 1.0


def read_prompt_set(path: str | Path) -> PromptSet:
    """Read prompts from `*.jsonl` (a `{"prompt": "..."}` a line, with `slice` and `weight` where wanted) or `*.txt` (one prompt a line).

    Blank lines are left out. Spaces around a prompt are kept, because a tokenizer sees them. The file's name without its ending names the set.

    Raises:
        InvalidConfig: no such file, another ending, not UTF-8, a bad line (file, line and field are named), no prompts.
    """
    path = Path(path)
    form = 'a file *.jsonl ({"prompt": "..."} a line) or *.txt (one prompt a line)'
    if path.suffix not in (".jsonl", ".txt"):
        raise InvalidConfig(f"Expected prompts in {form}; got {str(path)!r}")
    lines = read_lines(path, what="prompts", form=form)
    if path.suffix == ".txt":
        for number, line in lines:
            require_text(line, where=f"{path}, line {number}, field prompt")
        return PromptSet(name=path.stem, prompts=tuple(line for _, line in lines))
    read = [_read_line(line, where=f"{path}, line {number}") for number, line in lines]
    prompts, slices, weights = (tuple(column) for column in zip(*read, strict=True))
    return PromptSet(
        name=path.stem,
        prompts=prompts,
        slices=slices if any(name is not None for name in slices) else (),
        weights=weights if any(weight != 1 for weight in weights) else (),
    )


def read_lines(path: Path, *, what: str, form: str) -> list[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, with their numbers from 1.

    Args:
        path: of the file.
        what: is in it, for messages.
        form: of such a file, likewise.

    Raises:
        InvalidConfig: the file cannot be read, or has none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfig(
            f"Expected {what} as UTF-8 in {str(path)!r}; byte {error.start + 1:,} is none. Save the file as UTF-8"
        ) from error
    except FileNotFoundError as error:
        raise InvalidConfig(f"Expected {what} in {form}; there is no file {str(path)!r}. Check the name, or write it") from error
    except OSError as error:
        raise InvalidConfig(f"Expected {what} in {form}; {str(path)!r} cannot be read: {error.strerror}. Name another") from error
    # Not splitlines(): it also breaks at characters that JSON allows inside a string.
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InvalidConfig(f"{path} holds no {what}; expected at least one line that is not blank")
    return lines


def read_object(line: str, *, where: str, field: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of one line of a `*.jsonl`.

    Args:
        line: the JSON.
        where: file and line, for messages.
        field: that must be there.
        others: that may be.

    Raises:
        InvalidConfig: no JSON object, `field` is not in it, or one that is not known.
    """
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f'{where}: expected one JSON object such as {{"{field}": "..."}}; {error}') from error
    if not isinstance(fields, dict) or field not in fields:
        raise InvalidConfig(f"{where}: expected a JSON object with the field {field}; got {line[:80]!r}")
    known = (field, *others)
    for key in sorted(set(fields) - set(known)):
        remedy = f"the fields are {', '.join(known)}" if others else f"the only field is {field}"
        raise InvalidConfig(f"{where}, field {key}: {remedy}")
    return fields


def require_text(text: object, *, where: str) -> str:
    """The text itself.

    Raises:
        InvalidConfig: no text, blank, or half of a surrogate pair in it, which no tokenizer takes.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidConfig(f"{where}: expected a text that is not blank; got {text!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidConfig(f"{where}: expected valid Unicode; got a lone surrogate in {text!r}")
    return text


def require_weight(weight: object, *, where: str) -> float:
    """The weight itself.

    Raises:
        InvalidConfig: not a positive finite number.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= sys.float_info.max:
        raise InvalidConfig(f"{where}: expected a positive finite number; got {weight!r}")
    return float(weight)


def _read_line(line: str, *, where: str) -> tuple[str, str | None, float]:
    fields = read_object(line, where=where, field="prompt", others=("slice", "weight"))
    prompt = require_text(fields["prompt"], where=f"{where}, field prompt")
    name = fields.get("slice")
    if name is not None:
        require_text(name, where=f"{where}, field slice")
    return prompt, name, require_weight(fields.get("weight", 1.0), where=f"{where}, field weight")
