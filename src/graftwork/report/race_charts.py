"""The pictures of a race, as inline SVG: intervals on a common axis, score against cost, score over training.

Whatever belongs to one method carries its number as `data-method`, so that the page's script can hide it; whatever can
be pointed at is a `.dot` with a title, which a browser shows by itself where no script runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from graftwork.report import charts
from graftwork.report.charts import BOTTOM, GREY, LEFT, RIGHT, TOP, Frame, Points
from graftwork.report.markup import Markup, element, join
from graftwork.report.race import Cost, Racer, floor, mean_curve

GRID = "#E6E9ED"
# Of the intervals in the table.
ACROSS, DOWN = 190, 30
EDGE = 8
# Two papers for one picture: a desktop's and a phone's; the style shows the one that fits.
PAPERS = {"wide": (700.0, 390.0), "narrow": (380.0, 350.0)}
# The width of a character of a label, in SVG units at its size of 12.
CHARACTER = 6.6
LONGEST_NAME = 34
# A name that hides more than this much of others stays away; its mark is in the table.
CROWDED = 25
# Besides those on the front.
NAMED_ON_A_PHONE = 4
MINUTE, HOUR = 60, 3600


class Box(NamedTuple):
    """A rectangle on the paper."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)


def marker(racer: Racer, at: tuple[float, float], size: float = 5.5) -> Markup:
    """A method's own mark; a baseline's is hollow."""
    (x, y), fill = at, "#fff" if racer.baseline else racer.colour
    look: dict[str, str | float] = {"fill": fill, "stroke": racer.colour, "stroke_width": 1.6}
    if racer.marker == "circle":
        return element("circle", cx=x, cy=y, r=size * 0.9, **look)
    s = size * (0.82 if racer.marker == "square" else 1.1)
    corners = {
        "square": ((-s, -s), (s, -s), (s, s), (-s, s)),
        "triangle": ((0, -s), (s, s * 0.8), (-s, s * 0.8)),
        "diamond": ((0, -s * 1.1), (s * 1.1, 0), (0, s * 1.1), (-s * 1.1, 0)),
        "wedge": ((0, s), (s, -s * 0.8), (-s, -s * 0.8)),
        "cross": _cross(s),
    }[racer.marker]
    return element("polygon", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners), **look)


def _cross(s: float) -> tuple[tuple[float, float], ...]:
    t = s * 0.36
    return ((-t, -s), (t, -s), (t, -t), (s, -t), (s, t), (t, t), (t, s), (-t, s), (-t, t), (-s, t), (-s, -t), (-t, -t))


def key(racer: Racer, *, line: bool = False) -> Markup:
    """A method's mark for a legend, with its line where it has one."""
    width = 30 if line else 14
    stroke = element(
        "line", x1=0, x2=width, y1=7, y2=7, stroke=racer.colour, stroke_width=2, stroke_dasharray=racer.dash
    )
    mark = marker(racer, (width / 2, 7), 4.6)
    return element("svg", stroke if line else None, mark, width=width, height=14, aria_hidden="true", class_="key")


# Intervals


def scale(found: Sequence[Racer]) -> tuple[float, float]:
    """The common axis of the intervals: where the better methods can be told apart."""
    known = [racer for racer in found if racer.entry.get("mean") is not None]
    if not known:
        return 0.0, 1.0
    cut = floor([racer.entry["mean"] for racer in known])
    kept = [racer for racer in known if cut is None or racer.entry["mean"] >= cut]
    low = min(min(_interval(racer)) for racer in kept)
    high = max(max(_interval(racer)) for racer in kept)
    room = max((high - low) * 0.06, 0.002)
    return max(0.0, low - room), min(1.0, high + room)


def _interval(racer: Racer) -> tuple[float, float, float]:
    mean = racer.entry["mean"]
    low, high = (racer.entry.get(end) for end in ("low", "high"))
    return (mean if low is None else low, mean, mean if high is None else high)


