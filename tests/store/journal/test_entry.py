from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from klaudit.records import KLReading, StepRecord
from klaudit.store.journal.entry import decode_step, encode_step
from tests.store.journal.examples import K1


@given(
    kl=st.floats(),
    metrics=st.dictionaries(st.text(), st.floats(), max_size=4),
    beta=st.none() | st.floats(),
    moment=st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0)),
)
def test_a_step_survives_its_line_to_the_bit(kl: float, metrics: dict[str, float], beta: float | None, moment: datetime) -> None:
    record = StepRecord(1, KLReading(K1, kl), moment, beta=beta, metrics=metrics)
    assert repr(decode_step(encode_step(record, ()), segment=0, series={"kl": K1}).record) == repr(record)
