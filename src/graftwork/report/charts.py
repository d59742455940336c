"""The report's pictures, as inline SVG: no script, no font, nothing to fetch; sharp on paper and on a phone.

Colours are Okabe and Ito's, which people with any kind of colour blindness tell apart; and no meaning hangs on colour
alone (lines differ in their dashes and are named, cells have titles).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graftwork.report.markup import Markup, element, join

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A93A0"
DASHES = {BLUE: None, ORANGE: "7 4", GREEN: "2 4", GREY: "3 5"}
# Wide enough for an axis on a desktop's half column, small enough that its text can be read on a phone's whole one.
WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 22, 12, 40
# A line has no more points than a reader could tell apart.
MOST_POINTS = 300
# Cells are big enough for their count up to this many classes; beyond, the count is in the title.
COUNTED_CLASSES = 16
# The page's own width: a matrix of many classes should just fit.
PAGE = 1070

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One named line of a chart, `points` sorted by x."""

    name: str
    points: Points
    colour: str = BLUE
    dots: bool = False


@dataclass(frozen=True)
class Frame:
    """Where numbers lie on the paper."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = WIDTH
    height: float = HEIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point, in SVG units."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return (
            LEFT + across * (self.width - LEFT - RIGHT),
            self.height - BOTTOM - up * (self.height - TOP - BOTTOM),
        )


def lines(
    drawn: Sequence[Line],
    *,
    x: str,
    y: str,
    says: str,
    percent: bool = False,
    zero: bool = False,
    mark: float | None = None,
) -> Markup:
    """Lines over one pair of axes.

    Args:
        drawn: at least one line with at least one point.
        x: what the horizontal axis is.
        y: what the vertical axis is.
        says: the picture in words, for those who hear it.
        percent: write the vertical axis in percent.
        zero: start the vertical axis at 0.
        mark: a place on the horizontal axis to point out (the best step).
    """
    thinned = [(line, thin(line.points)) for line in drawn if line.points]
    xs = [point[0] for _, points in thinned for point in points]
    ys = [point[1] for _, points in thinned for point in points]
    low, high = _roomy(0.0 if zero else min(ys), max(ys), 1.0 if percent else math.inf)
    frame = Frame((0.0, max(xs)), (low, high))
    marked = None
    if mark is not None and 0 <= mark <= max(xs):
        (at, top), (_, bottom) = frame.at(mark, high), frame.at(mark, low)
        anchor = "end" if at > WIDTH - 60 else "start"
        marked = join(
            element("line", x1=at, x2=at, y1=top, y2=bottom, stroke=GREY, stroke_dasharray="2 3"),
            element(
                "text", "best", x=at + (-4 if anchor == "end" else 4), y=bottom - 5, text_anchor=anchor, class_="quiet"
            ),
        )
    curves = [_curve(frame, line, points) for line, points in thinned]
    return join(svg(WIDTH, HEIGHT, says, _axes(frame, x, y, percent=percent), marked, curves), _legend(drawn))


def calibration(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """How often the model is right (up) when it is so sure (across).

    Args:
        bins: mean confidence, share right and number of examples of each bin; the dot's area is the number.
    """
    frame = Frame((0, 1), (0, 1))
    (x1, y1), (x2, y2) = frame.at(0, 0), frame.at(1, 1)
    most = max(count for _, _, count in bins)
    dots = []
    for sure, right, count in bins:
        at = frame.at(sure, right)
        title = f"{count:,} predictions: {sure:.0%} sure on average, {right:.0%} right"
        radius = 3 + 9 * math.sqrt(count / most)
        dots.append(_dot(at, radius, title))
    return svg(
        WIDTH,
        HEIGHT,
        "Calibration: share of right predictions against confidence",
        _axes(frame, "how sure the model says it is", "how often it is right", percent=True, percent_x=True),
        element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=GREY, stroke_dasharray="3 5"),
        dots,
    )


def confusion(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    """True classes down, predicted classes across; each row's shares as depth of colour, empty cells left white."""
    longest = min(30, max(len(label) for label in labels))
    counted = len(labels) <= COUNTED_CLASSES
    font = 12 if counted else 9.5
    edge = longest * font * 0.58 + 14
    cell = 44 if counted else max(8.0, min(14.0, (PAGE - edge) / len(labels)))
    size = edge + cell * len(labels) + 6
    drawn: list[Markup] = []
    for row, (label, counts) in enumerate(zip(labels, matrix, strict=True)):
        y = edge + row * cell
        name = shorten(label)
        upright = f"translate({edge + (row + 0.5) * cell + font / 3:.1f} {edge - 7:.1f}) rotate(-90)"
        drawn += [
            element("text", name, x=edge - 7, y=y + cell / 2 + font / 3, text_anchor="end", font_size=font),
            element("text", name, transform=upright, font_size=font),
        ]
        total = sum(counts) or 1
        for column, count in enumerate(counts):
            if count:
                place = (edge + column * cell, y)
                title = f"{label} → {labels[column]}: {count} of {total}"
                drawn.append(_cell(place, cell, count, count / total, title, right=row == column, counted=counted))
    grid = [
        element("line", x1=edge, x2=edge + cell * len(labels), y1=at, y2=at, stroke="#E6E9ED", stroke_width="0.5")
        + element("line", y1=edge, y2=edge + cell * len(labels), x1=at, x2=at, stroke="#E6E9ED", stroke_width="0.5")
        for at in (edge + step * cell for step in range(len(labels) + 1))
    ]
    says = f"Confusion matrix of {len(labels)} classes"
    picture = svg(size, size, says, [Markup(line) for line in grid], drawn, fixed=True)
    return element("div", picture, class_="wide")


