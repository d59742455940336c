"""A material is what a base is learned from: plain text, or pictures.

It is read and held out, a network begins for it, and what has learned is kept as plain `transformers` reads it. The
verb `pretrain` is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch

from graftwork.choice import InputError
from graftwork.corpus import Corpus, train_tokenizer, windows
from graftwork.examples import Examples, tokenised
from graftwork.extension import extend
from graftwork.gallery import Gallery
from graftwork.language import language_model, pieces_of, save_language_model, start_from_nothing
from graftwork.layers import stacks
from graftwork.methods.pretraining import VALIDATED, pretext_scores, rebuilding_scores
from graftwork.picture_folder import pictures_in
from graftwork.pretext import SIZES, PicturePretext, Pretext
from graftwork.rebuilding import picture_model, save_encoder
from graftwork.rebuilding import start_from_nothing as start_to_see

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.model import TransferModel
    from graftwork.pretrain import Request
    from graftwork.run import Run

Told = Callable[[str], None]

OWN = {
    "text": {"column": None, "deduplicate": False, "pieces": 8192, "extend": 0, "length": 128},
    "image": {"image_size": 32, "patch": 4},
}
"""What can be asked of one material alone, with its default."""


class Material(Protocol):
    """What `pretrain` asks of a material."""

    unit: ClassVar[str]
    """What passes by while it is learned: `tokens`, `pictures`."""

    @property
    def source(self) -> Corpus | Gallery:
        """What is read; has a `name`, `files` and a `fingerprint`."""
        ...

    def start(self, begins: Path | None, folder: Path, told: Told) -> dict[str, Any]:
        """Write what training begins from, where that is not `begins` itself; gives what the run should tell of it."""
        ...

    def model(self, folder: Path) -> TransferModel:
        """The network of a folder, with what answers the pretext; drawn from torch's generator where it is fresh.

        Raises:
            InputError: it is no network for this material, or reads less than is asked for.
        """
        ...

    def examples(self, split: str, model: TransferModel, told: Told) -> Examples:
        """`train` or `validation` as the network reads it; done once, then found in the cache again."""
        ...

    def units(self, examples: int) -> int:
        """How many of `unit` so many examples are."""
        ...

    def flops(self, model: TransferModel) -> float:
        """Operations to learn from one example."""
        ...

    def scores(self, model: TransferModel, held_out: Examples) -> dict[str, float]:
        """How well what was held out is told."""
        ...

    def save(self, model: TransferModel, folder: Path) -> None:
        """Write what plain `transformers` reads."""
        ...

    def card(self, run: Run) -> Card:
        """What is said of a base, beside what is said of every one."""
        ...


@dataclass(frozen=True)
class Card:
    """What a model card says of a base of one material."""

    kind: str
    """What it is."""
    origin: str
    """What it began from, where it began from nothing."""
    source: str
    """What it learned from."""
    size: str
    """What is to be said of its size beside its parameters."""
    held_out: str
    """How well it tells what was held out."""
    score: str
    """Which score of a validation is told along the training, beside the loss."""
    form: str
    """How it is written."""
    good_for: str
    """What it is good for, and what not."""


def material_of(request: Request, pretext: Pretext) -> Material:
    """The material that a request learns from.

    Raises:
        InputError: it cannot be read, or something was asked for that is of the other material.
    """
    for reads, own in OWN.items():
        strange = [name for name, default in own.items() if getattr(request, name) != default]
        if reads != pretext.reads and strange:
            option = f"--{strange[0].replace('_', '-')}" if strange[0] != "column" else "--text"
            raise InputError(
                f"The objective {pretext.name!r} learns from {_NOUNS[pretext.reads]}, and {option} is for "
                f"{_NOUNS[reads]}. Leave it out."
            )
    return Pictures(request, pretext) if isinstance(pretext, PicturePretext) else PlainText(request, pretext)


_NOUNS = {"text": "plain text", "image": "pictures"}


class PlainText:
    """Windows of text, for a language model."""

    unit: ClassVar[str] = "tokens"

    def __init__(self, request: Request, pretext: Pretext):
        self.request, self.pretext = request, pretext
        try:
            self.source = Corpus(request.corpus, request.column, request.deduplicate)
        except InputError:
            if Path(request.corpus).is_dir() and pictures_in(Path(request.corpus)):
                raise InputError(
                    f"{request.corpus!r} holds pictures. Say how to learn from them: --objective masked-autoencoder or "
                    "--objective image-denoising."
                ) from None
            raise

    def start(self, begins: Path | None, folder: Path, told: Told) -> dict[str, Any]:
        """A tokenizer and a network; or what was there, with more pieces."""
        request, pretext = self.request, self.pretext
        if begins is not None:
            words = extend(begins, pretext.kind, self.source, request.extend, folder)
            told(f"{len(words):,} words are pieces of their own now, such as {', '.join(words[:5])}.")
            return {"new_pieces": words}
        told(f"Training a tokenizer of {request.pieces:,} pieces ...")
        tokenizer, special = pretext.tokenizer()
        tokenizer = train_tokenizer(self.source, tokenizer, special, request.pieces)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            start_from_nothing(pretext, SIZES[request.size], tokenizer, special, request.length, folder)
        return {}

    def model(self, folder: Path) -> TransferModel:
        """A language model, head and all."""
        model, length = language_model(folder, self.pretext.kind), self.request.length
        if length > model.modality.max_length:
            raise InputError(
                f"{self.request.model} reads {model.modality.max_length} tokens at most, and windows of {length} were "
                "asked for. Give a smaller --length."
            )
        return model

    def examples(self, split: str, model: TransferModel, told: Told) -> Examples:
        """Windows that are full to the last piece."""
        return windows(self.source, split, model, self.request.length, told)

    def units(self, examples: int) -> int:
        """Tokens."""
        return examples * self.request.length

    def flops(self, model: TransferModel) -> float:
        """Of the blocks alone."""
        return token_flops(model.encoder, self.request.length) * self.request.length

    def scores(self, model: TransferModel, held_out: Examples) -> dict[str, float]:
        """As `pretext_scores`."""
        return pretext_scores(model, self.pretext, pieces_of(model), held_out, "fp32", most=VALIDATED)

    def save(self, model: TransferModel, folder: Path) -> None:
        """Config, weights, tokenizer."""
        save_language_model(model, folder)

    def card(self, run: Run) -> Card:
        """Of a language model."""
        metrics = run.metrics["validation"]
        return Card(
            kind=f"{self.pretext.name} language model",
            origin="random weights, with a tokenizer of its own",
            source=f"Texts: {', '.join(run.data['files'])}",
            size=f"reads {self.request.length} tokens",
            held_out=f"Held-out text: {metrics['loss']:.3f} nats a piece that is asked, perplexity "
            f"{metrics['perplexity']:.1f}, {100 * metrics['accuracy']:.1f} % told right.",
            score="perplexity",
            form=".1f",
            good_for="Good for: a base to fit a task on (`graft fit DATA --model RUN`), and to look at what it knows. "
            "It has read no more\n"
            "than the texts above: it knows their words and their time, and is no source of facts.",
        )


class Pictures:
    """Pictures of a folder, for a ViT."""

    unit: ClassVar[str] = "pictures"

    def __init__(self, request: Request, pretext: PicturePretext):
        self.request, self.pretext = request, pretext
        if request.image_size % request.patch or request.image_size < 2 * request.patch:
            raise InputError(
                f"Pictures of {request.image_size} pixels cannot be cut into patches of {request.patch}. Give a "
                "--patch that divides --image-size, and is smaller."
            )
        self.source = Gallery(request.corpus)

    def start(self, begins: Path | None, folder: Path, told: Told) -> dict[str, Any]:
        """A network."""
        request = self.request
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            start_to_see(SIZES[request.size], request.image_size, request.patch, folder)
        return {}

    def model(self, folder: Path) -> TransferModel:
        """A ViT with a fresh decoder."""
        return picture_model(folder, self.pretext)

    def examples(self, split: str, model: TransferModel, told: Told) -> Examples:
        """Pixels."""
        if split == "train":
            told("Reading the pictures ...")
        return tokenised(cast("Data", self.source), split, model.task, model.modality)

    def units(self, examples: int) -> int:
        """Pictures."""
        return examples

    def flops(self, model: TransferModel) -> float:
        """Of the encoder's blocks on what they see, and of the decoder's on everything."""
        states = model.modality.max_length
        seen = 1 + self.pretext.seen(states - 1)
        decoder: Any = model.head.decoder
        return token_flops(model.encoder, seen) * seen + token_flops(decoder, states) * states

    def scores(self, model: TransferModel, held_out: Examples) -> dict[str, float]:
        """As `rebuilding_scores`."""
        return rebuilding_scores(model, self.pretext, held_out, "fp32", most=VALIDATED)

    def save(self, model: TransferModel, folder: Path) -> None:
        """The ViT and how pictures are brought to it; the decoder is thrown away."""
        save_encoder(model, folder)

    def card(self, run: Run) -> Card:
        """Of a ViT."""
        metrics = run.metrics["validation"]
        return Card(
            kind=f"ViT, a {self.pretext.name} without its decoder",
            origin="random weights",
            source=f"Pictures: {', '.join(run.data['files'])}",
            size=f"{self.pretext.decoder_layers} blocks of decoder, thrown away, among them",
            held_out=f"Held-out pictures: mean squared difference {metrics['loss']:.3f}, "
            f"{100 * metrics['explained']:.1f} % of the variance of what is to be rebuilt is told.",
            score="explained",
            form=".1%",
            good_for="Good for: a base to fit a task of pictures on (`graft fit PICTURES --model RUN`); plain "
            "`transformers` reads it as\n`ViTModel`. It cannot rebuild pictures any more. It has seen no others than "
            "those above.",
        )


def token_flops(encoder: torch.nn.Module, length: int) -> float:
    """Operations to learn from a token: 6 N + 12 L H T (PaLM, Chowdhery et al. 2022, appendix B), of the blocks alone.

    Args:
        encoder: N of its parameters are in L blocks, H wide.
        length: T, the tokens that see each other.
    """
    blocks = [block for _, stack in stacks(encoder) for block in stack]
    parameters = sum(p.numel() for block in blocks for p in block.parameters())
    return 6.0 * parameters + 12.0 * len(blocks) * encoder.config.hidden_size * length  # type: ignore[union-attr]
