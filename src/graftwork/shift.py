"""shift: how far the domain that has labels lies from the one that is to be answered, before anything is adapted.

Three measures, all from texts alone: can a classifier tell the domains apart, does the tokenizer know the target's
words, and does a language model expect its texts. None sees a label of the target.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftwork import domain_classifier
from graftwork.choice import InputError
from graftwork.corpus import Corpus, windows
from graftwork.hardware import Hardware, autocast, faster_precision
from graftwork.language import kind_of, language_model, pieces_of
from graftwork.methods.pretraining import pretext_scores
from graftwork.model import TransferModel, evaluating
from graftwork.models import resolve
from graftwork.pretexts.masked import Masked
from graftwork.tasks import Classification

if TYPE_CHECKING:
    from graftwork.data import Split
    from graftwork.modalities.text import Text

TEXTS = 500
"""At most so many of each domain are looked at, drawn at random."""
NEAR, FAR = 0.5, 1.5
"""Proxy A-distances: 62 % and 88 % of texts told right. Where words change, by our judgement and no theorem."""
RARER = 1.1
"""Pieces a word of the target, in those of the source, from which its words are called rarer."""
STRANGER = 0.3
"""Nats a piece that the target must be harder to foretell to be called stranger."""
_WINDOW = 64  # pieces
_READ = 32  # texts at once


@dataclass(frozen=True)
class Domain:
    """What is known of the texts of one domain."""

    texts: int
    """That were looked at."""
    unknown: float
    """Share of pieces that the tokenizer does not know, in [0, 1]."""
    pieces_a_word: float
    """Into how many pieces a word is cut, on average."""
    masked_loss: float | None
    """Nats a hidden piece, by a masked language model; None where there is too little text."""


@dataclass(frozen=True)
class Shift:
    """How far two domains lie apart."""

    distance: float
    """The proxy A-distance, in [0, 2]."""
    low: float
    """Lower end of its 95 % interval over texts."""
    high: float
    """Upper end."""
    error: float
    """Of the domain classifier on texts that it did not learn from, both domains counted alike."""
    source: Domain
    target: Domain
    model: str
    """Whose embeddings and tokenizer were asked."""
    language_model: str
    """Which model foretold masked pieces: `model`, or `graft-mini` where that has no head for it."""
    shared: int
    """Target texts that also stand in the source, word for word."""

    @property
    def said(self) -> tuple[str, ...]:
        """Each measure, and what it means, in sentences."""
        return (self._of_distance, self._of_words, self._of_language, BLIND)

    @property
    def near(self) -> bool:
        """Whether the model hardly tells the domains apart."""
        return self.distance < NEAR

    @property
    def rarer(self) -> bool:
        """Whether the target's words or sentences are rarer to the model than the source's."""
        return self.target.pieces_a_word >= RARER * self.source.pieces_a_word or (self.harder or 0.0) >= STRANGER

    @property
    def harder(self) -> float | None:
        """How many nats a piece the target is harder to foretell."""
        source, target = self.source.masked_loss, self.target.masked_loss
        return None if source is None or target is None else target - source

    @property
    def _of_distance(self) -> str:
        means = (
            "To this model they look alike: there is little that could be made more alike."
            if self.near
            else "Nearly every text gives its domain away, the classes perhaps with it: making both alike may cost "
            "what tells the classes apart."
            if self.distance > FAR
            else "They differ, and overlap: there is something that could be made alike."
        )
        return (
            f"Proxy A-distance {self.distance:.2f} of 2 [{self.low:.2f}, {self.high:.2f}]: a classifier of embeddings "
            f"tells source from target {1 - self.error:.0%} of the time, where a coin is right 50%. {means}"
        )

    @property
    def _of_words(self) -> str:
        ratio = self.target.pieces_a_word / self.source.pieces_a_word
        means = (
            "The target's words are rarer to this tokenizer: further pretraining on the target is what this supports."
            if ratio >= RARER
            else "The tokenizer knows the target's words as well as the source's."
        )
        return (
            f"Pieces a word: {self.source.pieces_a_word:.2f} in source, {self.target.pieces_a_word:.2f} in target; "
            f"pieces that the tokenizer does not know: {self.source.unknown:.2%} and {self.target.unknown:.2%}. {means}"
        )

    @property
    def _of_language(self) -> str:
        if self.harder is None:
            return "Masked pieces were not foretold: there is too little text."
        means = (
            "The target's language is stranger to it: further pretraining on the target is what this supports."
            if self.harder >= STRANGER
            else "The target's language is no stranger to it than the source's."
        )
        return (
            f"Masked pieces, foretold by {self.language_model}: {self.source.masked_loss:.2f} nats each in source, "
            f"{self.target.masked_loss:.2f} in target. {means}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the sentences among them."""
        return asdict(self) | {"said": list(self.said)}


BLIND = (
    "None of this sees a label: whether the same text means something else in the target, or its classes are as "
    "frequent, is not measured here."
)


