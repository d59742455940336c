"""Fill gaps: what is hidden is told from what stands on both sides."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from transformers import BertConfig, PretrainedConfig

from graftwork.pretext import Pieces, Posed, Pretext, Size, chosen, groups_of, passages


class Masked(Pretext):
    """Fill gaps, as BERT learned: of the pieces that are asked most are hidden, some replaced, some left as they are.

    The gaps are drawn anew each time a text is read.
    """

    paper: ClassVar[str] = (
        "BERT, Devlin et al. 2019, section 3.1; spans: SpanBERT, Joshi et al. 2020, section 3.1; gaps drawn anew: "
        "RoBERTa, Liu et al. 2019, section 4.1; order of passages: ALBERT, Lan et al. 2020, section 3.1"
    )
    kind: ClassVar[str] = "masked"

    share: float = Field(default=0.15, gt=0, lt=1)
    """Of the pieces that are asked."""
    hidden: float = Field(default=0.8, ge=0, le=1)
    """Of those, the share that [MASK] stands for."""
    replaced: float = Field(default=0.1, ge=0, le=1)
    """Of those, the share that another piece stands for, any at random; the rest stay as they are."""
    unit: Literal["piece", "word", "span"] = "piece"
    """What is chosen together: single pieces, whole words, or runs of pieces whatever the words."""
    mean_span: float = Field(default=3.8, ge=1)
    """Pieces a run, on average, where runs are chosen."""

    sentences: Literal["alone", "next", "order"] = "alone"
    """Whether two passages of each text are asked about as well: does the second come next, or which comes first?"""

    @property
    def compares(self) -> bool:
        """With `sentences`."""
        return self.sentences != "alone"

    def config(self, size: Size, vocabulary: int, length: int, ids: dict[str, int]) -> PretrainedConfig:
        """BERT's."""
        return BertConfig(
            vocab_size=vocabulary, hidden_size=size.width, num_hidden_layers=size.layers,
            num_attention_heads=size.heads, intermediate_size=4 * size.width, max_position_embeddings=length,
            pad_token_id=ids["pad"],
        )  # fmt: skip

    def tokenizer(self) -> tuple[Any, dict[str, Any]]:
        """WordPiece, in lower case, as BERT's."""
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer, {"pad": "[PAD]", "unknown": "[UNK]", "start": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}

    def posed(self, ids: Tensor, pieces: Pieces) -> Posed:
        """The text with gaps, and what was in them."""
        assert pieces.mask_id is not None, "a masked model has a mask"
        more: dict[str, Tensor] = {}
        apart = None
        if self.compares:
            ids, of_passage, apart = passages(ids, pieces, self.sentences)
            more = {"token_type_ids": of_passage} if pieces.segments > 1 else {}
        asked = chosen(ids, pieces, self.share, groups_of(ids, pieces, self.unit, self.mean_span))
        luck = torch.rand(ids.shape, device=ids.device)
        hidden = asked & (luck < self.hidden)
        replaced = asked & (luck >= self.hidden) & (luck < self.hidden + self.replaced)
        others = torch.randint(pieces.count, ids.shape, device=ids.device)
        shown = torch.where(replaced, others, ids.masked_fill(hidden, pieces.mask_id))
        return Posed({"input_ids": shown} | more, asked, ids[asked], apart)
