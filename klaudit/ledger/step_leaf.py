"""One step as a leaf of its batch."""

import hashlib
from typing import Any

from klaudit.ledger.canonical import canonicalize, frame
from klaudit.records import KLReading, StepRecord
from klaudit.records.moment import format_moment

_DOMAIN = frame("klaudit-step/1")


def hash_step(run_id: str, record: StepRecord) -> bytes:
    """SHA-256 (32 bytes) over everything that the store keeps of a step; what its KLs are stands in entries of their own.

    Numbers are hashed as 64-bit floats, because a database gives no others back.

    Raises:
        InvalidRecord: something that JSON cannot hold.
    """
    kl = record.kl
    leaf = {
        "run": run_id,
        "segment": record.segment,
        "step": record.step,
        "logged_at": format_moment(record.logged_at),
        "kl": _describe_reading(kl),
        "beta": _to_float(record.beta),
        "score": _to_float(record.score),
        "readings": {key: _describe_reading(one) for key, one in record.readings.items()},
        "metrics": {name: float(value) for name, value in record.metrics.items()},
    }
    return hashlib.sha256(_DOMAIN + canonicalize(leaf)).digest()


def _describe_reading(reading: KLReading) -> dict[str, Any]:
    return {
        "value": _to_float(reading.value),
        "se": _to_float(reading.standard_error),
        "n": reading.n_sequences,
        "mean_length": _to_float(reading.mean_length),
        "not_measured": reading.not_measured,
    }


def _to_float(value: float | None) -> float | None:
    return None if value is None else float(value)
