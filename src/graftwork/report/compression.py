"""The page of a compression: what was tried, what it cost in score, and what it gained in size and time.

Like a run's page it is one file that fetches nothing. Its pictures are those of a race, in which every step runs
against the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.report import forms, race_charts
from graftwork.report.markup import Markup, element, join
from graftwork.report.race import COSTS, Race, Racer
from graftwork.report.wording import METRICS, duration

PLOTTED = ("model_mb", "latency.ms_1_p50")


def compression_page(told: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The whole page, as HTML.

    Args:
        told: `happened.compression` of the run.
        run: its run.json, with the folder as `path`.
    """
    race = Race.of({"metric": told["metric"], "entries": [_entry(each) for each in told["table"]]}, {})
    body = [
        _verdict(told, race), _plots(race), _table(told, race), _notes(told["table"]), _how(told), _environment(run),
    ]  # fmt: skip
    return forms.document(f"{run['name']} · graftwork compress", body, styles=["style.css", "comparison.css"])


def _entry(measured: Mapping[str, Any]) -> dict[str, Any]:
    """A step as an entry of a race; the original is what the others run against."""
    name = " + ".join(measured["steps"]) or measured["step"]
    plain = {"name": name, "mean": measured["score"], "model_mb": measured["mb"], "baseline": not measured["steps"]}
    return plain | {key: measured[key] for key in ("low", "high", "latency", "seconds", "peak_memory_mb")}


# What a busy reader needs


def _verdict(told: Mapping[str, Any], race: Race) -> Markup:
    first, last = told["table"][0], told["table"][-1]
    said = told.get("verdict") or (
        f"{' + '.join(last['steps'])}: {first['mb'] / last['mb']:.1f} times smaller, "
        f"{first['latency']['ms_1_p50'] / last['latency']['ms_1_p50']:.1f} times as fast on one text, "
        f"{race.score} {last['score']:.1%}, {_points(last)} against the original."
    )
    known = [
        f"of {told['of']}", f"{told['rows']:,} validation rows", "test was not read",
        f"trained {told['budget']} {'after each step' if 'goal' in told else 'in all'}" if told["budget"] else None,
    ]  # fmt: skip
    return join(
        element("h1", f"Goal: {told['goal']}" if "goal" in told else "A smaller model, step by step"),
        element("p", said, class_="verdict"),
        element("p", "Put it to use: ", element("code", told["deploy"])) if "deploy" in told else None,
        element("p", " · ".join(part for part in known if part), class_="quiet line"),
    )


def _points(measured: Mapping[str, Any]) -> str:
    low, high = (f"{100 * measured[f'difference_{end}']:+.1f}" for end in ("low", "high"))
    return f"{100 * measured['difference']:+.1f} points ({low} to {high})"


def _plots(race: Race) -> Markup:
    """Score against size, and against the wait for one text."""
    axis = race_charts.scale(race.racers)
    panels = [_panel(race, key, axis) for key in PLOTTED]
    said = (
        "Up is better, left is cheaper; the line through a mark is its 95 % interval. Nothing beats in both what is on "
        "the dashed front. The original is hollow."
    )
    both = element("div", panels, class_="pair")
    return join(element("h2", "What it costs, and what it gains"), element("p", said, class_="quiet"), both)


def _panel(race: Race, key: str, axis: tuple[float, float]) -> Markup:
    cost = next(cost for cost in COSTS if cost.key == key)
    papers = [
        race_charts.pareto(race.racers, cost, axis, paper, score=race.score, intervals=True)
        for paper in race_charts.PAPERS
    ]
    return element("section", element("h3", f"{race.score} against {cost.name}"), element("div", papers))


# What a doubting reader asks


def _table(told: Mapping[str, Any], race: Race) -> Markup:
    """Every step with its score, what chance could explain, and its costs."""
    axis, sought = race_charts.scale(race.racers), "goal" in told
    head = (
        "step", *(["the goal"] if sought else []), f"{race.score}#", "95 % interval", "against the original", "p#",
        "on disk#", "weights#", "1 text, p50 / p95 ms#", "32 texts, p50 / p95 ms#", "a second#", "memory#", "took#",
        "head",
    )  # fmt: skip
    rows = [_row(each, racer, race, axis, sought) for each, racer in zip(told["table"], race.racers, strict=True)]
    how = (
        "The bar is the 95 % interval over validation rows; the grey band is the original's. Differences are paired by "
        "row, and p is the probability of so large a one by chance. Memory is the most that the process held while a "
        "step was made and measured. An export is measured by its own predict.py, one text at a time."
    )
    return join(
        element("h2", "Every step"), element("div", forms.table(head, rows, "standings"), class_="scroll"),
        element("p", how, class_="legend"),
    )  # fmt: skip


def _row(measured: Mapping[str, Any], racer: Racer, race: Race, axis: tuple[float, float], sought: bool) -> Markup:
    waits, memory = measured["latency"], measured["peak_memory_mb"]
    ends = [f"{waits[f'ms_{size}_p50']:.1f} / {waits[f'ms_{size}_p95']:.1f}" for size in (1, 32)]
    numbers = [
        f"{measured['mb']:.1f} MB", f"{measured['parameters'] / 1e6:.1f} M", *ends, f"{waits['per_second']:,.0f}",
        f"{memory:,.0f} MB" if memory else "–", duration(measured["seconds"]),
    ]  # fmt: skip
    return element(
        "tr",
        element("td", race_charts.key(racer), " ", racer.name),
        element("td", _goal(measured)) if sought else None,
        element("td", f"{measured['score']:.1%}", class_="number"),
        element("td", race_charts.interval(racer, axis, race.racers[0])),
        element("td", _points(measured) if measured["steps"] else "–"),
        element("td", "–" if measured["p"] is None else f"{measured['p']:.2f}", class_="number"),
        [element("td", number, class_="number") for number in numbers],
        element("td", measured["head"]),
    )


def _goal(measured: Mapping[str, Any]) -> str:
    """Whether it is held, or what of it is missed; the sentences stand below."""
    return f"misses {', '.join(said.split()[0] for said in measured['misses'])}" if measured["misses"] else "holds"


def _notes(table: Sequence[Mapping[str, Any]]) -> Markup | None:
    """What single steps told of themselves, and what they miss of a goal."""
    said = [
        element("li", f"{' + '.join(each['steps']) or each['step']}: {sentence}")
        for each in table
        for sentence in (
            *(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in each["notes"].items()),
            *(each["misses"] or ()),
        )
    ]
    return join(element("h2", "What the steps told"), element("ul", said, class_="differs")) if said else None


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.2%}" if isinstance(value, float) else str(value)


def _how(told: Mapping[str, Any]) -> Markup:
    name = METRICS.get(told["metric"], (told["metric"], True))[0]
    said = [
        f"Everything was chosen and measured on the same {told['rows']:,} validation rows, so {name} flatters a little "
        "where a head or weights were chosen by it: graft evaluate reads test."
    ]
    if "goal" in told:
        said.append(
            f"A score of the goal counts as held where that is {told['sure']:.0%} sure over rows, one-sided. "
            "Sizes and waits are as they were measured on this machine."
        )
    return join(element("h2", "How far to believe it"), [element("p", sentence) for sentence in said])


def _environment(run: Mapping[str, Any]) -> Markup:
    facts = forms.facts(
        *forms.surroundings(run.get("environment") or {}),
        ("Fingerprint of the data", (run.get("data") or {}).get("fingerprint")),
    )
    return join(
        element("details", element("summary", "The machine and the versions"), facts),
        element("footer", "Made by graftwork. This page is one file and fetches nothing."),
    )