def ruler(axis: tuple[float, float]) -> Markup:
    """The axis above the intervals."""
    drawn = [
        element("text", f"{100 * value:.4g}", x=_place(axis, value), y=12, text_anchor="middle")
        for value in charts.ticks(*axis, 4)
    ]
    return element("svg", drawn, viewBox=f"0 0 {ACROSS} 16", width=ACROSS, height=16, aria_hidden="true")


def interval(racer: Racer, axis: tuple[float, float], best: Racer) -> Markup:
    """A method's mean and 95 % interval, the seeds as ticks beneath, over the interval of the best."""
    low, mean, high = _interval(racer)
    middle = DOWN / 2
    drawn = []
    if best.entry.get("mean") is not None:
        left, _, right = (_place(axis, value) for value in _interval(best))
        drawn.append(element("rect", x=left, width=max(right - left, 0), y=0, height=DOWN, fill="#EEF2F6"))
    drawn += [
        element("line", x1=at, x2=at, y1=0, y2=DOWN, stroke=GRID)
        for at in (_place(axis, value) for value in charts.ticks(*axis, 4))
    ]
    if mean < axis[0]:
        drawn.append(element("polygon", points=f"2,{middle} 9,{middle - 5} 9,{middle + 5}", fill=racer.colour))
    else:
        ends = [_place(axis, end) for end in (low, high)]
        bar = {"x": ends[0], "width": max(ends[1] - ends[0], 0), "y": middle - 4, "height": 8}
        drawn.append(element("rect", **bar, fill=racer.colour, fill_opacity="0.28"))
        drawn += [
            element("line", x1=end, x2=end, y1=middle - 6, y2=middle + 6, stroke=racer.colour, stroke_width=1.6)
            for end in ends
        ]
        drawn += [
            element("line", x1=at, x2=at, y1=DOWN - 6, y2=DOWN - 1, stroke=racer.colour, stroke_opacity="0.75")
            for at in (_place(axis, score) for score in racer.entry.get("scores") or [] if score is not None)
        ]
        drawn.append(marker(racer, (_place(axis, mean), middle), 5))
    says = f"{mean:.1%}, 95 % interval {low:.1%} to {high:.1%}"
    return element(
        "svg", drawn, element("title", f"{racer.name}: {says}"), viewBox=f"0 0 {ACROSS} {DOWN}",
        width=ACROSS, height=DOWN, role="img", aria_label=says, class_="interval",
    )  # fmt: skip


def _place(axis: tuple[float, float], value: float) -> float:
    share = (value - axis[0]) / ((axis[1] - axis[0]) or 1)
    return EDGE + max(-0.01, min(1.01, share)) * (ACROSS - 2 * EDGE)


# Score against cost


def pareto(
    found: Sequence[Racer],
    cost: Cost,
    axis: tuple[float, float],
    paper: str,
    *,
    score: str,
    intervals: bool = False,
) -> Markup:
    """Methods by cost (logarithmic, across) and score (up), with the front that none of the others passes.

    Args:
        found: methods that have this cost and a score; at least one.
        cost: what is across.
        axis: the range of scores; methods below it stand at its edge.
        paper: of PAPERS.
        score: what is up.
        intervals: whether each mark stands on a line from the lower to the upper end of its 95 % interval.
    """
    width, height = PAPERS[paper]
    values = [max(racer.cost(cost.key) or 0.0, cost.least) for racer in found]
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max((high - low) * 0.07, 0.12)
    frame = Frame((low - room, high + room), axis, width, height)
    places = [
        frame.at(math.log10(value), max(racer.entry["mean"], axis[0] + 0.03 * (axis[1] - axis[0])))
        for racer, value in zip(found, values, strict=True)
    ]
    front = on_front([(value, racer.entry["mean"]) for racer, value in zip(found, values, strict=True)])
    boxes = _labels(found, places, frame, front, paper)
    dots = [
        _point(racer, cost, at, boxes[number], number in front, axis)
        for number, (racer, at) in enumerate(zip(found, places, strict=True))
    ]
    spans = [_span(racer, frame, at) for racer, at in zip(found, places, strict=True)] if intervals else []
    stairs = _stairs([places[number] for number in front], width - RIGHT)
    line = element("path", d=stairs, fill="none", stroke=GREY, stroke_width=1.5, stroke_dasharray="5 4", class_="front")
    picture = charts.svg(
        width, height, f"{score} against {cost.name}",
        _score_axis(frame), _cost_axis(frame, cost), line, spans, dots,
    )  # fmt: skip
    return element("div", picture, class_=f"paper {paper}", data_right=width - RIGHT)


