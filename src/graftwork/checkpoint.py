"""Where to go on from: everything a stage has learned, in one file that is either whole or not there.

Randomness needs no saving: every shuffle and every dropout mask is drawn from a seed made of (run seed, stage, step),
so a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from graftwork.disk import atomic_path
from graftwork.sharding import gathered, parted


@dataclass
class Progress:
    """How far a stage has come."""

    stage: int = 0
    step: int = 0
    seconds: float = 0.0
    """Of training so far, over all sessions."""
    examples: int = 0
    """Seen so far, repeats counted."""
    padded: int = 0
    """Tokens computed so far, padding included."""
    tokens: int = 0
    """Of those, the real ones."""
    best: float = float("-inf")
    best_step: int = 0
    since_best: int = 0
    """Validations since the best one."""
    validated: float = 0.0
    """The share of the budget that was spent when validation was last read."""
    reductions: int = 0
    """How often validation has stood still for as long as the schedule bears."""
    max_tokens: int = 0
    """What the hardware was found to take at once."""
    unfreezing: list[list[object]] = field(default_factory=list)
    """What trained from which epoch on: `[epoch, [group, ...]]`."""


def save(
    file: Path | None,
    progress: Progress,
    weights: list[nn.Parameter],
    optimizer: Optimizer,
    best: list[Tensor],
    more: dict[str, Tensor],
) -> None:
    """Write all of it; the old checkpoint stays until the new one is on the disk.

    Args:
        file: where; None in a process that only hands over its shares of what is spread.
        progress: how far the stage has come.
        weights: what trains.
        optimizer: its state goes with each weight.
        best: the weights that did best on validation; empty before the first validation.
        more: what the objective remembers, by name.
    """
    tensors: dict[str, Tensor] = {}
    for i, weight in enumerate(weights):
        tensors[f"weight.{i}"] = weight.detach()
        for name, value in optimizer.state.get(weight, {}).items():
            tensors[f"optimizer.{i}.{name}"] = value
    tensors |= {f"best.{i}": value for i, value in enumerate(best)}
    tensors |= {f"more.{name}": value for name, value in more.items()}
    whole = ((name, gathered(value.detach())) for name, value in tensors.items())
    tensors = {name: value.cpu().contiguous() for name, value in whole if file is not None}
    if file is None:
        return
    with atomic_path(file) as beside:
        save_file(tensors, beside, metadata={"progress": json.dumps(asdict(progress))})


def stage_of(file: Path) -> int | None:
    """Which stage a checkpoint belongs to; None where there is none."""
    return _read_progress(file).stage if file.is_file() else None


def step_of(file: Path) -> int:
    """How many steps a checkpoint's stage has taken; 0 where there is none."""
    return _read_progress(file).step if file.is_file() else 0


def load(
    file: Path, weights: list[nn.Parameter], optimizer: Optimizer
) -> tuple[Progress, list[Tensor], dict[str, Tensor]]:
    """Put weights and optimizer back; gives the progress, the best weights so far, and what the objective remembers."""
    best: dict[int, Tensor] = {}
    more: dict[str, Tensor] = {}
    with safe_open(file, framework="pt") as saved, torch.no_grad():
        for name in saved.keys():  # noqa: SIM118  not a dict
            kind, _, rest = name.partition(".")
            value = saved.get_tensor(name)
            if kind == "more":
                more[rest] = value.to(weights[0].device)
                continue
            index, _, part = rest.partition(".")
            weight = weights[int(index)]
            if kind == "weight":
                weight.copy_(parted(value, weight))
            elif kind == "best":
                best[int(index)] = parted(value, weight)
            else:
                optimizer.state[weight][part] = value if part == "step" else parted(value, weight)
    return _read_progress(file), [best[i] for i in sorted(best)], more


def _read_progress(file: Path) -> Progress:
    with safe_open(file, framework="pt") as saved:
        return Progress(**json.loads(saved.metadata()["progress"]))
