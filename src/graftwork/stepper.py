"""Steps that torch has not: Lion's, and AdamW's without a schedule.

What a step remembers belongs to each weight alone, in tensors, so that a checkpoint holds all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LionStepper(Optimizer):
    """Lion, Chen et al. 2023, algorithm 2: a step of the same length for every weight, whatever its gradient's.

    Args:
        groups: parameter groups with `params`, `lr` and `weight_decay`.
        betas: of what decides the direction, and of what is remembered; in [0, 1).
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]):
        super().__init__(groups, {"betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Of weight w and momentum m: w -= lr (sign(b1 m + (1 - b1) g) + decay w), then m = b2 m + (1 - b2) g."""
        for group in self.param_groups:
            direction, memory = group["betas"]
            for weight in (w for w in group["params"] if w.grad is not None):
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(momentum.lerp(weight.grad, 1 - direction).sign_(), alpha=-group["lr"])
                momentum.lerp_(weight.grad, 1 - memory)


class ScheduleFreeStepper(Optimizer):
    """Schedule-Free AdamW, Defazio et al. 2024, algorithm 1: the gradient is taken between a walk z and its mean x.

    What trains is y = (1 - b1) z + b1 x; x is not kept, as it follows from y and z.

    Args:
        groups: parameter groups with `params`, `lr` and `weight_decay`.
        betas: how near to the mean the gradient is taken, in (0, 1); how slowly squares of gradients fade, in [0, 1).
        eps: added to the root of the latter.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float):
        super().__init__(groups, {"betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """The walk z goes against the gradient, x takes its share of z by the squared rate, and y lies between."""
        for group in self.param_groups:
            between, fading = group["betas"]
            for weight in (w for w in group["params"] if w.grad is not None):
                state = self.state[weight]
                if not state:
                    state["step"], state["weighed"] = torch.zeros(()), torch.zeros(())
                    state["walk"], state["square"] = weight.detach().clone(), torch.zeros_like(weight)
                walk, square = state["walk"], state["square"]
                mean = self.mean(weight)
                state["step"] += 1
                square.mul_(fading).addcmul_(weight.grad, weight.grad, value=1 - fading)
                rate = group["lr"] * (1 - fading ** float(state["step"])) ** 0.5
                walk.add_(weight, alpha=-rate * group["weight_decay"])
                walk.addcdiv_(weight.grad, square.sqrt().add_(group["eps"]), value=-rate)
                state["weighed"] += rate**2
                mean.lerp_(walk, rate**2 / float(state["weighed"]) if rate else 0.0)
                weight.copy_(mean.lerp(walk, 1 - between))

    def mean(self, weight: Tensor) -> Tensor:
        """x, of the shape of `weight`: what has been learned. A weight that has taken no step is its own."""
        (between,) = {group["betas"][0] for group in self.param_groups}
        state = self.state.get(weight)
        return weight.detach().lerp(state["walk"], 1 - 1 / between) if state else weight.detach().clone()
