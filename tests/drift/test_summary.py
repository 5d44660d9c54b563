import math
from datetime import UTC, datetime

import pytest

from klaudit.drift.plan import ModelIdentity
from klaudit.drift.summary import sum_nats, summarise_shards
from klaudit.records import DriftMeasurement, DriftShard, KLSeries
from tests.drift.sequences import make_sequence, make_shard

POLICY, REFERENCE = (ModelIdentity(name, f"sha256:{digit * 64}", f"sha256:{'0' * 64}") for name, digit in (("p", "1"), ("r", "2")))
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def summarise(*shards: DriftShard) -> tuple[DriftMeasurement, ...]:
    return summarise_shards(
        shards, checkpoint=POLICY, reference=REFERENCE, settings={"temperature": 0.7}, measured_at=NOW, step=20, run_id="r1"
    )


def test_sums_of_a_completion_follow_the_definitions_in_the_direction_of_its_sampler() -> None:
    logprobs = {"policy_logprobs": (-1.0, -2.0), "reference_logprobs": (-1.5, -1.0)}
    gap = (math.exp(-0.5) - 1 + 0.5) + (math.exp(1.0) - 1 - 1.0)
    assert sum_nats(make_sequence((0.2, 0.1), **logprobs)) == pytest.approx({"full": 0.3, "k1": -0.5, "k3": gap})
    gap = (math.exp(0.5) - 1 - 0.5) + (math.exp(-1.0) - 1 + 1.0)
    assert sum_nats(make_sequence((0.2, 0.1), sampler="reference", **logprobs)) == pytest.approx({"full": 0.3, "k1": 0.5, "k3": gap})


def test_token_that_one_side_rules_out_gives_infinity_and_no_error() -> None:
    ruled_out = sum_nats(make_sequence((math.inf,), policy_logprobs=(-1.0,), reference_logprobs=(-math.inf,)))
    assert ruled_out == {"full": math.inf, "k1": math.inf, "k3": math.inf}
    assert sum_nats(make_sequence((0.1,), policy_logprobs=(-math.inf,), reference_logprobs=(-1.0,)))["k3"] == math.inf
    assert sum_nats(make_sequence((0.1,), policy_logprobs=(-800.0,), reference_logprobs=(-1.0,)))["k3"] == math.inf


def test_measurements_are_of_all_prompts_then_of_each_slice_then_of_the_other_direction() -> None:
    sequences = [make_sequence(prompt=prompt, slice=name) for prompt, name in (("a", "x"), ("b", None), ("c", "y"), ("d", "x"))]
    backwards = [make_sequence(prompt=prompt, sampler="reference") for prompt in "ab"]
    measured = summarise(make_shard(*backwards), make_shard(*sequences))
    assert [(one.series.direction, one.slice) for one in measured[::3]] == [
        ("reverse", None),
        ("reverse", "x"),
        ("reverse", "y"),
        ("forward", None),
    ]
    assert [one.series.estimator for one in measured[:3]] == ["full", "k1", "k3"]
    assert [one.n_sequences for one in measured[::3]] == [4, 2, 1, 2]


def test_a_measurement_says_what_it_is_of() -> None:
    full = summarise(make_shard(make_sequence(prompt="a"), make_sequence((0.5, 0.2, 0.2), prompt="b")))[0]
    assert full.series == KLSeries("reference", "full", "nats_per_sequence", "batch_mean", "reverse", 0.7)
    assert (full.checkpoint, full.checkpoint_digest, full.reference.name, full.reference.digest) == (
        "p",
        POLICY.digest,
        "r",
        REFERENCE.digest,
    )
    assert (full.step, full.run_id, full.measured_at, full.mean_length) == (20, "r1", NOW, 2.5)
    assert full.value == pytest.approx(0.6)
    assert 0 <= full.low < full.value < full.high


def test_weights_count_in_value_and_length() -> None:
    full = summarise(make_shard(make_sequence((0.3,), prompt="a", weight=3.0), make_sequence((0.7, 0.4), prompt="b")))[0]
    assert (full.value, full.mean_length) == pytest.approx((0.5, 1.25))
    heavy = [make_sequence((0.3,), prompt=name, weight=1e308) for name in "ab"]
    assert summarise(make_shard(*heavy))[0].mean_length == 1


def test_order_of_the_shards_changes_nothing() -> None:
    shards = [
        make_shard(*(make_sequence((0.1 / (i + 1), 0.3 * i), prompt=str(i), prompt_index=i) for i in part)) for part in ((0, 1), (2, 3))
    ]
    assert summarise(*shards) == summarise(*shards[::-1])


def test_slice_of_one_prompt_has_an_interval_that_promises_nothing() -> None:
    measured = summarise(make_shard(make_sequence(prompt="a", slice="x"), make_sequence(prompt="b")))
    assert [(one.low, one.high) for one in measured[3:6]] == [(0, math.inf), (-math.inf, math.inf), (0, math.inf)]


def test_broken_weights_show_as_a_number_that_is_not_finite() -> None:
    full = summarise(make_shard(make_sequence((math.nan,), prompt="a"), make_sequence((0.1,), prompt="b")))[0]
    assert math.isnan(full.value)
