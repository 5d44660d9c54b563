"""The journal: what a trainer logged and the store does not hold yet, on local disk.

One file a session, `SESSION.journal`:

| line | holds |
|---|---|
| first | `klaudit-journal/1` and, at a fixed place, how many logged steps stand neither here nor in the store |
| others | CRC-32 of the rest of the line in hex, a blank, one JSON list: the entry's kind and its content |

It is made as `SESSION.new`, locked, begun, and only then gets its name, so that nobody takes it for one that was left behind. Where a person
chose other directories, the usual one holds `SESSION.elsewhere`, a JSON list of them, so that whoever opens the store finds the journal.

A line goes out in one write at a place of its own, so that a process killed in the middle leaves at most one torn line, the last, whose
`log()` had not returned. The writer holds an exclusive `flock`, which the kernel takes back when the process ends however it ends.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import to_json

from klaudit.errors import InvalidJournal, InvalidRecord, JournalUnwritable
from klaudit.records import PRIMARY, UNDECLARED, KLReading, KLSeries, LoggedStep, StepRecord, TextSample, TokenScore
from klaudit.records.session import Session
from klaudit.store.engine import find_file, is_memory, parse_url, render_url

FORMAT = "klaudit-journal/1"
SUFFIX = ".journal"
UNREADABLE_SUFFIX = ".unreadable"
NEW_SUFFIX = ".new"
ELSEWHERE_SUFFIX = ".elsewhere"
LEFTOVER_S = 3600.0
"""How old a file of which nothing tells whether somebody writes it must be before it counts as left behind, in seconds."""
CLAIM_S = 0.1
"""How long whoever would replay journals waits for those who only look at them, in seconds."""
_CHUNK = 1 << 20
_RETRY_S = 0.01
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=float)
_AT_RISK = "{format} at risk {n:012d} from {first:020d} to {last:020d}\n"
_FIRST_LINE = re.compile(rb"klaudit-journal/1 at risk (\d{12}) from (\d{20}) to (\d{20})")
_FIRST_LINE_LENGTH = len(_AT_RISK.format(format=FORMAT, n=0, first=0, last=0))

STEPS = ("step", "numbers")
"""Kinds of entries that are steps."""

Entry = tuple[Any, ...]
"""A kind and its content, as JSON has them: see `encode_step`."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Steps whose `log()` returned and that are nowhere."""

    n: int = 0
    first_step: int | None = None
    last_step: int | None = None

    def add(self, step: int) -> "Loss":
        """The loss with one more step."""
        return Loss(self.n + 1, step if self.first_step is None else min(self.first_step, step), max(step, self.last_step or 0))


@dataclass(frozen=True, slots=True)
class JournalContent:
    """What a journal's file holds."""

    session: Session
    entries: tuple[Entry, ...]
    """Behind the session's own."""
    at_risk: Loss
    n_damaged: int
    """Lines inside that are not what was written; the last, torn one is none."""


def list_journal_directories(url: str, given: Sequence[str | Path] = ()) -> tuple[Path, ...]:
    """Where a session's journal may lie, best first.

    An SQLite file has its journal beside it, in `FILE.journal/`; another store in the user's state directory. A store in memory has none.

    Args:
        url: of the store.
        given: directories that a person chose; they take the place of the usual one, and several stores may share them: each has a folder.
    """
    parsed = parse_url(url)
    if is_memory(parsed):
        return ()
    file = find_file(parsed)
    shown = render_url(parsed) if file is None else f"sqlite:///{file.resolve()}"
    folder = hashlib.sha256(shown.encode(errors="surrogateescape")).hexdigest()[:12]
    if given:
        return tuple(Path(one).expanduser().absolute() / folder for one in given)
    if file is not None:
        return (file.with_name(f"{file.name}{SUFFIX}"),)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return (Path(state) / "klaudit" / "journal" / folder,)


