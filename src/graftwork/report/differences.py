"""Where methods differ, as sections of a race's page: on which classes, on which rows, and from the labels given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.report import race_charts, wording
from graftwork.report.disagreements import MOST_ROWS, Answer, Row, disagreements
from graftwork.report.markup import Markup, element, join
from graftwork.report.race import Race, Racer, class_rows, judged_by

# Beyond so many methods their names stand upright above the cells.
FLAT_NAMES = 6
# Beyond so many its cells are narrower.
MANY = 11


def classes(race: Race) -> Markup | None:
    """F1 of each method on the classes where they differ most."""
    rows, total = class_rows(race.racers)
    asked = [racer for racer in race.racers if any(racer.number in row.scores for row in rows)]
    if not rows or len(asked) < 2:
        return None
    # a majority vote's zeros would leave one shade to all others
    shaded = {racer.number for racer in judged_by(asked)}
    values = [value for row in rows for number, value in row.scores.items() if number in shaded]
    low, high = min(values), max(values)
    upright = len(asked) > FLAT_NAMES
    header = element(
        "tr",
        element("th", "entity type" if race.tagging else "class", scope="col"),
        element("th", "rows", scope="col", class_="number"),
        [_class_header(racer, upright=upright) for racer in asked],
    )
    body = [
        element(
            "tr",
            element("th", _breakable(row.name), scope="row"),
            element("td", f"{row.support:,}", class_="number"),
            [_heat(row.scores.get(racer.number), row.scores.values(), low, high, racer) for racer in asked],
        )
        for row in rows
    ]
    what = "entity types" if race.tagging else "classes"
    left = total - len(rows)
    note = (
        f"The {len(rows)} of {total} {what} on which the fitted methods differ most" if left else f"All {total} {what}"
    )
    more = f" The other {left} differ less and are not shown." if left else ""
    said = f"{note}: F1 on test, mean over seeds. The darker, the better; the best of a row is underlined.{more}"
    caption = element(
        "caption", f"F1 of each {what[:-2] if what == 'classes' else 'entity type'} and method", class_="heard"
    )
    whole = element(
        "table",
        caption,
        element("thead", header),
        element("tbody", body),
        class_="heat many" if len(asked) > MANY else "heat",
    )
    return join(
        element("h2", f"Where they differ: {what}"),
        element("p", said, class_="quiet"),
        element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=f"F1 of {what}"),
    )


def _class_header(racer: Racer, *, upright: bool) -> Markup:
    name = element("span", racer.name, class_="upright" if upright else None)
    return element("th", name, " ", race_charts.key(racer), scope="col", class_="method", data_method=racer.number)


def _heat(value: float | None, row: Any, low: float, high: float, racer: Racer) -> Markup:
    if value is None:
        return element("td", "–", class_="method cell", data_method=racer.number)
    colour, ink = race_charts.shade(value, low, high)
    best = "method cell best" if value == max(row) else "method cell"
    return element(
        "td", f"{value:.2f}", class_=best, style=f"background:{colour};color:{ink}", data_method=racer.number
    )


def rows(race: Race) -> Markup | None:
    """Test rows on which the methods disagree."""
    if race.tagging:
        return None
    found = disagreements(race.racers, several=race.several)
    if found is None or not any(found.counts):
        return None
    headings = (
        f"{found.best.name} is wrong, another is right",
        f"{found.best.name} is right, another is wrong",
        "All are wrong, each in its own way",
    )
    parts = [
        join(
            element("h3", f"{heading}: {count:,} row{'s' if count != 1 else ''}{_of(count, len(some))}"),
            [_row(row, found.best, several=race.several) for row in some],
        )
        for heading, count, some in zip(headings, found.counts, found.shown, strict=True)
        if some
    ]
    fitted = [racer for racer in race.racers if not racer.baseline]
    apart = "; baselines are shown, but do not count" if 1 < len(fitted) < len(race.racers) else ""
    said = (
        f"On {sum(found.counts):,} of {found.rows:,} test rows not all methods say the same "
        f"(first seed of each{apart}). At most {MOST_ROWS} rows are shown, the most telling first."
    )
    return join(element("h2", "Where they differ: rows"), element("p", said, class_="quiet"), parts)


def _of(count: int, some: int) -> str:
    return f", {some} shown" if some < count else ""


def _row(row: Row, best: Racer, *, several: bool) -> Markup:
    groups: dict[str, list[Answer]] = {}
    for answer in row.answers:
        groups.setdefault(answer.said, []).append(answer)
    order = sorted(groups, key=lambda said: (said != row.label, -len(groups[said])))
    answers = [_answer(said, groups[said], right=said == row.label, several=several) for said in order]
    given = element(
        "div", "labelled ", element("b", _labels(row.label, several)), f" · row {row.number}", class_="said"
    )
    return element(
        "div", element("blockquote", wording.cut(row.text)), given, element("ul", answers, class_="answers"),
        class_="mistake",
    )  # fmt: skip


def _answer(said: str, given: Sequence[Answer], *, right: bool, several: bool) -> Markup:
    who = [
        element(
            "span", race_charts.key(one.racer), one.racer.name,
            f" {one.confidence:.0%}" if one.confidence is not None else None,
            class_="method by", data_method=one.racer.number,
        )
        for one in given
    ]  # fmt: skip
    mark = "✓ right" if right else "✗ wrong"
    return element(
        "li",
        element("span", mark, class_="true" if right else "wrong plain"),
        element("b", _labels(said, several)),
        element("span", who),
    )


def _labels(said: str, several: bool) -> Markup:
    return _breakable((said.replace("|", ", ") if several else said) or "no label")


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break after its underscores."""
    first, *later = name.split("_")
    return join(first, [("_", Markup("<wbr>"), part) for part in later])


def suspects(race: Race) -> Markup | None:
    """Labels that are likely wrong."""
    known = race.told.get("suspects") or []
    if not known:
        return None
    shown = [_suspect(one, race.several) for one in known[:MOST_ROWS]]
    count = f"{len(known):,} test row{'s' if len(known) != 1 else ''}{_of(len(known), len(shown))}"
    said = f"{count}. Every fitted method is sure of one same other label. Read them, and correct what is wrong."
    return join(element("h2", "Labels that are likely wrong"), element("p", said, class_="quiet"), shown)


def _suspect(one: Mapping[str, Any], several: bool) -> Markup:
    label, answer = (_labels(str(one.get(key) or ""), several) for key in ("label", "answer"))
    sure = f" ({one['confidence']:.0%} sure)" if one.get("confidence") is not None else None
    said = (
        "labelled ",
        element("span", label, class_="wrong"),
        ", all fitted methods say ",
        element("span", answer, class_="true"),
        sure,
        f" · row {one.get('row')}",
    )
    text = element("blockquote", wording.cut(str(one.get("text") or "")))
    return element("div", text, element("div", *said, class_="said"), class_="mistake")
