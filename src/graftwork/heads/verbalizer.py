"""A head that answers in words: classes are told by the words that a language model would put into a gap."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from graftwork.choice import InputError, suggest
from graftwork.head import Head, HeadNetwork
from graftwork.models import load_language_model

if TYPE_CHECKING:
    from graftwork.modalities.text import Text
    from graftwork.model import TransferModel

NOTHING = ("N/A", "[MASK]", "")
"""Texts that say nothing, by which a model's own leaning is seen (Zhao et al. 2021, section 5)."""


class VerbalizerNetwork(HeadNetwork):
    """States at the gap (..., dim) to classes: the mean score of each class's words, as the language model scores them.

    Of a class c with words V(c): b_c + 1/|V(c)| sum over w in V(c) of s_w, where s_w is the logit of word w, or the
    mean over the pieces it is read in.

    Attributes:
        transform: the language model's own layers between states and logits; nothing for those that read on.
        decoder: its rows for the pieces of the words alone.
        shares: (classes, pieces), what each piece counts for each class; rows sum to 1.
        source: the folder whose language-model head it took over; None where it was saved since, with these rows alone.
        bias: (classes,), against what the model leans to of itself.
    """

    pretrained: ClassVar[bool] = True
    shares: Tensor

    def __init__(self, asked: Verbalizer, classes: int):
        super().__init__()
        self.asked = asked
        self.bias = nn.Parameter(torch.zeros(classes))
        self.source: Path | None = None

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., dim) to (..., classes)."""
        return self.decoder(self.transform(states)) @ self.shares.T.to(states.dtype) + self.bias

    def meet(self, model: TransferModel) -> None:
        """Find the pieces of each class's words, and make room for as many rows."""
        self.pieces, shares = shares_of(model.text, self.asked.words_of(model.task.labels))
        self.register_buffer("shares", shares)
        template = model.modality.template
        assert template is not None, "a verbalizer has a template"
        table: Tensor = model.encoder.get_input_embeddings().weight  # type: ignore[operator]
        self.transform = _Transform(model.encoder.config, table.shape[1]) if template.masked else nn.Identity()
        self.decoder = nn.Linear(table.shape[1], len(self.pieces))

    @torch.no_grad()
    def inherit(self, model: TransferModel, folder: Path) -> None:
        """Take the language model's head over, and set the bias against what it leans to where nothing is said.

        Raises:
            InputError: the folder has no language-model head, or one of another build.
        """
        masked = isinstance(self.transform, _Transform)
        kind = "masked" if masked else "causal"
        network = load_language_model(folder, kind, remedy="Give one that was saved with its head.")
        network.eval()
        decoder = network.get_output_embeddings()
        rows = torch.tensor(self.pieces)
        self.decoder.weight.copy_(decoder.weight[rows])
        self.decoder.bias.copy_(torch.zeros(len(rows)) if decoder.bias is None else decoder.bias[rows])
        if isinstance(self.transform, _Transform):
            self.transform.copy(network, decoder)
        text = {"input_ids": torch.arange(min(8, len(decoder.weight)))[None]}
        ours = self.decoder(self.transform(network.base_model(**text).last_hidden_state))
        if not torch.allclose(ours, network(**text).logits[..., rows], rtol=1e-3, atol=1e-3):
            raise InputError(f"The language-model head of a {type(network).__name__} is of a build not known here yet.")
        self.fresh, self.source = False, folder
        if self.asked.calibrated:
            scores = torch.stack([torch.from_numpy(found) for found in model.outputs(NOTHING)])  # (3, classes)
            self.bias.sub_(scores.softmax(dim=-1).mean(dim=0).log())


