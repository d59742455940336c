"""The parts of the page, in reading order: first what a busy reader needs, then what a doubting one asks.

Each section is a function from the evidence to HTML, or to nothing when the run has none of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.report import charts, forms, wording
from graftwork.report.evidence import (
    Evidence,
    accuracy_by_coverage,
    calibration_bins,
    most_confused,
    one_after_the_other,
    wilson,
    worst_pairs,
)
from graftwork.report.markup import Markup, element, join
from graftwork.report.wording import METRICS

CURVES = (("accuracy", charts.BLUE), ("f1", charts.BLUE), ("micro_f1", charts.BLUE), ("macro_f1", charts.GREEN))
# Leaves room for the worst pairs beside it.
SMALL_MATRIX = 7

Section = Callable[[Evidence], Markup | None]


# What a busy reader needs


def title(evidence: Evidence) -> Markup:
    """Name, state, and the run in one line."""
    run = evidence.run
    asked = run["asked"]
    data = Path(wording.data_name(asked.get("data")) or "").name
    known = (wording.method_name(asked.get("method")), asked.get("model"), data, run["created"][:10])
    line = " · ".join(str(part) for part in known if part)
    return join(
        element("h1", run["name"]),
        element("p", element("span", run["state"], class_=f"state {run['state']}"), f" {line}", class_="quiet"),
        element("p", run["cause"], class_="cause") if run["cause"] else None,
    )


def in_short(evidence: Evidence) -> Markup | None:
    """The result in sentences, and in large numbers."""
    metrics, cost = evidence.metrics, evidence.run["cost"]
    if not metrics:
        return element("p", "Nothing has been evaluated yet.") if evidence.run["state"] != "failed" else None
    items = [element("li", sentence) for sentence in _sentences(evidence)]
    tiles = [_tile(wording.figure(name, metrics[name]), METRICS[name][0]) for name in _headline(metrics)]
    if cost.get("seconds") is not None:
        tiles.append(_tile(wording.duration(cost["seconds"]), "to fit"))
    if cost.get("model_mb") is not None:
        tiles.append(_tile(f"{cost['model_mb']:.0f} MB", "the model"))
    return join(element("ul", items, class_="short"), element("div", tiles, class_="tiles"))


def _headline(metrics: Mapping[str, Any]) -> list[str]:
    first = [
        name for name in ("accuracy", "f1", "micro_f1", "macro_f1", "precision", "recall", "ece") if name in metrics
    ]
    unsure = metrics.get("coverage") is not None and metrics["coverage"] < 1
    return [name for name in first if metrics[name] is not None][:4] + (["accuracy_when_sure"] if unsure else [])


def _sentences(evidence: Evidence) -> list[str]:
    metrics, n = evidence.metrics, evidence.metrics.get("n")
    said = []
    if n and metrics.get("accuracy") is not None:
        low, high = wilson(metrics["accuracy"], n)
        share = f"{metrics['accuracy']:.1%} of {n:,} {evidence.split} texts are classified right"
        said.append(f"{share} (95 % interval: {low:.1%} to {high:.1%}).")
    elif metrics.get("f1") is not None:
        found = f"{metrics['recall']:.1%} of the entities are found" if metrics.get("recall") is not None else ""
        right = (
            f"{metrics['precision']:.1%} of those it names are right" if metrics.get("precision") is not None else ""
        )
        said.append(f"Entity F1 is {metrics['f1']:.1%} on {evidence.split}: {found}, {right}.")
    elif metrics.get("micro_f1") is not None:
        said.append(
            f"Micro F1 is {metrics['micro_f1']:.1%}, macro F1 {metrics.get('macro_f1') or 0:.1%} on {evidence.split}."
        )
    if metrics.get("accuracy_when_sure") is not None and metrics.get("coverage", 1) < 1:
        sure = f"Unsure about {1 - metrics['coverage']:.1%}, it answers the other {metrics['coverage']:.1%}"
        said.append(f"{sure} and is right in {metrics['accuracy_when_sure']:.1%} of those.")
    classes = metrics.get("per_class") or {}
    if len(classes) > 3:
        worst = sorted(classes, key=lambda name: classes[name]["f1"])[:3]
        said.append("Hardest: " + ", ".join(f"{name} (F1 {classes[name]['f1']:.2f})" for name in worst) + ".")
    if pairs := worst_pairs(metrics):
        true, predicted, count, total = pairs[0]
        said.append(f"Most often mixed up: {true} taken for {predicted}, {count} of {total} times.")
    errors = sum(finding.get("severity") in ("error", "warning") for finding in evidence.run["findings"])
    if errors:
        said.append(f"The data has {errors} finding{'s' if errors > 1 else ''} worth acting on; see below.")
    return said


# What was asked and what happened


def asked(evidence: Evidence) -> Markup:
    """What was asked, what happened, and what it cost, side by side."""
    wanted, happened, cost, data = (evidence.run[part] for part in ("asked", "happened", "cost", "data"))
    rows = ", ".join(f"{count:,} {split}" for split, count in (data.get("rows") or {}).items())
    first = forms.facts(
        ("Model", wanted.get("model")),
        ("Method", wording.said(wanted.get("method"))),
        ("Data", wording.data_name(wanted.get("data"))),
        ("Rows", rows),
        ("Task", wording.task(data) if data else wanted.get("task")),
        ("Classes", f"{len(data['labels']):,}" if data.get("labels") else None),
        ("Budget", wanted.get("budget")),
        ("Seed", wanted.get("seed")),
        ("Coverage", wanted.get("coverage")),
        ("Hardware", wording.said(wanted.get("hardware"))),
    )
    decision = happened.get("decision") or {}
    trained, total = cost.get("trained_parameters"), cost.get("total_parameters")
    second = forms.facts(
        ("Stopped by", happened.get("stopped")),
        ("Epochs", wording.number(happened.get("epochs"))),
        ("Steps", wording.number(happened.get("steps"))),
        ("Best step", wording.number(happened.get("best_step"))),
        ("Time", wording.duration(cost["seconds"]) if cost.get("seconds") is not None else None),
        ("Examples a second", wording.number(cost.get("examples_per_second"))),
        ("Peak memory", f"{cost['peak_memory_mb']:,.0f} MB" if cost.get("peak_memory_mb") else None),
        (
            "Trained parameters",
            f"{trained:,} of {total:,} ({trained / total:.1%})" if trained is not None and total else None,
        ),
        ("Size of the model", f"{cost['model_mb']:,.1f} MB" if cost.get("model_mb") else None),
        ("Precision", happened.get("precision")),
        (
            "Padding",
            f"{happened['padding_waste']:.1%} of the tokens" if happened.get("padding_waste") is not None else None,
        ),
        ("Frozen-prefix cache", wording.said(happened.get("cache"))),
        ("Temperature", wording.number(decision.get("temperature"))),
        ("Label given from", f"{decision['threshold']:.0%}" if data.get("multi_label") and decision else None),
        ("Sure from", f"{decision['sure_from']:.1%}" if decision.get("sure_from") else None),
        ("Rows dropped, as asked", wording.said(happened.get("dropped"))),
        ("Rows cut to the model's length", wording.number(happened.get("truncated_rows"))),
    )
    said = [element("li", sentence) for sentence in (*(happened.get("said") or ()), *_advice(happened))]
    return join(
        element("h2", "What was asked, and what happened"),
        element(
            "div",
            element("div", element("h3", "Asked"), first),
            element("div", element("h3", "Happened"), second),
            class_="pair",
        ),
        join(element("h3", "Inferred from the data"), element("ul", said)) if said else None,
    )


def _advice(happened: Mapping[str, Any]) -> Iterator[str]:
    """Why `auto` took this method and this rate."""
    if not (advice := happened.get("advice")):
        return
    option, rates = advice["option"], advice.get("rate_test")
    yield (
        f"Advised: {option['name']}, {option['low']:.1%} to {option['high']:.1%} expected on new texts, about "
        f"{wording.duration(option['seconds'])} to fit. {option['reason']}"
    )
    if rates and rates["suggested"]:
        blows = f"blows up from {rates['highest']:.1e} on" if rates["highest"] else "does not blow up"
        yield (
            f"Learning rate: the loss falls most steeply at {rates['suggested']:.1e}, and {blows}; "
            f"{rates['advised']:.1e} was taken."
        )


def findings(evidence: Evidence) -> Markup | None:
    """What the data doctor saw, the grave ones first."""
    order = list(forms.SEVERITIES)
    known = sorted(evidence.run["findings"], key=lambda finding: order.index(finding.get("severity", "note")))
    if not known:
        return None
    return join(element("h2", "Findings in the data"), [forms.finding(one) for one in known])


# How it learned


def learning(evidence: Evidence) -> Markup | None:
    """Training loss and validation score over the epochs."""
    events = one_after_the_other(evidence.events)
    steps = [event for event in events if event.get("event") == "step" and event.get("loss") is not None]
    evaluations = [event for event in events if event.get("event") == "evaluation"]
    axis = "epoch" if all("epoch" in event for event in steps + evaluations) else "step"
    losses = [
        charts.Line("training loss", _curve(steps, axis, "loss"), charts.BLUE),
        charts.Line("validation loss", _curve(evaluations, axis, "loss"), charts.ORANGE, dots=True),
    ]
    scores = [
        charts.Line(f"validation {METRICS[name][0]}", _curve(evaluations, axis, name), colour, dots=True)
        for name, colour in CURVES
    ]
    best = evidence.run["happened"].get("best_step")
    mark = next((event[axis] for event in reversed(evaluations) if event.get("stage_step") == best), None)
    pictures = [
        charts.lines(known, x=axis, y=y, says=f"{y} over {axis}s", percent=percent, mark=mark)
        for drawn, y, percent in ((losses, "loss", False), (scores, "score", True))
        if (known := [line for line in drawn if line.points])
    ]
    if not pictures:
        return None
    return join(
        element("h2", "Learning curve"),
        element("div", [element("div", picture) for picture in pictures], class_="pair"),
    )


def depth(evidence: Evidence) -> Markup | None:
    """Which part of the network trained when, and how fast."""
    happened = evidence.run["happened"]
    stages = [(stage, _parts(stage)) for stage in happened.get("stages") or []]
    tables = [_rates(stage, parts) for stage, parts in stages if parts]
    chart = _unfreezing([part["name"] for _, parts in stages for part in parts], happened)
    if not chart and not tables:
        return None
    return join(
        element("h2", "What trained, and how fast"),
        element("div", element("div", chart) if chart else None, element("div", tables), class_="pair"),
    )


def _parts(stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the network that trained in a stage, the head first; weights and biases of one depth together."""
    parts: dict[str, dict[str, Any]] = {}
    for group in stage.get("groups") or []:
        name = group["name"].removesuffix(", no decay")
        part = parts.setdefault(name, {"name": name, "lr": group["lr"], "parameters": 0})
        part["parameters"] += group.get("parameters") or 0
    return list(parts.values())


