"""Reward against drift: the figure, and the page without a browser."""

from pathlib import Path
from typing import Any

import pytest

from frontier_charts import describe_frontier, draw_frontier
from klaudit.frontier import study_frontier
from klaudit.report.views.frontier import FrontierView, view_frontier
from klaudit.store import open_store
from tests.app.test_pages import open_app, read_tables, read_text, strip_escapes
from tests.frontier.curves import make_points

RUN = "near-beta-zero"


def view(*, reach: float = 6.0, runs: tuple[str, ...] = ("demo",)) -> FrontierView:
    d = [reach * (at + 1) / 60 for at in range(60)]
    noise = [0.02 * (-1) ** (at // 2) for at in range(60)]
    points = [point for run in runs for point in make_points(d, alpha=1.0, bend=0.5, noise=noise, run=run, beta=0.05)]
    return view_frontier(study_frontier(points))


def draw(shown: FrontierView) -> Any:
    """The figure, whose parts plotly types as nothing in particular."""
    return draw_frontier(shown)


def test_both_scores_are_drawn_with_their_better_curve_and_its_band() -> None:
    figure = draw(view())
    shown = [one.name for one in figure.data if one.visible is not False and one.visible != "legendonly"]
    assert shown.count("95% band") == 2
    assert "Held-out score: RL form, 95% band" in shown
    assert shown[-2:] == ["Score, trained on", "Held-out score"]
    assert sum(one.visible == "legendonly" for one in figure.data) == 2
    assert figure.layout.xaxis.title.text == "d = sqrt(KL to reference per sequence), sqrt(nats)"
    assert figure.layout.yaxis.title.text == "score, reward"


def test_the_peak_is_marked_with_its_interval() -> None:
    shown = view()
    figure = draw(shown)
    assert shown.peak is not None
    interval, line = figure.layout.shapes
    assert (interval.x0, interval.x1) == (shown.peak.low, shown.peak.high)
    assert line.x0 == line.x1 == shown.peak.d
    (note,) = figure.layout.annotations
    assert note.text.startswith("d* = 2.")
    assert note.text.endswith("sqrt(nats)")


def test_without_a_peak_that_was_seen_nothing_is_marked() -> None:
    figure = draw(view(reach=1.5))
    assert (figure.layout.shapes, figure.layout.annotations) == ((), ())


def test_runs_of_a_sweep_differ_in_symbol_and_the_legend_names_each_once() -> None:
    figure = draw(view(runs=("one", "two")))
    points = [one for one in figure.data if one.mode == "markers"]
    assert len(points) == 4
    assert len({one.marker.symbol for one in points}) == 2
    assert [one.name for one in points if one.showlegend] == ["one, beta 0.05 reward/nat", "two, beta 0.05 reward/nat"]


def test_a_hostile_name_is_text_in_the_figure() -> None:
    figure = draw(view(runs=("<img src=x>", "two")))
    assert all("<img" not in f"{one.name}{one.hovertemplate}" for one in figure.data)


def test_the_figure_is_told_in_words() -> None:
    text = describe_frontier(view())
    assert "demo: d up to 6 sqrt(nats), score from" in text
    assert "The held-out score peaks at d* = " in text


def test_the_page_shows_one_run(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store, run=RUN).switch_page("app_pages/frontier.py").run()

    assert not app.exception
    assert app.title[0].value == "Reward against drift"
    assert [strip_escapes(one.label) for one in app.metric] == [
        "Peak of the held-out score, d*",
        "Budget that the data propose, KL*",
        "Held-out score per nat at the end",
        "Beta that would end at d*",
    ]
    text = read_text(app)
    assert "What this cannot say" in text
    assert "sqrt(nats)" in text


def test_the_page_takes_several_runs_of_the_address_as_a_sweep(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = [RUN, "lr-burst-nan", "adaptive-beta"]
    app.switch_page("app_pages/frontier.py").run()

    assert not app.exception
    assert app.multiselect[0].value == [RUN, "lr-burst-nan", "adaptive-beta"]
    assert strip_escapes(read_tables(app)).count("\n") >= 4


def test_a_run_without_points_says_so(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store, run="just-started").switch_page("app_pages/frontier.py").run()

    assert not app.exception
    assert "No step of this run has both a KL in nats per sequence and a score." in app.info[0].value


def test_an_empty_store_says_how_to_fill_it(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{own_directory / 'empty.db'}"
    open_store(url, create=True).close()
    app = open_app(monkeypatch, url, page="frontier")

    assert not app.exception
    assert "No run yet" in read_text(app)


def test_a_missing_store_says_what_to_do(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, f"sqlite:///{own_directory / 'missing.db'}", page="frontier")

    assert not app.exception
    assert "There is no store here" in read_text(app)


def test_a_name_that_is_no_run_gives_way_to_the_latest(planted_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_app(monkeypatch, planted_store)
    app.query_params["run"] = ["nope", RUN]
    app.switch_page("app_pages/frontier.py").run()

    assert not app.exception
    assert app.multiselect[0].value == [RUN]
