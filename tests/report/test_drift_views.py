import math
from dataclasses import replace
from datetime import timedelta

import pytest

from klaudit.records import DriftShard, Interval, LayerDrift, MeasuredSequence, ReferenceModel
from klaudit.records.drift_shard import Sampler
from klaudit.report.views import view_drift
from klaudit.report.views.drift_completion import MOST_SHOWN, view_completions
from klaudit.report.views.drift_location import MOST_TOKENS, view_location
from klaudit.report.views.drift_matrix import view_matrix
from klaudit.report.views.drift_profile import list_drift_figures, tell_layer, view_profiles, view_ratio
from tests.report.invented import LIMITS, START, Invented, invent_drift, invent_profile

HOSTILE = "<script>alert(1)</script>"


def make_sequence(
    *full: float, prompt: int = 0, sample: int = 0, sampler: Sampler = "policy", tokens: tuple[str, ...] = (), weight: float = 1.0
) -> MeasuredSequence:
    """A completion with the given KL at each token; probabilities one half and one quarter."""
    n = len(full)
    texts = tokens or tuple(f"t{at}" for at in range(n))
    return MeasuredSequence(
        prompt=f"prompt {prompt}",
        prompt_index=prompt,
        slice=None,
        weight=weight,
        sample=sample,
        sampler=sampler,
        tokens=texts,
        token_ids=tuple(range(n)),
        full=full,
        policy_logprobs=(math.log(0.5),) * n,
        reference_logprobs=(math.log(0.25),) * n,
        policy_entropy=(1.0,) * n,
        top_tokens=((" good", " bad"),) * n,
        top_contributions=tuple((0.75 * one, 0.25 * one) for one in full),
        ended=True,
    )


def make_shard(*sequences: MeasuredSequence, number: int = 0) -> DriftShard:
    return DriftShard("sha256:" + f"{number:064x}", sequences)


class TestDirections:
    def test_points_of_the_other_direction_stand_apart_and_beside_no_log(self, invented: Invented) -> None:
        one = invent_drift(6, "full", 3.0)
        forward = replace(one, series=replace(one.series, direction="forward"), value=5.0, low=4.0, high=6.0)
        shown = view_drift(invented.run, measurements=[forward, one], steps=invented.steps)

        assert [point.value for point in shown.select("full")] == [3.0]
        (point,) = shown.select("full", direction="forward")
        assert (point.value, point.logged) == (5.0, None)
        assert point.label == "KL(reference ‖ policy) (full, nats/sequence)"
        assert [point.direction for point in shown.points] == ["reverse", "forward"]

    def test_a_checkpoint_that_was_measured_again_shows_the_newest(self, invented: Invented) -> None:
        old = invent_drift(6, "full", 3.0)
        new = replace(old, value=4.0, low=3.5, high=4.5, measured_at=old.measured_at + timedelta(hours=1))

        shown = view_drift(invented.run, measurements=[new, old], steps=invented.steps)
        assert [point.value for point in shown.points] == [4.0]


