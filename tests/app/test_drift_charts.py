import math
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

import drift_charts as charts
import location_charts
from klaudit.report.views import Curve, DriftPoint, DriftView, LoggedKL
from klaudit.report.views.drift_location import Positions, PromptDrift
from klaudit.report.views.drift_matrix import MatrixView
from klaudit.report.views.drift_profile import CheckpointProfile, view_profiles
from tests.app.test_charts import HOSTILE, LABEL, find_shapes, find_trace, make_curve
from tests.report.invented import LIMITS, invent_profile


def make_point(step: int, value: float, *, logged: LoggedKL | None = None, estimator: str = "full") -> DriftPoint:
    label = f"KL to reference ({estimator}, nats/sequence)"
    return DriftPoint(
        f"checkpoint-{step}{HOSTILE}",
        step,
        None,
        estimator,
        label,
        "nats/sequence",
        value,
        value - 0.25,
        value + 0.5,
        64,
        20.0,
        f"{value}",
        logged,
    )


def make_drift(*points: DriftPoint, logged: Curve | None = None) -> DriftView:
    budgets = (("5 nats/sequence, checkpoint", 5.0, "nats/sequence"),)
    return DriftView("r1", "base", None, "", points, logged, "95% interval over prompts", budgets, {})


def test_drift_has_both_halves_of_its_interval_and_the_estimator_on_the_axis() -> None:
    figure = charts.draw_drift(make_drift(make_point(2, 2.0), make_point(6, 4.0)), estimator="full")

    measured = find_trace(figure, "Measured, 95% interval over prompts")
    assert (list(measured["x"]), list(measured["y"])) == ([2, 6], [2.0, 4.0])
    assert (list(measured["error_y"]["array"]), list(measured["error_y"]["arrayminus"])) == ([0.5, 0.5], [0.25, 0.25])
    assert figure.to_dict()["layout"]["yaxis"]["title"]["text"] == LABEL
    assert "<img" not in "".join(measured["text"])
    assert [one["y0"] for one in find_shapes(figure, "line")] == [5.0]


def test_drift_stands_beside_the_logged_curve_of_the_same_estimator() -> None:
    figure = charts.draw_drift(make_drift(make_point(2, 2.0), logged=make_curve(label=f"logged {LABEL}")), estimator="full")

    assert list(find_trace(figure, f"Logged {LABEL}")["y"][:2]) == [1.0, 2.0]


def test_drift_by_another_estimator_stands_beside_what_was_logged_by_that_one() -> None:
    logged = LoggedKL(3, 1.5, None, "k1", "KL to reference (k1, nats/sequence)", "nats/sequence", "1.5 nats/sequence")
    figure = charts.draw_drift(make_drift(make_point(2, 2.0, logged=logged, estimator="k1"), logged=make_curve()), estimator="k1")

    trace = find_trace(figure, "logged KL to reference (k1, nats/sequence)")
    assert (list(trace["x"]), list(trace["y"])) == ([2], [1.5])
    assert trace["text"][0] == "logged at step 3: 1.5 nats/sequence"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_drift_that_is_no_finite_number_still_draws(value: float) -> None:
    assert find_trace(charts.draw_drift(make_drift(make_point(2, value)), estimator="full"), "Measured, 95% interval over prompts")


def test_the_other_direction_has_no_log_and_no_budget_beside_it() -> None:
    forward = replace(make_point(2, 2.0), direction="forward")
    figure = charts.draw_drift(make_drift(forward, logged=make_curve()), estimator="full", direction="forward")

    assert [one["name"] for one in figure.to_dict()["data"]] == ["Measured, 95% interval over prompts"]
    assert find_shapes(figure, "line") == []


def test_slices_are_thin_lines_beside_all_prompts_and_gone_where_one_is_chosen() -> None:
    points = [replace(make_point(2, value), slice=name) for name, value in ((None, 2.0), (HOSTILE, 3.0), ("code", 1.0))]
    names = [one["name"] for one in charts.draw_drift(make_drift(*points), estimator="full").to_dict()["data"]]

    assert len([one for one in names if one.startswith("slice ")]) == 2
    assert not [one for one in names if "<img" in one]
    alone = charts.draw_drift(make_drift(*points), estimator="full", slice="code").to_dict()["data"]
    assert [one["name"] for one in alone] == ["Measured, 95% interval over prompts"]


def test_the_chosen_checkpoint_is_marked() -> None:
    figure = charts.draw_drift(make_drift(make_point(2, 2.0)), estimator="full", at_step=2)

    assert [(one["x0"], one["x1"]) for one in find_shapes(figure, "line") if one["name"] == "chosen"] == [(2, 2)]


def find_kind(figure: go.Figure, kind: str) -> dict[str, Any]:
    """The one trace of that type."""
    [trace] = [one for one in figure.to_dict()["data"] if one["type"] == kind]
    found: dict[str, Any] = trace
    return found


def make_matrix(n: int = 2) -> MatrixView:
    values = tuple(tuple(0.0 if i == j else 1.25 + i for j in range(n)) for i in range(n))
    return MatrixView(
        tuple(map(str, range(n))), values, tuple(tuple(f"{one} nats" for one in row) for row in values), "full", "nats/sequence"
    )


