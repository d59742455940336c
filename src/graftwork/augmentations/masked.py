"""Contextual substitution: a masked language model says which words fit in the place of a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from pydantic import Field

from graftwork.augmentation import Example, Rewrite
from graftwork.augmentations.language_model import LanguageModel
from graftwork.augmentations.passage import Passage, casing, stop_words
from graftwork.augmentations.whole_words import WholeWords
from graftwork.augmentations.words import WordLevel
from graftwork.choice import InputError
from graftwork.modalities.text import Text

if TYPE_CHECKING:
    from graftwork.data import Split
    from graftwork.hardware import Hardware


class MaskedSubstitution(WordLevel):
    """Masks some words, and lets a masked language model of yours draw others that fit the context; stop words stay.

    The draw is from the model's own distribution at the mask, over its `top_k` most probable whole words in the same
    case, the word itself left out.
    """

    paper: ClassVar[str] = "Kobayashi 2018, section 2.2, with BERT's masked words as in Wu et al. 2019 (without labels)"

    share: float = Field(default=0.15, gt=0, le=0.5)
    """Share of a text's words that is changed; one word at least. BERT was trained with 0.15."""
    model: str = ""
    """The folder of a masked language model, saved with its head."""
    top_k: int = Field(default=10, ge=1)
    """The most probable words that are drawn from."""
    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by this first."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """A batch at a time: mask, ask once, draw."""
        model = LanguageModel.load(self.model, "masked", hardware, asked_by=f"{self.name}.model")
        if model.tokenizer.mask_token is None:
            raise InputError(f"The tokenizer in {str(model.folder)!r} has no mask token. Give another model's folder.")
        return _Substitution(self, model)


class _Substitution:
    """One model at work on batches of examples."""

    def __init__(self, asked: MaskedSubstitution, model: LanguageModel):
        self.asked, self.model = asked, model
        self.text = Text.from_folder(model.folder)
        self.words = WholeWords(self.text.tokenizer)

    def __call__(self, examples: Sequence[Example], luck: Sequence[np.random.Generator]) -> list[Example]:
        passages = [Passage.of(example) for example in examples]
        places = [self._places(passage, own) for passage, own in zip(passages, luck, strict=True)]
        logits = self._logits(passages, places)
        return [
            passage.replaced(self._drawn(passage, where, found, own)).example(example.label)
            for example, passage, where, found, own in zip(examples, passages, places, logits, luck, strict=True)
        ]

    def _places(self, passage: Passage, luck: np.random.Generator) -> list[int]:
        """The words that give way, in their order."""
        said = [
            i for i in passage.free if passage.pieces[i].casefold() not in stop_words() and casing(passage.pieces[i])
        ]
        count = min(self.asked.count(passage), len(said))
        return sorted(luck.choice(said, size=count, replace=False).tolist()) if said else []

    @torch.inference_mode()
    def _logits(self, passages: Sequence[Passage], places: Sequence[list[int]]) -> list[np.ndarray]:
        """At the masks of each passage that the model's length holds, over whole words: (masks, words)."""
        tokenizer, network = self.model.tokenizer, self.model.network
        mask = str(tokenizer.mask_token)
        masked = [
            passage.replaced(dict.fromkeys(where, mask)).example(None).input
            for passage, where in zip(passages, places, strict=True)
        ]
        inputs = self.text.collate(self.text.encode(masked))
        logits = network(**{name: value.to(network.device) for name, value in inputs.items()}).logits
        at = inputs["input_ids"] == tokenizer.mask_token_id  # (batch, length)
        found = logits[at.to(network.device)][:, torch.from_numpy(self.words.ids).to(network.device)]
        return np.split(found.float().cpu().numpy(), np.cumsum(at.sum(dim=1).numpy())[:-1])

    def _drawn(
        self, passage: Passage, places: Sequence[int], logits: np.ndarray, luck: np.random.Generator
    ) -> dict[int, str]:
        """Place -> the word drawn for it; masks that were cut off at the end have none."""
        drawn = {}
        for place, row in zip(places, logits, strict=False):
            word = passage.pieces[place]
            chance = self.chances(word, row)
            if chance is not None:
                drawn[place] = getattr(self.words.words[luck.choice(len(chance), p=chance)], str(casing(word)))()
        return drawn

    def chances(self, word: str, logits: np.ndarray) -> np.ndarray | None:
        """The probability of each whole word to stand for `word`: (words,); None where none can."""
        scores = np.where(self.words.cased_like(word), logits.astype(np.float64) / self.asked.temperature, -np.inf)
        own = self.words.position(word)
        if own is not None:
            scores[own] = -np.inf
        if len(scores) > self.asked.top_k:
            scores[np.argsort(-scores, kind="stable")[self.asked.top_k :]] = -np.inf
        if not np.isfinite(scores).any():
            return None
        chance = np.exp(scores - scores.max())
        return chance / chance.sum()
