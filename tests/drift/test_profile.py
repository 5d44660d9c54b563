import math
from datetime import UTC, datetime

import pytest

from klaudit.drift.plan import ModelIdentity
from klaudit.drift.profile import build_profile, measure_mean_ratio
from klaudit.records import DriftShard, Interval, LayerDrift, Retention
from tests.drift.sequences import draw_slices, make_sequence, make_shard

POLICY, REFERENCE = (ModelIdentity(name, f"sha256:{digit * 64}", f"sha256:{'0' * 64}") for name, digit in (("p", "1"), ("r", "2")))
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
RETENTION = Retention("text", f"sha256:{'3' * 64}", Interval(2, 1, 3), Interval(2, 1, 3), Interval(0, -1, 1), 10, 2)
LAYER = LayerDrift("layer 0", 0, 0.1, 5)


def test_ratio_is_the_mean_over_tokens_of_reference_over_policy() -> None:
    one = make_sequence((0.1, 0.1), prompt="a", policy_logprobs=(0.0, 0.0), reference_logprobs=(math.log(2), math.log(0.5)))
    two = make_sequence((0.1,), prompt="b", policy_logprobs=(0.0,), reference_logprobs=(math.log(0.8),))
    ratio = measure_mean_ratio([one, two])
    assert ratio.value == pytest.approx((2 + 0.5 + 0.8) / 3)
    assert 0 <= ratio.low < ratio.value < ratio.high


def test_ratio_that_overflows_gives_infinity_and_no_error() -> None:
    endless = make_sequence((0.1,), prompt="a", policy_logprobs=(-2000.0,), reference_logprobs=(0.0,))
    assert measure_mean_ratio([endless, make_sequence(prompt="b")]).value == math.inf


def test_profile_holds_all_of_a_checkpoint() -> None:
    shards = [make_shard(*draw_slices({"a": 0.1, "b": 0.1}, seed=1), name="1"), make_shard(make_sequence(sampler="reference"), name="2")]
    profile = build_profile(
        shards, checkpoint=POLICY, reference=REFERENCE, settings={"seed": 0}, measured_at=NOW, step=3, run_id="r1",
        retention=RETENTION, layers=[LAYER],
    )  # fmt: skip
    assert [one.slice for one in profile.contrasts] == ["a", "b"]
    assert profile.shards == tuple(shard.key for shard in shards)
    assert (profile.retention, profile.step, profile.run_id, profile.checkpoint_digest) == (RETENTION, 3, "r1", POLICY.digest)
    assert profile.layers == (LAYER,)
    assert profile.ratio.value == pytest.approx(1.0)


def test_key_follows_the_shards_and_the_text_and_not_their_order() -> None:
    shards = [make_shard(make_sequence(prompt="a"), make_sequence(prompt="b"), name=str(i)) for i in range(2)]

    def key(*given: DriftShard, retention: Retention | None = None) -> str:
        common = {"checkpoint": POLICY, "reference": REFERENCE, "settings": {}, "measured_at": NOW}
        return build_profile(given, retention=retention, **common).key  # type: ignore[arg-type]

    assert key(*shards) == key(*shards[::-1])
    assert len({key(*shards), key(shards[0]), key(*shards, retention=RETENTION)}) == 3
