"""rate_test: which learning rates work here? The rate rises step by step while the loss is watched.

Smith 2017, Cyclical Learning Rates for Training Neural Networks, section 3.3. The rate to take is where the smoothed
loss falls most steeply; from where it has blown up, no rate can be taken.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import graftwork.methods  # noqa: F401  puts every method on its shelf
from graftwork.choice import InputError
from graftwork.examples import Examples, tokenised
from graftwork.hardware import Hardware
from graftwork.loop import Diverged, StopRequested, rehearse
from graftwork.method import GradientMethod, recipe_of
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.tasks import task_of

if TYPE_CHECKING:
    from graftwork.data import Data

LOWEST, HIGHEST = 1e-3, 1e2
"""What is tried, as multiples of the method's own rate."""
STEPS = 80
_SMOOTHING = 0.9  # of the moving average of the loss, corrected for its start
_WARM = 8  # steps whose smoothed loss says little
_BLOWN_UP = 1.5  # times the lowest loss so far
_HOPELESS = 4.0
_FALLEN = 0.97  # of the first smoothed loss: below it, something was learned


@dataclass(frozen=True)
class RateTest:
    """A curve of losses over learning rates, and what it says."""

    method: str
    rates: tuple[float, ...]
    """The learning rate of each step."""
    losses: tuple[float, ...]
    """The loss at each step, smoothed."""
    suggested: float | None
    """Where the loss fell most steeply; None where it never fell."""
    highest: float | None
    """From where on the loss blew up; None where it did not."""
    default: float
    """The method's own rate."""

    @property
    def advised(self) -> float:
        """The method's own rate where the curve allows it, and what the curve suggests where it does not.

        A default that was tuned on whole runs is better evidence than the steepest place of one short curve; it is
        left only where it lies within a factor of 3 of the blow-up, or a hundredfold below what is suggested.
        """
        if self.suggested is None:
            return self.default
        too_high = self.highest is not None and self.default > self.highest / 3
        too_low = self.default < self.suggested / 100
        return self.suggested if too_high or too_low else self.default

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"advised": self.advised}


def rate_test(
    data: Any,
    *,
    method: Any = "full-fine-tuning",
    model: str | Path = "minilm",
    steps: int = STEPS,
    seed: int = 0,
    hardware: Hardware | dict[str, Any] | None = None,
) -> RateTest:
    """Raise the learning rate from a thousandth to a hundredfold of the method's own, and watch the loss.

    Args:
        data: as `fit` takes it; only train is learned from, and no test row is read.
        method: one that takes steps.
        model: what would be trained; nothing of it is kept.
        steps: of training, each at a higher rate.
        seed: of the order of the rows.
        hardware: device and precision.

    Raises:
        InputError: the method takes no steps, or something given cannot be used.
    """
    from graftwork.data import Data

    (chosen,) = recipe_of([method])
    if not isinstance(chosen, GradientMethod):
        raise InputError(f"Method {chosen.name!r} takes no steps, so it has no learning rate to find.")
    if steps < 20:
        raise InputError(f"A rate test needs at least 20 steps to show a curve; got {steps}.")
    loaded: Data = Data.of(data)
    machine = Hardware.of(hardware)
    some = loaded.some(steps * chosen.batch_size, 2 * chosen.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TransferModel.pretrained(resolve(model), task_of(loaded), pooling=chosen.pooling, head=chosen.head)
    network = network.to(machine.torch_device())
    rows = [tokenised(some, split, network.task, network.modality) for split in ("train", "validation")]
    return watched(network, chosen, rows[0], rows[1], machine, steps=steps, seed=seed)


def watched(
    model: TransferModel,
    method: GradientMethod,
    some: Examples,
    validation: Examples,
    hardware: Hardware,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> RateTest:
    """`rate_test` on a model and rows that are there; the model is left as it was."""
    curve: list[tuple[float, float]] = []

    def hear(**event: Any) -> None:
        if event["event"] == "step":
            curve.append((event["lr"], event["loss"]))

    def rising(_: GradientMethod, fraction: float) -> float:
        return LOWEST * (HIGHEST / LOWEST) ** fraction

    # a head that starts from the probe has little left to learn at first; a random one shows where learning begins
    tried = method.model_copy(update={"patience": None, "head_start": "random"})
    with contextlib.suppress(Diverged, StopRequested):
        rehearse(
            model, tried, some, validation, hardware, hardware.chosen_precision(), steps, on_event=hear, seed=seed,
            stop_requested=lambda: _has_blown_up(curve), schedule=rising,
        )  # fmt: skip
    return read(method, [rate for rate, _ in curve], [loss for _, loss in curve])


def read(method: GradientMethod, rates: list[float], losses: list[float]) -> RateTest:
    """What a curve of raw losses over rising rates says.

    Args:
        method: whose rate is in question.
        rates: of each step, rising.
        losses: at each step; the last ones may be missing, or no numbers.
    """
    smooth = _smoothed(losses)
    lowest = np.minimum.accumulate(smooth)
    blown = np.flatnonzero(~(smooth <= _BLOWN_UP * lowest) & (np.arange(len(smooth)) > _WARM))
    end = int(blown[0]) if len(blown) else len(smooth)
    highest = rates[end] if len(blown) else None
    falling = smooth[_WARM:end]
    suggested = None
    if len(falling) > _WARM and falling.min() < _FALLEN * falling[0]:
        at_lowest = int(falling.argmin()) + 1
        slope = np.gradient(falling[: max(at_lowest, 2)])  # over the logarithm of the rate, whose steps are equal
        suggested = rates[_WARM + int(slope.argmin())]
    return RateTest(method.name, tuple(rates), tuple(smooth.tolist()), suggested, highest, method.lr)


def _smoothed(losses: list[float]) -> np.ndarray:
    """An exponential moving average that is not drawn to zero at its start (Adam, Kingma et al. 2015, section 3)."""
    found, average = [], 0.0
    for number, loss in enumerate(losses, start=1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        found.append(average / (1 - _SMOOTHING**number))
    return np.asarray(found)


def _has_blown_up(curve: list[tuple[float, float]]) -> bool:
    """Whether there is no use in going on."""
    smooth = _smoothed([loss for _, loss in curve])
    return len(smooth) > _WARM and bool(smooth[-1] > _HOPELESS * smooth.min())
