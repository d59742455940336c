"""The anatomy of a network: its parameters grouped by depth, and running it from the middle.

Freezing, discriminative rates, gradual unfreezing, the frozen-prefix cache and pruning are all statements about
depth, so they share this one definition of it: *the heaviest list of same-class blocks; the parameters before it,
each block, the parameters after it*. No table of architectures is needed. ALBERT, whose blocks share one set of
weights, has a single block; T5 has two lists, its encoder's blocks come before its decoder's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerGroup:
    """Parameters of one depth: `embeddings`, `block 0`, `block 1`, ..., and `output` where something follows."""

    name: str
    parameters: tuple[str, ...]


def stacks(network: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """The network's lists of blocks by dotted name: one for encoders and decoders, two where it has both."""
    weights: dict[str, tuple[int, nn.ModuleList]] = {}
    for name, module in network.named_modules():
        nested = any(name.startswith(outer + ".") for outer in weights)
        if isinstance(module, nn.ModuleList) and not nested and len({type(child) for child in module}) == 1:
            weights[name] = (sum(p.numel() for p in module.parameters()), module)
    heaviest = max((weight for weight, _ in weights.values()), default=0)
    return [(name, blocks) for name, (weight, blocks) in weights.items() if 2 * weight >= heaviest > 0]


def layer_groups(network: nn.Module) -> list[LayerGroup]:
    """Every parameter of `network` in exactly one group, the lowest (nearest to the input) first."""
    prefixes = [f"{stack}.{i}." for stack, blocks in stacks(network) for i in range(len(blocks))]
    members: dict[str, list[str]] = {"embeddings": [], **{p: [] for p in prefixes}, "output": []}
    seen_block = False
    for name, _ in network.named_parameters():
        block = next((p for p in prefixes if name.startswith(p)), None)
        seen_block = seen_block or block is not None
        members[block or ("output" if seen_block else "embeddings")].append(name)
    named = {"embeddings": "embeddings", "output": "output", **{p: f"block {i}" for i, p in enumerate(prefixes)}}
    groups = [LayerGroup(named[key], tuple(names)) for key, names in members.items() if names]
    assert sum(len(g.parameters) for g in groups) == sum(1 for _ in network.named_parameters())
    return groups


def frozen_depth(network: nn.Module) -> int:
    """How many of the lowest groups do not train: 0 for none, 1 for the embeddings, 1 + k for k blocks above them."""
    trains = {name for name, p in network.named_parameters() if p.requires_grad}
    for depth, group in enumerate(layer_groups(network)):
        if trains.intersection(group.parameters):
            return depth
    return len(layer_groups(network))


def train_only(network: nn.Module, groups: list[LayerGroup]) -> None:
    """Let the parameters of `groups` train and freeze every other one of `network`."""
    chosen = {name for group in groups for name in group.parameters}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)


def train_top(network: nn.Module, count: int) -> None:
    """Let the topmost `count` blocks train, and what follows them; with none everything is frozen."""
    groups = layer_groups(network)
    above = [g for g in groups if g.name == "output"]
    blocks = [g for g in groups if g.name.startswith("block")]
    train_only(network, above * bool(count) + blocks[max(0, len(blocks) - count) :])


def set_modes(module: nn.Module, parent_trains: bool = True) -> None:
    """Training mode where something trains, eval mode where nothing does.

    A frozen module in training mode still moves: its dropout draws, its batch statistics drift. A module without
    parameters (a dropout, an activation) follows its parent.
    """
    parameters = list(module.parameters())
    module.training = any(p.requires_grad for p in parameters) if parameters else parent_trains
    for child in module.children():
        set_modes(child, module.training)


def set_encoder_modes(encoder: nn.Module) -> None:
    """`set_modes`, for a network with blocks: a dropout that stands before them belongs to the embeddings."""
    set_modes(encoder)
    if frozen_depth(encoder) == 0:
        return
    inside = tuple(f"{name}." for name, _ in stacks(encoder))
    for name, module in encoder.named_modules():
        if f"{name}." in inside:
            return
        if not any(True for _ in module.parameters()):
            module.eval()


class _Reached(Exception):  # noqa: N818  not an error: it carries the value out of a forward pass
    def __init__(self, hidden: Tensor):
        self.hidden = hidden


@torch.no_grad()
def run_below(network: nn.Module, depth: int, **inputs: Any) -> Tensor:
    """What enters block `depth` (0 is the first block): (batch, length, dim). The blocks above are not run.

    With `depth` equal to the number of blocks, the network's final output.
    """
    blocks = _single_stack(network)
    if depth == len(blocks):
        return network(**inputs).last_hidden_state

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(args[0] if args else kwargs["hidden_states"])

    handle = blocks[depth].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        network(**inputs)
    except _Reached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise AssertionError("the forward pass never entered the block")