def shift(
    data: Any,
    *,
    model: str | Path = "minilm",
    seed: int = 0,
    hardware: Hardware | dict[str, Any] | None = None,
    **load: Any,
) -> Shift:
    """Measure how far the train texts of `data` lie from its target texts.

    Args:
        data: as `Data.load` takes it, with a `target`.
        model: an embedded model, a folder, a run, or a hub id.
        seed: of the texts drawn, and of the folds.
        hardware: device and precision.
        load: further options of `Data.load`, such as `target` and `text`.

    Raises:
        InputError: there is no target, or too few texts.

    Example:
        shift("reviews.csv", target="tickets.txt").said
    """
    from graftwork.data import Data

    loaded = Data.of(data, **load)
    loaded.require_texts("graft shift")
    if "target" not in loaded:
        raise InputError("There is no target domain to measure against. Give its texts with --target FILE.")
    generator = np.random.default_rng(seed)
    source, target = (plain_texts(loaded[name], generator) for name in ("train", "target"))
    if min(len(source), len(target)) < domain_classifier.FOLDS:
        raise InputError(
            f"{len(source)} source and {len(target)} target texts are too few to tell domains apart. Give at least "
            f"{domain_classifier.FOLDS} of each."
        )
    machine = Hardware.of(hardware)
    folder = resolve(model)
    encoder = texts_model(folder, machine)
    found = embedded(encoder, [*source, *target])
    apart = domain_classifier.out_of_fold(found[: len(source)], found[len(source) :], seed=seed)
    wrong = domain_classifier.error(*apart)
    half = 1.96 * 2 * _deviation(*apart)
    name, losses = _losses(folder, str(model), source, target, machine)
    return Shift(
        distance=domain_classifier.a_distance(wrong),
        low=max(0.0, 2 * (1 - 2 * wrong) - half), high=min(2.0, max(0.0, 2 * (1 - 2 * wrong) + half)),
        error=wrong, source=_domain(encoder.text, source, losses[0]),
        target=_domain(encoder.text, target, losses[1]), model=str(model), language_model=name,
        shared=int(np.isin(loaded["target"].keys, loaded["train"].keys).sum()),
    )  # fmt: skip


def plain_texts(split: Split, generator: np.random.Generator | None = None, *, most: int | None = TEXTS) -> list[str]:
    """At most so many of its texts, drawn at random; the words of a tagged one, and the texts of a pair, joined."""
    rows = np.sort((generator or np.random.default_rng(0)).permutation(len(split))[:most])
    return [given if isinstance(given, str) else " ".join(given) for given in split.inputs(rows)]


def texts_model(folder: Path, hardware: Hardware) -> TransferModel:
    """The encoder of a folder, to embed texts with; its head is of no use."""
    return TransferModel.pretrained(folder, Classification(labels=("text",))).to(hardware.torch_device())


def embedded(model: TransferModel, texts: Sequence[str]) -> np.ndarray:
    """What the model makes of texts: (n, dim) float32."""
    ids = model.text.encode(list(texts))
    order = np.argsort([-len(each) for each in ids], kind="stable")
    found = np.zeros((len(ids), model.width), dtype=np.float32)
    with evaluating(model), autocast(model.device, faster_precision(model.device.type)), torch.inference_mode():
        for start in range(0, len(order), _READ):
            some = order[start : start + _READ]
            inputs = {name: t.to(model.device) for name, t in model.modality.collate([ids[i] for i in some]).items()}
            found[some] = model.embed(inputs).float().cpu().numpy()
    return found


def _deviation(source: np.ndarray, target: np.ndarray) -> float:
    """The standard deviation of twice the error, the mean of two shares, over texts."""
    shares = (source >= 0.5).mean(), (target < 0.5).mean()
    return float(np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, (len(source), len(target)), strict=True))))


def _domain(modality: Text, texts: Sequence[str], loss: float | None) -> Domain:
    pieces = unknown = words = 0
    for encoding in modality.encodings(list(texts)):
        own = [i for i, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not special]
        pieces += len(own)
        unknown += sum(i == modality.unknown_id for i in own)
        words += len({word for word in encoding.word_ids if word is not None})
    return Domain(len(texts), unknown / max(pieces, 1), pieces / max(words, 1), loss)


def _losses(
    folder: Path, name: str, source: Sequence[str], target: Sequence[str], hardware: Hardware
) -> tuple[str, list[float | None]]:
    """Which model foretold masked pieces, and the loss on each domain."""
    language = language_model(folder, "masked") if kind_of(folder) == "masked" else None
    if language is None or language.head.fresh:
        name, language = "graft-mini", language_model(resolve("graft-mini"), "masked")
    language = language.to(hardware.torch_device())
    return name, [masked_loss(language, texts) for texts in (source, target)]


def masked_loss(language: TransferModel, texts: Sequence[str]) -> float | None:
    """Nats a piece that is hidden of these texts, by a masked language model; None where they fill no window.

    Always the same pieces are hidden, of texts that follow one another in windows of 64 pieces.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        try:
            read = windows(Corpus(file), "all", language, min(_WINDOW, language.modality.max_length))
        except InputError:
            return None
    scores = pretext_scores(language, Masked(), pieces_of(language), read, "fp32", most=128)
    return scores["loss"]
