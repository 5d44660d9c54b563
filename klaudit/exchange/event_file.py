"""TensorBoard's event files: records with checksums around the protocol buffers `Event` and `Summary`.

The handful of fields that a number needs are decoded here: the `tensorboard` package, which could do it, brings gRPC and a web server.
Formats: tensorflow/core/lib/io/record_writer.h, core/util/event.proto and core/framework/{summary,tensor}.proto.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from klaudit.exchange.reader import refuse, refuse_unreadable

FIRST_EVENT = b"brain.Event:"
"""In the first record of every file: the version of the format."""
LENGTH, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
HEADER_BYTES = LENGTH.size + CHECKSUM.size
LARGEST_RECORD = 16 << 20
"""Bytes; what is larger is an image, a sound or a graph, and is passed over."""
POLYNOMIAL = 0x82F63B78
"""CRC-32C (Castagnoli), reflected."""
MASK_DELTA = 0xA282EAD8
SESSION_START = 1
SCALAR_VALUES: Mapping[int, tuple[int, str]] = {1: (5, "f"), 2: (6, "d"), 3: (7, "i"), 9: (10, "q")}
"""Of a tensor's type (float, double, int32, int64): the field of its values, and their code in `tensor_content`."""


@dataclass(frozen=True, slots=True)
class Event:
    """What one record says, as far as numbers go."""

    wall_time: float
    """Seconds since 1970."""
    step: int
    scalars: tuple[tuple[str, float], ...]
    """Tag and value."""
    starts_session: bool
    """A writer began at this step; what was logged at it and after it was before a resume."""
    where: str


def read_events(path: Path, *, on_progress: Callable[[int], None], on_cut: Callable[[Path], None]) -> Iterator[Event]:
    """The events of a file that hold a number or start a session.

    Args:
        path: of the file.
        on_progress: called with the bytes that were read.
        on_cut: called with the path when the file ends inside a record, as a killed run leaves it.

    Raises:
        InvalidImportFile: no event file, or a damaged record; the message names the byte at which it begins.
    """
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            while (at := file.tell()) < n_bytes:
                where = f"{path} byte {at}"
                record = _read_record(file, n_bytes - at, where)
                if record is None:
                    on_cut(path)
                    return
                on_progress(file.tell())
                yield from _read_event(record, where)
    except OSError as error:
        raise refuse_unreadable(path, error) from error


def _read_record(file: BinaryIO, n_left: int, where: str) -> "_Record | None":
    """The next record, an empty one where it is too large for a number; None where the file ends inside it."""
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not any(header):
        return None
    (length,), (checksum,) = LENGTH.unpack_from(header), CHECKSUM.unpack_from(header, LENGTH.size)
    if checksum != mask_checksum(header[: LENGTH.size]):
        raise refuse(where, "expected a record of TensorBoard; the checksum of its length is wrong")
    if length + HEADER_BYTES + CHECKSUM.size > n_left:
        return None
    if length > LARGEST_RECORD:
        file.seek(length + CHECKSUM.size, 1)
        return _Record(b"", 0)
    content = file.read(length)
    (checksum,) = CHECKSUM.unpack(file.read(CHECKSUM.size))
    return _Record(content, checksum)


@dataclass(frozen=True, slots=True)
class _Record:
    content: bytes
    checksum: int


def _read_event(record: _Record, where: str) -> Iterator[Event]:
    wall_time, step, scalars, starts_session = 0.0, 0, list[tuple[str, float]](), False
    try:
        for field, value in read_fields(record.content):
            match field:
                case 1:
                    (wall_time,) = struct.unpack("<d", value)
                case 2:
                    step = value
                case 5:
                    scalars += [scalar for inner, content in read_fields(value) if inner == 1 and (scalar := _read_scalar(content))]
                case 7:
                    starts_session = dict(read_fields(value)).get(1) == SESSION_START
    except (ValueError, TypeError, IndexError, struct.error, RecursionError) as error:
        raise refuse(where, f"expected an event of TensorBoard; {error}") from error
    if scalars or starts_session:
        # Only here, because it takes longer than everything else, and images are large.
        if record.checksum != mask_checksum(record.content):
            raise refuse(where, "expected a record of TensorBoard; its checksum is wrong")
        yield Event(wall_time, step, tuple(scalars), starts_session, where)


def _read_scalar(content: bytes) -> tuple[str, float] | None:
    """Tag and number of a `Summary.Value`; None for an image, a histogram or a text."""
    fields = dict(read_fields(content))
    if 1 not in fields:
        return None
    tag = fields[1].decode()
    if 2 in fields:
        return tag, struct.unpack("<f", fields[2])[0]
    number = _read_tensor(fields[8]) if 8 in fields else None
    return None if number is None else (tag, number)


def _read_tensor(content: bytes) -> float | None:
    """The one number of a `TensorProto` without dimensions."""
    fields = dict(read_fields(content))
    has_dimensions = any(inner == 2 for inner, _ in read_fields(fields.get(2, b"")))
    if has_dimensions or fields.get(1) not in SCALAR_VALUES:
        return None
    field, code = SCALAR_VALUES[fields[1]]
    if fields.get(4):
        return float(struct.unpack("<" + code, fields[4])[0])
    value = fields.get(field, 0)
    if isinstance(value, int):
        return float(value)
    return float(struct.unpack("<" + code, value)[0] if code in "fd" else _read_varint(value, 0)[0])


def read_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: number, and an int or bytes.

    Raises:
        ValueError: no protocol buffer.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            yield field, value
            continue
        if kind == 2:
            length, at = _read_varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}, which protocol buffers do not have")
        if not 0 <= length <= len(message) - at:
            raise ValueError(f"field {field} ends outside its message")
        yield field, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A signed 64-bit number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number ends outside its message")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            value &= (1 << 64) - 1
            return (value - (1 << 64) if value >> 63 else value), at
    raise ValueError("a number of more than 64 bits")


def _make_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (POLYNOMIAL if remainder & 1 else 0)
        table.append(remainder)
    return tuple(table)


CRC_TABLE = _make_table()


def mask_checksum(content: bytes) -> int:
    """The CRC-32C of some bytes, rotated and shifted as record_writer.h does it."""
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder = CRC_TABLE[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    checksum = remainder ^ 0xFFFFFFFF
    return (((checksum >> 15) | (checksum << 17)) + MASK_DELTA) & 0xFFFFFFFF
