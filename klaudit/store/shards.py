"""Sampled completions of drift measurements: each shard is one row, under the key of all that decides its numbers."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, delete, or_, select, text

from klaudit.errors import StoreError
from klaudit.ledger.canonical import digest_canonical
from klaudit.records import DriftShard, MeasuredSequence
from klaudit.store.column_types import Timestamp
from klaudit.store.floats import decode_json, encode_json
from klaudit.store.tables import drift_profiles, drift_shards

CONTENT_FORMAT = "klaudit-shard/1"

KEYS_AT_A_TIME = 500
"""Keys in one query: databases limit what a statement may hold."""

ROWS_AT_A_TIME = 50
"""Shards that are in memory at once while all are gone through."""

_FIELDS = tuple(one.name for one in fields(MeasuredSequence))
_PER_TOKEN = ("tokens", "token_ids", "full", "policy_logprobs", "reference_logprobs", "policy_entropy")
_PER_TOKEN_AND_RANK = ("top_tokens", "top_contributions")

_INSERT_NEW = text("""
    INSERT INTO drift_shards (key, run_id, n_sequences, stored_at, content) VALUES (:key, :run_id, :n_sequences, :stored_at, :content)
    ON CONFLICT (key) DO NOTHING
""").bindparams(bindparam("stored_at", type_=Timestamp()), bindparam("content", type_=LargeBinary()))
_CONTENTS = select(drift_shards.c.key, drift_shards.c.content)
_DELETE = delete(drift_shards).where(drift_shards.c.key == bindparam("shard"))


def insert_shard(connection: Connection, shard: DriftShard, run_id: str | None) -> None:
    """Add a shard; one that is there under the same key stays as it is."""
    row = {"key": shard.key, "run_id": run_id, "n_sequences": len(shard.sequences), "stored_at": datetime.now(UTC)}
    connection.execute(_INSERT_NEW, {**row, "content": encode_shard(shard)})


def read_keys(connection: Connection, keys: Sequence[str]) -> Iterator[str]:
    """Which of the shards are there."""
    for part in split_keys(keys):
        yield from connection.scalars(select(drift_shards.c.key).where(drift_shards.c.key.in_(part)))


def read_shards(connection: Connection, keys: Sequence[str]) -> Iterator[DriftShard]:
    """Those of the shards that are there, in any order.

    Raises:
        StoreError: one that cannot be read.
    """
    for part in split_keys(keys):
        for key, content in connection.execute(_CONTENTS.where(drift_shards.c.key.in_(part))):
            yield decode_shard(key, content)


def split_keys(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Keys in parts of `KEYS_AT_A_TIME`."""
    for start in range(0, len(keys), KEYS_AT_A_TIME):
        yield keys[start : start + KEYS_AT_A_TIME]


def delete_shards_of_run(connection: Connection, run_id: str) -> None:
    """Remove what was measured for a run, or is behind one of its profiles, unless a profile of something else has need of it."""
    listed, is_of_run = select(drift_profiles.c.shards), drift_profiles.c.run_id == run_id
    of_run = set(connection.scalars(select(drift_shards.c.key).where(drift_shards.c.run_id == run_id)))
    of_run.update(chain.from_iterable(connection.scalars(listed.where(is_of_run))))
    if of_run:
        of_others = listed.where(or_(drift_profiles.c.run_id.is_(None), ~is_of_run))
        of_run.difference_update(chain.from_iterable(connection.scalars(of_others)))
    if of_run:
        connection.execute(_DELETE, [{"shard": key} for key in sorted(of_run)])


def digest_contents(connection: Connection, keys: Sequence[str] | None = None) -> dict[str, str]:
    """Hex digest of the stored bytes of shards by key; None: of all that are there."""
    queries = [_CONTENTS] if keys is None else [_CONTENTS.where(drift_shards.c.key.in_(part)) for part in split_keys(keys)]
    digests: dict[str, str] = {}
    for query in queries:
        rows = connection.execute(query, execution_options={"yield_per": ROWS_AT_A_TIME})
        digests.update({key: _digest(content) for key, content in rows})
    return digests


def _digest(content: bytes | str) -> str:
    # SQLite holds what it is given: a content that somebody wrote by hand may be a text.
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()


def combine_digests(keys: Sequence[str], contents: Mapping[str, str]) -> str:
    """`sha256:` and 64 hex digits over the contents of some shards; one that is not there has none."""
    return digest_canonical("klaudit-shards/1", [[key, contents.get(key)] for key in keys])


def encode_shard(shard: DriftShard) -> bytes:
    """Its sequences, compressed; floats come back as they were, NaN and infinities too."""
    sequences = [[getattr(one, name) for name in _FIELDS] for one in shard.sequences]
    return zlib.compress(encode_json({"format": CONTENT_FORMAT, "fields": _FIELDS, "sequences": sequences}).encode())


def decode_shard(key: str, content: bytes) -> DriftShard:
    """The shard that was encoded.

    Raises:
        StoreError: the content is spoiled, or a newer klaudit wrote it.
    """
    try:
        decoded = decode_json(zlib.decompress(content).decode())
        if decoded["format"] != CONTENT_FORMAT:
            raise ValueError(f"its format is {decoded['format']!r}")  # noqa: TRY301
        rows = (dict(zip(decoded["fields"], row, strict=True)) for row in decoded["sequences"])
        return DriftShard(key, tuple(_to_sequence(row) for row in rows))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        raise StoreError(
            f"expected {CONTENT_FORMAT} in the row {key} of drift_shards; it cannot be read: {error}. "
            "Restore the store from a copy, or delete that row and measure again"
        ) from error


def _to_sequence(row: dict[str, Any]) -> MeasuredSequence:
    per_token = {name: tuple(row[name]) for name in _PER_TOKEN}
    ranked = {name: tuple(map(tuple, row[name])) for name in _PER_TOKEN_AND_RANK}
    return MeasuredSequence(**{**row, **per_token, **ranked})
