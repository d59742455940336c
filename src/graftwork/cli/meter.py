"""What is seen while something runs: a bar on a terminal, a line now and then in a log, and of a race how it stands."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from graftwork.report.wording import METRICS, duration, figure

SECONDS_BETWEEN_LINES = 10
SCORES = ("accuracy", "f1", "micro_f1", "macro_f1")
"""What people ask for first."""


class Meter:
    """Shows the events of a fit or a race: on a terminal a bar and the standings, in a log a line now and then.

    It is used as a context manager, and is itself the `on_event` that `fit` and `compare` take.
    """

    def __init__(self, console: Console, said_before: Collection[str] = ()):
        self._console, self._said_before = console, said_before
        self._latest: dict[str, Any] = {}
        self._score: float | None = None
        self._said_at = time.monotonic()
        self._standings: Standings | None = None
        self._bar = Progress(BarColumn(8), TaskProgressColumn(), TextColumn("{task.fields[said]}"), console=console)
        self._task = self._bar.add_task("", total=1.0, said="")
        self._live = Live(self, console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Meter:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __rich__(self) -> RenderableType:
        bar = self._bar.get_renderable()
        return Group(self._standings.table(), bar) if self._standings else bar

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        match event["event"]:
            case "race":
                self._standings = Standings(event["names"], event["metric"])
            case "run" | "result" | "failed" if self._standings:
                self._latest, self._score = {}, None
                self._standings.take(event)
            case "step":
                self._latest = dict(event)
            case "evaluation":
                self._score = next((event[name] for name in SCORES if event.get(name) is not None), None)
        drawn = self._live and self._standings and event["event"] in ("run", "result", "stage")
        if event.get("message") and not drawn and event["message"] not in self._said_before:
            self._console.print(event["message"], markup=False, soft_wrap=True)
        self._draw()

    def _draw(self) -> None:
        done = self._latest.get("fraction") or 0
        if self._live:
            self._bar.update(self._task, completed=done, said=self._line())
        elif self._latest and time.monotonic() - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = time.monotonic()
            self._console.print(f"{done:.0%}  {self._line()}", markup=False, soft_wrap=True)

    def _line(self) -> str:
        """At most 64 characters, so that it and the bar fit on a terminal of 80."""
        event, parts = self._latest, []
        reads = "tokens_per_second" in event
        if "epoch" in event and not reads:
            parts.append(f"epoch {event['epoch']:.2f}")
        if event.get("loss") is not None:
            parts.append(f"loss {event['loss']:.3f}")
        if self._score is not None:
            parts.append(f"validation {self._score:.3f}")
        if reads:
            parts.append(f"{event['tokens_per_second'] / 1000:.1f}k tok/s MFU {event['utilisation']:.0%}")
        elif event.get("pictures_per_second"):
            parts.append(f"{event['pictures_per_second']:,} pictures/s MFU {event['utilisation']:.0%}")
        elif event.get("examples_per_second"):
            parts.append(f"{event['examples_per_second']:.0f} rows/s")
        if (left := event.get("seconds_left")) is not None:
            parts.append(f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left")
        return "  ".join(parts)


class Standings:
    """How a race stands: what each method has reached on validation so far, the best first.

    Args:
        names: of the methods.
        metric: what they are chosen by.
    """

    def __init__(self, names: Collection[str], metric: str):
        self.metric = metric
        self.shots: int | None = None
        self.running = ""
        self.at = ""
        self.results: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
        self.failed: set[str] = set()

    def take(self, event: Mapping[str, Any]) -> None:
        """A run begins, has come to something, or has failed. Other shots are another table."""
        if event["event"] == "run":
            if event["shots"] != self.shots:
                self.results, self.shots = {name: [] for name in self.results}, event["shots"]
            self.running, self.at = event["name"], event["message"].partition(":")[0]
        elif event["event"] == "result":
            self.results[event["name"]].append(event)
        else:
            self.failed.add(event["name"])

    def table(self) -> Table:
        """A line a method."""
        few = f", {self.shots} shots" if self.shots else ""
        name = METRICS[self.metric][0]
        table = Table(
            f"{self.at}{few}", f"{name}, validation", "seeds", "a run took", "", box=None, header_style="bold"
        )
        for name, found in sorted(self.results.items(), key=lambda each: -_mean("score", each[1])):
            score = figure(self.metric, _mean("score", found)) if found else ""
            took = duration(_mean("seconds", found)) if found else ""
            state = "failed" if name in self.failed else "running" if name == self.running else ""
            style = {"failed": "bold red", "running": "green"}.get(state, "")
            table.add_row(*(Text(str(cell), style) for cell in (name, score, len(found) or "", took, state)))
        return table


def _mean(field: str, results: Sequence[Mapping[str, Any]]) -> float:
    return sum(each[field] for each in results) / len(results) if results else -1.0  # what has no score stands last
