"""A smaller table of pieces: half of a small encoder is its embedding table, and a task uses a tenth of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from tokenizers import Tokenizer
from torch import nn

from graftwork.compressor import Compressor
from graftwork.modalities.text import Text
from graftwork.shapes import FactorisedEmbedding as Factors
from graftwork.vocabulary import can_compact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Vocabulary(Compressor):
    """Keep the pieces of train, common and short ones: on texts of kept pieces the outputs are the same bits.

    Every single character stays, so that other texts can still be spelled, in more and shorter pieces.
    """

    refits: ClassVar[bool] = False
    paper: ClassVar[str] = "Load What You Need, Abdaoui, Pradel & Sigel 2020, section 3"
    not_after: ClassVar[Mapping[str, str]] = {"factorised-embedding": "its factors were fitted to the whole table"}

    @classmethod
    def levels(cls, model: TransferModel) -> list[Compressor]:
        """With half of all pieces, and as it is by default."""
        if not isinstance(model.modality, Text):
            return []
        half, default = model.modality.tokenizer.get_vocab_size() // 2, cls()
        return [cls(common=half), default] if half > default.common else [default]

    short: int = Field(default=1, ge=1)
    """Pieces of at most so many characters stay, whether train uses them or not."""
    common: int = Field(default=4000, ge=0)
    """So many of the first longer pieces stay as well: the vocabularies of BERT are listed by frequency."""

    def unsuited(self, model: TransferModel) -> str | None:
        """A WordPiece tokenizer, a plain table, and nothing else that reads pieces by number."""
        if model.modality.reads != "text":
            return "The model reads pictures, and has no vocabulary to cut. Leave 'vocabulary' out."
        kind = _described(model.text)["model"]["type"]
        if kind != "WordPiece":
            return (
                f"The tokenizer is of the kind {kind}, whose pieces are made of one another: without some, texts of "
                "the others may be cut differently. Choose another step, such as 'factorised-embedding'."
            )
        if model.head.pretrained:
            return f"The head {model.head_choice.name!r} reads the whole vocabulary. Leave 'vocabulary' out."
        if not can_compact(model.encoder):
            return "The encoder's table of pieces is shared, or no plain one. Leave 'vocabulary' out."
        return None

    def change(self, model: TransferModel, train: Examples) -> None:
        """Choose, and give tokenizer, table and config the new numbers."""
        described = _described(model.text)
        pieces: dict[str, int] = described["model"]["vocab"]
        special = {token["content"] for token in described["added_tokens"]} | {described["model"]["unk_token"]}
        used = set(np.unique(train.ids).tolist()) | {model.modality.pad_id}
        prefix = described["model"]["continuing_subword_prefix"]
        single = {piece for piece in pieces if len(piece.removeprefix(prefix)) == 1}
        longer = [p for p in pieces if len(p.removeprefix(prefix)) > 1 and not p.startswith("[")]  # nor "[unused7]"
        common = set(sorted(longer, key=lambda piece: pieces[piece])[: self.common])
        kept = {
            piece: place
            for piece, place in pieces.items()
            if place in used or piece in common or piece in special or _stays(piece, prefix, single, self.short)
        }
        old = np.array(sorted(kept.values()))
        new = {int(place): number for number, place in enumerate(old)}
        _shrink(model.encoder, old, new)
        model.modality = _renumbered(model.text, described, kept, new)

    def notes(self, before: TransferModel, after: TransferModel, validation: Examples) -> dict[str, Any]:
        """How many pieces were kept, and what share of validation's pieces was not."""
        known = set(after.text.tokenizer.get_vocab(with_added_tokens=True))
        ids, counts = np.unique(validation.ids, return_counts=True)
        missing = [before.text.tokenizer.id_to_token(int(i)) not in known for i in ids]
        lacking = {int(i) for i, lost in zip(ids, missing, strict=True) if lost}
        rows = [not lacking.isdisjoint(_ids(validation, place)) for place in range(len(validation))]
        return {
            "pieces": len(known),
            "pieces_before": before.text.tokenizer.get_vocab_size(),
            "validation_pieces_missing": float(counts[missing].sum() / counts.sum()),
            "validation_rows_spelled_anew": float(np.mean(rows)),
        }