class Journal:
    """The journal that this process writes. Any thread may append; a fork must call `abandon`.

    Args:
        directories: in which its file may lie; the first that takes it, the next when that one fails.
        session: who writes.
        usual: where whoever opens the store looks first; directories that are others are noted there.

    Raises:
        JournalUnwritable: none of the directories takes a file.
    """

    def __init__(self, directories: Sequence[Path], session: Session, *, usual: Sequence[Path] = ()) -> None:
        self._directories = tuple(directories)
        self._pointers = [directory / f"{session.id}{ELSEWHERE_SUFFIX}" for directory in usual if directory not in self._directories]
        self._header = _frame(encode_session(session))
        self._session_id = session.id
        self._lock = Lock()
        self._files: list[_JournalFile] = []
        self._n_tried = 0
        self._series: dict[str, KLSeries] = {}
        self._at_risk = Loss()
        refusals = self._open_next()
        self._n_tried_first = self._n_tried
        if not self._files:
            raise JournalUnwritable(
                f"expected a directory that takes the journal of this run; {'; '.join(refusals) or 'none was given'}. Free some space, or name "
                "another with KLAUDIT_JOURNAL"
            )
        self._write_pointers()

    @property
    def directory(self) -> Path:
        """Where it lies now."""
        return self._files[-1].path.parent

    @property
    def lock(self) -> Lock:
        """Held while a line goes out; who holds it sees a journal that stands still."""
        return self._lock

    def append_step(self, record: StepRecord, samples: Sequence[TextSample]) -> bool:
        """Write one step, and the series of its readings where they are new; False when no directory takes it. For a holder of `lock`."""
        series = {key: one.series for key, one in record.readings.items()}
        series[PRIMARY] = record.kl.series
        return self._declare(series) and self._append(_frame(encode_step(record, samples)))

    def append_numbers(self, entry: Entry, series: KLSeries) -> bool:
        """Write one step of bare numbers, whose KL is of `series`; False when no directory takes it. For a holder of `lock`."""
        is_declared = self._series.get(PRIMARY) is series or self._declare({PRIMARY: series})
        return is_declared and self._append(_frame(entry))

    def append(self, entry: Entry) -> bool:
        """Write one entry; False when no directory takes it. For a holder of `lock`."""
        return self._append(_frame(entry))

    def note_at_risk(self, loss: Loss) -> None:
        """Put down how many logged steps are neither here nor in the store; overwrites in place, so that a full disk does not matter."""
        if loss != self._at_risk:
            self._at_risk = loss
            for file in self._files:
                file.write_first_line(loss)

    def trim(self) -> None:
        """Drop every entry, because the store holds it, and go back to the first directory. For a holder of `lock`."""
        while len(self._files) > 1:
            self._files.pop().remove()
        self._files[0].truncate(self._head_length)
        self._n_tried = self._n_tried_first
        self._series.clear()

    def read_from(self, place: "JournalPlace", limit: int) -> tuple[list[Entry], "JournalPlace"]:
        """The next entries behind a place, at most `limit`, and the place behind them; none where it is the end, as far as one can tell.

        Needs no lock: what stands before the end does not change. Only for whoever calls `trim`, since that does.

        Raises:
            OSError: the disk does not give it back.
        """
        # Before any length: a file that has a later one is complete.
        files = tuple(self._files)
        entries: list[Entry] = []
        while len(entries) < limit and place.file < len(files):
            offset, end = max(place.offset, self._head_length), files[place.file].length
            found, offset = files[place.file].read(offset, end, limit - len(entries))
            entries += found
            is_last = place.file + 1 == len(files)
            place = JournalPlace(place.file, offset) if offset < end or is_last else JournalPlace(place.file + 1, 0)
            if offset >= end and is_last:
                break
        return entries, place

    def is_at_end(self, place: "JournalPlace") -> bool:
        """Whether nothing stands behind a place. For a holder of `lock`."""
        last = len(self._files) - 1
        return place.file > last or (place.file == last and max(place.offset, self._head_length) >= self._files[last].length)

    @property
    def place(self) -> "JournalPlace":
        """Where the next line will go."""
        return JournalPlace(len(self._files) - 1, self._files[-1].length)

    def is_displaced(self) -> bool:
        """Whether somebody deleted or moved one of its files; what is written there would be found by nobody."""
        return any(file.is_displaced() for file in self._files)

    def reopen(self) -> bool:
        """Make files anew that were deleted or moved, with all that they hold, so that every place stays; False when no directory takes one.

        For a holder of `lock`. What could not be made anew goes on as it is: this process can still read and write it.
        """
        for number, file in enumerate(self._files):
            if file.is_displaced() and (anew := self._copy(file)) is not None:
                self._files[number] = anew
                file.close()
        self._write_pointers()
        return not self.is_displaced()

    def remove(self) -> None:
        """Everything is stored: the files go."""
        with self._lock:
            while self._files:
                self._files.pop().remove()
            for pointer in self._pointers:
                with contextlib.suppress(OSError):
                    pointer.unlink()

    def leave(self) -> None:
        """Close the files and let them lie for whoever opens the store next."""
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """Close this process's view of the files, without a lock: for the child of a fork, where somebody else may hold it for ever."""
        for file in self._files:
            file.close()

    def _declare(self, series: Mapping[str, KLSeries]) -> bool:
        changed = {key: one for key, one in series.items() if self._series.get(key) is not one and self._series.get(key) != one}
        if changed and not self._append(_frame(encode_series(changed))):
            return False
        self._series.update(series)
        return True

    def _append(self, line: bytes) -> bool:
        if not self._files:
            return False
        if self._files[-1].write(line):
            return True
        return not self._open_next() and bool(self._files) and self._files[-1].write(line)

    def _open_next(self) -> list[str]:
        """Open a file in the first directory behind the present one that takes it; gives why each of the others did not."""
        refusals = []
        while self._n_tried < len(self._directories):
            directory = self._directories[self._n_tried]
            self._n_tried += 1
            try:
                self._files.append(_JournalFile(directory / f"{self._session_id}{SUFFIX}", self._header))
            except OSError as error:
                refusals.append(f"{directory}: {error.strerror or error}")
            else:
                self._files[-1].write_first_line(self._at_risk)
                self._series.clear()
                return []
        return refusals or ["no directory is left"]

    def _copy(self, file: "_JournalFile") -> "_JournalFile | None":
        """The same file at its path, or in another of the directories; None where that fails."""
        for directory in dict.fromkeys((file.path.parent, *self._directories)):
            with contextlib.suppress(OSError):
                anew = _JournalFile(directory / f"{self._session_id}{SUFFIX}", self._header)
                if anew.append_from(file, self._head_length):
                    anew.write_first_line(self._at_risk)
                    return anew
                anew.remove()
        return None

    def _write_pointers(self) -> None:
        """Note in the usual directory where the journal lies; behind the journal, since a note of none is taken away."""
        content = json.dumps([os.fspath(directory) for directory in self._directories])
        for pointer in self._pointers:
            with contextlib.suppress(OSError):
                pointer.parent.mkdir(parents=True, exist_ok=True)
                pointer.write_text(content)

    @property
    def _head_length(self) -> int:
        return _FIRST_LINE_LENGTH + len(self._header)


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """A place in a journal that may go over several files."""

    file: int
    offset: int


