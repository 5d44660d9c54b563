"""Text whose perplexity says what a checkpoint has kept."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from klaudit.digests import digest_text
from klaudit.drift.prompt_set import read_lines, read_object, require_text
from klaudit.errors import InvalidConfig

OWN_TEXT = "plain-english"
"""Short passages of general knowledge, written for this project and Apache-2.0 like it; a passage a line in `texts/plain-english.txt`."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Passages under a name.

    Raises:
        InvalidConfig: no name, fewer than two passages, one that is blank or no valid Unicode.
    """

    name: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.texts) < 2:
            raise InvalidConfig(
                f"A text needs a name and at least 2 passages, or no interval is known; got {self.name!r} with {len(self.texts)}"
            )
        for number, text in enumerate(self.texts, start=1):
            require_text(text, where=f"text {self.name!r}, passage {number}")

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over the passages; the name has no part in it."""
        return digest_text("\0".join(self.texts))


def read_passages(path: str | Path | None = None) -> Passages:
    """Passages of a file `*.txt` (separated by blank lines) or `*.jsonl` (one `{"text": "..."}` a line), by the file's name without its ending.

    Args:
        path: of the file; None: the project's own text, OWN_TEXT.

    Raises:
        InvalidConfig: no such file, another ending, not UTF-8, a bad line (file, line and field are named), fewer than two passages.
    """
    if path is None:
        text = (files("klaudit.drift") / "texts" / f"{OWN_TEXT}.txt").read_text(encoding="utf-8")
        return Passages(OWN_TEXT, tuple(text.splitlines()))
    path = Path(path)
    form = 'a file *.txt (passages separated by blank lines) or *.jsonl ({"text": "..."} a line)'
    if path.suffix not in (".jsonl", ".txt"):
        raise InvalidConfig(f"Expected text in {form}; got {str(path)!r}")
    lines = read_lines(path, what="text", form=form)
    if path.suffix == ".txt":
        return Passages(path.stem, _join_lines(lines))
    where = [f"{path}, line {number}" for number, _ in lines]
    read = [read_object(line, where=place, field="text")["text"] for place, (_, line) in zip(where, lines, strict=True)]
    return Passages(path.stem, tuple(require_text(text, where=f"{place}, field text") for place, text in zip(where, read, strict=True)))


def _join_lines(lines: list[tuple[int, str]]) -> tuple[str, ...]:
    """Lines that follow each other without a blank one between them are one passage."""
    passages: list[str] = []
    before = -1
    for number, line in lines:
        if number == before + 1:
            passages[-1] += f"\n{line}"
        else:
            passages.append(line)
        before = number
    return tuple(passages)
