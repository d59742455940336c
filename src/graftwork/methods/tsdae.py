"""Learning sentences without a label: what an encoder keeps of a damaged text must suffice to write the whole one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.choice import InputError
from graftwork.examples import Batch
from graftwork.language import pieces_of
from graftwork.method import GradientMethod, ParamGroup
from graftwork.methods.domain import Beside, target_of
from graftwork.objective import Objective
from graftwork.pretext import Pieces, groups_of
from graftwork.regression import read_anew

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class TSDAE(GradientMethod):
    """Learn what texts say, without their labels: most words of a text go, and its embedding must bring back them all.

    An encoder reads what is left, and a decoder writes the whole text, seeing the one embedding and what it has written
    itself. The decoder shares the encoder's weights, but for its look at the embedding; it is thrown away afterwards.
    Texts of the target domain are learned from as well, where there are any. Labels only choose the best weights: the
    head is a regression, fitted anew before each validation.
    """

    name: ClassVar[str] = "tsdae"
    paper: ClassVar[str] = "TSDAE, Wang, Reimers & Gurevych 2021, eq. 1, section 3; how much goes: section 6.1"
    adapts: ClassVar[bool] = True
    reads_off: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"one-class", "pooled", "text"})
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "share": (0.3, 0.45, 0.6, 0.75)}

    lr: float = Field(default=3e-5, gt=0, lt=1)
    """Learning rate of the whole encoder, at its peak."""
    share: float = Field(default=0.6, gt=0, lt=1)
    """How likely each word is to go; one always stays."""

    @model_validator(mode="after")
    def _damages_nothing_but_the_text(self) -> TSDAE:
        if self.head.template:
            raise ValueError("words of a template would go as those of the text do; give a head without one")
        return self

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """There is a decoder, too, of which only its look at the embedding is its own.

        Raises:
            InputError: the architecture has no decoder.
        """
        super().prepare(model, train)
        model.decoder = Decoder(model.encoder).to(model.device)

    def param_groups(self, model: TransferModel) -> list[ParamGroup]:
        """What is the decoder's own, too, at the rate of the head."""
        shared = {id(p) for p in model.encoder.parameters()}
        own = [p for p in _decoder(model).parameters() if id(p) not in shared]
        return super().param_groups(model) + self._split("decoder", own, self.lr * self.head_lr_factor, set())

    def reads(self, model: TransferModel, train: Examples) -> Examples:
        """Train, and the texts of the target after it."""
        return Beside(train, target_of(model, train)) if "target" in train.data.splits else train

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """What the decoder gets wrong."""
        return _Rewriting(self, model, train, weights)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The encoder alone."""
        del model.decoder
        return super().finish(model, train)


class _Rewriting(Objective):
    """The cross-entropy of each text's pieces, in nats, each told from the embedding and the pieces before it."""

    method: TSDAE

    def __init__(self, method: TSDAE, model: TransferModel, train: Examples, weights: list[Tensor]):
        super().__init__(method, model, train.parts[0] if isinstance(train, Beside) else train, weights)
        self.labelled, self.train = self.train, train
        self.pieces = pieces_of(model)

    def loss(self, batch: Batch) -> Tensor:
        """A scalar; every text counts alike, whatever its length."""
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        read = self.train.batch(batch.places).inputs["input_ids"].to(ids.device)  # whose words are known
        seen = damaged(ids, mask.bool(), read, self.pieces, self.method.share)
        embedding = self._embeddings(Batch(seen, batch.targets, batch.places))
        logits = _decoder(self.model)(ids[:, :-1], mask[:, :-1], embedding)
        asked = mask[:, 1:].float()
        losses = F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none") * asked
        return (losses.sum(dim=1) / asked.sum(dim=1).clamp(min=1)).mean() + self.penalty()

    def before_validation(self, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        read_anew(self.model, self.labelled, embed)


def damaged(ids: Tensor, mask: Tensor, words: Tensor, pieces: Pieces, share: float) -> dict[str, Tensor]:
    """Texts without most of their words: the encoder's `input_ids` and `attention_mask`, as long as the longest left.

    Args:
        ids: (batch, length), as the encoder reads them.
        mask: (batch, length) bool, where there is no padding.
        words: (batch, length), the same in the whole vocabulary.
        pieces: of it.
        share: how likely a word is to go. Special pieces stay, and the luckiest word of each text.
    """
    luck = torch.rand(ids.shape, device=ids.device).gather(1, groups_of(words, pieces, "word", 1.0))
    luck = luck.masked_fill(~mask | pieces.special[words], torch.inf)
    luckiest = luck.masked_fill(luck.isinf(), -1.0).amax(dim=1, keepdim=True)
    stays = mask & ((luck >= share) | (luck == luckiest))
    left = stays.sum(dim=1, keepdim=True)
    order = (~stays).long().argsort(dim=1, stable=True)[:, : int(left.max())]
    places = torch.arange(order.shape[1], device=ids.device)
    return {"input_ids": ids.gather(1, order), "attention_mask": (places < left).long()}


class Decoder(nn.Module):
    """Writes a text from its embedding: the encoder's own blocks, reading from left to right, each with a look at it.

    What is written is told by the encoder's table of embeddings.

    Args:
        encoder: whose weights it shares.

    Raises:
        InputError: the architecture cannot write.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        from transformers import AutoModel

        config: Any = copy.deepcopy(encoder.config)
        config.is_decoder, config.add_cross_attention, config.use_cache = True, True, False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            body = AutoModel.from_config(config, dtype=torch.float32)
            width = int(config.hidden_size)
            self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        if not hasattr(encoder, "embeddings") or not any("crossattention" in name for name, _ in body.named_modules()):
            raise InputError(
                f"tsdae needs an encoder that can also write, as BERT and RoBERTa can; a {config.model_type} cannot. "
                "Choose another method or model."
            )
        body.pooler = None
        _share(encoder, body)
        self.body = body

    def forward(self, ids: Tensor, mask: Tensor, embedding: Tensor) -> Tensor:
        """Logits of the next piece: (batch, length, pieces).

        Args:
            ids: (batch, length), what was written.
            mask: (batch, length), where there is no padding.
            embedding: (batch, dim).
        """
        said = self.body(input_ids=ids, attention_mask=mask, encoder_hidden_states=embedding[:, None])
        return F.linear(self.transform(said.last_hidden_state), self.body.get_input_embeddings().weight)


def _share(encoder: nn.Module, body: nn.Module) -> None:
    """Put the encoder's modules in the place of those of `body` that have the same name and weights of their own."""
    body.embeddings = encoder.embeddings
    for name, module in encoder.named_modules():
        if any(True for _ in module.parameters(recurse=False)) and not name.startswith("embeddings."):
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, module)


def _decoder(model: TransferModel) -> Decoder:
    found = model.get_submodule("decoder")
    assert isinstance(found, Decoder)
    return found
