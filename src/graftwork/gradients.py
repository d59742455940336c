"""One gradient of a batch, however many processes compute it, and whatever each of them holds.

Each computes some parts of the batch. The gradients of what is whole in every process are then added up here, in one
exchange; those of what is spread over processes (`sharding`) on their way. The loop need not know which is which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graftwork.hardware import World
from graftwork.sharding import is_share, own


class Gradients:
    """Those of all that trains in a stage.

    Args:
        weights: what trains.
        optimizer: what takes the steps.
        world: the processes.
        sharded: whether each holds its share of some weights alone.
    """

    def __init__(self, weights: Sequence[nn.Parameter], optimizer: Optimizer, world: World, *, sharded: bool):
        self.weights, self.optimizer, self.world, self.sharded = weights, optimizer, world, sharded
        self._fused = bool(optimizer.defaults.get("fused")) and not sharded  # its kernel takes no scale of shares

    def parts_here(self, parts: list[np.ndarray], shares: list[float]) -> Iterator[tuple[int, np.ndarray, float]]:
        """Of a batch's parts, and what each counts in it, those that this process computes; each with its number."""
        if self.sharded:  # every process computes equally often; what is over counts nothing
            over = -len(parts) % self.world.size
            parts, shares = parts + parts[:1] * over, shares + [0.0] * over
        for number, (part, share) in enumerate(zip(parts, shares, strict=True)):
            if number % self.world.size == self.world.rank and (share or self.sharded):
                yield number, part, share

    def add_up(self, loss: Tensor) -> None:
        """Sum them, and the loss, over processes; what none has a gradient of the optimizer will leave alone."""
        if self.world.size == 1:
            return
        weights = [w for w in self.weights if not is_share(w)]  # the gradients of shares are summed on their way
        touched = torch.tensor([float(w.grad is not None) for w in weights], device=loss.device)
        for weight in weights:
            if weight.requires_grad and weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        self.world.add_up([w.grad for w in weights if w.grad is not None] + [touched, loss])
        for weight, some in zip(weights, touched.tolist(), strict=True):
            if not some:
                weight.grad = None

    def clip(self, longest: float) -> None:
        """Where they are longer together than that, bring them down to it."""
        gradients = [w.grad for w in self.weights if w.grad is not None]
        norm = self._norm(gradients)
        if not self._fused:
            factor = torch.clamp(longest / (norm + 1e-6), max=1.0)
            for gradient in gradients:
                own(gradient).mul_(factor)
            return
        # the fused kernel divides by this on its way: one pass over all gradients less
        self.optimizer.grad_scale = torch.clamp((norm + 1e-6) / longest, min=1.0)  # type: ignore[attr-defined]
        self.optimizer.found_inf = torch.zeros((), device=norm.device)  # type: ignore[attr-defined]

    def _norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """Of all together, the other processes' shares too: a scalar."""
        whole = nn.utils.get_total_norm([g for g in gradients if not is_share(g)])
        shares = [own(g) for g in gradients if is_share(g)]
        if not shares:
            return whole
        squared = nn.utils.get_total_norm(shares) ** 2
        self.world.add_up([squared])
        return (whole**2 + squared).sqrt()
