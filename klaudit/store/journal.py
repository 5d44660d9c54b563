"""The journal: what a trainer logged and the store does not hold yet, on local disk.

One file a session, `SESSION.journal`:

| line | holds |
|---|---|
| first | `klaudit-journal/1` and, at a fixed place, how many logged steps stand neither here nor in the store |
| others | CRC-32 of the rest of the line in hex, a blank, one JSON list: the entry's kind and its content |

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
        given: directories that a person chose; they take the place of the usual one.
    """
    if given:
        return tuple(Path(one).expanduser().absolute() for one in given)
    parsed = parse_url(url)
    if is_memory(parsed):
        return ()
    if (file := find_file(parsed)) is not None:
        return (file.with_name(f"{file.name}{SUFFIX}"),)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return (Path(state) / "klaudit" / "journal" / hashlib.sha256(render_url(parsed).encode()).hexdigest()[:12],)


class Journal:
    """The journal that this process writes. Any thread may append; a fork must call `abandon`.

    Args:
        directories: in which its file may lie; the first that takes it, the next when that one fails.
        session: who writes.

    Raises:
        JournalUnwritable: none of the directories takes a file.
    """

    def __init__(self, directories: Sequence[Path], session: Session) -> None:
        self._directories = tuple(directories)
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
        self._files[0].truncate(_FIRST_LINE_LENGTH + len(self._header))
        self._n_tried = self._n_tried_first
        self._series.clear()

    def read_from(self, place: "JournalPlace", limit: int) -> tuple[list[Entry], "JournalPlace"]:
        """The next entries behind a place, and the place behind them. For a holder of `lock`."""
        entries: list[Entry] = []
        while len(entries) < limit and place.file < len(self._files):
            file = self._files[place.file]
            found, offset = file.read(max(place.offset, _FIRST_LINE_LENGTH + len(self._header)), limit - len(entries))
            entries += found
            more = place.file + 1 < len(self._files)
            place = JournalPlace(place.file + 1, 0) if offset >= file.length and more else JournalPlace(place.file, offset)
            if not found and not more:
                break
        return entries, place

    @property
    def place(self) -> "JournalPlace":
        """Where the next line will go."""
        return JournalPlace(len(self._files) - 1, self._files[-1].length)

    def remove(self) -> None:
        """Everything is stored: the files go."""
        with self._lock:
            while self._files:
                self._files.pop().remove()

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


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """A place in a journal that may go over several files."""

    file: int
    offset: int


class _JournalFile:
    """One file of a journal; lines go out at `length`, so that a write that failed half-way leaves nothing behind."""

    def __init__(self, path: Path, header: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.length = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a file system without locks: liveness is told by the process id then
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first_line = _render_first_line(Loss())
            self._write_head(first_line + header)
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

    def read(self, offset: int, limit: int) -> tuple[list[Entry], int]:
        """Up to `limit` entries from a place on, which this process wrote itself, and the place behind them."""
        entries: list[Entry] = []
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            stream.seek(offset)
            while len(entries) < limit and offset < self.length:
                line = stream.readline()
                offset += len(line)
                entry = _read_line(line)
                if entry is not None:
                    entries.append(entry)
        return entries, offset

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()


def find_journals(directories: Sequence[Path]) -> list[Path]:
    """Files of journals, whoever wrote them; none where a directory cannot be read."""
    found: list[Path] = []
    for directory in directories:
        with contextlib.suppress(OSError):
            found += sorted(directory.glob(f"*{SUFFIX}"))
    return found


@contextlib.contextmanager
def claim_journal(path: Path) -> Iterator[bool]:
    """Hold a journal that nobody writes any more; gives False where its writer lives or somebody else replays it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                yield False
                return
            # No locks on this file system: the process id is all there is.
            if is_session_alive(read_journal(path).session):
                yield False
                return
        # Another may have replayed and removed it between the two calls.
        yield path.exists()
    finally:
        os.close(descriptor)


def is_session_alive(session: Session) -> bool:
    """Whether the process that began a session on this host still runs; one of another host counts as alive."""
    return session.host != socket.gethostname() or is_process_alive(session.pid, session.process_started)


def is_process_alive(pid: int, started: str | None) -> bool:
    """Whether a process of this host runs, and is the one that began at `started` and not a later one with its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    now = describe_process_start(pid)
    return started is None or now is None or now == started


def describe_process_start(pid: int) -> str | None:
    """Boot and start time of a process; None where the system does not tell.

    Source: proc(5), field 22 of `/proc/PID/stat`.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return f"{boot}/{started}"


def read_journal(path: Path) -> JournalContent:
    """Everything a journal's file holds.

    Raises:
        InvalidJournal: its beginning is not what a journal begins with.
    """
    first_line, *lines = path.read_bytes().split(b"\n")
    at_risk = _read_first_line(path, first_line)
    # What follows the last line feed is nothing, or a torn line.
    entries = [_read_line(line) for line in lines[:-1]]
    if not entries or entries[0] is None or entries[0][0] != "session":
        raise InvalidJournal(
            f"{path}: expected a journal that names its session in its second line; it is damaged there. Nothing of it was taken"
        )
    kept = tuple(entry for entry in entries[1:] if entry is not None)
    return JournalContent(decode_session(entries[0]), kept, at_risk, n_damaged=len(entries) - 1 - len(kept))


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
    """
    if entry[0] == "numbers":
        return LoggedStep(_decode_numbers(entry, segment=segment, series=series.get(PRIMARY, UNDECLARED)))
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
