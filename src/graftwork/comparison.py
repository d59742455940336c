"""What a finished race leaves in its folder: the runs, what they say about each other, and a page that shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.choice import InputError
from graftwork.disk import atomic_write
from graftwork.report.comparison import comparison_page, pareto_picture
from graftwork.run import Run, as_json

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1


@dataclass(frozen=True)
class Picture:
    """A drawing, as SVG."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, file: str | Path) -> Path:
        """Write it to a .svg file."""
        atomic_write(Path(file), self.svg.encode())
        return Path(file)


class Comparison:
    """A finished race: the runs, and what they say about each other. Made by `compare`, found again by `open`."""

    def __init__(self, path: Path, told: dict[str, Any]):
        self.path, self._told = path, told

    def __repr__(self) -> str:
        return f"Comparison({str(self.path)!r})"

    @classmethod
    def open(cls, path: str | Path) -> Comparison:
        """The comparison in a folder.

        Raises:
            InputError: there is none, or it is not finished.
        """
        path = Path(path)
        try:
            told = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
        except OSError:
            raise InputError(
                f"{str(path)!r} holds no finished comparison. Run graft compare with --out {path}."
            ) from None
        if told.get("format") != FORMAT:
            raise InputError(f"{str(path)!r} has format {told.get('format')}, and this graftwork reads {FORMAT}.")
        return cls(path, told)

    @classmethod
    def write(cls, path: Path, told: dict[str, Any], runs: Mapping[str, Sequence[Run]]) -> Comparison:
        """Make it, and its page.

        Args:
            told: all that it says.
            runs: of each method, in order of seeds; their folders are below `path`.
        """
        told = {"format": FORMAT} | told
        atomic_write(path / "comparison.html", comparison_page(told, runs).encode())
        atomic_write(path / "comparison.json", as_json(told, indent=1).encode())
        return cls.open(path)

    @property
    def metric(self) -> str:
        """What methods are ranked by, on the test split."""
        return self._told["metric"]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """One entry a method, the best first: score, interval, tie, and every cost."""
        return self._told["entries"]

    @property
    def verdict(self) -> str:
        """What to take, in words."""
        return self._told["verdict"]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What is worth knowing before the numbers are believed."""
        return self._told["findings"]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {"path": str(self.path)} | self._told

    def runs(self, name: str) -> list[Run]:
        """The runs of one method, in order of seeds."""
        entry = next((e for e in self.entries if e["name"] == name), None)
        if entry is None:
            raise InputError(f"No method {name!r} was in the race. There were: {[e['name'] for e in self.entries]}.")
        return [Run.open(self.path / run) for run in entry["runs"]]

    def html(self) -> Path:
        """The page of the race: one file that fetches nothing."""
        return self.path / "comparison.html"

    def plot(self, cost: str = "seconds") -> Picture:
        """Score against a cost, as a picture that notebooks show and `save` writes.

        Args:
            cost: `seconds`, `latency.ms_1_p50`, `model_mb`, `peak_memory_mb` or `trained_parameters`.

        Raises:
            InputError: another cost, or one that was measured of no method.
        """
        return Picture(pareto_picture(self._told, cost))

    def frame(self) -> pd.DataFrame:
        """One row a method, the best first."""
        import pandas as pd

        return pd.DataFrame([{k: v for k, v in e.items() if k not in ("spec", "runs", "scores")} for e in self.entries])