def test_a_matrix_has_its_number_in_each_cell_and_its_unit_beside() -> None:
    figure = charts.draw_matrix(make_matrix())

    heat, numbers = find_kind(figure, "heatmap"), find_kind(figure, "scatter")
    assert heat["colorbar"]["title"]["text"] == "nats/sequence"
    assert list(zip(numbers["y"], numbers["x"], numbers["text"], strict=True)) == [
        ("0", "0", "0"),
        ("0", "1", "1.25"),
        ("1", "0", "2.25"),
        ("1", "1", "0"),
    ]
    assert figure.to_dict()["layout"]["yaxis"]["title"]["text"] == "written by checkpoint"


def test_the_numbers_of_a_matrix_change_ink_with_the_theme() -> None:
    light, dark = (find_kind(charts.draw_matrix(make_matrix(), is_dark=one), "scatter")["textfont"]["color"] for one in (False, True))

    assert light != dark


def test_a_large_matrix_leaves_its_numbers_to_the_mouse() -> None:
    figure = charts.draw_matrix(make_matrix(charts.MOST_NUMBERS + 1))

    assert [one["type"] for one in figure.to_dict()["data"]] == ["heatmap"]


def make_profiles() -> tuple[CheckpointProfile, ...]:
    return view_profiles([invent_profile(6), invent_profile(12, slice=HOSTILE)], limits=LIMITS)


def test_layers_are_bars_in_percent_in_the_order_of_the_forward_pass() -> None:
    bars = find_kind(charts.draw_layers(make_profiles()[0]), "bar")

    assert (list(bars["y"]), list(bars["x"])) == (["embedding", "layer 0", "head"], [6.25, 12.5, 3.125])


def test_layers_of_all_checkpoints_stand_below_their_drift() -> None:
    points = [make_point(6, 1.0), make_point(12, 2.0)]
    named = [replace(one, checkpoint=f"checkpoint-{one.step}") for one in points]
    figure = charts.draw_layers_over_checkpoints(make_profiles(), named)

    assert list(find_kind(figure, "scatter")["y"]) == [1.0, 2.0]
    assert [list(row) for row in find_kind(figure, "heatmap")["z"]] == [[6.25, 6.25], [12.5, 12.5], [3.125, 3.125]]
    assert figure.to_dict()["layout"]["yaxis"]["title"]["text"] == "nats/sequence"


def test_retention_has_checkpoint_and_reference_with_their_intervals() -> None:
    figure = charts.draw_retention(make_profiles())
    checkpoint = find_trace(figure, "Checkpoint")

    assert list(checkpoint["x"]) == ["6", "12"]
    assert checkpoint["y"][0] == pytest.approx(math.exp(3.5))
    assert checkpoint["error_y"]["array"][0] == pytest.approx(math.exp(3.625) - math.exp(3.5))
    assert find_trace(figure, "Reference")["y"][0] == pytest.approx(math.exp(3.25))
    assert find_trace(figure, "its 95% interval")["fill"] == "toself"


def test_the_rise_of_the_perplexity_has_its_own_interval_below_and_a_line_where_there_is_none() -> None:
    profiles = make_profiles()
    assert profiles[0].retention is not None
    rise = profiles[0].retention.rise_percent
    figure = charts.draw_retention(profiles)
    drawn = find_trace(figure, "Rise over the reference, paired by passage")

    assert (drawn["y"][0], drawn["yaxis"]) == (rise.value, "y2")
    assert drawn["error_y"]["array"][0] == pytest.approx(rise.high - rise.value)
    assert drawn["error_y"]["arrayminus"][0] == pytest.approx(rise.value - rise.low)
    layout = figure.to_dict()["layout"]
    assert layout["yaxis2"]["title"]["text"] == "rise, %"
    assert [(one["y0"], one["y1"], one["yref"]) for one in layout["shapes"]] == [(0, 0, "y2")]


def test_a_slice_beyond_noise_differs_in_symbol_colour_and_name_and_cannot_inject() -> None:
    slices = make_profiles()[1].slices
    figure = location_charts.draw_slices(slices)
    told, plain = find_trace(figure, "Slice beyond noise"), find_trace(figure, "Slice")

    assert told["marker"]["symbol"] != plain["marker"]["symbol"]
    assert list(told["x"]) == [0.5]
    assert told["y"][0].startswith("<b>▲ ")
    assert "<img" not in str(figure.to_dict())


def test_positions_have_a_band_where_it_is_known_and_the_completions_that_reach_them() -> None:
    positions = Positions((1.0, 2.0, 3.0), (0.5, 1.5, math.nan), (1.5, 2.5, math.nan), (4, 3, 1))
    figure = location_charts.draw_positions(positions, direction="KL")

    assert list(find_trace(figure, "95% interval over prompts")["y"]) == [1.5, 2.5, 1.5, 0.5]
    assert list(find_kind(figure, "bar")["y"]) == [4, 3, 1]
    low, high = figure.to_dict()["layout"]["yaxis"]["range"]
    assert low == 0.0
    assert high > 2.5


def test_a_prompt_has_its_mean_its_range_and_no_markup() -> None:
    prompts = [PromptDrift(4, f"The film {HOSTILE}", None, 3.0, 1.0, 7.0, 2, ())]
    figure = location_charts.draw_prompts(prompts, reach=7.0)
    bar = find_kind(figure, "bar")

    assert (list(bar["x"]), list(bar["error_x"]["array"]), list(bar["error_x"]["arrayminus"])) == ([3.0], [4.0], [2.0])
    assert "<img" not in str(figure.to_dict())


def test_a_long_name_keeps_both_its_ends() -> None:
    name = charts.shorten("begin " + "x" * 100 + " end")

    assert len(name) <= charts.LABEL
    assert name.startswith("begin ")
    assert name.endswith(" end")