def _span(racer: Racer, frame: Frame, at: tuple[float, float]) -> Markup:
    """The 95 % interval of a score, as far as the axis goes."""
    low, _, high = _interval(racer)
    ends = [frame.at(frame.x[0], min(max(end, frame.y[0]), frame.y[1]))[1] for end in (low, high)]
    return element(
        "line", x1=at[0], x2=at[0], y1=ends[0], y2=ends[1], stroke=racer.colour, stroke_width=3, stroke_opacity="0.3",
    )  # fmt: skip


def on_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the (cost, score) points that no other beats in both, the cheapest first.

    Example:
        >>> on_front([(10, 0.9), (1, 0.8), (5, 0.7)])
        [1, 0]
    """
    front, best = [], -math.inf
    for number in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        if points[number][1] > best:
            front.append(number)
            best = points[number][1]
    return front


def _stairs(places: Sequence[tuple[float, float]], right: float) -> str:
    steps = "".join(f"H{after[0]:.1f}V{after[1]:.1f}" for after in places[1:])
    return f"M{places[0][0]:.1f} {places[0][1]:.1f}{steps}H{right:.1f}"


def _point(
    racer: Racer, cost: Cost, at: tuple[float, float], label: Box | None, front: bool, axis: tuple[float, float]
) -> Markup:
    low, mean, high = _interval(racer)
    below = mean < axis[0]
    said = f"{racer.name}\n{mean:.1%} ({low:.1%} to {high:.1%}) at {cost.says(racer.cost(cost.key) or 0.0)}"
    said += "\nbelow the axis" if below else ""
    text, leader = None, None
    if label:
        name = charts.shorten(racer.name, LONGEST_NAME) + (f" ↓ {mean:.1%}" if below else "")
        text = element("text", name, x=label.left + 1, y=label.bottom - 3, class_="name" if front else "name quiet")
        near = (min(max(at[0], label.left), label.right), min(max(at[1], label.top), label.bottom))
        if math.dist(at, near) > 14:
            leader = element("line", x1=at[0], y1=at[1], x2=near[0], y2=near[1], stroke=GREY, stroke_width="0.7")
    return element(
        "g", element("title", said), leader, marker(racer, at, 6.5), text, class_="dot method", tabindex=0, role="img",
        aria_label=said, data_method=racer.number, data_x=f"{at[0]:.1f}", data_y=f"{at[1]:.1f}",
    )  # fmt: skip


def _labels(
    found: Sequence[Racer], places: Sequence[tuple[float, float]], frame: Frame, front: Sequence[int], paper: str
) -> list[Box | None]:
    """A place for each name, where it hides least; None where there is no room for one that is not on the front."""
    taken = [Box(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    boxes: list[Box | None] = [None] * len(found)
    # then the crowded ones: they have the least choice
    lonely = [min((math.dist(a, b) for b in places if b != a), default=math.inf) for a in places]
    others = sorted((n for n in range(len(found)) if n not in front), key=lambda n: lonely[n])
    for number in [*front, *(others if paper == "wide" else others[:NAMED_ON_A_PHONE])]:
        below = found[number].entry["mean"] < frame.y[0]
        long = min(LONGEST_NAME, len(found[number].name)) + (8 if below else 0)
        tried = _around(places[number], long * CHARACTER + 2, 15)
        box = min(tried, key=lambda box: _badness(box, places[number], taken, frame))
        if number in front or sum(box.overlap(other) for other in taken) < CROWDED:
            boxes[number] = box
            taken.append(box)
    return boxes


def _around(at: tuple[float, float], width: float, height: float) -> list[Box]:
    found = []
    for away in (9.0, 16.0, 28.0, 44.0, 62.0):
        for across, down in ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1)):
            slant = 0.75 if across and down else 1.0
            x = at[0] + across * (away * slant + width / 2)
            y = at[1] + down * (away * slant + height / 2)
            found.append(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return found


def _badness(box: Box, at: tuple[float, float], taken: Sequence[Box], frame: Frame) -> float:
    page = Box(LEFT, 0, frame.width - 2, frame.height - BOTTOM - 1)
    outside = (box.right - box.left) * (box.bottom - box.top) - box.overlap(page)
    middle = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
    return 5 * outside + 3 * sum(box.overlap(other) for other in taken) + 0.3 * math.dist(middle, at)


def _score_axis(frame: Frame) -> Markup:
    drawn = []
    for value in charts.ticks(*frame.y, 6):
        left, at = frame.at(frame.x[0], value)
        drawn.append(element("line", x1=left, x2=frame.width - RIGHT, y1=at, y2=at, stroke=GRID))
        drawn.append(element("text", f"{100 * value:.4g}%", x=left - 6, y=at + 4, text_anchor="end"))
    return join(drawn)


def _cost_axis(frame: Frame, cost: Cost) -> Markup:
    drawn, bottom = [], frame.height - BOTTOM
    for value in _log_ticks(10 ** frame.x[0], 10 ** frame.x[1], cost, int(frame.width // 85)):
        at, _ = frame.at(math.log10(value), frame.y[0])
        drawn.append(element("line", x1=at, x2=at, y1=TOP, y2=bottom, stroke=GRID))
        drawn.append(element("text", _round(cost.says(value)), x=at, y=bottom + 16, text_anchor="middle"))
    says = f"{cost.name}, each step a multiple"
    middle = (LEFT + frame.width - RIGHT) / 2
    drawn.append(element("text", says, x=middle, y=frame.height - 6, text_anchor="middle", class_="quiet"))
    return join(drawn)


def _log_ticks(low: float, high: float, cost: Cost, most: int) -> list[float]:
    """Round numbers inside [low, high], at most about `most`: times in seconds, minutes and hours."""
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    levels = [[d * f for d in decades for f in factors] for factors in (range(1, 10), (1, 2, 5), (1, 3), (1,))]
    if cost.key == "seconds":
        short = [d for d in decades if d < MINUTE]
        coarse = [*short, *(m * MINUTE for m in (1, 10)), *(h * HOUR for h in (1, 10, 100))]
        halved = [1, 2, 5, 10, 20, *(m * MINUTE for m in (1, 2, 5, 10, 20)), *(h * HOUR for h in (1, 2, 5, 10, 20))]
        fine = [*range(1, 10), *range(10, 60, 5), *(m * MINUTE for m in (*range(1, 10), *range(10, 60, 5)))]
        levels = [fine, halved, coarse] if low >= 0.5 else [coarse]
    inside = [sorted({value for value in level if low <= value <= high}) for level in levels]
    chosen = next((level for level in inside if len(level) <= most), inside[-1])
    return chosen or charts.ticks(low, high, 3)


def _round(said: str) -> str:
    """A tick's label without the zeros of its smaller unit: `1 min 0 s` is `1 min`."""
    return re.sub(r"(?<=\d)\.0(?= )| 0 (s|min)$", "", said)