class Verbalizer(Head):
    """Let a language model fill a gap, and take its word: classes are told by their names, with few labels or none.

    The model must have its language-model head: a masked model where the template has a `[MASK]`, else a causal one.
    """

    paper: ClassVar[str] = (
        "PET, Schick & Schütze 2021, section 3.1; contextual calibration: Zhao et al. 2021, section 5"
    )
    for_tokens: ClassVar[bool] = False

    template: str = "{text} This is about [MASK]."
    """What stands around each text; the gap is `[MASK]`, or without one what follows the end."""
    words: Mapping[str, Sequence[str]] = Field(default={})
    """Of each class the words that stand for it; by default those of its name."""
    calibrated: bool = True
    """Whether what the model answers where nothing is said is taken off its answers."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `VerbalizerNetwork`, which takes shape when it meets the model."""
        return VerbalizerNetwork(self, classes)

    def words_of(self, labels: Sequence[str]) -> list[list[str]]:
        """The words of each label.

        Raises:
            InputError: words for a label that there is not, or a label without a word.
        """
        for label in self.words:
            if label not in labels:
                raise InputError(f"Words are given for {label!r}, which is no label. {suggest(label, labels)}")
        found = [list(self.words.get(label, ())) or named(label) for label in labels]
        for label, words in zip(labels, found, strict=True):
            if not words:
                raise InputError(f"The label {label!r} holds no word. Give some: words={{{label!r}: [...]}}.")
        return found


def named(label: str) -> list[str]:
    """The words of a class's name, in lower case.

    Example:
        >>> named("card_arrival"), named("Sci/Tech"), named("getSpareCard")
        (['card', 'arrival'], ['sci', 'tech'], ['get', 'spare', 'card'])
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return [word.lower() for word in re.findall(r"[^\W_]+", parted)]


class _Transform(nn.Module):
    """A dense layer, the encoder's activation and a norm: what masked language models have before their logits."""

    def __init__(self, config: Any, width: int):
        super().__init__()
        from transformers.activations import ACT2FN

        self.dense = nn.Linear(config.hidden_size, width)
        self.activation = ACT2FN[getattr(config, "hidden_act", None) or getattr(config, "activation", "gelu")]
        self.norm = nn.LayerNorm(width, eps=getattr(config, "layer_norm_eps", 1e-12))

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(states)))

    def copy(self, network: nn.Module, decoder: nn.Module) -> None:
        """Take over the layers that a language model has beside its body and its decoder."""
        body = set(network.base_model.modules())  # type: ignore[operator]
        beside = [module for module in network.modules() if module not in body and module is not decoder]
        for own, kind in ((self.dense, nn.Linear), (self.norm, nn.LayerNorm)):
            found = [module for module in beside if isinstance(module, kind)]
            shapes = {n: p.shape for n, p in own.named_parameters()}
            if len(found) != 1 or {n: p.shape for n, p in found[0].named_parameters()} != shapes:
                raise InputError(
                    f"The language-model head of a {type(network).__name__} is of a build not known here yet."
                )
            own.load_state_dict(found[0].state_dict())


def shares_of(modality: Text, words: Sequence[Sequence[str]]) -> tuple[list[int], Tensor]:
    """The pieces that the words of each class are read in at the gap, and what each counts for each class.

    Args:
        modality: within its template.
        words: of each class, one at least.

    Returns:
        Ids, ascending, and shares (classes, pieces), whose rows sum to 1.

    Raises:
        InputError: a word that the vocabulary lacks.
    """
    read = {word: _pieces(modality, word) for each in words for word in each}
    pieces = sorted({piece for found in read.values() for piece in found})
    shares = torch.zeros(len(words), len(pieces))
    for number, each in enumerate(words):
        for word in each:
            for piece in read[word]:
                shares[number, pieces.index(piece)] += 1 / len(read[word]) / len(each)
    return pieces, shares


def _pieces(modality: Text, word: str) -> list[int]:
    """The ids that a word is read in where the gap stands."""
    assert modality.template is not None, "a verbalizer has a template"
    given = f" {word}" if modality.template.spaced else word
    ids = modality.tokenizer.encode(given, add_special_tokens=False).ids
    if not ids or modality.unknown_id in ids:
        raise InputError(f"The model's vocabulary has no {word!r}. Give other words: words={{label: [...]}}.")
    return ids
