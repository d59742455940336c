"""A word-embedding table that holds only the pieces in use.

Half of a small encoder is its embedding table, and a data set uses a tenth of it: BANKING77 holds 2,639 of MiniLM's
30,522 pieces. The rows of the others get no gradient, and without weight decay AdamW does not move them. So a table
of the used rows trains to the very same weights, and saves the gradient, both moments and the update of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def compact(encoder: nn.Module, used: np.ndarray) -> Iterator[np.ndarray]:
    """While open, the encoder's embedding table holds the rows `used` alone; afterwards all, the used ones as trained.

    Args:
        encoder: a `transformers` model.
        used: the token ids that will be read while open; any order, repeats allowed.

    Yields:
        For every token id its row in the small table; -1 where it has none. (vocabulary,) int32
    """
    whole: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[operator]
    padding = [] if whole.padding_idx is None else [whole.padding_idx]
    rows = np.unique(np.concatenate([np.asarray(used, dtype=np.int64), padding]).astype(np.int64))
    remap = np.full(whole.num_embeddings, -1, dtype=np.int32)
    remap[rows] = np.arange(len(rows), dtype=np.int32)
    small = nn.Embedding(
        len(rows), whole.embedding_dim,
        padding_idx=None if whole.padding_idx is None else int(remap[whole.padding_idx]),
        device=whole.weight.device, dtype=whole.weight.dtype,
    )  # fmt: skip
    index = torch.from_numpy(rows).to(whole.weight.device)
    with torch.no_grad():
        small.weight.copy_(whole.weight[index])
    small.weight.requires_grad_(whole.weight.requires_grad)
    encoder.set_input_embeddings(small)  # type: ignore[operator]
    try:
        yield remap
    finally:
        with torch.no_grad():
            whole.weight[index] = small.weight
        whole.weight.requires_grad_(small.weight.requires_grad)
        encoder.set_input_embeddings(whole)  # type: ignore[operator]


def can_compact(encoder: nn.Module, within: nn.Module | None = None) -> bool:
    """Whether the encoder has a plain embedding table of its own, which nothing else reads, `within` all of a model."""
    try:
        table = encoder.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return False
    if type(table) is not nn.Embedding or table.max_norm is not None:
        return False
    holders = [m for m in (within or encoder).modules() for p in m.parameters(recurse=False) if p is table.weight]
    return len(holders) == 1
