"""How a file that another tool wrote becomes a run: what a reader is given, and what it gives back."""

import gzip
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from klaudit.errors import InvalidImportFile
from klaudit.records import KLSeries, Run, StepRecord

HEAD_BYTES = 1 << 16
"""How much of a file decides what it is."""
GZIP_MAGIC = b"\x1f\x8b"
MOST_NAMES = 10_000
"""Entries of a directory that are looked at."""


@dataclass(frozen=True, slots=True)
class FileHead:
    """What a reader sees of a file before it says whether the file is of its kind."""

    path: Path
    start: bytes
    """The first bytes, of a gzip file those of what is in it; empty for a directory."""
    is_directory: bool = False
    names: tuple[str, ...] = ()
    """Paths of the files under a directory, relative to it, sorted."""
    is_compressed: bool = False

    @property
    def text(self) -> str:
        """The start as text; bytes that are no UTF-8 become U+FFFD, the byte order mark goes."""
        return self.start.decode("utf-8", errors="replace").removeprefix("\ufeff")

    @property
    def is_whole(self) -> bool:
        """Whether the start is all that there is."""
        return len(self.start) < HEAD_BYTES


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the person who imports says of the file."""

    name: str | None = None
    """Of the run; the file's own name otherwise."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """`step`, `segment`, `time`, `kl`, `beta`, `score` or the name of a metric -> the column, key or tag of the file that holds it."""
    series: Mapping[str, KLSeries] = field(default_factory=dict)
    """What KLs of the file are, by klaudit's series key, such as `kl`."""
    metric_map: Mapping[str, KLSeries | str] = field(default_factory=dict)
    """The file's own key -> what that KL is, or klaudit's name of that metric (`klaudit.exchange.own_keys`)."""
    framework: str | None = None
    """Label of the trainer that logged it, such as `trl-grpo`, where its keys do not say."""
    run_filter: str | None = None
    """Of a file that holds several runs, those whose id or name this is or, as a pattern with `*`, matches."""
    on_progress: Callable[[int, int], None] = lambda done, total: None
    """Called now and then with bytes done and bytes in all."""


NO_OPTIONS = ReadOptions()
"""A person who says nothing."""


@dataclass(frozen=True, slots=True)
class LoggedValues:
    """What one line, row or event of a file says of one step, before anybody knows what its keys mean."""

    step: int
    values: Mapping[str, Any]
    where: str
    """Where it stands, for an error: `FILE line 12`."""
    logged_at: datetime | None = None
    """With its zone; None where the file does not say."""
    segment: int | None = None
    """Where the file says so; None: a step that goes back begins the next."""


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """What a reader says of a run before its first step."""

    run: Run
    """Its `id` is empty: a store gives it."""
    steps: Iterator[StepRecord]
    """In the order of the file, which is that of segment and step; read once, before the next run of the file."""
    notes: Sequence[str] = ()
    """What a person should know, without a full stop; complete once the steps were read."""
    part: str = ""
    """Which run of the file this is, where the file may hold several: its id or name there."""
    files: Sequence[Path] = ()
    """Of a directory, the files that the run is read from; empty: the path itself."""


class Reader(Protocol):
    """Reads one format. It never writes, never runs what it reads, and holds no more than a few steps in memory."""

    name: str
    """For `--format`, such as `trainer-state`."""
    describes: str
    """The format for people, such as `trainer_state.json of a Hugging Face trainer`."""

    def recognises(self, head: FileHead) -> bool:
        """Whether the file is of this format, by what is in it; a name may only confirm it. Never raises."""
        ...

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The runs of the file, one after another.

        Raises:
            InvalidImportFile: it cannot be read; the message is one line that names file, line and field.
        """
        ...


def read_head(path: Path) -> FileHead:
    """Look at a file, or at the names in a directory.

    Raises:
        InvalidImportFile: nothing there, nothing that may be read, or something other than a file or a directory.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            return FileHead(path, b"", is_directory=True, names=_list_names(path))
        if not stat.S_ISREG(kind):
            raise InvalidImportFile(f"{path}: expected a file or a directory; this is a pipe, a socket or a device")
        with path.open("rb") as file:
            is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            start = gzip.GzipFile(fileobj=file).read(HEAD_BYTES) if is_compressed else file.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise refuse_unreadable(path, error) from error
    return FileHead(path, start, is_compressed=is_compressed)


def refuse_unreadable(path: Path, error: Exception) -> InvalidImportFile:
    """The error to raise where the system, or a decompressor, will not give a file's content."""
    # An OSError's own text repeats the path.
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InvalidImportFile(f"{path}: expected a file that can be read; {why[:1].lower()}{why[1:]}")


def refuse(where: object, why: object, *, field: str | None = None) -> InvalidImportFile:
    """The error to raise for a place in a file, in one line however long what stands there is."""
    at = "" if field is None else f", field {shorten(field)!r}"
    return InvalidImportFile(f"{where}{at}: {why}".replace("\n", " ").replace("\r", " "))


def shorten(value: object, limit: int = 80) -> str:
    """A value of a file, as it may stand in a message."""
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_wanted(options: ReadOptions, *names: str | None) -> bool:
    """Whether the person wants a run of the file that is called so, by its id or its name there."""
    pattern = options.run_filter
    return pattern is None or any(name is not None and (name == pattern or fnmatchcase(name, pattern)) for name in names)


def name_run(path: Path, options: ReadOptions) -> str:
    """What the run is to be called: as the person says, else as the file is called, else as its directory is.

    A `trainer_state.json` lies in a checkpoint's directory, which lies in the run's.
    """
    if options.name is not None:
        return options.name
    absolute = path.resolve()
    candidates = [absolute.name.removesuffix(".gz"), *(parent.name for parent in absolute.parents)]
    for index, candidate in enumerate(candidates):
        stem = candidate if index else candidate.rsplit(".", 1)[0].removesuffix("trainer_state").rstrip("._-")
        if stem and not stem.startswith("checkpoint-"):
            return stem
    return "imported"


def _list_names(path: Path) -> tuple[str, ...]:
    names = []
    for one in path.rglob("*"):
        if one.is_file():
            names.append(str(one.relative_to(path)))
        if len(names) >= MOST_NAMES:
            break
    return tuple(sorted(names))
