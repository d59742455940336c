"""What a compressed model must reach, from the words that a user types: `accuracy>=-0.5, size<=20MB, latency<=3ms`.

A score is believed to hold where chance is ruled out as the reason; a size or a wait is simply measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graftwork.choice import InputError, suggest

EXAMPLE = "accuracy>=-0.5, size<=20MB, latency<=3ms"
LOW_IS_GOOD = frozenset({"ece", "loss", "size", "latency"})
_UNITS: Mapping[str, Mapping[str, float]] = {
    "size": {"kb": 1e-3, "mb": 1, "gb": 1e3},
    "latency": {"ms": 1, "s": 1e3},
    "throughput": {"": 1, "/s": 1},
}
"""Of each limit, in MB, ms and texts a second."""
_SHOWN = {"size": "MB", "latency": "ms", "throughput": "/s"}
_LARGEST_SHARE = 1.0


@dataclass(frozen=True)
class Condition:
    """One thing that must hold."""

    name: str
    """A metric, or `size`, `latency` or `throughput`."""
    value: float
    """What must be reached: of a score a share, or the difference to the original's; of a limit MB, milliseconds,
    texts a second, or how many times the original's."""
    relative: bool
    """Whether `value` is to be read against the original."""

    @property
    def limits(self) -> bool:
        """Whether it is about a size or a speed, and not about a score."""
        return self.name in _UNITS

    @property
    def low_is_good(self) -> bool:
        """Whether less is better."""
        return self.name in LOW_IS_GOOD

    def bound(self, original: float) -> float:
        """The plain number to be reached, given the original's."""
        if not self.relative:
            return self.value
        return original * self.value if self.limits else original + self.value

    def holds(self, found: float, original: float) -> bool:
        """Whether a measured limit is kept."""
        return self.lacks(found, original) <= 0

    def lacks(self, found: float, original: float) -> float:
        """By how much a limit is missed, as a share of it; 0 or less where it is kept."""
        bound = self.bound(original)
        return found / bound - 1 if self.low_is_good else bound / max(found, 1e-12) - 1

    def __str__(self) -> str:
        sign = "<=" if self.low_is_good else ">="
        if self.limits:
            return f"{self.name}{sign}{self.value:g}{'x' if self.relative else _SHOWN[self.name]}"
        return f"{self.name}{sign}{100 * self.value:+g}" if self.relative else f"{self.name}{sign}{self.value:g}"


@dataclass(frozen=True)
class Goal:
    """All that must hold together."""

    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str | Goal, metrics: Iterable[str]) -> Goal:
        """Read conditions with commas between.

        A score with a sign is in points against the original (`accuracy>=-0.5`: half a point may be lost), one without
        is absolute (`accuracy>=0.92`, or `92%`). A size, latency or throughput has a unit, or `x` for times the
        original's (`size<=0.25x`).

        Args:
            text: what was typed.
            metrics: the names that a score may have.

        Raises:
            InputError: a condition that is not understood.

        Example:
            >>> [str(c) for c in Goal.parse("accuracy >= -0.5, size<=0.25x", ["accuracy"]).conditions]
            ['accuracy>=-0.5', 'size<=0.25x']
        """
        if isinstance(text, Goal):
            return text
        known = [*metrics, *_UNITS]
        conditions = tuple(_condition(part.strip(), known) for part in str(text).split(",") if part.strip())
        if not conditions:
            raise InputError(f"The goal is empty. Write for example {EXAMPLE!r}.")
        for place, condition in enumerate(conditions):
            if condition.name in [earlier.name for earlier in conditions[:place]]:
                raise InputError(f"The goal asks for {condition.name} twice. Give the stricter one alone.")
        return cls(conditions)

    @property
    def scores(self) -> tuple[Condition, ...]:
        """What is asked of the model's answers."""
        return tuple(c for c in self.conditions if not c.limits)

    @property
    def limits(self) -> tuple[Condition, ...]:
        """What is asked of its size and speed."""
        return tuple(c for c in self.conditions if c.limits)

    def __str__(self) -> str:
        return ", ".join(map(str, self.conditions))


def _condition(said: str, known: list[str]) -> Condition:
    match = re.fullmatch(r"([\w-]+)\s*(<=|>=|≤|≥|[<>=]=?)\s*([+-]?)(\d+\.?\d*|\.\d+)\s*([a-z/%]*)", said, re.IGNORECASE)
    if not match:
        raise InputError(f"The goal {said!r} is not understood. Write for example {EXAMPLE!r}.")
    name, sign, signed, number, unit = match[1].lower(), match[2], match[3], float(match[4]), match[5].lower()
    if name not in known:
        raise InputError(f"The goal {said!r} is about no metric of this task. {suggest(name, known)}")
    wanted = "<=" if name in LOW_IS_GOOD else ">="
    if sign.replace("≤", "<=").replace("≥", ">=") != wanted:
        better = "small" if wanted == "<=" else "large"
        raise InputError(f"A good {name} is {better}, so write {name}{wanted}{said[match.start(3) :]}; got {said!r}.")
    return _limit(said, name, signed, number, unit) if name in _UNITS else _score(said, name, signed, number, unit)


def _limit(said: str, name: str, signed: str, number: float, unit: str) -> Condition:
    units = _UNITS[name]
    if signed or number <= 0 or unit not in {*units, "x"}:
        written = {"size": "20MB or 0.25x", "latency": "3ms or 0.5x", "throughput": "500/s or 2x"}[name]
        raise InputError(f"{name} takes an amount above 0, such as {written}; got {said!r}.")
    return Condition(name, number if unit == "x" else number * units[unit], relative=unit == "x")


def _score(said: str, name: str, signed: str, number: float, unit: str) -> Condition:
    if unit not in ("", "%") or (signed and unit):
        raise InputError(f"A score takes 0.92, 92%, or points against the original such as -0.5; got {said!r}.")
    value = number / 100 if signed or unit else number
    if not signed and value > _LARGEST_SHARE:
        raise InputError(f"A score lies in [0, 1]: write {name}>={number / 100:g} or {number:g}%; got {said!r}.")
    return Condition(name, -value if signed == "-" else value, relative=bool(signed))
