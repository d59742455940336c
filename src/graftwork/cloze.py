"""A language model asked what stands in the gap of a template, on some rows: what a search for prompts looks at.

One reading of the rows in a template answers for any words, so words are compared without reading again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.augmentations.whole_words import WholeWords
from graftwork.choice import InputError
from graftwork.heads.verbalizer import NOTHING, VerbalizerNetwork, shares_of
from graftwork.model import TransferModel, evaluating
from graftwork.models import load_language_model
from graftwork.template import MASK, TEXT, Template

if TYPE_CHECKING:
    from graftwork.modalities.text import Text

_AT_ONCE = 32  # rows


@dataclass(frozen=True)
class Gap:
    """What rows say at the gap of one template."""

    modality: Text
    """Within the template."""
    states: Tensor
    """Of the rows, as the decoder reads them: (rows, dim)."""
    nothing: Tensor
    """The same of texts that say nothing: (texts, dim)."""


class Cloze:
    """A language model, frozen, and the rows it is asked about.

    Args:
        model: with a verbalizer as its head, whose language-model head is still at hand.
        texts: of the rows.
        targets: their classes, (rows,).

    Attributes:
        vocabulary: the whole words that it may answer with.
        vectors: what the decoder holds of them, (words, dim), and `biases`, (words,).

    Raises:
        InputError: as `source_of`.
    """

    def __init__(self, model: TransferModel, texts: Sequence[str], targets: np.ndarray):
        self.model, self.texts, self.targets = model, texts, targets
        assert model.modality.template is not None, "a verbalizer has a template"
        self._masked = model.modality.template.masked
        kind = "masked" if self._masked else "causal"
        network = load_language_model(source_of(model), kind, remedy="Give one with it.")
        decoder = network.get_output_embeddings()
        self._transform: nn.Module = model.head.transform  # type: ignore[assignment]
        self._weight = decoder.weight.detach().to(model.device)  # (pieces, dim)
        self._bias = torch.zeros(len(self._weight)) if decoder.bias is None else decoder.bias.detach()
        self._bias = self._bias.to(model.device)
        self.vocabulary = WholeWords(model.text.tokenizer)
        ids = torch.from_numpy(self.vocabulary.ids).to(model.device)
        self.vectors, self.biases = self._weight[ids], self._bias[ids]

    def read(self, template: str) -> str | None:
        """As much of a template as the model reads; None where it cannot, or little of a text would fit."""
        try:
            modality = self.model.text.within(Template(template))
        except InputError:
            return None
        assert modality.template is not None
        suits = modality.template.masked == self._masked and 2 * modality.lengths([""])[0] <= modality.max_length
        return modality.template.text if suits else None

    def gap(self, template: str) -> Gap:
        """What the rows say at the gap of a template that can be `read`."""
        modality = self.model.text.within(Template(template))
        return Gap(modality, self._states(modality, self.texts), self._states(modality, NOTHING))

    def scores(self, modality: Text, states: Tensor, words: Sequence[Sequence[str]]) -> Tensor:
        """The scores of classes whose words these are: (rows, classes), as `VerbalizerNetwork` says."""
        pieces, shares = shares_of(modality, words)
        return F.linear(states, self._weight[pieces], self._bias[pieces]) @ shares.T.to(states)

    def word_scores(self, states: Tensor) -> Tensor:
        """The logits of the whole words: (rows, words)."""
        return F.linear(states, self.vectors, self.biases)

    def along(self, slope: Tensor) -> np.ndarray:
        """How much each whole word lies along a gradient at an embedding, w . slope: (words,)."""
        table: Tensor = self.model.encoder.get_input_embeddings().weight  # type: ignore[operator]
        ids = torch.from_numpy(self.vocabulary.ids).to(table.device)
        return (table[ids] @ slope.to(table)).detach().cpu().numpy()

    def fill(self, templates: Mapping[str, np.ndarray]) -> np.ndarray:
        """The mean log probability of each whole word at the gap, over rows that each stand in a template: (words,)."""
        found = [
            self.word_scores(
                self._states(self.model.text.within(Template(template)), [self.texts[int(r)] for r in rows])
            )
            for template, rows in templates.items()
        ]
        return torch.cat(found).log_softmax(dim=-1).mean(dim=0).cpu().numpy()

    def slopes(self, gap: Gap, words: Sequence[Sequence[str]], scale: float, bias: Tensor) -> dict[int, Tensor]:
        """How log p(right class), summed over the rows, grows with the embedding of each word of a template.

        Args:
            gap: of the template.
            words: of the classes.
            scale: multiplies the scores of the classes.
            bias: is then added, (classes,).

        Returns:
            Of the words that are read in one piece: which of the template's units -> its gradient, (dim,).
        """
        places = word_places(gap.modality, self.vocabulary)
        found: dict[int, Tensor] = {}
        with evaluating(self.model):
            for rows, inputs in self._batches(gap.modality, self.texts):
                with _kept_embeddings(self.model) as kept:
                    logits = scale * self.scores(gap.modality, self._read(gap.modality, inputs), words) + bias
                right = torch.from_numpy(self.targets[rows]).to(logits.device)
                (slope,) = torch.autograd.grad(-F.cross_entropy(logits, right, reduction="sum"), kept)
                for unit, place in places.items():
                    at = inputs["attention_mask"].sum(dim=1) + place if place < 0 else place
                    found[unit] = found.get(unit, 0) + slope[torch.arange(len(rows)), at].sum(dim=0)
        return found

    def _states(self, modality: Text, texts: Sequence[str]) -> Tensor:
        parts: list[Tensor] = []
        order: list[np.ndarray] = []
        with torch.no_grad(), evaluating(self.model):
            for rows, inputs in self._batches(modality, texts):
                parts.append(self._read(modality, inputs))
                order.append(rows)
        return torch.cat(parts)[np.argsort(np.concatenate(order))]

    def _batches(self, modality: Text, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Which rows, and what is read of them, the longest first."""
        ids = modality.encode(list(texts))
        order = np.argsort([-len(each) for each in ids], kind="stable")
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE]
            inputs = modality.collate([ids[row] for row in rows])
            yield rows, {name: value.to(self.model.device) for name, value in inputs.items()}

    def _read(self, modality: Text, inputs: dict[str, Tensor]) -> Tensor:
        self.model.modality = modality  # says where the gap is
        return self._transform(self.model.embed(inputs))


