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

Storage = Literal["fp32", "bf16", "fp16", "int8"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_LARGEST = ".largest"  # of each row of the int8 matrix whose name stands before
_LEVELS = 127  # of int8 on either side of 0; -128 is left out, so that both sides are alike


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


def packed(weights: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Weights as they are stored.

    In int8 each row of a matrix is a whole number from -127 to 127, divided by 127, of the largest magnitude in the
    row, which is stored beside it; all else stays as it is. `unpacked` weights pack to the same numbers again.
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
            continue
        largest = value.abs().amax(dim=1)
        share = value / largest.clamp(min=torch.finfo(value.dtype).tiny).unsqueeze(1)
        found[name], found[name + _LARGEST] = (share * _LEVELS).round().to(torch.int8), largest
    return found


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in fp32, from what `packed` gave."""
    found = {}
    for name, value in stored.items():
        if name.endswith(_LARGEST) and name.removesuffix(_LARGEST) in stored:
            continue
        if value.dtype == torch.int8:
            value = (value.float() / _LEVELS) * stored[name + _LARGEST].unsqueeze(1)
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
