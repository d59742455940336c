"""Adapters: small bottlenecks that follow the layers which write into the residual stream of each block."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork import layers
from graftwork.choice import InputError
from graftwork.insertion import NAME, Insertion, hang


class Bottleneck(nn.Module):
    """h + up(GELU(down(h))): the identity at first, because `up` starts at zero.

    Args:
        dim: width of what goes in and comes out.
        size: width in between.
    """

    def __init__(self, dim: int, size: int):
        super().__init__()
        self.down, self.up = nn.Linear(dim, size), nn.Linear(size, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return states + self.up(F.gelu(self.down(states)))

    def follow(self, _layer: nn.Module, _args: Any, output: Tensor) -> Tensor:
        """What the layer that it hangs on gives instead."""
        return self(output)


class Adapters(Insertion):
    """A bottleneck after the feed-forward of each block, and after its attention, before each residual sum."""

    paper: ClassVar[str] = "Houlsby et al. 2019, section 2.1"

    after: Literal["both", "feed-forward"] = "both"
    """What they follow: attention and feed-forward, or the feed-forward alone."""
    reduction: float = Field(default=16.0, ge=1)
    """The encoder's width divided by that of the bottleneck."""

    def into(self, encoder: nn.Module) -> None:
        """Hang one on each last linear layer of an attention or a feed-forward."""
        for _, blocks in layers.stacks(encoder):
            for block in blocks:
                writers = residual_writers(block, encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
                for layer in writers if self.after == "both" else writers[1:]:
                    dim = width_out(layer)
                    bottleneck = Bottleneck(dim, max(1, int(dim / self.reduction))).to(next(layer.parameters()).device)
                    layer.register_forward_hook(bottleneck.follow)
                    hang(layer, bottleneck)


def linear_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The network's own linear layers by dotted name, in their order; those of insertions are no part of it."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, with its weight transposed

    found = {name: module for name, module in network.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    return {name: module for name, module in found.items() if NAME not in name.split(".")}


def width_out(layer: nn.Module) -> int:
    """The width of what a linear layer gives."""
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.nf)  # type: ignore[arg-type]


def residual_writers(block: nn.Module, width: int) -> tuple[nn.Module, nn.Module]:
    """The last linear layers of a block's attention and of its feed-forward: each writes into the residual stream.

    Args:
        block: of a Transformer; whatever in it has "att" in its name is its attention.
        width: of the residual stream.

    Raises:
        InputError: there is no such layer, or it is not as wide as the residual stream.
    """
    found = linear_layers(block)
    attention = [layer for name, layer in found.items() if "att" in name.lower()]
    feed_forward = [layer for name, layer in found.items() if "att" not in name.lower()]
    if not (attention and feed_forward and width_out(attention[-1]) == width_out(feed_forward[-1]) == width):
        raise InputError(
            f"The blocks of this encoder ({type(block).__name__}) have no attention and feed-forward that end in a "
            f"linear layer of the encoder's width ({width}). Choose a method that needs none, such as 'lora'."
        )
    return attention[-1], feed_forward[-1]
