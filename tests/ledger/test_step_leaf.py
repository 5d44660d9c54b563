import hashlib
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.ledger import hash_step
from klaudit.ledger.canonical import canonicalize
from klaudit.ledger.step_leaf import describe_leaf
from klaudit.records import KLReading
from tests.store.examples import FULL, IN_TOKYO, UPDATE, make_step

STEP = make_step(3)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 4},
        {"segment": 1},
        {"logged_at": STEP.logged_at + timedelta(microseconds=1)},
        {"beta": 0.050000000000000003 * 1.0000000000000002},
        {"beta": None},
        {"score": math.nan},
        {"kl": replace(STEP.kl, value=math.inf)},
        {"kl": replace(STEP.kl, standard_error=0.25)},
        {"kl": replace(STEP.kl, n_sequences=17)},
        {"kl": replace(STEP.kl, mean_length=None)},
        {"kl": KLReading.absent(FULL, "the batch was empty")},
        {"readings": {}},
        {"readings": {"kl_update": KLReading(UPDATE, 0.125, n_sequences=15)}},
        {"metrics": {"entropy": 2.0}},
        {"metrics": {"entropy": 2.0, "clip_fraction": math.nextafter(0.0, 1.0)}},
        {"metrics": {"entropy": -math.inf, "clip_fraction": 0.0}},
    ],
    ids=str,
)
def test_whatever_is_stored_of_a_step_is_hashed(changes: dict[str, Any]) -> None:
    assert hash_step("id-1", replace(STEP, **changes)) != hash_step("id-1", STEP)


def test_the_run_is_hashed() -> None:
    assert hash_step("id-2", STEP) != hash_step("id-1", STEP)


@pytest.mark.parametrize(
    "changes",
    [
        {"logged_at": IN_TOKYO},
        {"metrics": {"clip_fraction": -0.0, "entropy": 2}},
        {"metrics": {"entropy": np.float32(2.0), "clip_fraction": np.int64(0)}},
        {"score": np.float64(0.5)},
        {"kl": replace(STEP.kl, series=UPDATE)},
    ],
    ids=str,
)
def test_equal_steps_have_equal_hashes(changes: dict[str, Any]) -> None:
    assert hash_step("id-1", replace(STEP, **changes)) == hash_step("id-1", STEP)


TEXTS = st.text() | st.sampled_from(["kl_update", 'a "quoted" one', "a\\b", "\0", "\ud800", "\x7f", "é", "\U0001f600"])
FLOATS = (
    st.floats() | st.sampled_from([1e16, 1e21, 1e-4, 1e-5, 1e-7, 123456789012345680.0, 0.1, -0.0, 5e-324]) | st.integers(-(2**60), 2**60)
)


@given(metrics=st.dictionaries(TEXTS, FLOATS, max_size=5), value=FLOATS, step=st.integers(0, 2**62), why=TEXTS, key=TEXTS)
def test_what_is_hashed_is_the_canonical_text_of_the_leaf(metrics: dict[str, float], value: float, step: int, why: str, key: str) -> None:
    readings = {key or "k": KLReading(UPDATE, value, abs(value), 2**55, value), "other": KLReading.absent(UPDATE, why)}
    record = replace(STEP, step=step, metrics=metrics, beta=value, readings=readings)
    leaf = canonicalize(describe_leaf("id-1", record))
    assert hash_step("id-1", record) == hashlib.sha256(b"klaudit-step/1\n" + leaf).digest()


def test_a_hash_never_changes() -> None:
    """Ledgers that exist hold it: another value here is another format, with a domain of its own."""
    assert hash_step("id-1", STEP).hex() == "1250a98f9a1078fbc9004afdfe0d7ead49970a2cb14334cbd7ddbd3a9d9844b1"
