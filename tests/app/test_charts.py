import math
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

import charts
from klaudit.report.views import NOT_MEASURED, BudgetUse, Curve, Gap, Marker, RunView

LABEL = "KL to reference (full, nats/sequence)"
HOSTILE = "<img src=x onerror=alert(1)>"


def make_curve(key: str = "kl", *, label: str = LABEL, unit: str = "nats/sequence", estimator: str | None = "full") -> Curve:
    """Six steps: two finite ones, a NaN, one that stands alone, a NaN, a finite one."""
    values = (1.0, 2.0, math.nan, 3.0, math.nan, 4.0)
    has_band = estimator == "full"
    return Curve(
        key=key,
        label=label,
        unit=unit,
        estimator=estimator,
        steps=(1, 2, 3, 4, 5, 6),
        values=values,
        low=tuple(one - 0.5 for one in values) if has_band else None,
        high=tuple(one + 0.5 for one in values) if has_band else None,
        band="± 1 standard error" if has_band else "",
        gaps=(Gap(3, 3, "NaN", 1), Gap(5, 5, "not measured", 1)),
        n_points=6,
        n_shown=6,
        statement="showing all 6 points",
    )


def make_budget(limit: float, *, is_line: bool = True) -> BudgetUse:
    return BudgetUse(
        "b1", f"{limit:g} nats/sequence, per step", limit, "nats/sequence", "per_step", "alert", None, None, 4.0, 80.0, "", is_line
    )


def make_marker(severity: str, *, step: int, value: float | None, message: str = "The KL is over its budget.") -> Marker:
    return Marker(f"id-{severity}", step, step, step, 0, severity, "KLA101", "budget_exceeded", "kl", message, "Raise beta.", value)


def make_view(*, budgets: tuple[BudgetUse, ...] = (), markers: tuple[Marker, ...] = (), curves: tuple[Curve, ...] | None = None) -> RunView:
    return RunView(
        run_id="r1",
        name="demo",
        status="running",
        governing_key="kl",
        statement="",
        headline=(),
        curves=(make_curve(),) if curves is None else curves,
        budgets=budgets,
        markers=markers,
        checkpoint_steps=(2, 6),
        n_steps=6,
        n_segments=1,
    )


def find_trace(figure: go.Figure, name: str) -> dict[str, Any]:
    """The one trace of that name, as it is sent to the browser."""
    [trace] = [one for one in figure.to_dict()["data"] if one["name"] == name]
    found: dict[str, Any] = trace
    return found


def find_shapes(figure: go.Figure, kind: str) -> list[dict[str, Any]]:
    return [one for one in figure.to_dict()["layout"].get("shapes", ()) if one["type"] == kind]


def read_notes(figure: go.Figure) -> list[str]:
    return [one["text"] for one in figure.to_dict()["layout"].get("annotations", ())]


def test_the_kl_is_drawn_with_its_estimator_and_unit_on_the_axis() -> None:
    figure = charts.draw_kl(make_view())

    assert find_trace(figure, LABEL)["mode"] == "lines"
    assert list(find_trace(figure, LABEL)["x"]) == [1, 2, 3, 4, 5, 6]
    assert figure.to_dict()["layout"]["yaxis"]["title"]["text"] == LABEL
    assert figure.to_dict()["layout"]["xaxis"]["title"]["text"] == "step"


def test_every_trace_is_svg_and_no_line_crosses_a_gap() -> None:
    figure = charts.draw_kl(make_view(markers=(make_marker("critical", step=4, value=3.0),)))

    assert {one["type"] for one in figure.to_dict()["data"]} == {"scatter"}
    line = find_trace(figure, LABEL)
    assert line["connectgaps"] is False
    assert math.isnan(line["y"][2])


def test_points_that_stand_alone_between_gaps_get_dots() -> None:
    dots = find_trace(charts.draw_kl(make_view()), "Point between gaps")

    assert (list(dots["x"]), list(dots["y"]), dots["mode"]) == ([4, 6], [3.0, 4.0], "markers")


def test_the_band_is_one_polygon_for_each_stretch_between_gaps() -> None:
    band = find_trace(charts.draw_kl(make_view()), "± 1 standard error")

    polygons = "".join("|" if math.isnan(one) else "." for one in band["y"])
    assert polygons == "....|..|..|"
    assert band["fill"] == "toself"
    assert list(band["x"][:4]) == [1, 2, 2, 1]
    assert list(band["y"][:4]) == [1.5, 2.5, 1.5, 0.5]


def test_a_gap_is_shaded_and_says_what_it_is() -> None:
    figure = charts.draw_kl(make_view())

    assert [(one["x0"], one["x1"]) for one in find_shapes(figure, "rect")] == [(2.5, 3.5), (4.5, 5.5)]
    assert read_notes(figure) == ["NaN", "not measured"]