def source_of(model: TransferModel) -> Path:
    """The folder that holds the whole language model, whose answers to some words the model's head gives.

    Raises:
        InputError: the head is another, or was saved without the rest of the language model's.
    """
    if not isinstance(model.head, VerbalizerNetwork) or model.head.source is None:
        raise InputError(
            "A search for prompts asks the whole language model, which an earlier stage has left behind. Let it be the "
            "first stage, on a pretrained model."
        )
    return model.head.source


def word_places(modality: Text, vocabulary: WholeWords) -> dict[int, int]:
    """Where the words of a modality's template are read: which of its units -> place from the start, or negative, end.

    Words of several pieces are left out.
    """
    assert modality.template is not None
    template, mask = modality.template, modality.mask_token or MASK
    encoding = modality.encodings(["a"])[0]
    found, end, length, whole = {}, 0, 0, set(vocabulary.ids.tolist())
    for unit, (start, stop) in enumerate(template.units):
        begins = (
            length + start - end
        )  # in what is read, where `a` stands for the text, and the model's mask for the gap
        said = template.text[start:stop]
        length = begins + len({TEXT: "a", MASK: mask}.get(said, said))
        end = stop
        at = [i for i, (_, close) in enumerate(encoding.offsets) if close == length]
        is_word = said not in (TEXT, MASK) and at and encoding.ids[at[-1]] in whole
        if is_word and encoding.offsets[at[-1]][0] <= begins:
            found[unit] = at[-1] if template.text.index(TEXT) > start else at[-1] - len(encoding.ids)
    return found


class _kept_embeddings:  # noqa: N801  a context manager, used like `open`
    """A list that holds, once the encoder has read, what it looked up of its table, (batch, length, dim)."""

    def __init__(self, model: TransferModel):
        self.table: nn.Module = model.encoder.get_input_embeddings()  # type: ignore[operator]

    def __enter__(self) -> list[Tensor]:
        self.kept: list[Tensor] = []

        def keep(_module: nn.Module, _given: object, found: Tensor) -> Tensor:
            self.kept.append(found.detach().requires_grad_())
            return self.kept[0]

        self.hook = self.table.register_forward_hook(keep)
        return self.kept

    def __exit__(self, *_: object) -> None:
        self.hook.remove()