class _JournalFile:
    """One file of a journal; lines go out at `length`, so that a write that failed half-way leaves nothing behind."""

    def __init__(self, path: Path, header: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self.path = path.with_suffix(NEW_SUFFIX)
        self.length = 0
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks: liveness is told by the process id then
                pass
            self._write_head(_render_first_line(Loss()) + header)
            self.path = self.path.rename(path)
        except BaseException:
            self.remove()
            raise

    def write(self, data: bytes) -> bool:
        try:
            written = os.pwrite(self._descriptor, data, self.length)
            if written == len(data):
                self.length += written
                return True
            os.ftruncate(self._descriptor, self.length)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.length)
        return False

    def _write_head(self, head: bytes) -> None:
        if not self.write(head):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_first_line(self, loss: Loss) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, _render_first_line(loss), 0)

    def truncate(self, length: int) -> None:
        if length == self.length:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, length)
            self.length = length

    def read(self, offset: int, end: int, limit: int) -> tuple[list[Entry], int]:
        """Up to `limit` entries between two places, which this process wrote itself, and the place behind them."""
        entries: list[Entry] = []
        rest = b""
        at = offset
        while len(entries) < limit and (chunk := os.pread(self._descriptor, min(_CHUNK, end - at), at)):
            at += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                if (entry := _read_line(line)) is not None:
                    entries.append(entry)
                if len(entries) == limit:
                    return entries, offset
        # What somebody cut off comes back no more.
        return entries, end

    def append_from(self, file: "_JournalFile", offset: int) -> bool:
        """Write what another file holds from a place on; False where the disk is full or does not give it back."""
        while offset < file.length:
            try:
                chunk = os.pread(file._descriptor, min(_CHUNK, file.length - offset), offset)
            except OSError:
                return False
            if not chunk or not self.write(chunk):
                return False
            offset += len(chunk)
        return True

    def is_displaced(self) -> bool:
        return self._descriptor >= 0 and not _lies_at(self._descriptor, self.path)

    def close(self) -> None:
        # Forgotten, because the number may soon mean another file: in the child of a fork this is called again by its own child.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()