def test_a_budget_is_a_dashed_line_at_its_limit_over_the_whole_width() -> None:
    figure = charts.draw_kl(make_view(budgets=(make_budget(5.0),)))

    [line] = find_shapes(figure, "line")
    assert (line["y0"], line["y1"], line["xref"], line["x0"], line["x1"]) == (5.0, 5.0, "paper", 0, 1)
    assert line["line"]["dash"] == "dash"
    assert "budget: 5 nats/sequence, per step" in read_notes(figure)
    low, high = figure.to_dict()["layout"]["yaxis"]["range"]
    assert low <= 0.0
    assert high > 5.0


def test_a_budget_far_above_the_curve_is_named_and_does_not_flatten_it() -> None:
    figure = charts.draw_kl(make_view(budgets=(make_budget(500.0),)))

    assert find_shapes(figure, "line") == []
    assert "↑ budget: 500 nats/sequence, per step, above this chart" in read_notes(figure)
    assert figure.to_dict()["layout"]["yaxis"]["range"][1] < 6


def test_a_budget_that_limits_no_level_draws_no_line() -> None:
    figure = charts.draw_kl(make_view(budgets=(make_budget(5.0, is_line=False),)))

    assert find_shapes(figure, "line") == []


def test_findings_differ_in_symbol_and_are_pinned_above_the_step_that_detected_them() -> None:
    markers = (
        make_marker("critical", step=4, value=3.0),
        make_marker("warning", step=2, value=2.0),
        make_marker("info", step=3, value=None),
    )
    figure = charts.draw_kl(make_view(markers=markers))

    critical, warning, info = (find_trace(figure, f"{one} finding") for one in ("Critical", "Warning", "Info"))
    assert (list(critical["x"]), list(critical["ids"])) == ([4], ["id-critical"])
    assert len({one["marker"]["symbol"] for one in (critical, warning, info)}) == 3
    low, high = figure.to_dict()["layout"]["yaxis"]["range"]
    assert critical["y"][0] == pytest.approx(3.0 + 0.05 * (high - low))
    assert list(info["y"]) == [low]


def test_a_hostile_message_stays_text_in_the_tooltip() -> None:
    figure = charts.draw_kl(make_view(markers=(make_marker("critical", step=4, value=3.0, message=HOSTILE),)))

    assert "<img" not in find_trace(figure, "Critical finding")["text"][0]


def test_other_estimators_of_the_same_kl_wait_in_the_legend() -> None:
    other = make_curve("kl_k1", label="KL to reference (k1, nats/sequence)", estimator="k1")
    update = make_curve("kl_update", label="policy-update KL (k2, nats/sequence)", estimator="k2")
    figure = charts.draw_kl(make_view(curves=(make_curve(), other, update)))

    assert find_trace(figure, "k1 estimator")["visible"] == "legendonly"
    assert not [one for one in figure.to_dict()["data"] if "k2" in one["name"]]


def test_checkpoints_are_marked() -> None:
    assert list(find_trace(charts.draw_kl(make_view()), "Checkpoint")["x"]) == [2, 6]


def test_a_run_without_any_kl_draws_an_empty_chart() -> None:
    assert charts.draw_kl(make_view(curves=())).to_dict()["data"] == []


def test_a_curve_without_any_finite_value_draws_and_says_so() -> None:
    nothing = Curve("kl", LABEL, "nats/sequence", "full", (1, 2), (math.nan,) * 2, None, None, "", (Gap(1, 2, "NaN", 2),), 2, 2, "")

    assert [one["name"] for one in charts.draw_kl(make_view(curves=(nothing,))).to_dict()["data"]] == [LABEL, "Checkpoint"]
    assert charts.describe_curve(nothing) == f"{LABEL}: no finite value."


def test_curves_of_one_unit_share_an_axis_and_differ_in_colour_or_dash() -> None:
    score, heldout, penalty = (
        make_curve(key, label=key, unit="reward", estimator=None) for key in ("score", "held-out score", "KL penalty")
    )
    spec = charts.draw_curves([score, heldout, penalty]).to_dict()

    assert spec["layout"]["yaxis"]["title"]["text"] == "reward"
    lines = [one for one in spec["data"] if one["mode"] == "lines"]
    assert [one["name"] for one in lines] == ["Score", "Held-out score", "KL penalty"]
    assert len({(one["line"]["color"], one["line"]["dash"]) for one in lines}) == 3


