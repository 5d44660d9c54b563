"""Charts as inline SVG: no script, no font, no request. Colours and dashes come from the page's style sheet."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from klaudit.report.views import Curve, DriftPoint, Marker, format_number

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 54, 28, 14, 36
BADGE = 16
"""Height of a row of finding numbers, in pixels."""
MAX_BADGE_ROWS = 4
MAX_MARKS = 60
"""Findings and gaps that one chart marks; the tables have them all."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What one picture shows, everything in one unit."""

    title: str
    unit: str
    """Of the vertical axis."""
    curves: tuple[Curve, ...] = ()
    """The first has its band drawn."""
    levels: tuple[tuple[str, float], ...] = ()
    """Label and height of horizontal lines."""
    markers: tuple[tuple[int, Marker], ...] = ()
    """Number in the table of findings, and the finding."""
    points: tuple[DriftPoint, ...] = ()
    """Measurements with their intervals."""
    x_label: str = "step"
    width: int = 920
    height: int = 300


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Pixel of a value, kept within reach of the picture."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, -1.0), 2.0) * (self.end - self.start)

    def list_ticks(self, count: int) -> list[float]:
        """About `count` round values inside."""
        raw = (self.high - self.low) / max(count, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        tick = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / tick - 1e-9)
        return [i * tick for i in range(first, math.floor(self.high / tick + 1e-9) + 1)]


FAR_ABOVE = 4
"""A level, or a value of a curve other than the first, that is more than so many times the first curve's highest would flatten it."""


def draw_chart(chart: Chart) -> str:
    """One `<svg>` element; every text in it is escaped."""
    rows = place_badges(chart.markers[:MAX_MARKS], x := scale_steps(chart))
    top = MARGIN_TOP + BADGE * (1 + max((row for _, _, row in rows), default=-1))
    y = scale_values(chart, top)
    label = f"{chart.title}, in {chart.unit or 'its own unit'}, over {chart.x_label}. {describe_chart(chart)}"
    parts = [
        f'<svg class="chart" viewBox="0 0 {chart.width} {chart.height}" role="img" aria-label="{escape(label)}">',
        *draw_axes(chart, x, y),
        *(draw_band(chart.curves[0], x, y) if chart.curves else ()),
        *draw_markers(rows, x, y),
        *draw_levels(chart, x, y),
        *(part for i, curve in reversed(list(enumerate(chart.curves))) for part in draw_line(curve, x, y, i)),
        *draw_gaps(chart, x, y),
        *draw_points(chart, x, y),
        "</svg>",
    ]
    return "".join(parts)


def describe_chart(chart: Chart) -> str:
    """The chart in words: where each line begins, ends and peaks."""
    sentences = []
    for curve in chart.curves:
        finite = [(value, step) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)]
        if finite:
            (low, _), (high, at) = min(finite), max(finite)
            last, end = finite[-1]
            sentences.append(
                f"{curve.label}: {format_number(last)} at step {end}, from {format_number(low)} to {format_number(high)}, highest at step {at}."
            )
    sentences += [f"{point.label} at checkpoint {point.step}: {point.text}." for point in chart.points[:MAX_MARKS]]
    return " ".join(sentences) or "No finite value."


def scale_steps(chart: Chart) -> Scale:
    """The horizontal scale over everything that is drawn."""
    steps = [step for curve in chart.curves for step in curve.steps] + [one.step for one in chart.points if one.step is not None]
    low, high = min(steps, default=0), max(steps, default=1)
    pad = max((high - low) * 0.015, 0.5)
    return Scale(low - pad, high + pad, MARGIN_LEFT, chart.width - MARGIN_RIGHT)


def scale_values(chart: Chart, top: float) -> Scale:
    """The vertical scale: the first curve with its band, other curves and levels that are not far above it."""
    values = [value for value in (chart.curves[0].values if chart.curves else ()) if math.isfinite(value)]
    if chart.curves and chart.curves[0].low and chart.curves[0].high:
        values += [value for value in (*chart.curves[0].low, *chart.curves[0].high) if math.isfinite(value)]
    values += [value for one in chart.points for value in (one.low, one.value, one.high) if math.isfinite(value)]
    highest = max(values, default=1.0)
    reach = FAR_ABOVE * max(highest, 0.0)
    values += [value for curve in chart.curves[1:] for value in curve.values if math.isfinite(value) and value <= (reach or value)]
    values += [height for _, height in chart.levels if height <= reach]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 <= low < 0.6 * high:
        low = 0.0
    pad = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low if low == 0 < high else low - pad, high + pad, chart.height - MARGIN_BOTTOM, top)


