"""Tell the last pieces of a random order: from the rest of the text, and from what was told before."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from transformers import PretrainedConfig, XLNetConfig

from graftwork.pretext import Pieces, Posed, Pretext, Size, chosen, groups_of
from graftwork.pretexts.causal import Causal


class Permuted(Pretext):
    """Tell the last pieces of a random order, as XLNet learned: two streams of attention, and never a [MASK].

    A piece that is asked sees the text that is not, and of what is asked that which comes before it in the order.
    """

    paper: ClassVar[str] = "XLNet, Yang et al. 2019, eq. 3-5; two streams: section 2.3, figure 1"
    kind: ClassVar[str] = "permuted"

    one_in: int = Field(default=6, ge=2)
    """One piece in so many is asked; XLNet's K."""
    unit: Literal["piece", "word", "span"] = "span"
    """What is asked together: single pieces, whole words, or runs of pieces whatever the words."""
    mean_span: float = Field(default=3.0, ge=1)
    """Pieces a run, on average, where runs are asked; XLNet draws 1 to 5."""

    def config(self, size: Size, vocabulary: int, length: int, ids: dict[str, int]) -> PretrainedConfig:
        """XLNet's."""
        return XLNetConfig(
            vocab_size=vocabulary, d_model=size.width, n_layer=size.layers, n_head=size.heads, d_inner=4 * size.width,
            bos_token_id=ids["end"], eos_token_id=ids["end"], pad_token_id=ids["end"],
        )  # fmt: skip

    def tokenizer(self) -> tuple[Any, dict[str, Any]]:
        """Byte-level BPE, as `causal`'s: what `tokenizers` trains as Unigram is another vocabulary each time."""
        return Causal().tokenizer()

    def posed(self, ids: Tensor, pieces: Pieces) -> Posed:
        """The text as it is, who may see what, and where the answers stand."""
        asked = chosen(ids, pieces, 1 / self.one_in, groups_of(ids, pieces, self.unit, self.mean_span))
        order = torch.rand(ids.shape, device=ids.device).masked_fill(~asked, -1.0)
        unseen = (order[:, :, None] <= order[:, None, :]) & asked[:, None, :]
        places = asked.nonzero()[:, 1].view(len(ids), -1)
        mapping = F.one_hot(places, ids.shape[1])
        inputs = {"input_ids": ids, "perm_mask": unseen.float(), "target_mapping": mapping.float()}
        return Posed(inputs, torch.ones_like(places, dtype=torch.bool), ids[asked])
