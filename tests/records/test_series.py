import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import InvalidRecord
from klaudit.records import KLReading, KLSeries, find_governing_series, find_update_series
from klaudit.records.series import Unit

PER_TOKEN = KLSeries(estimator="full", unit="nats_per_token", aggregation="batch_mean")
PER_SEQUENCE = KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean")
K1 = KLSeries(estimator="k1", unit="nats_per_sequence")


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "ref"), ("estimator", "k4"), ("unit", "bits"), ("aggregation", "median"), ("direction", "sideways"), ("temperature", 0.0)],
)
def test_a_series_refuses_what_is_outside_its_vocabulary_and_says_what_came(field: str, value: Any) -> None:
    with pytest.raises(InvalidRecord, match=rf"KLSeries\.{field} .*{value!r}"):
        KLSeries(**{field: value})


def test_a_series_that_declares_nothing_is_unknown_and_governs_nothing() -> None:
    assert (KLSeries().estimator, KLSeries().unit, KLSeries().aggregation) == ("unknown", "unknown", "unknown")
    assert find_governing_series({"kl": KLSeries()}) is None


def test_a_label_says_kind_estimator_and_unit() -> None:
    assert K1.label == "KL to reference (k1, nats/sequence)"
    assert KLSeries(kind="unknown").label == "KL of unknown kind (unknown estimator, unknown unit)"


def test_full_governs_before_k3_and_k3_before_k1() -> None:
    series = {name: KLSeries(estimator=name, unit="nats_per_sequence") for name in ("k1", "k3", "full")}
    assert find_governing_series(series) == "full"
    del series["full"]
    assert find_governing_series(series) == "k3"
    del series["k3"]
    assert find_governing_series(series) == "k1"


@pytest.mark.parametrize(
    "better",
    [
        KLSeries(kind="update", estimator="full", unit="nats_per_sequence"),
        KLSeries(kind="mismatch", estimator="full", unit="nats_per_sequence"),
        KLSeries(direction="forward", estimator="full", unit="nats_per_sequence"),
        KLSeries(estimator="full"),
        KLSeries(estimator="k2", unit="nats_per_sequence"),
    ],
)
def test_only_a_reference_series_of_known_estimator_and_unit_governs(better: KLSeries) -> None:
    assert find_governing_series({"other": better, "kl": K1}) == "kl"


DECLARED = {
    "z_full": PER_SEQUENCE,
    "a_full": PER_SEQUENCE,
    "kl": K1,
    "z_update": KLSeries(kind="update", estimator="k2", unit="nats_per_token"),
    "b_update": KLSeries(kind="update", estimator="k1", unit="nats_per_sequence"),
    "a_update": KLSeries(kind="update"),
}


@given(st.permutations(sorted(DECLARED)))
def test_what_governs_and_what_a_path_adds_up_does_not_hang_on_the_order_of_declaration(keys: list[str]) -> None:
    series = {key: DECLARED[key] for key in keys}
    assert (find_governing_series(series), find_update_series(series)) == ("a_full", "b_update")


@given(st.permutations(["a", "kl", "z"]))
def test_of_series_that_are_alike_the_primary_one_counts(keys: list[str]) -> None:
    assert find_governing_series(dict.fromkeys(keys, PER_SEQUENCE)) == "kl"
    assert find_update_series(dict.fromkeys(keys, DECLARED["z_update"])) == "kl"


def test_absent_is_not_zero() -> None:
    absent = KLReading.absent(K1, "the trainer did not log it")
    assert absent.value is None
    assert absent.not_measured == "the trainer did not log it"
    assert not absent.is_finite
    assert KLReading(K1, 0.0).is_finite


@pytest.mark.parametrize(("value", "reason"), [(None, None), (0.5, "no")])
def test_a_reading_holds_a_value_or_a_reason_and_never_both(value: float | None, reason: str | None) -> None:
    with pytest.raises(InvalidRecord, match=f"value={value!r}, not_measured={reason!r}"):
        KLReading(K1, value, not_measured=reason)


