from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from klaudit.errors import InvalidRecord
from klaudit.store.column_types import Timestamp

DIALECT = sqlite.dialect()
ZONES = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=ZONES)  # noqa: DTZ001 - zone by timezones=


def write(moment: datetime) -> str:
    text = Timestamp().process_bind_param(moment, DIALECT)
    assert text is not None
    return text


def test_a_moment_is_iso_8601_text_in_utc() -> None:
    tokyo = datetime(2026, 11, 22, 19, 0, tzinfo=timezone(timedelta(hours=9)))
    assert write(tokyo) == "2026-11-22T10:00:00.000000Z"


@given(MOMENTS)
def test_any_moment_comes_back_to_the_microsecond_in_utc(moment: datetime) -> None:
    found = Timestamp().process_result_value(write(moment), DIALECT)
    assert found == moment
    assert found is not None
    assert found.tzinfo is UTC


@given(MOMENTS, MOMENTS)
def test_order_of_text_is_order_of_time(one: datetime, other: datetime) -> None:
    assert (write(one) < write(other)) == (one < other)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="with a time zone; got 2026-11-22T10:00:00"):
        write(datetime(2026, 11, 22, 10))  # noqa: DTZ001 - that is the point
