"""How much a run may spend: epochs, steps or seconds. A race is fair only when every run had the same budget."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from graftwork.choice import InputError

Unit = Literal["epochs", "steps", "seconds"]

_UNITS: dict[str, tuple[Unit, float]] = {
    "epoch": ("epochs", 1), "epochs": ("epochs", 1), "step": ("steps", 1), "steps": ("steps", 1),
    "s": ("seconds", 1), "sec": ("seconds", 1), "seconds": ("seconds", 1),
    "m": ("seconds", 60), "min": ("seconds", 60), "minutes": ("seconds", 60),
    "h": ("seconds", 3600), "hours": ("seconds", 3600),
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """An amount of one unit. `str` gives back what `parse` reads: `3epochs`, `500steps`, `90s`."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """Read `3epochs`, `500steps`, `90s`, `10m` or `2h`.

        Raises:
            InputError: no unit, an unknown unit, or an amount that is not above 0 (whole, for steps).

        Example:
            >>> Budget.parse("10m")
            Budget(amount=600.0, unit='seconds')
            >>> str(Budget.parse("3epochs"))
            '3epochs'
        """
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(text).lower())
        if not match or match[2] not in _UNITS:
            raise InputError(f"Budget {text!r} is not understood. Write 3epochs, 500steps, 90s, 10m or 2h.")
        unit, factor = _UNITS[match[2]]
        amount = float(match[1]) * factor
        if amount <= 0 or (unit == "steps" and amount != int(amount)):
            raise InputError(f"Budget {text!r} must be above 0 (and whole, for steps).")
        return cls(amount, unit)

    def __str__(self) -> str:
        amount = format(Decimal(repr(self.amount)).normalize(), "f")  # plain digits, all of them
        return f"{amount}{'s' if self.unit == 'seconds' else self.unit}"

    def steps(self, steps_per_epoch: int) -> int | None:
        """How many optimizer steps this is, or None where only a clock can tell."""
        if self.unit == "seconds":
            return None
        return max(1, round(self.amount * (steps_per_epoch if self.unit == "epochs" else 1)))