@pytest.mark.parametrize(("field", "value"), [("standard_error", -0.1), ("n_sequences", 0)])
def test_a_reading_refuses_a_negative_error_and_an_empty_batch(field: str, value: Any) -> None:
    with pytest.raises(InvalidRecord, match=rf"KLReading\.{field} .*got {value!r}"):
        KLReading(K1, 0.5, **{field: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reading_keeps_what_is_not_finite(value: float) -> None:
    reading = KLReading(K1, value, n_sequences=16)
    assert reading.value is value
    assert not reading.is_finite
    assert reading.effective_standard_error is None


def test_kl_per_sequence_is_kl_per_token_times_mean_length() -> None:
    reading = KLReading(PER_TOKEN, 0.25, standard_error=0.0625, n_sequences=8, mean_length=16.0)
    assert reading.to_unit("nats_per_sequence") == KLReading(PER_SEQUENCE, 4.0, standard_error=1.0, n_sequences=8, mean_length=16.0)


@given(
    value=st.floats(-1e6, 1e6).filter(lambda number: number == 0 or abs(number) > 1e-6),
    error=st.floats(0, 1e3).filter(lambda number: number == 0 or number > 1e-6),
    length=st.floats(0.5, 1e5),
)
def test_a_reading_comes_back_from_the_other_unit(value: float, error: float, length: float) -> None:
    reading = KLReading(PER_TOKEN, value, standard_error=error, mean_length=length)
    back = reading.to_unit("nats_per_sequence").to_unit("nats_per_token")
    assert back.series == PER_TOKEN
    assert back.value == pytest.approx(value, rel=1e-12)
    assert back.standard_error == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("value", [None, 0.25, -0.1, 0.0, math.nan, math.inf, 3])
@pytest.mark.parametrize("length", [None, 16.0, 7.3, 0.0, -3.0, math.nan, math.inf])
@pytest.mark.parametrize("series", [PER_TOKEN, PER_SEQUENCE, KLSeries(estimator="k1")])
@pytest.mark.parametrize("unit", ["nats_per_token", "nats_per_sequence", "unknown"])
def test_the_value_alone_is_that_of_the_converted_reading(value: float | None, length: float | None, series: KLSeries, unit: Unit) -> None:
    reading = KLReading.absent(series, "not due") if value is None else KLReading(series, value, mean_length=length)
    assert repr(reading.value_in(unit)) == repr(reading.to_unit(unit).value)


@pytest.mark.parametrize("length", [None, 0.0, -3.0, math.nan, math.inf])
def test_without_a_usable_length_the_other_unit_is_not_measured(length: float | None) -> None:
    converted = KLReading(PER_TOKEN, 0.25, mean_length=length).to_unit("nats_per_sequence")
    assert converted.value is None
    assert converted.series.unit == "nats_per_sequence"
    assert converted.not_measured == "cannot turn nats/token into nats/sequence without a mean response length"


def test_an_unknown_unit_is_never_converted() -> None:
    converted = KLReading(KLSeries(estimator="k1"), 0.25, mean_length=16.0).to_unit("nats_per_sequence")
    assert converted.not_measured == "cannot turn unknown unit into nats/sequence"


def test_the_lower_bound_is_the_one_sided_95_percent_normal_one() -> None:
    # Standard normal quantile of 0.95 (NIST/SEMATECH e-Handbook, table 1.3.6.7.1): 1.645.
    assert KLReading(PER_SEQUENCE, 2.0, standard_error=0.5).lower_bound == pytest.approx(2 - 1.645 * 0.5, abs=1e-3)


def test_k1_without_a_measured_error_has_that_of_its_own_variance() -> None:
    # Var(k1) = 2 KL for neighbouring Gaussians, so SE = sqrt(2 * 2 / 16) = 0.5.
    reading = KLReading(K1, 2.0, n_sequences=16)
    assert reading.effective_standard_error == pytest.approx(0.5)
    assert KLReading(K1, 2.0, standard_error=0.1, n_sequences=16).effective_standard_error == 0.1
    assert KLReading(K1, -2.0, n_sequences=16).effective_standard_error == 0


@pytest.mark.parametrize("reading", [KLReading(PER_SEQUENCE, 2.0, n_sequences=16), KLReading(K1, 2.0), KLReading.absent(K1, "no")])
def test_where_no_error_is_known_there_is_no_lower_bound(reading: KLReading) -> None:
    assert reading.lower_bound is None
