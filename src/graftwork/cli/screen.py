"""How the command line speaks: to people with rich, to programs with one JSON object."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from graftwork.cli.meter import SCORES, Meter
from graftwork.report.wording import METRICS, duration, figure
from graftwork.run import as_json

if TYPE_CHECKING:
    from graftwork.run import Run

STYLES = {"error": "bold red", "warning": "yellow", "note": "blue", "done": "green", "failed": "bold red"}
CLASSES_IN_LEDGER = 5
# Where there is no terminal to fit, a table is as wide as it likes.
WIDE = 200


class _Console(Console):
    """rich's, but whoever runs the verb decides what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Screen:
    """Where a verb's words go. Text is never read as markup: it may be the user's."""

    def __init__(self, *, json: bool):
        self.json = json
        stream = sys.stderr if json else sys.stdout
        self._people = _Console(file=stream, highlight=False, width=None if stream.isatty() else WIDE)
        self._errors = _Console(stderr=True, highlight=False, soft_wrap=True)
        self._inferred: set[str] = set()  # what the data was understood to be is said once

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line for people."""
        self._people.print(text, style=style, markup=False, soft_wrap=True)

    def complain(self, text: str) -> None:
        """A line about what went wrong."""
        self._errors.print(Text("error: ", "bold red").append(text, ""))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table for people; words that have a style (done, failed, warning, ...) wear it."""
        table = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
        for row in rows:
            cells = ("" if cell is None else str(cell) for cell in row)
            table.add_row(*(Text(cell, STYLES.get(cell, ""), overflow="fold") for cell in cells))
        self._people.print(table)

    def findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """The doctor's findings, a paragraph each."""
        for finding in findings:
            place = f" ({finding['where']})" if finding.get("where") else ""
            head = Text(f"{finding['severity']:<8}", STYLES[finding["severity"]]).append(f"{finding['code']}: ", "bold")
            self._people.print(head.append(f"{finding['message']}{place}", ""), soft_wrap=True)
            if finding.get("fix"):
                self.say(f"        → {finding['fix']}")

    def data(self, report: Mapping[str, Any]) -> None:
        """What the doctor understood the data to be, and the verdict."""
        from graftwork.finding import number

        known = report.get("data") or {}
        self._inferred.update(known.get("said", ()))
        for sentence in known.get("said", ()):
            self.say(f"        {sentence}")
        rows = ", ".join(f"{count:,} {split}" for split, count in report["summary"].get("rows", {}).items())
        if known:
            labels = known["labels"]
            asked = f"scores {labels[0]} to {labels[1]}" if known["scored"] else f"{len(labels)} classes"
            asked = "triplets" if known["ordered"] else asked
            self.say(f"        {known['task']}, {asked}; rows: {rows}")
        self._ledger(report.get("ledger") or {})
        told = ", ".join(number(report[f"{kind}s"], kind) for kind in ("error", "warning", "note"))
        verdict, style = ("Fit to be used", "bold green") if report["ok"] else ("Not to be used as it is", "bold red")
        self.say(f"{verdict}: {told}.", style)

    def _ledger(self, ledger: Mapping[str, Any]) -> None:
        """What the model's length cuts off, split by split, the classes that lose most first."""
        rows = []
        for split, lost in ledger.get("splits", {}).items():
            classes = sorted(lost["classes"].items(), key=lambda item: -item[1]["tokens_cut"])[:CLASSES_IN_LEDGER]
            rows += [
                (name, f"{entry['rows_cut']:,} of {entry['rows']:,}", f"{entry['tokens_cut'] / entry['tokens']:.1%}")
                for name, entry in ((split, lost), *((f"  {name}", entry) for name, entry in classes))
                if entry["rows_cut"]
            ]
        if rows:
            self.table((f"cut at {ledger['max_length']} tokens", "rows", "tokens lost"), rows)

    def metrics(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """The plain numbers of each split, side by side."""
        there = [name for name in METRICS if any(values.get(name) is not None for values in metrics.values())]
        rows = [(METRICS[name][0], *(figure(name, values.get(name)) for values in metrics.values())) for name in there]
        self.table(("", *metrics), rows)

    def finished(self, run: Run) -> None:
        """Where a fitted run and its report are, and what to do next."""
        found = sum(finding.get("severity") in ("error", "warning") for finding in run.findings)
        if found:
            self.say(f"The data has findings worth acting on ({found}): see the report, or graft check.", "yellow")
        seconds = run.cost.get("seconds")
        self.say(f"Done in {duration(seconds)}." if seconds else "Done.", "bold green")
        self.say(f"Run:     {run.path}")
        self.say(f"Report:  {run.path / 'report.html'}")
        asked = "PICTURE" if run.data.get("reads") == "image" else '"..."'
        self.say(f"Ask it:  graft predict {run.path} {asked}")

    def prediction(self, row: Mapping[str, Any]) -> None:
        """One answer, with what else it might have been."""
        label = row["label"]
        if row["probabilities"] is None:  # tagging: the words with their tags
            words = zip(row["text"].split(), label, strict=False)
            label = " ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in words)
        elif not isinstance(label, str):
            label = ", ".join(label) or "(no label)"
        self.say(row["text"])
        unsure = ", unsure" if row["unsure"] else ""
        sure = "" if row["confidence"] is None else f"  ({row['confidence']:.1%}{unsure})"
        self._people.print(Text("→ ").append(label, "bold").append(sure, ""), soft_wrap=True)
        others = sorted((row["probabilities"] or {}).items(), key=lambda item: -item[1])[1:4]
        if others:
            self.say("  then " + ", ".join(f"{name} {share:.1%}" for name, share in others))

    def exported(self, told: Mapping[str, Any]) -> None:
        """How the exported folder compares with the run's model, and where it is."""
        gate, both = told["gate"], ("model", "exported")
        self.table(
            (f"{gate['rows']:,} validation rows", "run", "exported"),
            [
                ("same labels", "", f"{gate['agreement']:.1%}"),
                ("largest difference of a probability", "", f"{gate['largest_difference']:.1g}"),
                (_words(gate["metric"]), *(f"{gate['score'][of]:.4f}" for of in both)),
                ("one text, median", *(f"{gate['latency'][of]['p50']:.1f} ms" for of in both)),
                ("one text, 95 %", *(f"{gate['latency'][of]['p95']:.1f} ms" for of in both)),
            ],
        )
        if told["candidates"]:
            self.table(
                ("", "MB", "one text, median", "same labels", "gate"),
                [
                    (
                        c["scheme"],
                        f"{c['mb']:.1f}",
                        f"{c['p50']:.1f} ms",
                        f"{c['agreement']:.1%}",
                        " ".join(c["faults"]),
                    )
                    for c in told["candidates"]
                ],
            )
            self.say(f"The quickest here of those that pass: {told['scheme']}.")
        if (kept := told["kept"]) and kept["groups"]:
            self.say(f"In fp32 stay {', '.join(kept['groups'])} ({kept['mb']} MB), where fewer bits hurt most.")
        self.say(f"Exported: {told['path']} ({told['mb']} MB)", "bold green")
        if told["to"] != "safetensors":
            self.say(f'Ask it:   python {told["path"]}/predict.py "..."')

    def runs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A line a run."""
        if not rows:
            return
        self.table(
            ("run", "state", "method", "model", "score", "time", "created"),
            [
                (
                    row["run"],
                    row["state"],
                    row["method"],
                    row["model"],
                    score(row["metrics"]),
                    duration(row["seconds"] or 0),
                    row["created"][:16],
                )
                for row in rows
            ],
        )

    def comparison(self, told: Mapping[str, Any]) -> None:
        """The table of a race, the best first; what it comes to; and what to know before it is believed."""
        columns = (
            "",
            f"test {METRICS[told['metric']][0]}",
            "95 % interval",
            "sd",
            "",
            "to fit",
            "memory",
            "model",
            "one text",
        )
        self.table(columns, [_line(entry) for entry in told["entries"]])
        self.say()
        if points := told["curve"]:
            heads = ("train rows a class", *("all" if p["shots"] is None else str(p["shots"]) for p in points))
            names = [entry["name"] for entry in told["entries"]]
            self.table(heads, [(name, *(f"{p['scores'][name]['mean']:.1%}" for p in points)) for name in names])
            for sentence in told["prospects"]["said"]:
                self.say(sentence)
            self.say()
        self.findings(told["findings"])
        for name, cause in told["failed"].items():
            self.say(f"{name} failed, and is not in the table: {cause}", "bold red")
        for sentence in told["differs"]:
            self.say(f"        {sentence}")
        self.say()
        self.say(told["verdict"], "bold green")
        self.say(f"Comparison: {told['path']}/comparison.html")
        if told["use"]:
            self.say(f'Ask it:     graft predict {told["path"]}/{told["use"]} "..."')

    def advice(self, told: Mapping[str, Any]) -> None:
        """What to take, the best first, with the reason for each; and what more labels would buy."""
        columns = ("", f"expected {METRICS[told['metric']][0]}", "80 % interval", "to fit", "model", "one text")
        several = len(told["models"]) > 1
        self.table(
            columns,
            [
                (
                    option["name"] + (f" on {option['model']}" if several and option["model"] else ""),
                    f"{option['score']:.1%}", f"{option['low']:.1%} to {option['high']:.1%}",
                    duration(option["seconds"]), _unit(option["model_mb"], "MB"),
                    option["latency_ms"] and f"{option['latency_ms']:.1f} ms",
                )
                for option in told["options"]
            ],
        )  # fmt: skip
        self.say()
        for option in told["options"]:
            self.say(f"{option['name']}: {option['reason']}")
            if not option["baseline"]:
                self.say(f"        {option['command']}")
        for option in told["left_out"]:
            self.say(f"{option['name']} is left out: {option['why']}.", "yellow")
        now, *more = told["labels"]
        gained = ", ".join(
            f"{100 * (point['mean'] - now['mean']):+.1f} points at {point['rows']:,} "
            f"({point['low']:.1%} to {point['high']:.1%})"
            for point in more
        )
        self.say(f"More labels, by the probe's curve from {now['rows']:,} rows on: {gained}.")
        for sentence in told["said"]:
            self.say(f"        {sentence}")
        best = next(option for option in told["options"] if option["name"] == told["advised"])
        self.say()
        self.say(f"Take {best['name']}: {best['command']}", "bold green")
        self.say(f"Advised in {duration(told['seconds'])}; nothing was trained to its end, and no test row was read.")

    def compressed(self, told: Mapping[str, Any]) -> None:
        """A line a step: what it cost in score, and what it gained in size and time; and whether a goal is held."""
        first, sought = told["table"][0], "goal" in told
        self.table(
            (
                "", METRICS[told["metric"]][0], "against the original", "p", "on disk", "weights", "one text",
                "a second", "head", *(["the goal"] if sought else []),
            ),
            [
                (
                    " + ".join(entry["steps"]) if sought and entry["steps"] else entry["step"],
                    f"{entry['score']:.1%} ({entry['low']:.1%} to {entry['high']:.1%})",
                    None if entry is first else _points(entry),
                    None if entry["p"] is None else f"{entry['p']:.2f}",
                    f"{entry['mb']:.1f} MB",
                    f"{entry['parameters'] / 1e6:.1f} M",
                    f"{entry['latency']['ms_1_p50']:.1f} ms",
                    f"{entry['latency']['per_second']:,.0f}",
                    entry["head"],
                    *([_judged(entry)] if sought else []),
                )
                for entry in told["table"]
            ],
        )  # fmt: skip
        for entry in told["table"]:
            for name, value in entry["notes"].items():
                self.say(f"        {entry['step']}: {name.replace('_', ' ')} {_plain(value)}")
        if sought:
            self.say(told["verdict"], "bold green" if told["holds"] else "bold red")
            rows, sure = f"{told['rows']:,} validation rows", f"{told['sure']:.0%}"
            self.say(f"That is on {rows}, and of the scores {sure} sure; test was not read.")
            self.say(f"Deploy:  {told['deploy']}")
            return
        last = told["table"][-1]
        faster = first["latency"]["ms_1_p50"] / last["latency"]["ms_1_p50"]
        self.say(
            f"{first['mb'] / last['mb']:.1f}x smaller, {faster:.1f}x faster on one text, {_points(last)}, on "
            f"{told['rows']:,} validation rows; test was not read.",
            "bold green",
        )

    def ranked(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Encoders and layers, the best first, and how far such a ranking is to be trusted."""
        from graftwork.experience import correlations

        names = list(rows[0]["scores"])
        self.table(
            ("model", "layer", *names, "seconds"),
            [
                (row["model"], row["layer"], *(f"{row['scores'][n]:.3f}" for n in names), f"{row['seconds']:.1f}")
                for row in rows
            ],
        )
        if trust := correlations():
            told = ", ".join(f"{name} {trust['scores'][name]['mean']:.2f}" for name in names)
            self.say(
                f"Rank correlation of each score with fine-tuned models, measured on {trust['data_sets']} data sets "
                f"with {trust['encoders']} encoders: {told}."
            )

    def rates(self, told: Mapping[str, Any]) -> None:
        """The curve of a rate test, a line every few steps, and what it says."""
        rates, losses = told["rates"], told["losses"]
        shown = range(0, len(rates), max(1, len(rates) // 20))
        least, most = min(losses), max(losses[i] for i in shown)
        span = max(most - least, 1e-9)
        self.table(
            ("rate", "loss", ""),
            [(f"{rates[i]:.1e}", f"{losses[i]:.3f}", "▪" * round(40 * (losses[i] - least) / span)) for i in shown],
        )
        fell = f"falls most steeply at {told['suggested']:.1e}" if told["suggested"] else "never falls"
        blew = f"blows up from {told['highest']:.1e} on" if told["highest"] else "does not blow up"
        self.say(f"The loss {fell}, and {blew}. The default of {told['method']} is {told['default']:.1e}.")
        self.say(f"Take --set lr={told['advised']:.1e}", "bold green")

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Names and values, one a line."""
        self.table(
            ("", ""),
            [(name, f"{value:,}" if isinstance(value, (int, float)) else value) for name, value in facts.items()],
        )

    def choice(self, row: Mapping[str, Any], about: str) -> None:
        """Everything about one method or task."""
        self.say(row["name"], "bold")
        self.say(about)
        if row["paper"]:
            self.say(f"Paper: {row['paper']}")
        self.say()
        self.table(
            ("field", "must be", "default", "meaning"),
            [
                (field["name"], f"{field['type']} {field['range']}".strip(), field["default"], field["sentence"])
                for field in row["fields"]
            ],
        )

    def curves(self, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
        """Curves of values in [0, 1], drawn four lines high, one under another."""
        eighths = " ▁▂▃▄▅▆▇█"
        for name, values in rows:
            self.say(name, "bold")
            for line in range(3, -1, -1):
                parts = [min(max(round(32 * value) - 8 * line, 0), 8) for value in values]
                self.say("  " + "".join(eighths[part] for part in parts).rstrip())
            self.say("  " + "─" * len(values))

    def answer(self, **values: Any) -> None:
        """The one JSON object; nothing without --json."""
        if self.json:
            print(as_json(values))  # noqa: T201

    def progress(self) -> Meter:
        """A meter for the events of a fit or a race, on stderr."""
        return Meter(_Console(stderr=True, highlight=False), self._inferred)


def _line(entry: Mapping[str, Any]) -> tuple[str | None, ...]:
    """One method of a race; what a baseline does not have stays empty."""
    wait = entry["latency"] and f"{entry['latency']['ms_1_p50']:.1f} ms"
    sd = None if entry["sd"] is None else f"{100 * entry['sd']:.1f}"
    stands = "tied" if entry["tied"] else f"-{100 * entry['behind']:.1f}"
    return (
        entry["name"], f"{entry['mean']:.1%}", f"{entry['low']:.1%} to {entry['high']:.1%}",
        sd, stands, duration(entry["seconds"] or 0), _unit(entry["peak_memory_mb"], "MB"),
        _unit(entry["model_mb"], "MB"), wait,
    )  # fmt: skip


def _judged(entry: Mapping[str, Any]) -> str:
    """Whether a point holds a goal, or what of it is missed."""
    return ", ".join(said.split()[0] for said in entry["misses"]) + " missed" if entry["misses"] else "holds"


def _points(entry: Mapping[str, Any]) -> str:
    """A difference with its interval, in points."""
    low, high = (f"{100 * entry[f'difference_{end}']:+.1f}" for end in ("low", "high"))
    return f"{100 * entry['difference']:+.1f} points ({low} to {high})"


def _plain(value: float) -> str:
    """A count, or a share in per cent."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2%}"


def _unit(value: float | None, name: str) -> str | None:
    return None if value is None else f"{value:,.0f} {name}"


def score(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The first number people ask for: of test, or else of validation."""
    split = next((name for name in ("test", "validation") if name in metrics), None)
    values = metrics[split] if split else {}
    return next((f"{split} {_words(name)} {values[name]:.1%}" for name in SCORES if values.get(name) is not None), "")


def _words(name: str) -> str:
    return name.replace("_f1", " F1").replace("f1", "F1")