def spans(rows: Sequence[str], columns: Sequence[str], filled: Sequence[Sequence[bool]]) -> Markup:
    """A grid of which row is on in which column: which depth trained in which epoch."""
    left = min(230, max(len(row) for row in rows) * 7 + 14)
    height, width = 18, max(14.0, (WIDTH - left - RIGHT) / len(columns))
    every = math.ceil(len(columns) * 26 / (WIDTH - left))
    drawn = []
    for down, (row, cells) in enumerate(zip(rows, filled, strict=True)):
        drawn.append(element("text", row, x=left - 6, y=down * height + 22, text_anchor="end"))
        for across, on in enumerate(cells):
            drawn.append(
                element(
                    "rect",
                    element("title", f"{row}, epoch {columns[across]}: {'trains' if on else 'frozen'}"),
                    x=left + across * width + 1,
                    y=down * height + 10,
                    width=width - 2,
                    height=height - 3,
                    rx=2,
                    fill=BLUE if on else "#E9ECEF",
                )
            )
    bottom = len(rows) * height + 26
    names = [
        element("text", column, x=left + (across + 0.5) * width, y=bottom, text_anchor="middle", class_="quiet")
        for across, column in enumerate(columns)
        if across % every == 0
    ]
    legend = element(
        "p",
        element("span", "■ ", style=f"color:{BLUE}"),
        "trains  ",
        element("span", "■ ", style="color:#C9CFD6"),
        "frozen; across: epochs",
        class_="legend",
    )
    return join(
        svg(left + width * len(columns) + RIGHT, bottom + 8, "Which depth trained in which epoch", drawn, names),
        legend,
    )


def bar(share: float) -> Markup:
    """A bar for a table's cell, `share` in [0, 1]."""
    part = max(0.0, min(1.0, share)) * 100
    return element("span", element("i", style=f"width:{part:.1f}%"), class_="bar")


def svg(width: float, height: float, says: str, *content: Markup | list[Markup] | None, fixed: bool = False) -> Markup:
    """A picture of so many units, named `says` for those who hear it; `fixed` pictures do not shrink with the page."""
    size = {"style": f"width:{width:.0f}px"} if fixed else {"style": f"max-width:{width * 1.25:.0f}px"}
    box = f"0 0 {width:.0f} {height:.0f}"
    return element("svg", *content, viewBox=box, role="img", aria_label=says, class_="chart", **size)


