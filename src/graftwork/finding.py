"""A finding: one thing to say about a data set, with a stable code, the place, and what to do about it.

Reading, splitting and checking all speak through this one form, so a person, `--json` and the report see the same.
Every kind of finding is declared once, next to the code that finds it; `KINDS` is the table of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from graftwork.choice import InputError

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")
ROWS_NAMED = 20
"""A finding names at most this many rows; its message has the full count."""


@dataclass(frozen=True)
class Finding:
    """One thing that is true of the data: errors block `fit`, warnings and notes do not."""

    code: str
    """Stable kebab-case id, for example `ragged-line`."""
    severity: Severity
    message: str
    """What is wrong, with counts."""
    where: str = ""
    """The place: `train.csv line 17`, or `rows 3, 8, 12 of train`."""
    rows: tuple[int, ...] = ()
    """1-based row numbers in the source file (the header is not counted), at most `ROWS_NAMED`."""
    fix: str = ""
    """What to do, with the exact flag where there is one."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        return asdict(self) | {"rows": list(self.rows)}

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.code}: {self.message}{place}" + (f" {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class Kind:
    """A kind of finding. Calling it makes a `Finding` of this kind."""

    code: str
    severity: Severity
    sentence: str = field(compare=False)
    """What findings of this kind say, in general; the docs list it."""
    about: Literal["data", "race", "adaptation"] = field(default="data", compare=False)
    """Whether `check` finds it in data, `compare` in the runs of a race, or `adapt` in what it did."""

    def __post_init__(self) -> None:
        assert self.code not in KINDS, f"two kinds are called {self.code}"
        KINDS[self.code] = self

    def __call__(self, message: str, *, where: str = "", rows: Iterable[int] = (), fix: str = "") -> Finding:
        """A finding of this kind; of `rows` the first `ROWS_NAMED` are kept."""
        named = tuple(int(row) for row in rows)[:ROWS_NAMED]
        return Finding(self.code, self.severity, message, where, named, fix)


KINDS: dict[str, Kind] = {}


class DataError(InputError):
    """The data cannot be used as it is. `findings` says why; the message is the errors among them, one a line."""

    def __init__(self, findings: Iterable[Finding]):
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings if finding.severity == "error"))


def number(count: int, noun: str) -> str:
    """`3 rows`, `1 row`: a count with its noun."""
    plural = noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def percent(share: float) -> str:
    """A share in words that never says 0 % of something: `12.9%`, `under 0.1%`."""
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def place(rows: Iterable[int], split: str, *, count: int | None = None) -> str:
    """`rows 3, 8, 12 ... of train`: the first few rows by number, and whether there are more (`count` in all)."""
    rows = [int(row) for row in rows]
    shown, count = rows[:5], len(rows) if count is None else count
    dots = " ..." if count > len(shown) else ""
    return f"row{'s' if count > 1 else ''} {', '.join(map(str, shown))}{dots} of {split}"