class _Resume(nn.Module):
    """Stands where the last frozen block stood and gives what that block gave when its output was computed."""

    hidden: Tensor

    def __init__(self, in_tuple: bool):
        super().__init__()
        self.in_tuple = in_tuple

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return (self.hidden,) if self.in_tuple else self.hidden


class _Skip(nn.Module):
    def __init__(self, in_tuple: bool):
        super().__init__()
        self.in_tuple = in_tuple

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (hidden_states,) if self.in_tuple else hidden_states


class RunAbove:
    """Runs a network from block `depth` upwards, given what enters that block. Made by `running_above`."""

    def __init__(self, network: nn.Module, entry: _Resume):
        self._network, self._entry = network, entry

    def __call__(self, hidden: Tensor, **inputs: Any) -> Tensor:
        """(batch, length, dim) into block `depth` to the network's final (batch, length, dim)."""
        self._entry.hidden = hidden
        return self._network(**inputs).last_hidden_state


@contextmanager
def running_above(network: nn.Module, depth: int) -> Iterator[RunAbove]:
    """While open, the `depth` lowest blocks are not in the network: their output is given instead of computed."""
    blocks = _single_stack(network)
    assert 0 < depth < len(blocks)
    in_tuple = _gives_tuple(blocks[0], network)
    entry = _Resume(in_tuple)
    removed = [blocks[i] for i in range(depth)]
    for i in range(depth):
        blocks[i] = entry if i == depth - 1 else _Skip(in_tuple)
    try:
        yield RunAbove(network, entry)
    finally:
        for i, block in enumerate(removed):
            blocks[i] = block


@torch.no_grad()
def _gives_tuple(block: nn.Module, network: nn.Module) -> bool:
    """Does a block hand back a tuple? Asked of the block itself: transformers' families differ, and change."""
    seen: list[bool] = []
    handle = block.register_forward_hook(lambda _m, _a, output: seen.append(isinstance(output, tuple)))
    try:
        network(**few_inputs(network))
    finally:
        handle.remove()
    return seen[0]


def few_inputs(network: nn.Module) -> dict[str, Tensor]:
    """Two short texts, one padded, that every vocabulary can spell, or two pictures: enough to ask a network itself."""
    device = next(network.parameters()).device
    if getattr(network, "main_input_name", "input_ids") == "pixel_values":
        size = int(network.config.image_size)  # type: ignore[union-attr, arg-type]
        return {"pixel_values": torch.linspace(-1, 1, 6 * size**2, device=device).view(2, 3, size, size)}
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
    return {"input_ids": torch.arange(10, device=device).view(2, 5) % 4, "attention_mask": mask}


def keep_blocks(network: nn.Module, places: Sequence[int]) -> None:
    """Leave only these blocks (0 is the lowest), in the order given; the config says so, and it loads again so."""
    blocks = _single_stack(network)
    assert places
    assert all(0 <= place < len(blocks) for place in places)
    (name, _), config = stacks(network)[0], network.config
    parent, _, last = name.rpartition(".")
    kept = nn.ModuleList(blocks[place] for place in places)
    for number, block in enumerate(kept):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # its place, as it would be counted when loaded
                module.layer_idx = number  # type: ignore[assignment]
    setattr(network.get_submodule(parent), last, kept)
    config.num_hidden_layers = len(kept)  # type: ignore[union-attr]
    if getattr(config, "layer_types", None):  # what kind each block is
        config.layer_types = [config.layer_types[place] for place in places]  # type: ignore[union-attr, index]


def keep_lowest(network: nn.Module, count: int) -> None:
    """Cut the network off above its `count` lowest blocks; its config says so, and it loads again as what it is."""
    keep_blocks(network, range(count))


def has_single_stack(network: nn.Module) -> bool:
    """Whether the network can be run from the middle: one list of at least two blocks, which take the batch first."""
    found = stacks(network)
    return len(found) == 1 and len(found[0][1]) > 1 and network.config.model_type != "xlnet"  # type: ignore[union-attr]


def block_count(network: nn.Module) -> int:
    """How many blocks the network has, over all its stacks."""
    return sum(len(blocks) for _, blocks in stacks(network))


def _single_stack(network: nn.Module) -> nn.ModuleList:
    found = stacks(network)
    assert len(found) == 1, "a network with two stacks cannot be run from the middle"
    return found[0][1]
