"""What a race comes to: which method to take, and what to know before its numbers are believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from graftwork.choice import lookup, names
from graftwork.finding import Finding, Kind, number, place
from graftwork.learning_curve import outlook
from graftwork.method import Method
from graftwork.report.wording import METRICS, duration
from graftwork.run import Run
from graftwork.significance import Evidence, difference
from graftwork.task import Task

_Kind = partial(Kind, about="race")

LOSES_TO_BASELINE = _Kind(
    "loses-to-baseline", "warning", "A fine-tuned model does worse than counting words: the network adds nothing here."
)
TIED = _Kind("tied", "note", "Methods that the test split cannot tell apart: the cheapest of them is as good.")
UNSTABLE = _Kind("unstable", "warning", "Seeds of one method end more than a point apart: one run of it says little.")
UNDER_TRAINED = _Kind("under-trained", "note", "A method was still getting better when its budget ended.")
OVER_FITTED = _Kind("over-fitted", "note", "A method got worse on validation before its budget ended.")
NEVER_PREDICTED = _Kind(
    "never-predicted", "warning", "A class that occurs in test and that the best method never gives."
)
POORLY_CALIBRATED = _Kind("poorly-calibrated", "warning", "A method is surer, or less sure, than it is right.")
LABEL_LIKELY_WRONG = _Kind(
    "label-likely-wrong", "warning", "Rows on which all methods are sure of one same other label than the one given."
)
TRUNCATION_COSTS = _Kind(
    "truncation-costs", "warning", "A model does worse on texts that its length cuts off than on those it reads whole."
)

UNSTABLE_SD = 0.01
RISING = 0.005
FALLING = 0.01
CALIBRATION_ERROR = 0.1
SURE = 0.9
METHODS_TO_AGREE = 3
CUT_ROWS = 30
CUT_GAP = 0.02
_WORTH_SAYING = 2  # times as long


@dataclass(frozen=True)
class Entry:
    """One method's line in the table of a race. Scores are in [0, 1] and are those of the test split."""

    name: str
    model: str
    spec: Any
    baseline: bool
    scores: list[float]
    mean: float
    low: float
    high: float
    sd: float | None
    behind: float
    p: float | None
    tied: bool
    seconds: float | None
    peak_memory_mb: float | None
    trained_parameters: int | None
    model_mb: float | None
    latency: dict[str, float] | None
    runs: list[str]


def choice(entries: Sequence[Entry]) -> Entry:
    """The method to take: of those that cannot be told from the best, the one that is fitted soonest."""
    return min((e for e in entries if e.tied), key=lambda e: e.seconds or 0.0)


def model_to_use(entries: Sequence[Entry]) -> Entry | None:
    """The best choice that leaves a model: `choice`, or the one to take of the methods beside the baselines."""
    fitted = [e for e in entries if not e.baseline]
    tied = [e for e in fitted if e.tied] or fitted[:1]
    return min(tied, key=lambda e: e.seconds or 0.0, default=None)


def verdict(entries: Sequence[Entry], metric: str) -> str:
    """What to take and why, in a few sentences.

    Args:
        entries: the best first.
        metric: what the scores are.
    """
    use, said = model_to_use(entries), _why(entries, metric)
    if use is None or not choice(entries).baseline:
        return said
    return f"{said} A baseline leaves no model; of the methods that leave one, take {use.name} ({use.mean:.1%})."


def _why(entries: Sequence[Entry], metric: str) -> str:
    taken, best = choice(entries), entries[0]
    name = METRICS[metric][0]
    said = f"Take {taken.name}: {name} {taken.mean:.1%} on test ({taken.low:.1%} to {taken.high:.1%})"
    tied = [e for e in entries if e.tied and e is not taken]
    if taken is best and not tied:
        second = entries[1] if len(entries) > 1 else None
        ahead = f", {100 * (taken.mean - second.mean):.1f} points ahead of {second.name}" if second else ""
        return f"{said}{ahead}, more than chance gives."
    if taken is best:
        return f"{said}. {_listed(tied)} cannot be told from it and cost{'s' * (len(tied) == 1)} more."
    told = f"{said}. {_listed(tied)} cannot be told from it on these rows"
    times = (best.seconds or 0) / max(taken.seconds or 0, 0.01)
    if times < _WORTH_SAYING:
        return f"{told}."
    return f"{told}, and {best.name} takes {times:,.0f} times as long to fit ({duration(best.seconds or 0)})."