class FactorisedEmbedding(Compressor):
    """Write the table of pieces as a product of two, by singular values: V x D becomes V x rank and rank x D."""

    name: ClassVar[str] = "factorised-embedding"
    paper: ClassVar[str] = "ALBERT, Lan et al. 2020, section 3.1; by SVD: Eckart & Young 1936"
    main: ClassVar[str] = "rank"

    rank: int = Field(default=128, ge=1)
    """Width between the two."""

    @classmethod
    def levels(cls, model: TransferModel) -> list[Compressor]:
        """A half, a third and a quarter of the encoder's width."""
        return [cls(rank=max(1, model.width // share)) for share in (2, 3, 4)]

    def unsuited(self, model: TransferModel) -> str | None:
        """A plain table, which becomes smaller."""
        if not can_compact(model.encoder):
            return "The encoder's table of pieces is shared, or no plain one. Leave 'factorised-embedding' out."
        if model.head.pretrained:
            return f"The head {model.head_choice.name!r} reads the whole table. Leave 'factorised-embedding' out."
        pieces, dim = model.encoder.get_input_embeddings().weight.shape  # type: ignore[operator, union-attr]
        if self.rank * (pieces + dim) >= pieces * dim:
            return (
                f"A rank of {self.rank} makes the table of {pieces:,} x {dim} no smaller. Give less than "
                f"{pieces * dim // (pieces + dim)}."
            )
        return None

    def change(self, model: TransferModel, train: Examples) -> None:
        """The best product of that rank, in squares."""
        whole: nn.Embedding = model.encoder.get_input_embeddings()  # type: ignore[operator]
        weight = whole.weight.detach()
        left, values, right = torch.linalg.svd(weight.double().cpu(), full_matrices=False)
        root = values[: self.rank].sqrt()
        factors = Factors(whole.num_embeddings, self.rank, whole.embedding_dim, whole.padding_idx)
        with torch.no_grad():
            factors.table.weight.copy_(left[:, : self.rank] * root)
            factors.up.weight.copy_((root[:, None] * right[: self.rank]).T)
        model.encoder.set_input_embeddings(factors.to(weight.device))  # type: ignore[operator]

    def notes(self, before: TransferModel, after: TransferModel, validation: Examples) -> dict[str, Any]:
        """What share of the table's sum of squares is lost."""
        whole = before.encoder.get_input_embeddings().weight.detach()  # type: ignore[operator, union-attr]
        factors: Any = after.encoder.get_input_embeddings()  # type: ignore[operator]
        product = factors.table.weight.detach() @ factors.up.weight.detach().T
        return {"table_lost": float(((whole - product) ** 2).sum() / (whole**2).sum())}  # type: ignore[operator]


def _described(modality: Text) -> dict[str, Any]:
    return json.loads(modality.tokenizer.to_str())


def _ids(examples: Examples, place: int) -> list[int]:
    return examples.ids[examples.starts[place] : examples.starts[place + 1]].tolist()


def _stays(piece: str, prefix: str, single: set[str], short: int) -> bool:
    """Short pieces, and those with a character that could otherwise not be spelled where it stands."""
    begins = not piece.startswith(prefix)
    characters = piece if begins else piece.removeprefix(prefix)
    if len(characters) <= short:
        return True
    spelled = [c if begins and i == 0 else prefix + c for i, c in enumerate(characters)]
    return not single.issuperset(spelled)


def _shrink(encoder: nn.Module, old: np.ndarray, new: Mapping[int, int]) -> None:
    """Leave these rows of the table, in their order; the config's numbers of special pieces follow."""
    whole: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[operator]
    rows = whole.weight.detach()[torch.from_numpy(old).to(whole.weight.device)].clone()
    padding = None if whole.padding_idx is None else new.get(whole.padding_idx)
    small = nn.Embedding.from_pretrained(rows, freeze=not whole.weight.requires_grad, padding_idx=padding)
    encoder.set_input_embeddings(small)  # type: ignore[operator]
    config: Any = encoder.config
    config.vocab_size = len(old)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new.get(value))


def _renumbered(modality: Text, described: dict[str, Any], kept: Mapping[str, int], new: Mapping[int, int]) -> Text:
    """The same rules with fewer pieces, each under its new number."""
    described["model"]["vocab"] = {piece: new[place] for piece, place in kept.items()}
    for token in described["added_tokens"]:
        token["id"] = new[token["id"]]
    _renumber_processor(described.get("post_processor"), new)
    fewer = Text(
        Tokenizer.from_str(json.dumps(described)), max_length=modality.max_length, pad_id=new[modality.pad_id],
        mask_token=modality.mask_token,
    )  # fmt: skip
    return fewer.within(modality.template)


def _renumber_processor(processor: Any, new: Mapping[int, int]) -> None:
    """What a post-processor puts around texts, by number: in a template, or as pairs of piece and number."""
    if not processor:
        return
    for each in processor.get("processors", ()):
        _renumber_processor(each, new)
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        token["ids"] = [new[i] for i in token["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], new[processor[name][1]]]