@pytest.mark.parametrize(("value", "shown"), [(1e-4, (0.0, 2e-4)), (-3.0, (-6.0, 0.0))])
def test_a_constant_is_drawn_between_zero_and_twice_its_value(value: float, shown: tuple[float, float]) -> None:
    beta = Curve("beta", "beta", "reward/nat", None, (1, 2), (value,) * 2, None, None, "", (), 2, 2, "")

    assert charts.draw_curves([beta]).to_dict()["layout"]["yaxis"]["range"] == list(shown)


def test_a_curve_in_words_has_its_range_last_value_and_unit() -> None:
    assert charts.describe_curve(make_curve()) == f"{LABEL}: from 1 to 4 nats/sequence, 4 at step 6. showing all 6 points."


def make_probe(key: str = "kl_probe", *, value_at: tuple[int, ...] = (1, 5)) -> Curve:
    """Eight steps of which a probe measured two, each with a standard error of 0.25."""
    steps = tuple(range(1, 9))
    values = tuple(2.0 if step in value_at else math.nan for step in steps)
    gaps = (Gap(2, 4, NOT_MEASURED, 3), Gap(6, 8, NOT_MEASURED, 3))
    low, high = tuple(one - 0.25 for one in values), tuple(one + 0.25 for one in values)
    return Curve(key, LABEL, "nats/sequence", "full", steps, values, low, high, "± 1 standard error", gaps, 8, 8, "")


def test_what_a_probe_measures_is_points_with_errors_and_nothing_between() -> None:
    figure = charts.draw_kl(replace(make_view(curves=(make_probe(),)), governing_key="kl_probe"))
    trace = find_trace(figure, f"{LABEL}, live probe")

    assert trace["mode"] == "markers"
    assert [one for one in trace["y"] if not math.isnan(one)] == [2.0, 2.0]
    assert [one for one in trace["error_y"]["array"] if not math.isnan(one)] == [0.25, 0.25]
    assert find_shapes(figure, "rect") == []
    assert [one["name"] for one in figure.to_dict()["data"] if one.get("fill") == "toself"] == []


def test_how_often_a_probe_measured_is_said() -> None:
    assert charts.say_sparse(make_probe()) == "measured at 2 of 8 steps; nothing is known in between"


def test_a_broken_number_of_a_probe_is_still_a_gap() -> None:
    probe = make_probe()
    broken = replace(probe, gaps=(*probe.gaps, Gap(5, 5, "NaN", 1)))

    assert [one.kind for one in charts.find_gaps_to_tell(broken)] == ["NaN"]
    assert [one.kind for one in charts.find_gaps_to_tell(make_curve())] == ["NaN", "not measured"]


def test_the_trainers_own_kl_stands_beside_that_of_the_probe() -> None:
    own = make_curve("kl", label="KL to reference (k1, nats/sequence)", estimator="k1")
    figure = charts.draw_kl(replace(make_view(curves=(make_probe(), own, make_probe("kl_probe_k1"))), governing_key="kl_probe"))

    assert find_trace(figure, "k1 estimator")["visible"] is True
    assert find_trace(figure, "full estimator, live probe")["visible"] == "legendonly"


def test_kls_of_another_unit_or_kind_have_charts_of_their_own() -> None:
    per_token = make_curve("kl", label="KL to reference (k3, nats/token)", unit="nats/token", estimator="k3")
    update = make_curve("kl_update", label="policy-update KL (k2, nats/sequence)", estimator="k2")
    view = replace(make_view(curves=(make_probe(), per_token, update, make_curve("beta", estimator=None))), governing_key="kl_probe")

    assert [one.key for one in charts.list_other_kls(view)] == ["kl", "kl_update"]


def test_a_thin_line_stands_where_a_resume_began() -> None:
    figure = charts.draw_kl(make_view(curves=(replace(make_curve(), resumes=(4,)),)))

    [line] = [one for one in find_shapes(figure, "line") if one["name"] == "resumed"]
    assert (line["x0"], line["x1"]) == (4, 4)
    assert "resumed" in read_notes(figure)


def test_a_small_chart_marks_its_resumes_without_a_word() -> None:
    figure = charts.draw_curves([replace(make_curve(), resumes=(4,))])

    assert len(find_shapes(figure, "line")) == 1
    assert "resumed" not in read_notes(figure)


def test_a_linked_step_is_named_and_of_a_long_run_its_neighbourhood_shown() -> None:
    figure = charts.draw_kl(make_view(), at_step=4)
    assert [(one.x0, one.x1) for one in figure.layout.shapes if one.name == "linked"] == [(4, 4)]
    assert figure.layout.xaxis.range is None
    charts.show_step(figure, 700, least=1, most=1000)
    assert figure.layout.xaxis.range == (600, 800)
    assert not [one for one in charts.draw_kl(make_view(), at_step=9_999).layout.shapes if one.name == "linked"]