def prospects(curve: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> dict[str, Any]:
    """What the learning curve says: from how many labels on fine-tuning pays, and what more labels would buy.

    Args:
        curve: the race's points, from few labels to all.
        entries: the best first.

    Returns:
        `said`, sentences; and `outlook`, of the model to use: `name`, and `rows`, `mean`, `low` and `high` (80 %) at
        twice and four times as many labels; None where the curve has fewer than three points.
    """
    said = [sentence for sentence in [_crossing(curve, entries)] if sentence]
    use = model_to_use(entries)
    rows = [point["rows"] for point in curve]
    if use is None or len(set(rows)) < 3:
        return {"said": said, "outlook": None}
    found = [point["scores"][use.name] for point in curve]
    spreads = [(f["high"] - f["low"]) / 3.92 for f in found]  # of a 95 % interval
    more = [
        {"rows": times * rows[-1], **asdict(outlook(rows, [f["mean"] for f in found], spreads, times * rows[-1]))}
        for times in (2, 4)
    ]
    told = " and ".join(f"{p['mean']:.1%} ({p['low']:.1%} to {p['high']:.1%}) at {p['rows']:,}" for p in more)
    said.append(f"With more train rows {use.name} can be expected to reach {told}; intervals of 80 %.")
    return {"said": said, "outlook": {"name": use.name, "points": more}}


def _takes_steps(entry: Entry) -> bool:
    """Whether a stage of its recipe trains by gradient descent."""
    return any(name not in names(Method) or lookup(Method, name).gradient for stage in entry.spec for name in stage)


def _crossing(curve: Sequence[Mapping[str, Any]], entries: Sequence[Entry]) -> str | None:
    """From where on the best method that takes steps is ahead of the probe, for good."""
    fitted = [e for e in entries if not e.baseline]
    probe = next((e for e in fitted if list(e.spec[0]) == ["linear-probe"] and len(e.spec) == 1), None)
    other = next((e for e in fitted if _takes_steps(e)), None)
    if probe is None or other is None or len(curve) < 2:
        return None
    ahead = [p["scores"][other.name]["mean"] > p["scores"][probe.name]["mean"] for p in curve]
    names = [f"{p['rows']:,}" for p in curve]
    if all(ahead):
        return f"{other.name} is ahead of {probe.name} from {names[0]} train rows on."
    if not ahead[-1]:
        return f"Up to all {names[-1]} train rows {other.name} does not overtake {probe.name}."
    last = max(i for i, yes in enumerate(ahead) if not yes)
    return f"{other.name} overtakes {probe.name} between {names[last]} and {names[last + 1]} train rows."


def findings(
    entries: Sequence[Entry],
    runs: Mapping[str, Sequence[Run]],
    evidence: Mapping[str, Evidence],
    task: Task,
    cut: np.ndarray | None = None,
) -> list[Finding]:
    """Everything worth knowing, the gravest first; `cut` says of which test rows the model to use reads only a part."""
    metric = task.selection
    found = [
        *_against_baselines(entries, evidence, metric), *_over_seeds(entries), *_along_training(entries, runs, metric),
        *_of_classes(entries, runs, task), *_of_calibration(entries, runs), *_of_labels(entries, runs),
        *_of_ties(entries), *_of_truncation(entries, evidence, cut),
    ]  # fmt: skip
    return sorted(found, key=lambda f: f.severity != "warning")


def suspects(entries: Sequence[Entry], runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """Test rows on which at least three fitted methods agree on another label, each surer than 90 %.

    Returns:
        `row`, `text`, `label` (given), `answer` (theirs) and `confidence` (their mean), the surest first.
    """
    fitted = [runs[e.name][0].predictions("test") for e in entries if not e.baseline]
    if len(fitted) < METHODS_TO_AGREE:
        return []
    rows, texts, labels = (fitted[0][column].to_pylist() for column in ("row", "input", "label"))
    answers = [t["prediction"].to_pylist() for t in fitted]
    confidence = np.stack([t["confidence"].to_numpy() for t in fitted])
    found = []
    for i, label in enumerate(labels):
        given = {a[i] for a in answers}
        if len(given) == 1 and label not in given and confidence[:, i].min() > SURE:
            sure = float(confidence[:, i].mean())
            found.append({"row": rows[i], "text": texts[i], "label": label, "answer": given.pop(), "confidence": sure})
    return sorted(found, key=lambda s: -s["confidence"])


def _against_baselines(entries: Sequence[Entry], evidence: Mapping[str, Evidence], metric: str) -> list[Finding]:
    plain = [e for e in entries if e.baseline and e.name in ("tf-idf", "majority")]
    if not plain:
        return []
    best = plain[0]
    found = []
    for entry in entries:
        if entry.baseline or entry.mean >= best.mean:
            continue
        gap, low, _, p = difference(evidence[best.name], evidence[entry.name])
        if p < 0.05:
            found.append(
                LOSES_TO_BASELINE(
                    f"{entry.name} reaches {entry.mean:.1%}; {best.name}, which knows no language, {best.mean:.1%} "
                    f"({100 * gap:.1f} points more, at least {100 * low:.1f}).",
                    fix=f"Take {best.name}, give more labels or a larger budget, or look for what is wrong.",
                )
            )
    return found


def _of_ties(entries: Sequence[Entry]) -> list[Finding]:
    tied = [e for e in entries if e.tied]
    if len(tied) < 2:
        return []
    cheapest = choice(entries)
    return [TIED(f"{_listed(tied)} are tied on this test split.", fix=f"Take the cheapest to fit: {cheapest.name}.")]


def _over_seeds(entries: Sequence[Entry]) -> list[Finding]:
    return [
        UNSTABLE(
            f"{e.name}: {', '.join(f'{s:.1%}' for s in e.scores)} over seeds (sd {100 * e.sd:.1f} points).",
            fix="Take a smaller learning rate or a longer warm-up, and more seeds to judge it.",
        )
        for e in entries
        if e.sd is not None and e.sd > UNSTABLE_SD
    ]


def _along_training(entries: Sequence[Entry], runs: Mapping[str, Sequence[Run]], metric: str) -> list[Finding]:
    found = []
    for entry in entries:
        curves = [_curve(run, metric) for run in runs[entry.name]]
        if not curves or min(len(c) for c in curves) < 3:
            continue
        rising = [c[-1] - max(c[: -max(1, len(c) // 4)]) for c in curves]
        falling = [max(c) - c[-1] for c in curves]
        if min(rising) > RISING:
            found.append(
                UNDER_TRAINED(
                    f"{entry.name} gained {100 * min(rising):.1f} points or more on validation in the last quarter of "
                    "every run.",
                    fix="Give a larger --budget: it may well pass the others.",
                )
            )
        if min(falling) > FALLING:
            found.append(
                OVER_FITTED(
                    f"{entry.name} ended {100 * min(falling):.1f} points or more below its best validation in every "
                    "run; the best weights were kept.",
                    fix="Give a smaller --budget or a lower learning rate.",
                )
            )
    return found


def _curve(run: Run, metric: str) -> list[float]:
    return [e[metric] for e in run.events() if e["event"] == "evaluation" and e.get(metric) is not None]


def _of_classes(entries: Sequence[Entry], runs: Mapping[str, Sequence[Run]], task: Task) -> list[Finding]:
    def classes(cells: Sequence[str]) -> set[str]:
        answers = (task.named(cell) for cell in cells)
        return {name for answer in answers for name in ([answer] if isinstance(answer, str) else answer)}

    if getattr(task, "scored", False):
        return []
    best = entries[0]
    never = []
    for run in runs[best.name]:
        table = run.predictions("test")
        never.append(classes(table["label"].to_pylist()) - classes(table["prediction"].to_pylist()))
    missing = sorted(set.intersection(*never)) if never else []
    if not missing:
        return []
    return [
        NEVER_PREDICTED(
            f"{best.name} never answers {', '.join(repr(n) for n in missing[:10])}"
            f"{f' and {len(missing) - 10} more' if len(missing) > 10 else ''}, which test asks for.",
            fix="Give more examples of it, or merge it with another class.",
        )
    ]


def _of_calibration(entries: Sequence[Entry], runs: Mapping[str, Sequence[Run]]) -> list[Finding]:
    found = []
    for entry in entries:
        errors = [run.metrics["test"].get("ece") for run in runs[entry.name]]
        told = [e for e in errors if e is not None]
        if told and not entry.baseline and np.mean(told) > CALIBRATION_ERROR:
            found.append(
                POORLY_CALIBRATED(
                    f"{entry.name}: confidence and accuracy lie {100 * float(np.mean(told)):.0f} points apart.",
                    fix="Do not act on its confidence; a larger validation split calibrates it better.",
                )
            )
    return found


def _of_truncation(entries: Sequence[Entry], evidence: Mapping[str, Evidence], cut: np.ndarray | None) -> list[Finding]:
    use = model_to_use(entries)
    if use is None or cut is None or min(int(cut.sum()), int((~cut).sum())) < CUT_ROWS:
        return []
    gap, error = _gap(evidence[use.name], cut)
    if gap is None or gap < max(CUT_GAP, 2 * error):
        return []
    words = _gap(evidence["tf-idf"], cut)[0] if "tf-idf" in evidence else None
    told = "" if words is None else f" (for tf-idf, which reads them whole, {100 * words:.1f} points)"
    return [
        TRUNCATION_COSTS(
            f"On {number(int(cut.sum()), 'test row')} of which {use.name} reads only the beginning, its accuracy is "
            f"{100 * gap:.1f} points lower than on the others{told}.",
            fix="Take a model that reads longer texts, or put what matters first; graft check shows what is cut.",
        )
    ]


def _gap(evidence: Evidence, cut: np.ndarray) -> tuple[float | None, float]:
    """How much more often rows are right that are read whole than those that are cut, and its standard error."""
    if evidence.correct is None:
        return None, 0.0
    right = np.mean([c.astype(float) for c in evidence.correct], axis=0)
    error = np.sqrt(right[cut].var() / cut.sum() + right[~cut].var() / (~cut).sum())
    return float(right[~cut].mean() - right[cut].mean()), float(error)


def _of_labels(entries: Sequence[Entry], runs: Mapping[str, Sequence[Run]]) -> list[Finding]:
    found = suspects(entries, runs)
    if not found:
        return []
    rows = sorted(s["row"] for s in found)
    return [
        LABEL_LIKELY_WRONG(
            f"On {number(len(found), 'test row')} every fitted method is sure of another label than the one given.",
            where=place(rows, "test"), rows=rows, fix="Read them, and correct the labels that are wrong.",
        )
    ]  # fmt: skip


def _listed(entries: Sequence[Entry]) -> str:
    named = [e.name for e in entries]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