def _axes(frame: Frame, x: str, y: str, *, percent: bool, percent_x: bool = False) -> Markup:
    drawn = []
    for value in ticks(*frame.y, 5):
        left, at = frame.at(frame.x[0], value)
        right, _ = frame.at(frame.x[1], value)
        drawn.append(element("line", x1=left, x2=right, y1=at, y2=at, stroke="#E6E9ED"))
        drawn.append(element("text", _say(value, percent), x=left - 6, y=at + 4, text_anchor="end"))
    for value in ticks(*frame.x, 6):
        at, bottom = frame.at(value, frame.y[0])
        drawn.append(element("text", _say(value, percent_x), x=at, y=bottom + 16, text_anchor="middle"))
    middle = (LEFT + frame.width - RIGHT) / 2
    drawn.append(element("text", x, x=middle, y=frame.height - 6, text_anchor="middle", class_="quiet"))
    return join(drawn, element("title", f"{y} (up) against {x} (across)"))


def _curve(frame: Frame, line: Line, points: Points) -> Markup:
    places = [frame.at(*point) for point in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = element(
        "polyline", points=path, fill="none", stroke=line.colour, stroke_width=2, stroke_dasharray=DASHES[line.colour]
    )
    dots = [
        element(
            "circle", element("title", f"{line.name}: {y:.4g} at {x:.4g}"), cx=at[0], cy=at[1], r=3.2, fill=line.colour
        )
        for (x, y), at in zip(points, places, strict=True)
        if line.dots or len(points) == 1
    ]
    return join(drawn, dots)


def _legend(drawn: Sequence[Line]) -> Markup:
    keys = []
    for line in drawn:
        stroke = element(
            "line", x1=0, x2=26, y1=6, y2=6, stroke=line.colour, stroke_width=2.5, stroke_dasharray=DASHES[line.colour]
        )
        keys.append(element("span", element("svg", stroke, width=26, height=12, aria_hidden="true"), f" {line.name}"))
    return element("p", keys, class_="legend")


def _dot(at: tuple[float, float], radius: float, title: str) -> Markup:
    said = element("title", title)
    return element("circle", said, cx=at[0], cy=at[1], r=radius, fill=BLUE, fill_opacity="0.55", stroke=BLUE)


def _cell(
    at: tuple[float, float], size: float, count: int, share: float, title: str, *, right: bool, counted: bool
) -> Markup:
    # A single error in a hundred must still be seen.
    depth = 0.15 + 0.85 * share if right else 0.3 + 0.7 * min(1.0, share * 2)
    colour = BLUE if right else ORANGE
    square = element(
        "rect",
        element("title", title),
        x=at[0] + 0.5,
        y=at[1] + 0.5,
        width=size - 1,
        height=size - 1,
        fill=colour,
        fill_opacity=f"{depth:.2f}",
    )
    if not counted:
        return square
    ink = "#fff" if depth > 0.62 else "#1F2430"
    number = element(
        "text", f"{count}", x=at[0] + size / 2, y=at[1] + size / 2 + 4, text_anchor="middle", fill=ink, font_size=12
    )
    return join(square, number)


def thin(points: Points, most: int = MOST_POINTS) -> Points:
    """At most so many points: each the mean of its neighbours."""
    size = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _roomy(low: float, high: float, most: float) -> tuple[float, float]:
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.05
    return (low - room if low else 0.0), min(high + room, most) if high < most else most


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers inside [low, high]."""
    rough = (high - low) / about or 1
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _say(value: float, percent: bool) -> str:
    return f"{value * 100:.4g} %" if percent else f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0e}"


def shorten(label: str, most: int = 30) -> str:
    """The label, or its beginning and an ellipsis."""
    return label if len(label) <= most else label[: most - 1] + "…"