def _unfreezing(names: Sequence[str], happened: Mapping[str, Any]) -> Markup | None:
    """Depth over epochs, where that changed or something stayed frozen."""
    changes = happened.get("unfreezing") or []
    rows = list(dict.fromkeys([*names, *(name for _, on in changes for name in reversed(on))]))
    if not changes or all(set(rows) - {"head"} == set(on) for _, on in changes):
        return None
    last = max(math.ceil(happened.get("epochs") or 0), changes[-1][0] + 1)
    trains = [{"head", *[on for start, on in changes if start <= epoch][-1]} for epoch in range(changes[0][0], last)]
    columns = [str(epoch + 1) for epoch in range(changes[0][0], last)]
    return charts.spans(rows, columns, [[row in on for on in trains] for row in rows])


def _rates(stage: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> Markup:
    fastest = max(part["lr"] for part in parts) or 1
    rows = [
        element(
            "tr",
            element("td", part["name"]),
            element("td", charts.bar(part["lr"] / fastest), f"{part['lr']:.2g}", class_="measure"),
            element("td", wording.number(part["parameters"]), class_="number"),
        )
        for part in parts
    ]
    title = f"Peak learning rates of {wording.method_name(stage.get('method'))}"
    return join(element("h3", title), forms.table(("part", "rate", "parameters#"), rows))


# How good it is


def scores(evidence: Evidence) -> Markup | None:
    """All plain numbers of all evaluated splits."""
    splits = evidence.run["metrics"]
    names = [name for name in METRICS if any(isinstance(splits[split].get(name), (int, float)) for split in splits)]
    if not names:
        return None
    rows = [
        element(
            "tr",
            element("td", METRICS[name][0]),
            [element("td", wording.figure(name, splits[split].get(name)), class_="number") for split in splits],
        )
        for name in names
    ]
    return join(element("h2", "Scores"), forms.table(("", *(f"{split}#" for split in splits)), rows))


def trust(evidence: Evidence) -> Markup | None:
    """Whether the confidence can be believed, and what refusing the unsure ones buys."""
    bins = calibration_bins(evidence.rows["probabilities"], evidence.rows["truth"])
    if not bins:
        return None
    what = "Each dot holds the predictions of one range of confidence; the larger, the more."
    said = f"{what} On the dotted line the model is right as often as it says; below it, it is too sure of itself."
    first = element("div", element("h3", "Calibration"), charts.calibration(bins), element("p", said, class_="legend"))
    second = None
    if evidence.single_label:
        curve = charts.Line(
            "accuracy of the answers given", accuracy_by_coverage(evidence.rows["confidence"], evidence.rows["wrong"])
        )
        second = element(
            "div",
            element("h3", "What refusing to answer buys"),
            charts.lines(
                [curve],
                x="share answered (%), the surest first",
                y="accuracy",
                says="Accuracy by coverage",
                percent=True,
            ),
        )
    return join(
        element("h2", f"Can its confidence be trusted? ({evidence.split})"),
        element("div", first, second, class_="pair"),
    )


def classes(evidence: Evidence) -> Markup | None:
    """Every class, the hardest first."""
    known = evidence.metrics.get("per_class")
    if not known:
        return None
    rows = []
    for name, values in sorted(known.items(), key=lambda item: item[1]["f1"]):
        measures = [element("td", charts.bar(values["f1"]), f"{values['f1']:.3f}", class_="measure")]
        numbers = [element("td", f"{values[key]:.2f}", class_="number") for key in ("precision", "recall")]
        rows.append(
            element(
                "tr", element("td", name), measures, numbers, element("td", f"{values['support']:,}", class_="number")
            )
        )
    header = ("class", "F1", "prec.#", "recall#", "n#")
    half = math.ceil(len(rows) / 2) if len(rows) > 16 else len(rows)
    tables = [element("div", forms.table(header, part)) for part in (rows[:half], rows[half:]) if part]
    what = "entity types" if evidence.tagging else "classes"
    heading = f"All {len(rows)} {what}, the hardest first" if len(rows) > 1 else "The only entity type"
    return join(element("h2", f"{heading} ({evidence.split})"), element("div", tables, class_="pair"))


def confusions(evidence: Evidence) -> Markup | None:
    """Which classes are taken for which."""
    known = evidence.metrics.get("confusion")
    if not known:
        return None
    labels, matrix = most_confused(known["labels"], known["matrix"])
    how = "Down: the true classes; across: what the model said. Blue: right; orange: errors; deeper: more of the row."
    if len(labels) < len(known["labels"]):
        how = f"The {len(labels)} of {len(known['labels'])} classes with the most errors. {how}"
    pairs = [
        element("tr", element("td", true), element("td", said), element("td", f"{count} of {total}", class_="number"))
        for true, said, count, total in worst_pairs(evidence.metrics)
    ]
    table = forms.table(("true", "taken for", "times#"), pairs)
    return join(
        element("h2", f"Confusion matrix ({evidence.split})"),
        element("p", how, class_="legend"),
        element(
            "div",
            charts.confusion(labels, matrix),
            element("div", element("h3", "Most often mixed up"), table) if pairs else None,
            class_="pair" if len(labels) <= SMALL_MATRIX else None,
        ),
    )


def mistakes(evidence: Evidence) -> Markup | None:
    """The errors it was surest of: often the label is wrong, not the model."""
    if not evidence.shown:
        return None
    labels = evidence.run["data"].get("labels") or []
    show = (
        _tagging_mistake
        if evidence.tagging
        else functools.partial(_mistake, labels=labels, single=evidence.single_label)
    )
    return join(
        element("h2", f"The mistakes it was surest of ({evidence.split})"),
        element(
            "p",
            "Look here first: among these are the labels that are wrong, and the classes that overlap.",
            class_="quiet",
        ),
        [element("div", show(row), class_="mistake") for row in evidence.shown],
    )


def _mistake(row: Mapping[str, Any], *, labels: Sequence[str], single: bool) -> Markup:
    text = element("blockquote", wording.cut(row["input"]))
    if not single:
        true, said = (set(filter(None, row[key].split("|"))) for key in ("label", "prediction"))
        parts = [
            ("right: ", true & said, None),
            ("missed: ", true - said, "true"),
            ("wrongly named: ", said - true, "wrong"),
        ]
        told = [
            join(element("span", f"{what}{', '.join(sorted(some))}", class_=kind), " · ")
            for what, some, kind in parts
            if some
        ]
        return join(text, element("div", told, f"row {row['row']}", class_="said"))
    probabilities = dict(zip(labels, row["probabilities"] or [], strict=False))
    chance = f" (it gave that {probabilities[row['label']]:.0%})" if row["label"] in probabilities else ""
    return join(
        text,
        element(
            "div",
            "said ",
            element("span", row["prediction"], class_="wrong"),
            f" with {row['confidence']:.0%}, labelled ",
            element("span", row["label"], class_="true"),
            f"{chance} · row {row['row']}",
            " · marked unsure" if row["unsure"] else None,
            class_="said",
        ),
    )


def _tagging_mistake(row: Mapping[str, Any]) -> Markup:
    words, true, said = (row[key].split(" ") for key in ("input", "label", "prediction"))
    if not len(words) == len(true) == len(said):
        return join(
            element("blockquote", wording.cut(row["input"])), element("div", f"row {row['row']}", class_="said")
        )
    shown = [_word(*triple) for triple in zip(words[:120], true, said, strict=False)]
    return join(
        element("div", shown), element("div", f"row {row['row']} · true tag above, given tag below", class_="said")
    )


def _word(word: str, true: str, said: str) -> Markup:
    if true == said == "O":
        return element("span", element("small", Markup("&nbsp;")), word, class_="word")
    below = element("small", said, class_="wrong") if said != true else None
    return element("span", element("small", true, class_="true"), word, below, class_="word")


# What a doubting reader asks


def repeat(evidence: Evidence) -> Markup | None:
    """The request as YAML, and where it ran."""
    import yaml

    # Not the old folder: a run that is there is never overwritten.
    wanted = {
        key: value for key, value in evidence.run["asked"].items() if value not in (None, {}, []) and key != "out"
    }
    table = forms.facts(
        *forms.surroundings(evidence.run["environment"]),
        ("Fingerprint of the data", evidence.run["data"].get("fingerprint")),
    )
    request = element("pre", yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
    how = join("Save this as run.yaml and say ", element("code", "graft fit run.yaml"), ".")
    return join(
        element("h2", "To repeat it"),
        element("div", element("div", element("p", how), request), element("div", table), class_="pair"),
        element(
            "footer",
            f"Made by graftwork from {evidence.run['path']}. Times are UTC; the run began {evidence.run['created']}.",
        ),
    )


SECTIONS: tuple[Section, ...] = (
    title,
    in_short,
    scores,
    learning,
    confusions,
    classes,
    trust,
    mistakes,
    findings,
    depth,
    asked,
    repeat,
)


def _curve(events: Sequence[Mapping[str, Any]], axis: str, name: str) -> list[tuple[float, float]]:
    return [(event[axis], event[name]) for event in events if event.get(name) is not None and axis in event]


def _tile(value: str, name: str) -> Markup:
    return element("div", element("b", value), element("small", name), class_="tile")
