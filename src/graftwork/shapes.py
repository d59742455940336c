"""What a compressed encoder is that its config cannot tell: narrower layers, a table in two factors, fewer bits.

`transformers` builds a network from its config, which knows one width for all blocks and one kind of table. What
differs from that is written down here by name and shape, and a network is given these shapes before its weights come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.choice import InputError

Storage = Literal["fp32", "bf16", "fp16", "int8", "int4"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST = ".largest"  # of each row of the int8 matrix whose name stands before
_LEVELS = 127  # of int8 on either side of 0; -128 is left out, so that both sides are alike
_SCALES = ".scales"  # of the int4 matrix whose name stands before
_WIDTH = ".width"
_LEVELS_4 = 7
GROUP = 32
"""Weights of a row that share a scale in int4, as in the blocks of llama.cpp and of MatMulNBits."""


class FactorisedEmbedding(nn.Module):
    """Token ids (batch, length) to (batch, length, dim), through vectors of `rank`.

    Args:
        pieces: size of the vocabulary.
        rank: width in between.
        dim: width of the encoder's states.
        padding_idx: whose vector gets no gradient.
    """

    def __init__(self, pieces: int, rank: int, dim: int, padding_idx: int | None = None):
        super().__init__()
        self.table = nn.Embedding(pieces, rank, padding_idx=padding_idx)
        self.up = nn.Linear(rank, dim, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """The product of the two factors' rows."""
        return self.up(self.table(ids))


def anatomy(encoder: nn.Module) -> dict[str, Any]:
    """What the config does not tell: `shapes` of parameters by name, `rank` of a factorised table; empty where nothing.

    Args:
        encoder: a `transformers` model.
    """
    found: dict[str, Any] = {}
    with torch.device("meta"):
        plain = {name: p.shape for name, p in type(encoder)(encoder.config).named_parameters()}  # type: ignore[arg-type]
    shapes = {name: list(p.shape) for name, p in encoder.named_parameters() if name in plain and p.shape != plain[name]}
    if shapes:
        found["shapes"] = shapes
    table = encoder.get_input_embeddings()  # type: ignore[operator]
    if isinstance(table, FactorisedEmbedding):
        found["rank"] = table.table.embedding_dim
    return found


def reshape(encoder: nn.Module, described: Mapping[str, Any]) -> None:
    """Give a network that was built from its config what `anatomy` described; the weights are to be loaded after."""
    if rank := described.get("rank"):
        whole: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[operator]
        factors = FactorisedEmbedding(whole.num_embeddings, rank, whole.embedding_dim, whole.padding_idx)
        encoder.set_input_embeddings(factors)  # type: ignore[operator]
    for name, shape in described.get("shapes", {}).items():
        owner, _, last = name.rpartition(".")
        module = encoder.get_submodule(owner)
        setattr(module, last, nn.Parameter(torch.zeros(shape)))
        if isinstance(module, nn.Linear) and last == "weight":
            module.out_features, module.in_features = shape


def on_grid(matrix: Tensor, levels: int) -> Tensor:
    """(rows, columns) rounded: each row to whole numbers from -levels to levels, on a scale of its own."""
    whole, largest = _whole(matrix, levels)
    return (whole / levels) * largest


def _whole(matrix: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Whole numbers, still as floats, and the largest magnitude of each row, (rows, 1)."""
    largest = matrix.abs().amax(dim=-1, keepdim=True)
    return (matrix / largest.clamp(min=torch.finfo(matrix.dtype).tiny) * levels).round(), largest


def packed(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as they are stored.

    In int8 each row of a matrix is a whole number from -127 to 127, divided by 127, of the largest magnitude in the
    row, which is stored beside it; in int4 each 32 weights of a row are one from -7 to 7 of theirs, which is stored in
    fp16, two in a byte. All else stays as it is. `unpacked` weights pack to the same numbers again.
    """
    assert storage in get_args(Storage)
    if storage in _HALF:
        return {k: v.to(_HALF[storage]) if v.is_floating_point() else v for k, v in weights.items()}
    if storage == "fp32":
        return dict(weights)
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.ndim != 2 or not value.is_floating_point():
            found[name] = value
        elif storage == "int8":
            whole, largest = _whole(value, _LEVELS)
            found[name], found[name + _LARGEST] = whole.to(torch.int8), largest.squeeze(1)
        else:
            found |= _in_four_bits(name, value)
    return found


def _in_four_bits(name: str, matrix: Tensor) -> dict[str, Tensor]:
    """Two weights in a byte, the earlier in its lower half; the row's end is filled with 0, and its width told."""
    rows, columns = matrix.shape
    groups = nn.functional.pad(matrix, (0, -columns % GROUP)).view(rows, -1, GROUP)
    # a scale is rounded before it is divided by, so that whole numbers are those that come out again
    scales = groups.abs().amax(dim=-1, keepdim=True).half().float().clamp(min=torch.finfo(torch.float16).tiny)
    whole = (groups / scales * _LEVELS_4).round().clamp(-_LEVELS_4, _LEVELS_4).to(torch.int16).view(rows, -1) + 8
    return {
        name: (whole[:, ::2] | (whole[:, 1::2] << 4)).to(torch.uint8),
        name + _SCALES: scales.squeeze(2).half(),
        name + _WIDTH: torch.tensor(columns),
    }


def _from_four_bits(pairs: Tensor, scales: Tensor, columns: int) -> Tensor:
    whole = torch.stack([pairs & 15, pairs >> 4], dim=2).view(len(pairs), -1, GROUP).float() - 8
    return (whole / _LEVELS_4 * scales.float().unsqueeze(2)).view(len(pairs), -1)[:, :columns].contiguous()


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in fp32, from what `packed` gave."""
    beside = {name + end for name in stored for end in (_LARGEST, _SCALES, _WIDTH)}
    found = {}
    for name, value in stored.items():
        if name in beside:
            continue
        if value.dtype == torch.int8:
            value = (value.float() / _LEVELS) * stored[name + _LARGEST].unsqueeze(1)
        elif value.dtype == torch.uint8 and name + _SCALES in stored:
            value = _from_four_bits(value, stored[name + _SCALES], int(stored[name + _WIDTH]))
        found[name] = value.float() if value.is_floating_point() else value
    return found


_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def bytes_of(size: str) -> int:
    """A size as it is typed: `500MB`, in powers of 1000.

    Raises:
        InputError: it is none, or nothing.

    Example:
        >>> bytes_of("1.5GB")
        1500000000
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]B)", size.strip(), re.IGNORECASE)
    amount = float(found.group(1)) * _UNITS[found.group(2).upper()] if found else 0
    if amount < 1:
        raise InputError(f"{size!r} is no size. Give one such as 500MB or 2GB.")
    return int(amount)
