"""Mend a text: an encoder reads it with runs missing and its sentences shuffled, a decoder writes it as it was."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import BartConfig, PretrainedConfig

from graftwork.pretext import Pieces, Posed, Pretext, Size
from graftwork.pretexts.causal import Causal


class Denoising(Pretext):
    """Write a damaged text as it was, as BART learned: runs are hidden behind one [MASK] each, sentences are shuffled.

    Each text loses as many pieces in as many runs, whose places and lengths are drawn anew each time (T5's way).
    """

    paper: ClassVar[str] = (
        "BART, Lewis et al. 2020, section 2.2, text infilling and sentence permutation; how many runs: T5, Raffel et "
        "al. 2020, section 3.1.4"
    )
    kind: ClassVar[str] = "sequence-to-sequence"

    share: float = Field(default=0.3, gt=0, lt=1)
    """Of the pieces, that are hidden."""
    mean_span: float = Field(default=3.0, ge=1)
    """Pieces a run, on average."""
    shuffled: bool = True
    """Whether the sentences of a text stand in another order."""

    def config(self, size: Size, vocabulary: int, length: int, ids: dict[str, int]) -> PretrainedConfig:
        """BART's; of the blocks one half reads and one half writes."""
        half, wide = max(1, size.layers // 2), 4 * size.width
        return BartConfig(
            vocab_size=vocabulary, d_model=size.width, encoder_layers=half, decoder_layers=half,
            encoder_attention_heads=size.heads, decoder_attention_heads=size.heads, encoder_ffn_dim=wide,
            decoder_ffn_dim=wide, max_position_embeddings=length, pad_token_id=ids["pad"], bos_token_id=ids["start"],
            eos_token_id=ids["end"], decoder_start_token_id=ids["end"], forced_eos_token_id=ids["end"],
        )  # fmt: skip

    def tokenizer(self) -> tuple[Any, dict[str, Any]]:
        """Byte-level BPE, as BART's."""
        tokenizer, _ = Causal().tokenizer()
        return tokenizer, {"start": "<s>", "pad": "<pad>", "end": "</s>", "mask": "<mask>"}

    def posed(self, ids: Tensor, pieces: Pieces) -> Posed:
        """The damaged text, and the whole one, each piece to be told after those before it."""
        assert pieces.mask_id is not None, "a model that mends has a mask"
        start, inner, end = ids[:, :1], ids[:, 1:-1], ids[:, -1:]
        seen = inner.gather(1, shuffled(inner, pieces)) if self.shuffled else inner
        hidden = runs(seen, self.share, self.mean_span)
        begins = hidden & ~torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
        seen = seen.masked_fill(begins, pieces.mask_id)[begins | ~hidden].view(len(ids), -1)
        inputs = {
            "input_ids": torch.cat([start, seen, end], dim=1),
            "decoder_input_ids": torch.cat([end, ids[:, :-1]], dim=1),
        }
        return Posed(inputs, torch.ones_like(ids, dtype=torch.bool), ids.flatten())


def shuffled(ids: Tensor, pieces: Pieces) -> Tensor:
    """Places in an order in which the sentences of each row are shuffled and whole: (batch, length) int64."""
    ends = pieces.closes[ids].long()
    of_sentence = ends.cumsum(dim=1) - ends
    luck = torch.rand(ids.shape, device=ids.device).gather(1, of_sentence)
    return luck.argsort(dim=1, stable=True)


def runs(ids: Tensor, share: float, mean: float) -> Tensor:
    """Where runs are hidden: (batch, length) bool, as many pieces in as many runs of each row.

    Args:
        ids: (batch, length), at least 2 long.
        share: of the pieces.
        mean: pieces a run, about.
    """
    length = ids.shape[1]
    count = min(max(1, round(share * length)), length - 1)
    parts = min(max(1, round(count / mean)), count, length - count)
    kept, gone = (_parted(total, parts, ids) for total in (length - count, count))
    ends = torch.stack([kept, gone], dim=2).flatten(1).cumsum(dim=1)[:, :-1]
    turns = torch.zeros_like(ids).scatter_(1, ends, 1)
    return turns.cumsum(dim=1) % 2 == 1


def _parted(total: int, parts: int, like: Tensor) -> Tensor:
    """For each row of `like` random lengths of at least 1 that add up to `total`: (batch, parts) int64."""
    luck = torch.rand((len(like), total - 1), device=like.device)
    cuts = luck.topk(parts - 1, dim=1).indices.sort(dim=1).values + 1
    zero, whole = torch.zeros_like(like[:, :1]), torch.full_like(like[:, :1], total)
    return torch.cat([zero, cuts, whole], dim=1).diff(dim=1)