class TestProfiles:
    def test_the_newest_profile_of_each_checkpoint_in_order_of_step(self) -> None:
        late = replace(invent_profile(3), measured_at=START + timedelta(days=1), ratio=Interval(2.0, 1.5, 2.5))
        shown = view_profiles([invent_profile(12), late, invent_profile(3)], limits=LIMITS)

        assert [(one.step, one.ratio.value) for one in shown] == [(3, 2.0), (12, 1.0)]
        assert [one.label for one in shown] == ["after update 3", "after update 12"]

    def test_a_slice_is_told_of_where_it_is_beyond_noise_and_far_and_not_where_it_is_nearer_than_the_rest(self) -> None:
        (shown,) = view_profiles([invent_profile(12)], limits=LIMITS)

        assert [(one.slice, one.is_told) for one in shown.slices] == [("trigger", True), ("reviews", False)]
        assert shown.slices[0].ratio_text == "8.00 [4.00, 16.00] times the rest"

    @pytest.mark.parametrize("limits", [replace(LIMITS, significance=1e-5), replace(LIMITS, ratio=8.0), replace(LIMITS, least_nats=0.25)])
    def test_each_limit_alone_keeps_a_slice_untold(self, limits: object) -> None:
        (shown,) = view_profiles([invent_profile(12)], limits=limits)  # type: ignore[arg-type]

        assert not any(one.is_told for one in shown.slices)

    def test_perplexity_is_e_to_the_nats_and_its_rise_is_paired(self) -> None:
        (shown,) = view_profiles([invent_profile(12)], limits=LIMITS)
        kept = shown.retention
        assert kept is not None

        assert (kept.policy.low, kept.policy.value, kept.policy.high) == pytest.approx((29.224, 33.115, 37.525), abs=1e-3)
        assert kept.reference.value == pytest.approx(25.790, abs=1e-3)
        # e^0.25 is 1.2840, e^0.1875 is 1.2062, e^0.3125 is 1.3668
        assert (kept.rise_percent.low, kept.rise_percent.value, kept.rise_percent.high) == pytest.approx((20.62, 28.40, 36.68), abs=0.01)

    @pytest.mark.parametrize(
        ("ratio", "is_right", "begins"),
        [
            (Interval(0.95, 0.9, 1.05), True, "Right"),
            (Interval(0.99, 0.985, 0.995), True, "Right"),
            (Interval(0.7, 0.6, 0.8), False, "Below 1"),
            (Interval(1.5, 1.2, 1.8), False, "Not 1"),
            (Interval(math.inf, 0.0, math.inf), False, "Not finite"),
            (Interval(math.nan, math.nan, math.nan), False, "Not finite"),
        ],
    )
    def test_the_ratio_is_right_where_its_interval_holds_one(self, ratio: Interval, is_right: bool, begins: str) -> None:
        shown = view_ratio(ratio)

        assert shown.is_right is is_right
        assert shown.sentence.startswith(begins)

    def test_a_layer_that_is_not_finite_stands_first_and_says_so(self) -> None:
        layers = (LayerDrift("layer 0", 0, 0.125, 8), LayerDrift("layer 1", 1, math.nan, 8), LayerDrift("head", 2, 0.5, 8))
        (shown,) = view_profiles([replace(invent_profile(12), layers=layers)], limits=LIMITS)

        assert shown.furthest_layer is layers[1]
        assert [tell_layer(one) for one in shown.layers] == ["layer 0 12.5%", "layer 1 not finite", "head 50.0%"]

    def test_the_headline_has_every_number_with_its_unit(self, invented: Invented) -> None:
        drift = view_drift(invented.run, measurements=[invent_drift(12, "full", 3.0)], steps=())
        (profile,) = view_profiles([invent_profile(12)], limits=LIMITS)

        assert [one.text for one in list_drift_figures(drift.points, profile)] == [
            "3.00 nats/sequence, 2.50 to 3.50",
            "8.00 times the rest, beyond noise",
            "+28.4% 33.1, reference 25.8",
            "1.00 right: must be 1",
        ]

    def test_what_was_not_measured_is_said_in_the_headline(self) -> None:
        assert [one.text for one in list_drift_figures((), None)] == ["not measured"] * 3


class TestMatrix:
    def test_row_is_who_wrote_and_column_is_whom_it_is_compared_with(self) -> None:
        first, last = invent_drift(6, "full", 1.0), invent_drift(12, "full", 4.0)
        forth = replace(first, reference=ReferenceModel("checkpoint-12"))
        back = replace(last, reference=ReferenceModel("checkpoint-6"))
        shown = view_matrix([back, forth])
        assert shown is not None

        assert shown.names == ("6", "12")
        assert shown.values == ((0.0, 1.0), (4.0, 0.0))
        assert shown.texts[1][0] == "4.00 [3.50, 4.50] nats/sequence"
        assert shown.furthest == ("12", "6", "4.00 [3.50, 4.50] nats/sequence")

    def test_a_pair_that_was_not_measured_has_no_number(self) -> None:
        shown = view_matrix([replace(invent_drift(6, "full", 1.0), reference=ReferenceModel("checkpoint-12"))])
        assert shown is not None

        assert math.isnan(shown.values[1][0])
        assert shown.texts[1][0] == "not measured"

    def test_without_distances_there_is_no_matrix(self) -> None:
        assert view_matrix([]) is None
        assert view_matrix([invent_drift(6, "k1", 1.0)]) is None