def draw_axes(chart: Chart, x: Scale, y: Scale) -> Iterator[str]:
    """Grid lines, tick labels and the names of the axes."""
    for tick in y.list_ticks(6 if chart.height > 250 else 4):
        at = y.place(tick)
        yield f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="tick" x="{x.start - 7}" y="{at + 4:.1f}" text-anchor="end">{format_number(round(tick, 12))}</text>'
    for tick in x.list_ticks(max(3, chart.width // 110)):
        if tick == int(tick):
            yield f'<text class="tick" x="{x.place(tick):.1f}" y="{y.start + 16:.1f}" text-anchor="middle">{int(tick):,}</text>'
    yield f'<line class="axis" x1="{x.start}" x2="{x.end}" y1="{y.start}" y2="{y.start}"/>'
    yield f'<text class="tick" x="{x.end}" y="{y.start + 31}" text-anchor="end">{escape(chart.x_label)}</text>'


def draw_line(curve: Curve, x: Scale, y: Scale, index: int) -> Iterator[str]:
    """A line that lifts at every NaN, and a dot where a point has no neighbour."""
    path, dots = [], []
    finite = [(value, step) for step, value in zip(curve.steps, curve.values, strict=True) if math.isfinite(value)]
    highest, at_step = max(finite, default=(0.0, 0))
    if highest > y.high:
        text = f"{curve.label} reaches {format_number(highest)} at step {at_step}, above this chart"
        yield f'<text class="tick" x="{x.end}" y="{y.end - 5:.1f}" text-anchor="end">{escape(text)}</text>'
    for stretch in split_stretches(zip(curve.steps, curve.values, strict=True)):
        pixels = [f"{x.place(step):.1f},{y.place(min(value, y.high)):.1f}" for step, value in stretch]
        if len(pixels) > 1:
            path.append("M" + " ".join(pixels))
        else:
            at, height = pixels[0].split(",")
            dots.append(f'<circle class="dot s{index}" cx="{at}" cy="{height}" r="2"/>')
    if path:
        yield f'<path class="line s{index}" d="{"".join(path)}"/>'
    yield from dots


def split_stretches(points: Iterable[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Runs of neighbouring points with finite values."""
    stretches: list[list[tuple[int, float]]] = []
    is_open = False
    for step, value in points:
        if not math.isfinite(value):
            is_open = False
        elif is_open:
            stretches[-1].append((step, value))
        else:
            stretches.append([(step, value)])
            is_open = True
    return stretches


def draw_band(curve: Curve, x: Scale, y: Scale) -> Iterator[str]:
    """The area between the edges of a curve's band."""
    if curve.low is None or curve.high is None:
        return
    lower = split_stretches(zip(curve.steps, curve.low, strict=True))
    upper = split_stretches(zip(curve.steps, curve.high, strict=True))
    for below, above in zip(lower, upper, strict=True):
        edge = [f"{x.place(step):.1f},{y.place(value):.1f}" for step, value in (*above, *reversed(below))]
        yield f'<polygon class="band" points="{" ".join(edge)}"/>'


def draw_levels(chart: Chart, x: Scale, y: Scale) -> Iterator[str]:
    """Budget lines, each with its name; one that lies above the picture is named at its upper edge."""
    for label, height in chart.levels:
        is_inside = height <= y.high
        at = y.place(height) if is_inside else y.end + 10
        text = label if is_inside else f"{label} lies above this chart"
        if is_inside:
            yield f'<line class="level" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text class="level-name" x="{x.start + 6}" y="{at - 5 if is_inside else at:.1f}">{escape(text)}</text>'


def place_badges(markers: Sequence[tuple[int, Marker]], x: Scale) -> list[tuple[int, Marker, int]]:
    """Number, finding and row: neighbours that would overlap are put below one another."""
    ends = [-math.inf] * MAX_BADGE_ROWS
    placed = []
    for number, marker in sorted(markers, key=lambda one: (one[1].step, one[0])):
        at = x.place(marker.step)
        row = next((i for i, end in enumerate(ends) if at - end >= BADGE + 2), MAX_BADGE_ROWS - 1)
        ends[row] = at
        placed.append((number, marker, row))
    return placed


def draw_markers(rows: Sequence[tuple[int, Marker, int]], x: Scale, y: Scale) -> Iterator[str]:
    """A numbered line where a finding was detected, and a stripe over its steps."""
    for number, marker, row in rows:
        at, height = x.place(marker.step), MARGIN_TOP + row * BADGE
        begin, end = x.place(marker.first_step), x.place(marker.last_step)
        name = escape(f"{marker.severity} {marker.code} {marker.rule}, step {marker.step}: {marker.message}")
        yield f'<g class="mark {escape(marker.severity)}"><title>{name}</title>'
        yield f'<rect class="episode" x="{begin:.1f}" y="{y.start - 3:.1f}" width="{max(end - begin, 2):.1f}" height="3"/>'
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{height:.1f}" y2="{y.start}"/>'
        yield f'<circle cx="{at:.1f}" cy="{height:.1f}" r="7.5"/>'
        yield f'<text x="{at:.1f}" y="{height + 3.5:.1f}" text-anchor="middle">{number}</text></g>'


def draw_gaps(chart: Chart, x: Scale, y: Scale) -> Iterator[str]:
    """A cross on the axis wherever a number was not finite or not measured."""
    gaps = [(curve, gap) for curve in chart.curves for gap in curve.gaps]
    for curve, gap in gaps[:MAX_MARKS]:
        at = x.place((gap.first_step + gap.last_step) / 2)
        name = escape(f"{curve.label}: {gap.kind}, steps {gap.first_step} to {gap.last_step}")
        yield f'<text class="gap" x="{at:.1f}" y="{y.start - 5:.1f}" text-anchor="middle">×<title>{name}</title></text>'


def draw_points(chart: Chart, x: Scale, y: Scale) -> Iterator[str]:
    """Measurements with their intervals; the estimators of one checkpoint stand side by side."""
    estimators = sorted({one.estimator for one in chart.points}, key=("full", "k3", "k1", "k2", "unknown").index)
    for one in chart.points:
        if one.step is None or not math.isfinite(one.value):
            continue
        place = estimators.index(one.estimator)
        at, low, high = x.place(one.step) + 9 * place, y.place(one.low), y.place(one.high)
        yield f'<g class="measured e-{escape(one.estimator)}"><title>{escape(f"checkpoint {one.step}, {one.label}: {one.text}")}</title>'
        yield f'<path d="M{at:.1f},{low:.1f} V{high:.1f} M{at - 4:.1f},{low:.1f} h8 M{at - 4:.1f},{high:.1f} h8"/>'
        yield f'<circle cx="{at:.1f}" cy="{y.place(one.value):.1f}" r="{4.5 if place == 0 else 3.5}"/></g>'
