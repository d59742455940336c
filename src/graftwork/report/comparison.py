"""The page of a race: which method to take, shown to somebody who was not there.

Like a run's page it is one file that fetches nothing. A small script sorts the table, hides methods and names what is
pointed at; where it does not run, everything is there all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graftwork.choice import InputError, suggest
from graftwork.report import forms, race_charts, wording
from graftwork.report.differences import classes, rows, suspects
from graftwork.report.markup import Markup, element, join
from graftwork.report.race import COSTS, Cost, Race, Racer
from graftwork.report.race_table import standings
from graftwork.run import Run

Section = Callable[[Race], Markup | None]


def comparison_page(told: dict[str, Any], runs: Mapping[str, Sequence[Run]]) -> str:
    """The whole page, as HTML.

    Args:
        told: the content of comparison.json.
        runs: the runs of each entry by its name, in order of seeds; what a run lacks is left out.
    """
    race = Race.of(told, runs)
    body = [section(race) for section in SECTIONS]
    title = f"{_name(race)} · graftwork compare"
    return forms.document(title, body, styles=["style.css", "comparison.css"], script="comparison.js")


def _name(race: Race) -> str:
    count = len(race.racers)
    return f"{count} method{'s' if count != 1 else ''} on {race.data.get('name') or 'the data'}"


# What a busy reader needs


def verdict(race: Race) -> Markup:
    """What to take, and what all of them were given."""
    rows = race.data.get("rows") or {}
    seeds = race.told.get("seeds") or []
    known = [
        ", ".join(f"{count:,} {split} rows" for split, count in rows.items()),
        f"{len(race.data['labels']):,} classes" if race.data.get("labels") and not race.tagging else None,
        f"budget {_budget(race.told.get('budget'))} a run",
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}",
        f"ranked by {race.score} on test",
    ]
    return join(
        element("h1", _name(race)),
        element("p", race.told.get("verdict"), class_="verdict"),
        element("p", " · ".join(part for part in known if part), class_="quiet line"),
    )


def _budget(budget: Any) -> str:
    return re.sub(r"(?<=\d)(?=[a-z])", " ", str(budget))


def shown(race: Race) -> Markup | None:
    """A switch for each method; the script brings it to light."""
    if len(race.racers) < 2:
        return None
    switches = [
        element(
            "label",
            Markup(f'<input type="checkbox" id="show-{racer.number}" value="{racer.number}" checked>'),
            race_charts.key(racer),
            element("span", racer.name),
        )
        for racer in race.racers
    ]
    both = [element("button", name, type="button", data_all=name) for name in ("all", "none")]
    return element("fieldset", element("legend", "Shown on this page"), switches, both, class_="switches", hidden="")


def table(race: Race) -> Markup:
    """Every method with its score, what chance could explain, and its costs."""
    how = (
        "The mark is the mean over seeds, the bar its 95 % interval over test rows and seeds, the ticks beneath are "
        "single seeds, and the grey band is the interval of the best. Tied: chance explains the difference to the best "
        "(p of 0.05 or more, Holm-corrected for the number of methods). Hollow marks are baselines."
    )
    return join(
        element("h2", "The methods, the best first"),
        shown(race),
        standings(race.racers, race.score, race.told.get("taken")),
        element("p", how, class_="legend"),
    )


def labels(race: Race) -> Markup | None:
    """The learning curve as a table: every method on few labels and on all."""
    points = race.told.get("curve") or []
    if not points:
        return None
    heads = ["all" if p["shots"] is None else f"{p['shots']} a class" for p in points]
    rows = [
        element("tr", element("th", race_charts.key(racer), " ", racer.name, scope="row"),
                [_labelled(point["scores"].get(racer.name)) for point in points])
        for racer in race.racers
    ]  # fmt: skip
    counts = ", ".join(f"{p['rows']:,}" for p in points)
    how = f"Score on test with so few train rows a class ({counts} rows); in bold what is tied with the best there."
    foretold = race.told.get("prospects") or {}
    papers = [race_charts.labels(race.scored, points, foretold.get("outlook"), paper) for paper in race_charts.PAPERS]
    return join(
        element("h2", "What more labels buy"),
        [element("p", sentence) for sentence in foretold.get("said") or []],
        element("div", element("div", papers), _legend(race.scored), class_="plot"),
        element("p", how, class_="quiet"),
        element("div", forms.table(("method", *heads), rows), class_="wide"),
    )


def _labelled(found: Mapping[str, Any] | None) -> Markup:
    if found is None:
        return element("td", "–")
    mean = f"{found['mean']:.1%}"
    spread = element("small", f" {found['low']:.1%} to {found['high']:.1%}", class_="quiet")
    return element("td", element("b", mean) if found["tied"] else mean, spread)


# Charts


def pareto(race: Race) -> Markup | None:
    """Score against each cost."""
    drawn = [(cost, known) for cost in COSTS if (known := _with(race.scored, cost))]
    if not drawn:
        return None
    panels = [_pareto_panel(race, cost, known) for cost, known in drawn]
    said = (
        "Up is better, left is cheaper. Nothing beats a method on the dashed front in both. Point at a mark to read it."
    )
    return join(
        element("h2", "What a better score costs"),
        element("p", said, class_="quiet"),
        _switched(panels, [cost.name for cost, _ in drawn], "cost"),
    )


def pareto_picture(told: Mapping[str, Any], key: str) -> str:
    """Score against one cost, as an SVG of its own.

    Raises:
        InputError: another cost, or one that was measured of no method.
    """
    race = Race.of(told, {})
    measured = {cost.key: cost for cost in COSTS if _with(race.scored, cost)}
    if key not in measured:
        raise InputError(f"{key!r} is no cost of this race. {suggest(key, measured)}")
    cost = measured[key]
    known = _with(race.scored, cost)
    drawn = str(race_charts.pareto(known, cost, race_charts.scale(known), "wide", score=race.score))
    svg = drawn[drawn.index("<svg") : drawn.rindex("</svg>") + len("</svg>")]
    return svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"', 1)


def _with(found: Sequence[Racer], cost: Cost) -> list[Racer]:
    return [racer for racer in found if racer.cost(cost.key) is not None]


def _pareto_panel(race: Race, cost: Cost, known: list[Racer]) -> Markup:
    axis = race_charts.scale(known)
    papers = [race_charts.pareto(known, cost, axis, paper, score=race.score) for paper in race_charts.PAPERS]
    values = [(racer.cost(cost.key) or 0.0, racer.entry["mean"]) for racer in known]
    front = race_charts.on_front(values)
    order = sorted(range(len(known)), key=lambda number: values[number])
    rows = [
        element(
            "tr",
            element("td", race_charts.key(known[number]), " ", known[number].name),
            element("td", f"{values[number][1]:.1%}", class_="number"),
            element("td", cost.says(values[number][0]), class_="number"),
            data_front=known[number].number,
            hidden=None if number in front else "",
        )
        for number in order
    ]
    lacking = [racer.name for racer in race.scored if racer not in known]
    note = f"Not drawn, because it was not measured for them: {', '.join(lacking)}." if lacking else None
    side = join(
        element("h3", "On the front"),
        forms.table(("method", f"{race.score}#", "cost#"), rows),
        element("p", note, class_="legend") if note else None,
    )
    return element("div", element("div", papers), element("div", side), class_="plot")


def curves(race: Race) -> Markup | None:
    """The validation score while training."""
    axes = {"seconds": "over seconds", "step": "over steps"}
    drawn = []
    for axis, name in axes.items():
        known = [racer for racer in race.racers if racer.curves(axis, race.metric)]
        if known:
            papers = [
                race_charts.curves(known, axis, race.metric, paper, score=race.score) for paper in race_charts.PAPERS
            ]
            drawn.append((name, element("div", element("div", papers), _legend(known), class_="plot")))
    if not drawn:
        return None
    said = (
        f"{race.score[0].upper()}{race.score[1:]} on validation: the thick line is the mean over seeds, a faint one a "
        "single seed. Methods that are solved in one step, and baselines, have no curve."
    )
    return join(
        element("h2", "How they learned"),
        element("p", said, class_="quiet"),
        _switched([panel for _, panel in drawn], [name for name, _ in drawn], "axis"),
    )


def _legend(known: Sequence[Racer]) -> Markup:
    """The names of the lines; in a browser that runs the script each is a switch, too."""
    names = [
        element(
            "label",
            race_charts.key(racer, line=True),
            element("span", racer.name),
            for_=f"show-{racer.number}",
            data_key=racer.number,
        )
        for racer in known
    ]
    return element("div", names, class_="names")


def _switched(panels: Sequence[Markup], names: Sequence[str], group: str) -> Markup:
    """Panels of which the script shows one at a time; all of them, each under its name, where it does not run."""
    each = [
        element("section", element("h3", name, class_="panel-name"), panel, class_="panel", data_name=name)
        for name, panel in zip(names, panels, strict=True)
    ]
    return element("div", each, class_="panels", data_group=group)


# What a doubting reader asks


def findings(race: Race) -> Markup | None:
    """What is worth knowing before the numbers are believed."""
    order = list(forms.SEVERITIES)
    known = sorted(race.told.get("findings") or [], key=lambda one: order.index(one.get("severity", "note")))
    if not known:
        return None
    return join(element("h2", "Before you believe it"), [forms.finding(one) for one in known])


def differs(race: Race) -> Markup:
    """What was the same for all, and what was not."""
    seeds = ", ".join(map(str, race.told.get("seeds") or []))
    same = (
        f"The same for all: the rows and their splits, the budget ({_budget(race.told.get('budget'))} a run) and the "
        f"seeds ({seeds or 'none'}). Choices were made on validation; test was read once, after everything was fitted."
    )
    items = [element("li", sentence) for sentence in race.told.get("differs") or []]
    return join(
        element("h2", "Was it fair?"), element("p", same), element("ul", items, class_="differs") if items else None
    )


def environment(race: Race) -> Markup:
    """The machine and the versions, folded."""
    recipes = [
        element("tr", element("th", racer.name), element("td", str(wording.said(racer.entry.get("spec")) or "–")))
        for racer in race.racers
    ]
    facts = forms.facts(
        *forms.surroundings(race.told.get("environment") or {}),
        ("Fingerprint of the data", race.data.get("fingerprint")),
    )
    return join(
        element(
            "details", element("summary", "The settings of each method"), element("table", recipes, class_="facts")
        ),
        element("details", element("summary", "The machine and the versions"), facts),
        element("footer", "Made by graftwork. This page is one file and fetches nothing."),
    )


SECTIONS: tuple[Section, ...] = (
    verdict,
    table,
    labels,
    pareto,
    curves,
    classes,
    rows,
    suspects,
    findings,
    differs,
    environment,
)