# Score over training


def curves(found: Sequence[Racer], axis: str, metric: str, paper: str, *, score: str) -> Markup:
    """The validation score of each method: the mean over seeds thick, each seed faint.

    Args:
        found: methods that have curves; at least one.
        axis: `step` or `seconds`.
        metric: what is up.
        paper: of PAPERS.
        score: what that is called.
    """
    width, height = PAPERS[paper]
    each = [racer.curves(axis, metric) for racer in found]
    means = [mean_curve(one) or one[0] for one in each]
    low, high = _curve_range(means, each)
    last = max(points[-1][0] for one in each for points in one)
    frame = Frame((0.0, last or 1.0), (low, high), width, height)
    series = [_series(racer, one, mean, frame, axis) for racer, one, mean in zip(found, each, means, strict=True)]
    inner = _inside(frame, series)
    unit = "seconds of training" if axis == "seconds" else "steps of training"
    bottom = height - BOTTOM
    ticks = [
        element("text", f"{value:,.10g}", x=frame.at(value, low)[0], y=bottom + 16, text_anchor="middle")
        for value in charts.ticks(0, last or 1.0, int(width // 85))
    ]
    middle = (LEFT + width - RIGHT) / 2
    name = element("text", unit, x=middle, y=height - 6, text_anchor="middle", class_="quiet")
    picture = charts.svg(width, height, f"validation {score} over {unit}", _score_axis(frame), ticks, name, inner)
    return element("div", picture, class_=f"paper {paper}")


def labels(
    found: Sequence[Racer], points: Sequence[Mapping[str, Any]], outlook: Mapping[str, Any] | None, paper: str
) -> Markup:
    """The test score of each method over the number of train rows, each step a multiple; the outlook dotted.

    Args:
        found: the methods.
        points: of comparison.json's `curve`, from few rows to all.
        outlook: of comparison.json's `prospects`: one method's scores at more rows than there are.
        paper: of PAPERS.
    """
    width, height = PAPERS[paper]
    more = outlook["points"] if outlook else []
    across = [math.log10(p["rows"]) for p in [*points, *more]]
    means = [[(math.log10(p["rows"]), p["scores"][racer.name]["mean"]) for p in points] for racer in found]
    cut = floor([max(y for _, y in mean) for mean in means])
    kept = [y for mean in means if cut is None or max(y for _, y in mean) >= cut for _, y in mean]
    kept += [p[end] for p in more for end in ("low", "high")]
    room = max((max(kept) - min(kept)) * 0.06, 0.004)
    margin = 0.02 * (max(across) - min(across))  # so that no mark is cut off at the paper's edge
    frame = Frame(
        (min(across) - margin, max(across) + margin),
        (max(0.0, min(kept) - room), min(1.01, max(kept) + room)),
        width,
        height,
    )
    drawn: list[Markup] = [_series(racer, [], mean, frame, "rows") for racer, mean in zip(found, means, strict=True)]
    if outlook:
        racer = next(r for r in found if r.name == outlook["name"])
        drawn.append(_foretold(racer, means[found.index(racer)][-1], more, frame))
    bottom = height - BOTTOM
    ticks = [
        element("text", f"{p['rows']:,}", x=frame.at(x, frame.y[0])[0], y=bottom + 16, text_anchor="middle")
        for x, p in zip(across, [*points, *more], strict=True)
    ]
    middle = (LEFT + width - RIGHT) / 2
    says = "train rows, each step a multiple"
    name = element("text", says, x=middle, y=height - 6, text_anchor="middle", class_="quiet")
    picture = charts.svg(width, height, f"score over {says}", _score_axis(frame), ticks, name, _inside(frame, drawn))
    return element("div", picture, class_=f"paper {paper}")


def _foretold(racer: Racer, last: tuple[float, float], more: Sequence[Mapping[str, Any]], frame: Frame) -> Markup:
    """What is expected beyond the last point: a dotted line, and at each place the interval."""
    line = _polyline([last, *((math.log10(p["rows"]), p["mean"]) for p in more)], frame, racer, stroke_dasharray="1 4",
                     stroke_width=2, stroke_linecap="round")  # fmt: skip
    bars = []
    for p in more:
        (x, low), (_, high) = (frame.at(math.log10(p["rows"]), p[end]) for end in ("low", "high"))
        said = f"{racer.name}\n{p['low']:.1%} to {p['high']:.1%} expected at {p['rows']:,} train rows"
        bar = element("line", x1=x, x2=x, y1=low, y2=high, stroke=racer.colour, stroke_width=5, stroke_opacity="0.3")
        bars.append(element("g", element("title", said), bar, class_="dot", data_x=f"{x:.1f}", data_y=f"{high:.1f}"))
    return element("g", line, bars, class_="method", data_method=racer.number)


def _inside(frame: Frame, drawn: Sequence[Markup]) -> Markup:
    """A picture in a picture: it cuts off what lies outside of the axes."""
    across, down = frame.width - LEFT, frame.height - TOP - BOTTOM
    box = f"{LEFT} {TOP} {across:.0f} {down:.0f}"
    return element("svg", drawn, x=LEFT, y=TOP, width=across, height=down, viewBox=box, overflow="hidden")


def _curve_range(means: Sequence[Points], each: Sequence[Sequence[Points]]) -> tuple[float, float]:
    """The scores that are worth seeing: the steep beginnings come in from below."""
    cut = floor([max(y for _, y in mean) for mean in means])
    kept = [mean for mean in means if cut is None or max(y for _, y in mean) >= cut]
    low = min(y for mean in kept for _, y in mean[len(mean) // 4 :])
    high = max(y for one in each for points in one for _, y in points)
    room = max((high - low) * 0.06, 0.004)
    return max(0.0, low - room), min(1.0, high + room)


def _series(racer: Racer, each: Sequence[Points], mean: Points, frame: Frame, axis: str) -> Markup:
    faint = [_polyline(points, frame, racer, stroke_width=1, stroke_opacity="0.28") for points in each if len(each) > 1]
    many = f", mean of {len(each)} seeds" if len(each) > 1 else ""
    every = max(1, len(mean) // 10)
    dots = []
    for number, (x, y) in enumerate(mean):
        at = frame.at(x, y)
        where = {"seconds": f"{x:,.0f} s", "step": f"step {x:,.0f}", "rows": f"{10 ** min(x, 300):,.0f} train rows"}[
            axis
        ]
        shown = number % every == 0 or number == len(mean) - 1
        mark = marker(racer, at, 4.2) if shown else element("circle", cx=at[0], cy=at[1], r=4, fill="transparent")
        said = element("title", f"{racer.name}\n{y:.1%} at {where}{many}")
        dots.append(element("g", said, mark, class_="dot", data_x=f"{at[0]:.1f}", data_y=f"{at[1]:.1f}"))
    line = _polyline(mean, frame, racer, stroke_width=2, stroke_dasharray=racer.dash)
    return element("g", faint, line, dots, class_="method series", data_method=racer.number)


def _polyline(points: Points, frame: Frame, racer: Racer, **look: str | float | None) -> Markup:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (frame.at(*point) for point in points))
    return element("polyline", points=places, fill="none", stroke=racer.colour, **look)


# Classes


def shade(value: float, low: float, high: float) -> tuple[str, str]:
    """A cell's colour and that of the number on it: from white to dark blue, which everybody sees as dark."""
    share = max(0.0, min(1.0, (value - low) / ((high - low) or 1)))
    stops = ((247, 251, 255), (158, 202, 225), (49, 130, 189), (8, 48, 107))  # ColorBrewer's Blues
    at = share * (len(stops) - 1)
    first, second = list(pairwise(stops))[min(int(at), len(stops) - 2)]
    part = at - min(int(at), len(stops) - 2)
    mixed = [round(a + (b - a) * part) for a, b in zip(first, second, strict=True)]
    return "#" + "".join(f"{value:02x}" for value in mixed), "#fff" if share > 0.66 else "#1f2430"
