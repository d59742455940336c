"""Schedules: how the learning rate goes over a stage, as a factor of its peak.

They speak of shares of the budget, so that the same schedule serves epochs, steps and seconds.
"""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from graftwork.choice import Choice


class Schedule(Choice):
    """How the learning rate falls after the warm-up."""

    warms_up: ClassVar[bool] = True
    """Whether the method's `warmup` comes first; a schedule with a rise of its own does without."""

    @property
    def bears(self) -> int | None:
        """Validations without a new best after which `reductions` grows by one; None where validation has no say."""
        return None

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """What the peak rate is multiplied by, in [0, 1].

        Args:
            fraction: of what follows the warm-up, in [0, 1].
            reductions: how often validation has stood still for as long as the schedule `bears`.
        """
        raise NotImplementedError


def rate_factor(schedule: Schedule, warmup: float, fraction: float, reductions: int = 0) -> float:
    """The factor at a share `fraction` of the whole stage, of which the share `warmup` is a linear rise from 0."""
    if not schedule.warms_up:
        return schedule.factor(fraction, reductions)
    if fraction < warmup:
        return max(fraction, 1e-3) / warmup
    return schedule.factor((fraction - warmup) / (1 - warmup), reductions)


class Constant(Schedule):
    """The peak to the end."""

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """1."""
        return 1.0


class Linear(Schedule):
    """A straight line to zero: the usual choice for Transformers."""

    paper: ClassVar[str] = "BERT, Devlin et al. 2019, appendix A.2"

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """What is left of the budget."""
        return 1.0 - fraction


class Cosine(Schedule):
    """Half a cosine to zero: longer near the peak, longer near the end."""

    paper: ClassVar[str] = "SGDR, Loshchilov & Hutter 2017, eq. 5 without restarts"

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """(1 + cos(pi fraction)) / 2."""
        return 0.5 * (1 + math.cos(math.pi * fraction))


class CosineRestarts(Schedule):
    """Cosine cycles, each from the peak to zero."""

    paper: ClassVar[str] = "SGDR, Loshchilov & Hutter 2017, eq. 5"

    cycles: int = Field(default=4, ge=1)
    """How many of them, of equal length."""

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """A cosine over the cycle that the fraction falls in."""
        return Cosine().factor(self.cycles * fraction % 1 if fraction < 1 else 1)


class SlantedTriangular(Schedule):
    """A short steep rise and a long fall; it has its own warm-up."""

    paper: ClassVar[str] = "ULMFiT, Howard & Ruder 2018, section 3.2, eq. 3"
    warms_up: ClassVar[bool] = False

    cut: float = Field(default=0.1, gt=0, lt=1)
    """Share of the steps that rise."""
    ratio: float = Field(default=32.0, gt=1)
    """The peak is this many times the lowest rate."""

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """(1 + p (ratio - 1)) / ratio, where p rises to 1 at `cut` and falls to 0 at the end."""
        rising = fraction / self.cut
        p = rising if rising < 1 else 1 - (fraction - self.cut) / (1 - self.cut)
        return (1 + p * (self.ratio - 1)) / self.ratio


class OneCycle(Schedule):
    """Up and down in one cosine each, and at the end far below the beginning; it has its own warm-up."""

    paper: ClassVar[str] = "Super-Convergence, Smith & Topin 2018, section 3, with cosines as fastai draws them"
    warms_up: ClassVar[bool] = False

    up: float = Field(default=0.3, gt=0, lt=1)
    """Share of the steps that rise."""
    start_ratio: float = Field(default=25.0, ge=1)
    """The peak is this many times the first rate."""
    end_ratio: float = Field(default=1e5, ge=1)
    """The peak is this many times the last rate."""

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """Half a cosine from 1 / `start_ratio` to 1, then half a one to 1 / `end_ratio`."""
        if fraction < self.up:
            return _between(1 / self.start_ratio, 1.0, fraction / self.up)
        return _between(1.0, 1 / self.end_ratio, (fraction - self.up) / (1 - self.up))


class Plateau(Schedule):
    """The peak until validation stands still; then a part of it, again and again."""

    paper: ClassVar[str] = "as in Deep Residual Learning, He et al. 2016, section 3.4: divided when the error plateaus"

    patience: int = Field(default=2, ge=1)
    """Validations without a new best before the rate is reduced."""
    reduction: float = Field(default=0.3, gt=0, lt=1)
    """What the rate is multiplied by each time."""

    @property
    def bears(self) -> int | None:
        """`patience`."""
        return self.patience

    def factor(self, fraction: float, reductions: int = 0) -> float:
        """`reduction` to the power of how often it stood still."""
        return self.reduction**reductions


def _between(first: float, last: float, share: float) -> float:
    """Half a cosine from `first` to `last`, at a `share` in [0, 1] of the way."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))