def find_journals(directories: Sequence[Path]) -> list[Path]:
    """Files of journals, whoever wrote them, there and where notes say that others lie; none where a directory cannot be read."""
    found: list[Path] = []
    for directory in directories:
        with contextlib.suppress(OSError):
            found += sorted(directory.glob(f"*{SUFFIX}"))
            for pointer in sorted(directory.glob(f"*{ELSEWHERE_SUFFIX}")):
                found += [path for path in _follow(pointer) if path.exists()]
    return list(dict.fromkeys(found))


def remove_leftovers(directories: Sequence[Path]) -> None:
    """Take away notes of journals that are gone, and files that a process did not live to make journals of."""
    oldest = time.time() - LEFTOVER_S
    for directory in directories:
        with contextlib.suppress(OSError):
            for pointer in directory.glob(f"*{ELSEWHERE_SUFFIX}"):
                places = _follow(pointer)
                # A directory that is not there may be a disk that is not mounted now.
                if places and all(path.parent.is_dir() and not path.exists() for path in places):
                    pointer.unlink()
            for path in directory.glob(f"*{NEW_SUFFIX}"):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _follow(pointer: Path) -> list[Path]:
    """Where the journal of a note may lie."""
    try:
        return [Path(directory) / f"{pointer.stem}{SUFFIX}" for directory in json.loads(pointer.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


@contextlib.contextmanager
def claim_journal(path: Path, *, until: float = 0.0) -> Iterator[bool]:
    """Hold a journal that nobody writes any more; gives False where its writer lives or somebody else replays it.

    Args:
        path: of its file.
        until: how long to wait for those who only look at it, by the monotonic clock.

    Raises:
        OSError: the file is there and may not be opened for writing.
        InvalidJournal: no journal, on a file system without locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        # Another may have replayed and removed it between the two calls.
        yield _lock(descriptor, path, fcntl.LOCK_EX, until=until) and _lies_at(descriptor, path)
    finally:
        os.close(descriptor)


def is_journal_held(path: Path) -> bool:
    """Whether its writer lives, or somebody replays it.

    Raises:
        OSError: the file cannot be read.
        InvalidJournal: no journal, on a file system without locks.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _lock(descriptor, path, fcntl.LOCK_SH, until=0.0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, kind: int, *, until: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_RETRY_S)
        except OSError:
            # No locks on this file system: the process id is all there is.
            is_alive = is_session_alive(read_session(path)[0])
            return not (os.fstat(descriptor).st_mtime > time.time() - LEFTOVER_S if is_alive is None else is_alive)
        else:
            return True


def _lies_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path; where the system does not tell, it is."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def is_session_alive(session: Session) -> bool | None:
    """Whether the process that began a session on this host still runs; one of another host counts as alive. As `is_process_alive`."""
    return session.host != socket.gethostname() or is_process_alive(session.pid, session.process_started)


def is_process_alive(pid: int, started: str | None) -> bool | None:
    """Whether a process of this host runs, and is the one that began at `started` and not a later one with its number.

    None: that cannot be told from here, because it began before this boot or in another container, where numbers mean other processes.
    """
    here = describe_process_start(os.getpid())
    if started is not None and here is not None and started.rpartition("/")[0] != here.rpartition("/")[0]:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    now = _read_start(pid)
    return started is None or now is None or now == started.rpartition("/")[2]


def describe_process_start(pid: int) -> str | None:
    """Boot, process-id namespace and start time of a process; None where the system does not tell.

    Source: proc(5), field 22 of `/proc/PID/stat`; pid_namespaces(7).
    """
    start = _read_start(pid)
    if start is None:
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None
    return f"{boot}/{namespace}/{start}"


def _read_start(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def read_journal(path: Path) -> JournalContent:
    """Everything a journal's file holds.

    Raises:
        InvalidJournal: its beginning is not what a journal begins with.
    """
    session, at_risk = read_session(path)
    entries = list(read_entries(path))
    kept = tuple(entry for entry in entries if entry is not None)
    return JournalContent(session, kept, at_risk, n_damaged=len(entries) - len(kept))


def read_session(path: Path) -> tuple[Session, Loss]:
    """Who wrote a journal, and how many steps are neither in it nor in the store.

    Raises:
        InvalidJournal: its beginning is not what a journal begins with.
    """
    with path.open("rb") as file:
        at_risk = _read_first_line(path, file.readline().rstrip(b"\n"))
        line = file.readline()
    entry = _read_line(line) if line.endswith(b"\n") else None
    if entry is None or entry[0] != "session":
        raise InvalidJournal(
            f"{path}: expected a journal that names its session in its second line; it is damaged there. Nothing of it was taken"
        )
    return decode_session(entry), at_risk


def read_entries(path: Path) -> Iterator[Entry | None]:
    """The entries of a journal behind its session, one after the other; None for a line that is not what was written."""
    with path.open("rb") as file:
        for line in islice(file, 2, None):
            # What follows the last line feed is a torn line.
            if line.endswith(b"\n"):
                yield _read_line(line)


def encode_session(session: Session) -> Entry:
    """The entry that a journal begins with."""
    return ("session", *_adapt_session().dump_python((session,), mode="json"))


def decode_session(entry: Entry) -> Session:
    """The session of a journal's first entry."""
    (session,) = _adapt_session().validate_python(entry[1:])
    return session


def encode_series(series: Mapping[str, KLSeries]) -> Entry:
    """What KLs are from here on."""
    return ("series", {key: _adapt_series().dump_python(one, mode="json") for key, one in series.items()})


def decode_series(entry: Entry) -> dict[str, KLSeries]:
    """The series of an entry, by key."""
    return {key: _adapt_series().validate_python(one) for key, one in entry[1].items()}


def encode_step(record: StepRecord, samples: Sequence[TextSample]) -> Entry:
    """A step, its readings without their series, which went before."""
    return (
        "step",
        record.step,
        record.logged_at.isoformat(),
        _encode_reading(record.kl),
        record.beta,
        record.score,
        {key: _encode_reading(one) for key, one in record.readings.items()},
        record.metrics if type(record.metrics) is dict else dict(record.metrics),
        [_encode_sample(one) for one in samples],
    )


def encode_numbers(
    step: int, *, kl: float | None, n_sequences: int | None, beta: float | None, score: float | None, metrics: Mapping[str, float] | None
) -> Entry:
    """A step of bare numbers, now."""
    return ("numbers", step, time.time_ns(), kl, n_sequences, beta, score, dict(metrics) if metrics else {})


def decode_step(entry: Entry, *, segment: int, series: Mapping[str, KLSeries]) -> LoggedStep:
    """The step of an entry, in the segment that its session got.

    Raises:
        InvalidRecord: numbers that are none.
        InvalidJournal: an entry of another shape.
    """
    try:
        if entry[0] == "numbers":
            return LoggedStep(_decode_numbers(entry, segment=segment, series=series.get(PRIMARY, UNDECLARED)))
        return _decode_step(entry, segment=segment, series=series)
    except InvalidRecord:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidJournal(
            f"expected a {entry[0]!r} entry with the columns that klaudit knows; got one of a newer klaudit ({error}). Upgrade it"
        ) from error


def _decode_step(entry: Entry, *, segment: int, series: Mapping[str, KLSeries]) -> LoggedStep:
    _, step, logged_at, kl, beta, score, readings, metrics, samples = entry
    record = StepRecord(
        step=step,
        kl=KLReading(series.get("kl", UNDECLARED), *kl),
        logged_at=datetime.fromisoformat(logged_at),
        segment=segment,
        beta=beta,
        score=score,
        readings={key: KLReading(series.get(key, UNDECLARED), *one) for key, one in readings.items()},
        metrics=metrics,
    )
    return LoggedStep(record, tuple(_decode_sample(one, step=step, segment=segment) for one in samples))


def _decode_numbers(entry: Entry, *, segment: int, series: KLSeries) -> StepRecord:
    _, step, time_ns, kl, n_sequences, beta, score, given = entry
    try:
        metrics = {name: float(value) for name, value in given.items()}
        if kl is None:
            reading = KLReading.absent(series, "the loop gave no kl at this step")
        else:
            reading = KLReading(series, float(kl), None, n_sequences, metrics.get("response_length"))
        return StepRecord(
            step=step,
            kl=reading,
            logged_at=datetime.fromtimestamp(time_ns / 1e9, UTC),
            segment=segment,
            beta=None if beta is None else float(beta),
            score=None if score is None else float(score),
            metrics=metrics,
        )
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"step {step}: expected numbers; {error}") from error


def _encode_reading(reading: KLReading) -> tuple[Any, ...]:
    return (reading.value, reading.standard_error, reading.n_sequences, reading.mean_length, reading.not_measured)


def _encode_sample(sample: TextSample) -> tuple[Any, ...]:
    tokens = [(one.text, one.policy_logprob, one.reference_logprob, one.kl) for one in sample.tokens]
    return (sample.prompt, sample.completion, tokens, sample.index, sample.score)


def _decode_sample(columns: Sequence[Any], *, step: int, segment: int) -> TextSample:
    prompt, completion, tokens, index, score = columns
    return TextSample(step, prompt, completion, tuple(TokenScore(*one) for one in tokens), segment, index, score)


def _frame(entry: Entry) -> bytes:
    try:
        # A third of the time that Python's own encoder takes, and the trainer waits for it.
        text = to_json(entry, inf_nan_mode="constants")
    except ValueError:  # what UTF-8 or this encoder does not know: half of a surrogate pair, a number of another library
        text = _ENCODER.encode(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_line(line: bytes) -> Entry | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        return tuple(json.loads(text))
    except (ValueError, TypeError):
        return None


def _render_first_line(loss: Loss) -> bytes:
    return _AT_RISK.format(format=FORMAT, n=loss.n, first=loss.first_step or 0, last=loss.last_step or 0).encode()


def _read_first_line(path: Path, line: bytes) -> Loss:
    found = _FIRST_LINE.fullmatch(line)
    if found is None:
        raise InvalidJournal(f"{path}: expected a file that begins with {FORMAT!r}; got {line[:40]!r}. Nothing of it was taken")
    n, first, last = map(int, found.groups())
    return Loss(n, first, last) if n else Loss()


@cache
def _adapt_session() -> TypeAdapter[tuple[Session]]:
    return TypeAdapter(tuple[Session], config=ConfigDict(ser_json_inf_nan="constants"))


@cache
def _adapt_series() -> TypeAdapter[KLSeries]:
    return TypeAdapter(KLSeries)
