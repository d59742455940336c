"""plan: what a model takes, where it fits on this machine, and what to do where it does not; no weight is read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from graftwork.intact import read_json, tensor_shapes
from graftwork.models import resolve

BYTES = {"fp32": 4.0, "bf16": 2.0, "8 bits": 1.0, "4 bits": 0.5625}
"""Of a parameter; 4 bits with a scale of 16 bits for each 32 weights."""
ADAMW = 16.0
"""Bytes of a parameter that trains: weight, gradient and two moments, in fp32."""
TOKENS = 8192
"""Tokens computed at once, as `Hardware.max_tokens` has it."""
_WIDE = ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "d_ff")


@dataclass(frozen=True)
class Plan:
    """What a model takes and where it fits. Sizes in 1,000,000,000 bytes."""

    model: str
    parameters: int
    """Of the files' weights; a head that is to be fitted takes next to nothing beside them."""
    needs: dict[str, float]
    """By precision: of the weights, with what `TOKENS` tokens take while they are computed."""
    training: float
    """Of full fine-tuning by AdamW in fp32, without the states that gradients need."""
    memory: float
    """Of this machine, free now."""
    gpus: tuple[float, ...]
    """Free memory of each."""
    fits: dict[str, str]
    """By precision: where."""
    advice: str
    """What to do."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def plan(model: str | Path) -> Plan:
    """What a model takes, and where it fits on this machine.

    Args:
        model: an embedded one, a folder, a run, or a hub id.

    Raises:
        InputError: it is no model, or its files are damaged.

    Example:
        plan("minilm").needs["bf16"]
    """
    folder = resolve(model)
    parameters = _parameters(folder)
    passing = _passing(read_json(folder / "config.json"))
    needs = {name: round((parameters * each + passing) / 1e9, 3) for name, each in BYTES.items()}
    memory = psutil.virtual_memory().available / 1e9
    gpus = tuple(round(torch.cuda.mem_get_info(i)[0] / 1e9, 1) for i in range(torch.cuda.device_count()))
    fits = {name: where(need, memory, gpus) for name, need in needs.items()}
    training = round(parameters * ADAMW / 1e9, 3)
    return Plan(
        str(model),
        parameters,
        needs,
        training,
        round(memory, 1),
        gpus,
        fits,
        advice(fits, memory, gpus),
    )


def where(need: float, memory: float, gpus: tuple[float, ...]) -> str:
    """Where so many gigabytes fit: on one GPU, split over several, in memory, or on disk alone.

    Example:
        >>> where(14, 64, (10.0, 10.0))
        'split over 2 GPUs'
    """
    if any(need <= free for free in gpus):
        return "on one GPU"
    for count in range(2, len(gpus) + 1):
        if need / count <= min(sorted(gpus, reverse=True)[:count]):
            return f"split over {count} GPUs"
    return "in memory" if need <= memory else "on disk, read layer by layer"


def advice(fits: dict[str, str], memory: float, gpus: tuple[float, ...]) -> str:
    """What to do: a sentence. What decides is fp32, in which weights are kept while they are computed."""
    if fits["fp32"] == "on one GPU" or (fits["fp32"] == "in memory" and not gpus):
        return "It fits in fp32: nothing is to be done."
    if fits["fp32"].startswith("split"):
        count = fits["fp32"].split()[2]
        return f"No GPU holds it alone: torchrun --nproc-per-node {count} $(which graft) predict RUN ..."
    if fits["fp32"] == "in memory":
        return "No GPU holds it, main memory does: --memory leaves there what a GPU has no room for."
    half = f"{max(0.1, memory / 2):.1f}GB"
    return (
        f"It does not fit in fp32, in which graftwork computes: graft predict RUN ... --memory {half} reads layers "
        "from disk as they are computed, slowly. Or choose a smaller model."
    )


def _parameters(folder: Path) -> int:
    """How many weights the files hold, by their headers alone."""
    count = 0
    for file in folder.glob("*.safetensors"):
        for shape in tensor_shapes(file).values():
            size = 1
            for length in shape:
                size *= length
            count += size
    return count


def _passing(config: dict[str, Any]) -> float:
    """Bytes of the states that pass while `TOKENS` tokens are computed: a block's, wide and narrow, in fp32."""
    width = next((config[name] for name in ("hidden_size", "n_embd", "dim", "d_model") if config.get(name)), 0)
    wide = next((config[name] for name in _WIDE if config.get(name)), 4 * width)
    return 4.0 * TOKENS * (2 * wide + 6 * width)
