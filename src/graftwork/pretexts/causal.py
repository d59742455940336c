"""Read on: each piece is told from those before it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import GPT2Config, PretrainedConfig

from graftwork.pretext import Pieces, Posed, Pretext, Size


class Causal(Pretext):
    """Tell each next piece, as GPT learned."""

    paper: ClassVar[str] = "GPT, Radford et al. 2018, section 3.1, eq. 1"
    kind: ClassVar[str] = "causal"

    def config(self, size: Size, vocabulary: int, length: int, ids: dict[str, int]) -> PretrainedConfig:
        """GPT-2's."""
        return GPT2Config(
            vocab_size=vocabulary, n_embd=size.width, n_layer=size.layers, n_head=size.heads, n_positions=length,
            bos_token_id=ids["end"], eos_token_id=ids["end"], pad_token_id=ids["end"],
        )  # fmt: skip

    def tokenizer(self) -> tuple[Any, dict[str, Any]]:
        """Byte-level BPE, which spells every text, as GPT-2's."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer, {"end": "<|endoftext|>"}

    def posed(self, ids: Tensor, pieces: Pieces) -> Posed:
        """The text as it is; after each piece but the last of a window the next one is asked."""
        asked = torch.ones_like(ids, dtype=torch.bool)
        asked[:, -1] = False
        return Posed({"input_ids": ids}, asked, ids[:, 1:].flatten())
