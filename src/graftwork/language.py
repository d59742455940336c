"""A language model as graftwork trains it: body and language-model head as encoder and head of a `TransferModel`.

On the disk it is what plain `transformers` reads; its head answers in pieces of the vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import transformers
from torch import Tensor, nn

from graftwork.choice import InputError
from graftwork.head import Head, HeadNetwork
from graftwork.modalities.text import Text
from graftwork.model import TransferModel, without_pooler
from graftwork.models import LANGUAGE_MODELS, load_with_any_head, quiet, require_reader, resolve
from graftwork.pretext import Pieces
from graftwork.task import Task

if TYPE_CHECKING:
    from graftwork.pretext import Pretext


class Language(Task, abstract=True):
    """Which piece of the vocabulary stands where."""

    name: ClassVar[str] = "language"
    selection: ClassVar[str] = "log_likelihood"


class LanguageNetwork(HeadNetwork):
    """A language model without its body, whose table of embeddings it may share: states (..., dim) to logits.

    Any architecture will do: the body is replaced by one that hands on what it is given.
    """

    reads_tokens: ClassVar[bool] = True
    pretrained: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.relation: nn.Module | None = None

    def take(self, network: Any) -> None:
        """Become the head of `network`, whose body is elsewhere from now on."""
        setattr(network, network.base_model_prefix, _HandOn())
        self.network = network

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, dim) to (n, pieces)."""
        return self.network(inputs_embeds=states[None]).logits[0]

    def relate(self, dim: int, device: torch.device) -> None:
        """Tell also how two passages belong together, from the first state of a text, as BERT's pooler does.

        It is there while a language is learned, and not saved.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.relation = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 2)).to(device)


class LanguageHead(Head, abstract=True):
    """The language model's own."""

    name: ClassVar[str] = "language"

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `LanguageNetwork`, which takes a network's head later."""
        return LanguageNetwork()


class _HandOn(nn.Module):
    """In the place of a body: what it is given are states already."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _States:
        return _States((inputs_embeds,))


class _States(tuple[Tensor]):
    """What a body gives, as heads of every family read it: states, and nothing besides."""

    def __getattr__(self, name: str) -> Tensor | None:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[0] if name == "last_hidden_state" else None


def language_model(folder: Path, kind: str) -> TransferModel:
    """The language model of a folder; where its head is missing, a fresh one tied to its embeddings.

    Args:
        folder: what `models.resolve` gave.
        kind: one of `models.LANGUAGE_MODELS`.

    Raises:
        InputError: the architecture has no such language model.
    """
    network, made_up = load_with_any_head(folder, kind, remedy="Choose another objective.")
    if network.base_model is network:
        raise InputError(
            f"The {network.config.model_type} in {str(folder)!r} has no body apart from its head. Use BART."
        )
    modality = Text.from_folder(folder)
    body = without_pooler(network.base_model)
    names = [str(modality.tokenizer.id_to_token(i)) for i in range(network.config.vocab_size)]
    model = TransferModel(body, modality, Language(labels=tuple(names)), head=LanguageHead())
    assert isinstance(model.head, LanguageNetwork)
    model.head.take(network)
    model.head.fresh = bool(made_up)
    return model


def kind_of(folder: Path) -> str:
    """One of `models.LANGUAGE_MODELS`, as the config says it, or whether its tokenizer knows a mask."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = (config.get("architectures") or [""])[0]
    if "XLNet" in named:
        return "permuted"
    if "ForConditionalGeneration" in named:
        return "sequence-to-sequence"
    if "MaskedLM" in named or "ForPreTraining" in named:
        return "masked"
    if "CausalLM" in named or "LMHead" in named:
        return "causal"
    return "masked" if Text.from_folder(folder).mask_token else "causal"


def require_kind(model: str | Path, kind: str) -> Path:
    """The folder of a model that is `masked` or `causal` as asked.

    Raises:
        InputError: it is the other.
    """
    require_reader(model, "text")
    folder = resolve(model)
    if kind_of(folder) != kind:
        use = {"masked": "it fills gaps: graft fill", "causal": "it writes on: graft generate"}
        other = use.get(kind_of(folder), "it is a base to fit a task on")
        raise InputError(f"{str(model)!r} is not a {kind} language model; {other}. Choose another with --model.")
    return folder


def opened(model: str | Path, kind: str) -> TransferModel:
    """A language model to be asked, head and all.

    Args:
        model: as `models.resolve` takes it.
        kind: what it must be.

    Raises:
        InputError: it is of another kind, or has no language-model head.
    """
    found = language_model(require_kind(model, kind), kind)
    if found.head.fresh:
        raise InputError(
            f"{str(model)!r} has no language-model head. Give it one: graft pretrain CORPUS --from {model}"
        )
    return found


def save_language_model(model: TransferModel, folder: Path) -> None:
    """Write what `transformers` reads: config, weights, tokenizer."""
    assert isinstance(model.head, LanguageNetwork)
    network = model.head.network
    prefix = network.base_model_prefix
    instead = getattr(network, prefix)
    setattr(network, prefix, model.encoder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            network.save_pretrained(folder)
        model.modality.save(folder)
    finally:
        setattr(network, prefix, instead)


def pieces_of(model: TransferModel) -> Pieces:
    """What a pretext must know of a model's vocabulary, on the model's device."""
    modality, count = model.text, int(model.encoder.config.vocab_size)  # type: ignore[union-attr]
    special, continues, closes = (torch.zeros(count, dtype=torch.bool) for _ in range(3))
    for number, token in modality.tokenizer.get_added_tokens_decoder().items():
        special[number] = token.special
    prefix = getattr(modality.tokenizer.model, "continuing_subword_prefix", None)
    for number in range(count):
        name = str(modality.tokenizer.id_to_token(number))
        # WordPiece marks what goes on, byte-level BPE and Unigram what begins
        continues[number] = name.startswith(prefix) if prefix else not name.startswith(("Ġ", "▁"))
        closes[number] = name.rstrip("\"'”’)").endswith((".", "!", "?", "。", "！", "？"))
    mask = modality.mask_token
    mask_id = modality.tokenizer.token_to_id(mask) if mask else None
    segments = int(getattr(model.encoder.config, "type_vocab_size", 1) or 1)  # type: ignore[union-attr]
    return Pieces(count, special, continues, closes, mask_id, segments).to(model.device)


def start_from_nothing(
    pretext: Pretext, size: Any, tokenizer: Any, special: dict[str, str], length: int, folder: Path
) -> None:
    """Write a language model of random weights, drawn from torch's generator, with its tokenizer.

    Args:
        pretext: says which architecture.
        size: how large.
        tokenizer: trained.
        special: its special pieces by what they stand for.
        length: tokens it reads at most.
        folder: where to.
    """
    ids = {role: int(tokenizer.token_to_id(name)) for role, name in special.items()}
    config = pretext.config(size, tokenizer.get_vocab_size(), length, ids)
    network = getattr(transformers, LANGUAGE_MODELS[pretext.kind]).from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"pad_token": special.get("pad", special["end"]), "model_max_length": length}
    named |= {f"{role}_token": special[given] for role, given in _ROLES.items() if given in special}
    described = {"tokenizer_class": "PreTrainedTokenizerFast"} | named
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


_ROLES = {"mask": "mask", "unk": "unknown", "cls": "start", "sep": "end", "eos": "end"}
