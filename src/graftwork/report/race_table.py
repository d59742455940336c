"""The table of a race: every method's score beside what it costs, each column one a reader may sort by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.report import race_charts
from graftwork.report.markup import Child, Markup, element, join
from graftwork.report.race import COSTS, Racer

NONE = "–"


@dataclass(frozen=True)
class Column:
    """One column: its name, what its cells show, and what it is sorted by (None goes last)."""

    name: str
    cell: Callable[[Racer], Child]
    value: Callable[[Racer], float | str | None]
    falls: bool = False
    """Whether more is better, so that a first click puts the largest first."""
    unit: str | None = None
    class_: str = "number"


def standings(found: Sequence[Racer], score: str, taken: str | None) -> Markup:
    """The table, the best method first.

    Args:
        found: the best first.
        score: what the score is called.
        taken: the method that the verdict takes; it is marked.
    """
    axis = race_charts.scale(found)
    columns = _columns(found, score, axis, taken)
    header = [_header(column, axis if column.class_ == "measured" else None) for column in columns]
    rows = [
        element("tr", [_cell(column, racer) for column in columns], class_="method", data_method=racer.number)
        for racer in found
    ]
    caption = element("caption", f"Methods by {score}, with their costs", class_="heard")
    whole = element(
        "table", caption, element("thead", element("tr", header)), element("tbody", rows), class_="standings"
    )
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label="The methods and their costs")


def _columns(found: Sequence[Racer], score: str, axis: tuple[float, float], taken: str | None) -> list[Column]:
    fit, _, size, memory, trained = COSTS
    return [
        Column("method", lambda racer: _name(racer, taken), lambda racer: racer.name, class_="who"),
        Column(score, _score, lambda racer: racer.entry.get("mean"), falls=True),
        Column("95 % interval", lambda racer: _interval(racer, axis, found[0]), _mean, falls=True, class_="measured"),
        Column("sd", lambda r: _points(r.entry.get("sd")), lambda r: r.entry.get("sd"), unit="points"),
        Column("behind", _behind, lambda racer: racer.entry.get("behind"), unit="points", class_="number behind"),
        Column("time to fit", lambda r: _said(r, fit.key, fit.says), lambda r: r.cost(fit.key)),
        Column("memory", lambda r: _said(r, memory.key, _mb), lambda r: r.cost(memory.key), unit="MB"),
        Column("trained", lambda r: _said(r, trained.key, trained.says), lambda r: r.cost(trained.key),
               unit="parameters"),
        Column("model", lambda r: _said(r, size.key, _mb), lambda r: r.cost(size.key), unit="MB"),
        Column("1 text", lambda r: _latency(r, 1), lambda r: r.cost("latency.ms_1_p50"), unit="p50 / p95 ms"),
        Column("32 texts", lambda r: _latency(r, 32), lambda r: r.cost("latency.ms_32_p50"), unit="p50 / p95 ms"),
        Column("answers", lambda r: _said(r, "latency.per_second", lambda n: f"{n:,.0f}"),
               lambda r: r.cost("latency.per_second"), falls=True, unit="a second"),
    ]  # fmt: skip


def _header(column: Column, axis: tuple[float, float] | None) -> Markup:
    unit = element("small", column.unit) if column.unit else None
    return element(
        "th",
        element("span", column.name, class_="sorts"),
        unit,
        race_charts.ruler(axis) if axis else None,
        scope="col",
        class_=column.class_,
        data_first="descending" if column.falls else "ascending",
        aria_sort="descending" if column.value is _mean else None,
    )


def _cell(column: Column, racer: Racer) -> Markup:
    value = column.value(racer)
    kind = "th" if column.class_ == "who" else "td"
    return element(
        kind, column.cell(racer), class_=column.class_, data_value=None if value is None else _exact(value),
        scope="row" if kind == "th" else None,
    )  # fmt: skip


def _exact(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)


def _name(racer: Racer, taken: str | None) -> Markup:
    badge = element("em", "take this") if racer.name == taken else None
    kind = element("small", "baseline") if racer.baseline else None
    return join(race_charts.key(racer), element("span", racer.name, class_="name"), badge, kind)


def _mean(racer: Racer) -> float | None:
    return racer.entry.get("mean")


def _score(racer: Racer) -> Child:
    mean = _mean(racer)
    return NONE if mean is None else element("b", f"{mean:.1%}")


def _interval(racer: Racer, axis: tuple[float, float], best: Racer) -> Child:
    return NONE if _mean(racer) is None else race_charts.interval(racer, axis, best)


def _points(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _behind(racer: Racer) -> Child:
    entry: Mapping[str, Any] = racer.entry
    behind, p = entry.get("behind"), entry.get("p")
    if behind is None:
        return NONE
    chance = "" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    if p is None and not behind:
        return element("b", "the best", class_="tied")
    tied = element("b", "tied ", class_="tied") if entry.get("tied") else None
    return join(tied, f"−{100 * behind:.1f}", element("small", chance) if chance else None)


def _said(racer: Racer, key: str, says: Callable[[float], str]) -> str:
    value = racer.cost(key)
    return NONE if value is None else says(value)


def _mb(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _latency(racer: Racer, size: int) -> str:
    p50, p95 = (racer.cost(f"latency.ms_{size}_{part}") for part in ("p50", "p95"))
    if p50 is None:
        return NONE
    return f"{_ms(p50)} / {_ms(p95) if p95 is not None else NONE}"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