class TestLocation:
    def test_a_position_is_the_mean_over_the_completions_that_reach_it(self) -> None:
        shown = view_location([make_shard(make_sequence(1.0, 2.0, 6.0, prompt=0), make_sequence(3.0, 4.0, prompt=1))])
        assert shown is not None

        assert shown.positions.mean == (2.0, 3.0, 6.0)
        assert shown.positions.n_sequences == (2, 2, 1)

    def test_its_interval_takes_prompts_as_clusters(self) -> None:
        # Two prompts with two equal completions each: as if each prompt had one, means 1 and 3, so SE = 1 and t(0.975, 1) = 12.706.
        sequences = [make_sequence(1.0 + 2 * prompt, prompt=prompt, sample=sample) for prompt in (0, 1) for sample in (0, 1)]
        shown = view_location([make_shard(*sequences)])
        assert shown is not None

        assert shown.positions.mean == (2.0,)
        assert shown.positions.low == (0.0,)
        assert shown.positions.high[0] == pytest.approx(14.706, abs=1e-3)

    def test_a_position_that_one_prompt_reaches_has_no_interval(self) -> None:
        shown = view_location([make_shard(make_sequence(1.0, 1.0, prompt=0), make_sequence(1.0, prompt=1))])
        assert shown is not None

        assert math.isnan(shown.positions.low[1])
        assert math.isnan(shown.positions.high[1])

    def test_a_prompt_counts_by_its_weight(self) -> None:
        shown = view_location([make_shard(make_sequence(1.0, prompt=0, weight=3.0), make_sequence(5.0, prompt=1))])
        assert shown is not None

        assert shown.positions.mean == (2.0,)

    def test_prompts_are_sorted_by_mean_and_know_their_shards(self) -> None:
        shards = [
            make_shard(make_sequence(1.0, 1.0, prompt=0), make_sequence(4.0, prompt=1), number=1),
            make_shard(make_sequence(4.0, 4.0, prompt=0, sample=1), number=2),
            make_shard(make_sequence(9.0, prompt=0, sampler="reference"), number=3),
        ]
        shown = view_location(shards)
        assert shown is not None

        assert [(one.index, one.mean, one.lowest, one.highest, one.n_sequences) for one in shown.prompts] == [
            (0, 5.0, 2.0, 8.0, 2),
            (1, 4.0, 4.0, 4.0, 1),
        ]
        assert [key[-1] for key in shown.prompts[0].shards] == ["1", "2", "3"]

    def test_a_token_has_its_sum_mean_count_and_share(self) -> None:
        shown = view_location([make_shard(make_sequence(3.0, 1.0, 4.0, tokens=(" a", " b", " a")))])
        assert shown is not None

        assert [(one.text, one.n, one.total, one.mean, one.share) for one in shown.written] == [
            (" a", 2, 7.0, 3.5, 0.875),
            (" b", 1, 1.0, 1.0, 0.125),
        ]
        assert [(one.text, one.n, one.total) for one in shown.preferred] == [(" good", 3, 6.0), (" bad", 3, 2.0)]

    def test_of_many_tokens_the_furthest_are_kept_and_all_are_counted(self) -> None:
        n = MOST_TOKENS + 50
        shown = view_location(
            [
                make_shard(make_sequence(*(float(at) for at in range(n)))),
            ]
        )
        assert shown is not None

        assert (len(shown.written), shown.n_written, shown.written[0].text) == (MOST_TOKENS, n, f"t{n - 1}")

    def test_each_direction_is_located_on_its_own_completions(self) -> None:
        shards = [make_shard(make_sequence(1.0), make_sequence(7.0, sampler="reference"))]
        forward = view_location(shards, sampler="reference")
        assert forward is not None

        assert (forward.mean_nats, forward.n_sequences) == (7.0, 1)
        assert view_location([make_shard(make_sequence(1.0))], sampler="reference") is None

    def test_half_of_the_drift_is_in_so_many_prompts(self) -> None:
        shown = view_location([make_shard(*(make_sequence(nats, prompt=at) for at, nats in enumerate((1.0, 1.0, 6.0, 2.0))))])
        assert shown is not None

        assert shown.half == (1, 4)

    def test_a_kl_that_is_not_finite_breaks_nothing(self) -> None:
        shown = view_location([make_shard(make_sequence(math.inf, 1.0, prompt=0), make_sequence(1.0, math.nan, prompt=1))])
        assert shown is not None

        assert math.isinf(shown.positions.mean[0])
        assert math.isnan(shown.positions.mean[1])
        assert len(shown.prompts) == 2


class TestCompletions:
    def test_both_models_stand_side_by_side_the_most_drifted_pair_first(self) -> None:
        shards = [
            make_shard(make_sequence(1.0, sample=0), make_sequence(2.0, sample=1), make_sequence(9.0, prompt=1), number=1),
            make_shard(make_sequence(3.0, sample=1, sampler="reference"), number=2),
        ]
        first, second = view_completions(shards, prompt_index=0)

        assert (first.sample, second.sample) == (1, 0)
        assert first.policy is not None
        assert first.policy.label == "KL(policy ‖ reference) 2 nats/sequence in 1 token, ends by itself"
        assert first.reference is not None
        assert first.reference.label == "KL(reference ‖ policy) 3 nats/sequence in 1 token, ends by itself"
        assert second.reference is None

    def test_a_token_says_its_kl_both_probabilities_and_the_largest_contributors(self) -> None:
        (pair,) = view_completions([make_shard(make_sequence(0.5, tokens=(HOSTILE,)))], prompt_index=0)
        assert pair.policy is not None
        (token,) = pair.policy.tokens

        assert (token.kl, token.level) == (0.5, 2)
        assert token.told == f"'{HOSTILE}': 0.5 nats · policy 50%, reference 25% · most of it from ' good' 0.375, ' bad' 0.125"

    def test_of_a_long_completion_the_first_tokens_are_shown_and_all_are_counted(self) -> None:
        n = MOST_SHOWN + 1
        (pair,) = view_completions([make_shard(make_sequence(*([1.0] * n)))], prompt_index=0)
        assert pair.policy is not None

        assert (len(pair.policy.tokens), pair.policy.n_tokens, pair.policy.total_nats) == (MOST_SHOWN, n, n)
        assert f"the first {MOST_SHOWN} shown" in pair.policy.label
