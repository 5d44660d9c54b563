"""A large JSON document read one list entry at a time."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidImportFile
from klaudit.exchange.lines import LONGEST_LINE, read_blocks
from klaudit.exchange.reader import refuse, shorten

BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of the document and where it stands."""

    key: str | None
    """Of the document's object that the value belongs to; None where the document is a list."""
    index: int | None
    """In the list that it is an entry of; None for a value that is no list's entry."""
    value: Any
    line: int


def read_entries(path: Path, *, list_key: str, on_progress: Callable[[int, int], None]) -> Iterator[Entry]:
    """The entries of a document that is a list; of one that is an object, its values, that of `list_key` entry by entry.

    NaN and the infinities may stand as bare words, as Python's json writes them.

    Args:
        path: of the document.
        list_key: whose value may be longer than memory.
        on_progress: called with bytes read and bytes in all.

    Raises:
        InvalidImportFile: it is no JSON, is cut off, or has a value of more than 10 MiB.
    """
    document = _Document(path, on_progress)
    if document.take("[{", expected="a JSON list or object") == "[":
        yield from _read_list(document, None)
    else:
        yield from _read_object(document, list_key)
    document.expect_end()


def _read_object(document: "_Document", list_key: str) -> Iterator[Entry]:
    if document.skips("}"):
        return
    while True:
        key = document.read_value()
        if not isinstance(key, str):
            raise document.refuse(f"expected a key in quotation marks; got {shorten(repr(key))}")
        document.take(":", expected='":"')
        if key == list_key and document.skips("["):
            yield from _read_list(document, key)
        else:
            yield Entry(key, None, document.read_value(), document.line)
        if document.take(",}", expected='"," or "}"') == "}":
            return


def _read_list(document: "_Document", key: str | None) -> Iterator[Entry]:
    if document.skips("]"):
        return
    index = 0
    while True:
        document.skip_blanks()
        line = document.line
        yield Entry(key, index, document.read_value(), line)
        index += 1
        if document.take(",]", expected='"," or "]"') == "]":
            return


class _Document:
    """A window of text that moves over the file; only what the decoder still needs is held."""

    def __init__(self, path: Path, on_progress: Callable[[int, int], None]) -> None:
        self.line = 1
        self._path = path
        self._blocks = read_blocks(path, on_progress=on_progress)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def refuse(self, why: str) -> InvalidImportFile:
        return refuse(f"{self._path} line {self.line}", why)

    def skip_blanks(self) -> None:
        while True:
            end = BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            self._move_to(end)
            if end < len(self._text) or not self._fill():
                return

    def skips(self, wanted: str) -> bool:
        """Whether the next character is this one, which is then behind."""
        self.skip_blanks()
        if not self._text.startswith(wanted, self._at):
            return False
        self._move_to(self._at + 1)
        return True

    def take(self, wanted: str, *, expected: str) -> str:
        """The next character, which must be one of `wanted`."""
        self.skip_blanks()
        found = self._text[self._at : self._at + 1]
        if not found or found not in wanted:
            raise self.refuse(f"expected {expected}; " + (f"got {found!r}" if found else "the file ends here"))
        self._move_to(self._at + 1)
        return found

    def read_value(self) -> Any:
        """The next value, whole."""
        self.skip_blanks()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except JSONDecodeError as error:
                # What is cut off by the window's end looks like what is wrong.
                if self._fill():
                    continue
                ends = "the file ends inside it" if error.pos >= len(self._text) else f"{error.msg[:1].lower()}{error.msg[1:]}"
                raise self.refuse(f"expected a JSON value; {ends}") from error
            except (ValueError, RecursionError) as error:
                raise self.refuse(f"expected a JSON value; {error}") from error
            # A number at the window's end may go on behind it.
            if end == len(self._text) and self._fill():
                continue
            self._move_to(end)
            return value

    def expect_end(self) -> None:
        self.skip_blanks()
        if self._at < len(self._text):
            raise self.refuse(f"expected the end of the file; got {shorten(repr(self._text[self._at : self._at + 20]))}")

    def _move_to(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _fill(self) -> bool:
        """Read on, twice as much as is held, so that a long value is not decoded once for every block of it."""
        if self._ended:
            return False
        held = self._text[self._at :]
        if len(held) > LONGEST_LINE:
            raise self.refuse(f"expected values of at most {LONGEST_LINE >> 20} MiB; this one is longer, or is no JSON")
        parts, n_more = [held], 0
        try:
            while n_more <= len(held) and len(held) + n_more <= LONGEST_LINE:
                block = next(self._blocks, b"")
                parts.append(self._utf8.decode(block, final=not block))
                n_more += len(parts[-1])
                if not block:
                    self._ended = True
                    break
        except UnicodeDecodeError as error:
            raise self.refuse(f"expected text in UTF-8; {error.reason}") from error
        self._text, self._at = "".join(parts), 0
        return n_more > 0 or not self._ended
