"""Optimisers: how a gradient becomes a step. The loop gives each parameter group its rate and decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from graftwork.choice import Choice

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer as Stepper


class Optimizer(Choice):
    """How a gradient becomes a step."""

    schedule: ClassVar[str | None] = None
    """The schedule that goes with it where a method is given none; None for the method's own."""

    def over(self, groups: list[dict[str, Any]], device: str) -> Stepper:
        """Torch's optimiser over parameter groups with `params`, `lr` and `weight_decay`.

        Args:
            groups: as torch takes them.
            device: the type of device that the parameters are on; some have a fused kernel.
        """
        raise NotImplementedError

    def learned(self, stepper: Stepper, weights: list[nn.Parameter]) -> list[Tensor] | None:
        """What is validated, kept and handed back instead of the weights that train; None for these themselves."""
        return None


class AdamW(Optimizer):
    """Adam with decoupled weight decay, in torch's fused kernel."""

    name: ClassVar[str] = "adamw"
    paper: ClassVar[str] = "Decoupled Weight Decay Regularization, Loshchilov & Hutter 2019, algorithm 2"

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """How slowly the mean of the gradients moves."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """How slowly the mean of their squares moves."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the latter."""

    def over(self, groups: list[dict[str, Any]], device: str) -> Stepper:
        """`torch.optim.AdamW`."""
        from torch.optim import AdamW

        return AdamW(groups, betas=(self.beta1, self.beta2), eps=self.eps, fused=device in ("cpu", "cuda"))


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; it wants rates some hundred times those of AdamW."""

    name: ClassVar[str] = "sgd"
    paper: ClassVar[str] = "On the importance of initialization and momentum in deep learning, Sutskever et al. 2013"

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the last step that is kept."""
    nesterov: bool = False
    """Whether the gradient is taken ahead of the step; needs momentum."""

    def over(self, groups: list[dict[str, Any]], device: str) -> Stepper:
        """`torch.optim.SGD`."""
        from torch.optim import SGD

        return SGD(groups, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0)


class Adafactor(Optimizer):
    """Squares of gradients kept as one row and one column a matrix: hardly any memory beside the weights."""

    paper: ClassVar[str] = "Adafactor, Shazeer & Stern 2018, algorithm 4"

    beta2_decay: float = Field(default=-0.8, lt=0)
    """The mean of squares forgets at 1 - step^`beta2_decay`."""
    threshold: float = Field(default=1.0, ge=1)
    """Updates whose root mean square is larger are scaled down to it."""

    def over(self, groups: list[dict[str, Any]], device: str) -> Stepper:
        """`torch.optim.Adafactor`."""
        from torch.optim import Adafactor

        return Adafactor(groups, beta2_decay=self.beta2_decay, d=self.threshold)


class Lion(Optimizer):
    """The sign of a momentum: half the memory of AdamW. It wants a rate 3 to 10 times lower, and more weight decay."""

    paper: ClassVar[str] = "Symbolic Discovery of Optimization Algorithms, Chen et al. 2023, algorithm 2"

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """How much the momentum says in a step's direction, beside the gradient."""
    beta2: float = Field(default=0.99, ge=0, lt=1)
    """How slowly the momentum moves."""

    def over(self, groups: list[dict[str, Any]], device: str) -> Stepper:
        """A `LionStepper`."""
        from graftwork.stepper import LionStepper

        return LionStepper(groups, betas=(self.beta1, self.beta2))


class ScheduleFree(Optimizer):
    """AdamW whose weights are averaged on the way, so that the rate need not fall: no end has to be known.

    Handed back is the average. A budget may be cut or prolonged without a new schedule; it wants warm-up, and a rate as
    high as AdamW's or higher.
    """

    paper: ClassVar[str] = "The Road Less Scheduled, Defazio et al. 2024, algorithm 1"
    schedule: ClassVar[str | None] = "constant"

    beta1: float = Field(default=0.9, gt=0, lt=1)
    """How near to the average the gradient is taken."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """How slowly the mean of the gradients' squares moves."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the latter."""

    def over(self, groups: list[dict[str, Any]], device: str) -> Stepper:
        """A `ScheduleFreeStepper`."""
        from graftwork.stepper import ScheduleFreeStepper

        return ScheduleFreeStepper(groups, betas=(self.beta1, self.beta2), eps=self.eps)

    def learned(self, stepper: Stepper, weights: list[nn.Parameter]) -> list[Tensor] | None:
        """The average of each weight."""
        from graftwork.stepper import ScheduleFreeStepper

        assert isinstance(stepper, ScheduleFreeStepper)
        return [stepper.mean(weight) for weight in weights]
