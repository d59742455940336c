"""Try a method against the contract that every method on the shelf keeps: `check_method(MyMethod)`.

A method writes a few hooks and is then trusted with everything: resuming, racing, merging, saving. What that trust
rests on is listed here as checks, each one claim, each run on a tiny random network in about a second. They need no
network, no pytest, and leave no file behind. A check that fails raises `ContractBroken` with a sentence.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt

from graftwork import layers
from graftwork.budget import Budget
from graftwork.choice import InputError, build, parse
from graftwork.data import Data
from graftwork.evaluate import outputs
from graftwork.examples import Examples, tokenised
from graftwork.hardware import Hardware, World
from graftwork.insertion import NAME
from graftwork.loop import Stage, StopRequested, train
from graftwork.method import GradientMethod, Method
from graftwork.model import TransferModel
from graftwork.tasks import Classification, Tagging

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["classification", "multi-label", "tagging"]

TINY_LR = 5e-3
"""A tiny random network learns at rates that would tear a pretrained one."""
STEPS = 30
INTERRUPTED_AFTER = 13


class ContractBroken(AssertionError):  # noqa: N818  what is broken is named, as in a test
    """A method does not do what the loop, the run folder and the race rely on."""


def check_method(method: Method | type[Method]) -> None:
    """Run every check of `method_checks` that applies to the method.

    Args:
        method: a method class, tried at a learning rate that suits a tiny network; or an instance, tried as it is.

    Raises:
        ContractBroken: the first claim that does not hold.

    Example:
        >>> from graftwork.methods import LinearProbe
        >>> check_method(LinearProbe)
    """
    for _, check in method_checks(method):
        check()


def method_checks(method: Method | type[Method]) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, callable) of every check that applies, for one test each: `pytest.mark.parametrize` takes them.

    Args:
        method: as for `check_method`.
    """
    instance = method if isinstance(method, Method) else suited_to_tiny_networks(method)
    applies = _OF_EVERY_METHOD + (_OF_GRADIENT_METHODS if isinstance(instance, GradientMethod) else _OF_THE_OTHERS)
    trials: dict[Kind, Trial] = {}
    for kind in kinds(instance):
        trials[kind] = Trial(instance, kind)
    for check in applies:
        yield check.__name__.removeprefix("check_"), partial(check, trials["classification"])
    for kind, trial in trials.items():
        if kind != "classification":
            yield f"learns_{kind.replace('-', '_')}", partial(check_learns, trial)
            yield f"loads_as_it_was_saved_{kind.replace('-', '_')}", partial(check_loads_as_it_was_saved, trial)


def kinds(method: Method) -> list[Kind]:
    """The kinds of task that a method can be tried on, with the modifiers and the head that it has."""
    needs = method.needs.union(*(modifier.needs for modifier in method.modifiers))
    found: list[Kind] = ["classification"]
    if "one-class" not in needs:
        found.append("multi-label")
        if "pooled" not in needs and method.head.for_tokens:
            found.append("tagging")
    return found


def suited_to_tiny_networks(cls: type[Method], **fields: Any) -> Method:
    """An instance with the defaults, but for a higher learning rate, small batches, a short search, and `fields`."""
    suited = {"lr": TINY_LR, "head_lr_factor": 5.0, "batch_size": 16} if issubclass(cls, GradientMethod) else {}
    suited |= {"evaluations": 6} if "evaluations" in cls.model_fields else {}
    return build(cls, suited | fields)


# --- the checks: one claim each ---


def check_is_made_again_from_its_spec(trial: Trial) -> None:
    """`spec()` goes through JSON and gives an equal method: a run file reproduces the run."""
    again = parse(Method, json.loads(json.dumps(trial.method.spec())))
    _claim(again == trial.method, f"{trial.method.spec()} gives {again!r} instead of {trial.method!r}")


def check_says_what_it_is(trial: Trial) -> None:
    """The class and every field have a sentence: help, catalogue and docs are made of them."""
    cls = type(trial.method)
    _claim(bool((cls.__doc__ or "").strip()), f"{cls.__name__} has no docstring")
    for described in cls.fields():
        _claim(bool(described.sentence), f"field {described.name!r} of {cls.__name__} has no sentence under it")


def check_names_an_invalid_value_and_its_range(trial: Trial) -> None:
    """Each constrained field refuses what lies outside, and the message names the field, its range and the value."""
    cls = type(trial.method)
    allowed = {f.name: f.range for f in cls.fields()}
    for name, value in invalid_values(cls):
        try:
            build(cls, {name: value})
        except InputError as error:
            for part in (name, str(value), allowed.get(name, "")):
                _claim(part in str(error), f"the message for {name}={value!r} does not say {part!r}: {error}")
        else:
            raise ContractBroken(f"{cls.__name__} takes {name}={value!r}, which its constraints forbid")


def check_refuses_an_unknown_field(trial: Trial) -> None:
    """A misspelt hyper-parameter is an error, never ignored."""
    try:
        build(type(trial.method), {"no_such_field": 1})
    except InputError as error:
        _claim("no_such_field" in str(error), f"the message does not name the field: {error}")
    else:
        raise ContractBroken(f"{type(trial.method).__name__} takes a field that it does not have")


def check_learns(trial: Trial) -> None:
    """On rows that key words decide, training lowers the loss and beats the majority class."""
    before, after = trial.untrained_loss, trial.loss_of(trial.trained)
    _claim(after < before, f"the training loss was {before:.4f} and is {after:.4f} after {trial.steps} steps")
    score, floor = trial.score_of(trial.trained), trial.majority
    needed = floor + 2 * (floor * (1 - floor) / trial.answers) ** 0.5  # two standard errors
    _claim(score > needed, f"it scores {score:.3f} on train, where always the commonest answer scores {floor:.3f}")


def check_moves_only_what_it_says(trial: Trial) -> None:
    """Nothing outside `param_groups` (the head, for a method without steps) moves: parameters and buffers."""
    _claim(not trial.moved_unsaid, f"moved without saying so: {sorted(trial.moved_unsaid)[:5]}")
    before, after = trial.pristine.state_dict(), trial.trained.state_dict()
    frozen = {name for name in trial.frozen_throughout if not name.startswith(trial.replaced)}
    kept = [n for n in frozen if n in after and not torch.equal(before[n], after[n])]
    _claim(not kept, f"handed back changed, though neither trained nor adapted: {kept[:5]}")
    buffers = {n: b for n, b in trial.pristine.named_buffers() if not n.startswith(trial.replaced)}
    drifted = [n for n, b in trial.trained.named_buffers() if n in buffers and not torch.equal(b, buffers[n])]
    _claim(not drifted, f"buffers drifted: {drifted[:5]}")


def check_hands_back_the_plain_model(trial: Trial) -> None:
    """After `finish` the model has the classes and the names of parameters it came with: wrappers are gone.

    Whole blocks at the top may be gone, too, where the config says so; what was inserted may stay, and the head may be
    another, where the model says so, for it is then made again on loading.
    """
    before, after = trial.pristine, trial.trained
    _claim(type(after) is TransferModel, f"finish gives a {type(after).__name__}, not a TransferModel")
    blocks, left = (layers.block_count(model.encoder) for model in (before, after))
    if cut := {f"encoder.{name}.{i}" for name, _ in layers.stacks(before.encoder) for i in range(left, blocks)}:
        said = int(after.encoder.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
        _claim(said == left, f"{left} blocks are left, and the config says {said}")
    above = tuple(f"{name}." for name in cut)
    for kind, names in (("modules", _module_classes), ("parameters", _shapes)):
        there, here = names(before), names(after)
        if after.insertions:
            here = {name: what for name, what in here.items() if NAME not in name.split(".")}
        there = {name: what for name, what in there.items() if name not in cut and not name.startswith(above)}
        there, here = ({k: v for k, v in found.items() if not k.startswith(trial.replaced)} for found in (there, here))
        odd = sorted(set(there.items()) ^ set(here.items()))
        _claim(not odd, f"the {kind} are not those it came with: {odd[:4]}")


def check_loads_as_it_was_saved(trial: Trial) -> None:
    """Saved and loaded, the model gives the same outputs to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        trial.trained.save(folder)
        loaded = TransferModel.load(folder)
    inputs = trial.data["validation"].inputs()
    for a, b in zip(trial.trained.outputs(inputs), loaded.outputs(inputs), strict=True):
        _claim(np.array_equal(a, b), "a loaded model answers otherwise than the one that was saved")


def check_same_seed_gives_the_same_bits(trial: Trial) -> None:
    """Two runs from one seed end with equal weights."""
    _claim_equal(trial.trained, trial.run(), "two runs with one seed differ")


def check_groups_every_parameter_once(trial: Trial) -> None:
    """What trains stands in exactly one of `param_groups`, at a rate above 0."""
    assert isinstance(trial.method, GradientMethod)
    model = trial.model()
    with _cache_of_its_own():
        trial.method.prepare(model, tokenised(trial.data, "train", model.task, model.modality))
    groups = trial.method.param_groups(model)
    grouped = [id(p) for g in groups for p in g.parameters]
    _claim(len(grouped) == len(set(grouped)), "a parameter stands in two groups")
    forgotten = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in grouped]
    _claim(not forgotten, f"would train but stands in no group: {forgotten[:3]}")
    _claim(all(g.lr > 0 for g in groups), f"a group has no rate: {[(g.name, g.lr) for g in groups]}")
    _claim(all(p.requires_grad for g in groups for p in g.parameters), "a group holds what `prepare` froze")


def check_keeps_frozen_parts_in_eval_mode(trial: Trial) -> None:
    """While it trains, a module of which nothing trains is in eval mode: no dropout, no drifting statistics."""
    trial.trained  # noqa: B018  runs it
    _claim(not trial.wrong_modes, f"frozen, yet in training mode: {sorted(trial.wrong_modes)[:3]}")


def check_resumes_to_the_same_bits(trial: Trial) -> None:
    """Stopped in the middle and resumed from its checkpoint, it ends with the weights of the unbroken run.

    So two runs from one seed are equal, too; where they are not, it is that which is told.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "latest.safetensors"
        try:
            trial.run(checkpoint=file, stop_after=INTERRUPTED_AFTER)
        except StopRequested:
            pass
        else:
            raise ContractBroken(f"it did not stop after {INTERRUPTED_AFTER} of {STEPS} steps")
        resumed = trial.run(checkpoint=file)
    if _differing(trial.trained, resumed):
        check_same_seed_gives_the_same_bits(trial)
    _claim_equal(trial.trained, resumed, "a resumed run ends with other weights")


_OF_EVERY_METHOD = (
    check_is_made_again_from_its_spec,
    check_says_what_it_is,
    check_names_an_invalid_value_and_its_range,
    check_refuses_an_unknown_field,
    check_learns,
    check_moves_only_what_it_says,
    check_hands_back_the_plain_model,
    check_loads_as_it_was_saved,
)
_OF_GRADIENT_METHODS = (
    check_groups_every_parameter_once,
    check_keeps_frozen_parts_in_eval_mode,
    check_resumes_to_the_same_bits,
)
_OF_THE_OTHERS = (check_same_seed_gives_the_same_bits,)


# --- what they are tried on ---


@dataclass
class Trial:
    """One method on one small task: trained once, looked at by many checks."""

    method: Method
    kind: Kind
    moved_unsaid: set[str] = field(default_factory=set)
    frozen_throughout: set[str] = field(default_factory=set)
    wrong_modes: set[str] = field(default_factory=set)

    @cached_property
    def folder(self) -> Path:
        """The tiny network, until the trial is gone."""
        folder = tempfile.mkdtemp(prefix="graftwork-trial-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return tiny_model(Path(folder) / "tiny", language_model=bool(self.method.head.template))

    @property
    def steps(self) -> int:
        """How many are enough: the state at one place must first learn to look at the others."""
        return 4 * STEPS if self.method.head.template else STEPS

    @cached_property
    def data(self) -> Data:
        """Rows that key words decide; others of their kind are the target domain, where one is needed."""
        needs = self.method.needs.union(*(modifier.needs for modifier in self.method.modifiers))
        target = {"train": learnable(self.kind, seed=1)["train"]} if "target" in needs else None
        return Data.load(learnable(self.kind), target=target)

    def model(self) -> TransferModel:
        """The network with a fresh head: equal at each call."""
        labels = self.data.labels
        several = self.kind == "multi-label"
        task = Tagging(labels=labels) if self.kind == "tagging" else Classification(labels=labels, multi_label=several)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return TransferModel.pretrained(self.folder, task, pooling=self.method.pooling, head=self.method.head)

    @cached_property
    def pristine(self) -> TransferModel:
        """The model before the method saw it."""
        return self.model()

    @property
    def replaced(self) -> tuple[str, ...]:
        """What names begin with of parts that may be others: the head's, where the model says that it has another."""
        return ("head.",) if self.trained.head_choice != self.pristine.head_choice else ()

    @cached_property
    def trained(self) -> TransferModel:
        """The model that the method hands back."""
        return self.run(watch=True)

    def run(
        self, *, checkpoint: Path = Path("none"), stop_after: int | None = None, watch: bool = False
    ) -> TransferModel:
        """Prepare, train, finish, as `fit` does.

        Args:
            checkpoint: where to save, and to resume from where it is there.
            stop_after: steps after which a stop is asked for.
            watch: whether to note what moves and in which mode, for the checks.
        """
        model = self.model()
        before = {n: (p, p.detach().clone()) for n, p in [*model.named_parameters(), *model.named_buffers()]}
        with _cache_of_its_own(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            rows = [tokenised(self.data, split, model.task, model.modality) for split in ("train", "validation")]
            self.method.prepare(model, rows[0])
            says = {id(p) for p in model.head.parameters()}
            if isinstance(self.method, GradientMethod):
                says = {id(p) for g in self.method.param_groups(model) for p in g.parameters}
                self._train(model, rows[0], rows[1], checkpoint, stop_after, watch)
            if watch:
                self.moved_unsaid = {
                    n for n, (p, old) in before.items() if id(p) not in says and not torch.equal(p, old)
                }
            adapted = {id(p) for p in model.parameters()} - {id(p) for p, _ in before.values()}
            model = self.method.finish(model, rows[0])
            if watch and not adapted:
                self.frozen_throughout = {n for n, (p, _) in before.items() if id(p) not in says}
        return model

    def _train(
        self, model: TransferModel, rows: Examples, validation: Examples, checkpoint: Path, stop_after: int | None,
        watch: bool,
    ) -> None:  # fmt: skip
        assert isinstance(self.method, GradientMethod)
        asked = iter(range(1, 10**9))

        def told(**event: Any) -> None:
            if watch:
                self.wrong_modes |= set(_frozen_but_training(model))

        stage = Stage(
            number=0, method=self.method, budget=Budget(self.steps, "steps"), seed=0,
            hardware=Hardware.model_validate({"device": "cpu", "precision": "fp32", "checkpoint_seconds": 1e9}),
            precision="fp32",
            world=World(torch.device("cpu")), checkpoint=checkpoint, on_event=told,
            stop_requested=lambda: stop_after is not None and next(asked) >= stop_after,
        )  # fmt: skip
        train(model, rows, validation, stage)

    @cached_property
    def untrained_loss(self) -> float:
        """Of the pretrained encoder with a fresh head."""
        return self.loss_of(self.pristine)

    def loss_of(self, model: TransferModel) -> float:
        """The task's own mean loss on train."""
        found, targets = self._on_train(model)
        if self.kind == "tagging":
            found, targets = [np.concatenate(found)], [np.concatenate(targets)]
        return float(model.task.loss(torch.tensor(np.stack(found)), torch.tensor(np.stack(targets))))

    def score_of(self, model: TransferModel) -> float:
        """The share of right answers on train: of rows, of labels, or of words."""
        found, targets = self._on_train(model)
        if self.kind == "multi-label":
            return float(np.mean((np.stack(found) > 0) == (np.stack(targets) > 0.5)))
        right = [f.argmax(axis=-1) == t for f, t in zip(found, targets, strict=True)]
        return float(np.mean(np.concatenate(right, axis=None)))

    @cached_property
    def targets(self) -> list[np.ndarray]:
        """What train asks of each row."""
        return self._on_train(self.pristine)[1]

    @property
    def answers(self) -> int:
        """How many answers train asks for: rows, or words."""
        return sum(len(t) for t in self.targets) if self.kind == "tagging" else len(self.targets)

    @property
    def majority(self) -> float:
        """What always the commonest answer scores."""
        if self.kind == "multi-label":
            share = np.stack(self.targets).mean(axis=0)
            return float(np.maximum(share, 1 - share).mean())
        counts = np.bincount(np.concatenate(self.targets, axis=None).astype(int))
        return float(counts.max() / counts.sum())

    def _on_train(self, model: TransferModel) -> tuple[list[np.ndarray], list[np.ndarray]]:
        with _cache_of_its_own():
            return outputs(model, tokenised(self.data, "train", model.task, model.modality))


def invalid_values(cls: type[Method]) -> Iterator[tuple[str, Any]]:
    """(field, value) just outside of each bound that the fields' constraints state."""
    for name, info in cls.model_fields.items():
        whole = info.annotation in (int, int | None)
        step = 1 if whole else 1e-3
        for item in info.metadata:
            if isinstance(item, Ge):
                yield name, item.ge - step  # type: ignore[operator]
            if isinstance(item, Gt):
                yield name, item.gt
            if isinstance(item, Le):
                yield name, item.le + step  # type: ignore[operator]
            if isinstance(item, Lt):
                yield name, item.lt


FILLER = [
    "the", "a", "we", "you", "they", "this", "that", "some", "many", "few", "old", "new", "small", "large", "green",
    "blue", "red", "quiet", "quick", "slow", "long", "short", "house", "street", "garden", "river", "table", "window",
    "paper", "letter", "music", "water", "bread", "friend", "teacher", "doctor", "driver", "went", "saw", "found",
    "kept", "made",
]  # fmt: skip
KEYWORDS = {
    "sport": ["goal", "team", "coach"],
    "food": ["soup", "cheese", "kitchen"],
    "travel": ["ticket", "hotel", "luggage"],
}
PEOPLE = ["anna", "boris", "clara"]
CITIES = ["paris", "london", "madrid"]
"""No word of the tokenizer's: they are read in pieces, as rare words are."""


def learnable(kind: Kind, *, rows: int = 150, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows that key words decide, as `Data.load` takes them: 3/5 train, 1/5 validation, 1/5 test.

    Args:
        kind: `classification` (3 classes), `multi-label` (3 labels, 0 to 3 a row), `tagging` (PER, and LOC of 2 words).
        rows: of all splits together.
        seed: of the words drawn.
    """
    generator = random.Random(seed)
    make = {"classification": _one_class, "multi-label": _several_labels, "tagging": _tagged}[kind]
    made = [make(generator, i) for i in range(rows)]
    cut = [rows * 3 // 5, rows * 4 // 5]
    return {"train": made[: cut[0]], "validation": made[cut[0] : cut[1]], "test": made[cut[1] :]}


def _sentence(generator: random.Random, keys: list[str]) -> list[str]:
    words = generator.choices(FILLER, k=generator.randint(2, 7))
    for key in keys:
        words.insert(generator.randint(0, len(words)), key)
    return words


def _one_class(generator: random.Random, i: int) -> dict[str, Any]:
    label = list(KEYWORDS)[i % 3]
    return {"text": " ".join(_sentence(generator, generator.sample(KEYWORDS[label], 2))), "label": label}


def _several_labels(generator: random.Random, i: int) -> dict[str, Any]:
    labels = [name for bit, name in enumerate(KEYWORDS) if (i % 8) >> bit & 1]
    keys = [key for name in labels for key in generator.sample(KEYWORDS[name], 2)]
    return {"text": " ".join(_sentence(generator, keys)), "labels": labels}


def _tagged(generator: random.Random, _i: int) -> dict[str, Any]:
    words, tags = [], []
    for word in generator.choices(FILLER, k=generator.randint(2, 6)):
        draw = generator.random()
        if draw < 0.3:
            words, tags = [*words, generator.choice(PEOPLE)], [*tags, "B-PER"]
        elif draw < 0.6:
            words, tags = [*words, "new", generator.choice(CITIES)], [*tags, "B-LOC", "I-LOC"]
        words, tags = [*words, word], [*tags, "O"]
    return {"words": words, "tags": tags}


def tiny_model(
    folder: Path, architecture: str = "bert", *, seed: int = 0, language_model: bool = False, **config: Any
) -> Path:
    """Save a random network, 3 layers deep and 32 wide, with a tokenizer, as a model folder of about 100 kB.

    Args:
        folder: where.
        architecture: `bert`, `roberta`, `distilbert` or `gpt2`.
        seed: of the weights.
        language_model: whether it has its language-model head and, but for `gpt2`, a mask token.
        config: what to change in the network's config.
    """
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoConfig

    first, last, pad, unknown = ("<s>", "</s>", "<pad>", "<unk>") if architecture == "roberta" else (
        "[CLS]", "[SEP]", "[PAD]", "[UNK]")  # fmt: skip
    special = [first, pad, last, unknown] if architecture == "roberta" else [pad, unknown, first, last]
    mask = "<mask>" if architecture == "roberta" else "[MASK]"
    special += [mask] * (language_model and architecture != "gpt2")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    keys = [word for words in KEYWORDS.values() for word in words]
    pieces = [*special, ".", ",", "?", "!", *letters, *(f"##{c}" for c in letters), *FILLER, *keys, *PEOPLE]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    if architecture != "gpt2":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}", special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])]
        )
    shape: dict[str, Any] = {
        "bert": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
                 "max_position_embeddings": 64, "initializer_range": 0.2},
        "roberta": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
                    "max_position_embeddings": 66, "type_vocab_size": 1, "initializer_range": 0.2,
                    "bos_token_id": 0, "eos_token_id": 2},
        "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64,
                       "initializer_range": 0.2},
        "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
                 "bos_token_id": 2, "eos_token_id": 3},
    }[architecture]  # fmt: skip
    described = AutoConfig.for_model(
        architecture, vocab_size=len(vocabulary), pad_token_id=vocabulary[pad], **shape | config
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto = "AutoModel" + ("ForCausalLM" if architecture == "gpt2" else "ForMaskedLM") * language_model
        getattr(transformers, auto).from_config(described).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def tiny_vit(folder: Path, *, seed: int = 0) -> Path:
    """Save a random ViT, 3 layers deep and 32 wide, that reads pictures of 16 pixels in patches of 4."""
    from graftwork.pretext import Size
    from graftwork.rebuilding import start_from_nothing

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start_from_nothing(Size(layers=3, width=32, heads=2), 16, 4, folder)
    return folder


COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def draw(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Noisy pictures of 20 x 14 pixels, whose colour is their class, as SPLIT/CLASS/NUMBER.png.

    Args:
        folder: where.
        counts: of each class, by split.
        seed: of the noise.
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.array(colour) + generator.normal(0, 40, (14, 20, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name / f"{number}.png")
    return folder


# --- how they look ---


def _claim(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractBroken(otherwise[0].upper() + otherwise[1:] + ".")


def _claim_equal(one: TransferModel, other: TransferModel, otherwise: str) -> None:
    differ = _differing(one, other)
    _claim(not differ, f"{otherwise}: {differ[:3]}")


def _differing(one: TransferModel, other: TransferModel) -> list[str]:
    weights = other.state_dict()
    return [name for name, value in one.state_dict().items() if not torch.equal(value, weights[name])]


def _module_classes(model: nn.Module) -> dict[str, str]:
    return {name: type(module).__name__ for name, module in model.named_modules()}


def _shapes(model: nn.Module) -> dict[str, str]:
    return {name: f"{tuple(p.shape)} {p.dtype}" for name, p in model.named_parameters()}


def _frozen_but_training(model: TransferModel) -> Iterator[str]:
    for name, module in model.encoder.named_modules():
        parameters = list(module.parameters())
        if parameters and module.training and not any(p.requires_grad for p in parameters):
            yield name
    depth = layers.frozen_depth(model.encoder) if layers.stacks(model.encoder) else 0
    if depth == len(layers.layer_groups(model.encoder)):
        yield from (n for n, m in model.encoder.named_modules() if m.training)


@contextmanager
def _cache_of_its_own() -> Iterator[None]:
    """What is derived from the data lands where the caller keeps it, or in a folder that goes away."""
    if os.environ.get("GRAFTWORK_CACHE"):
        yield
        return
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, GRAFTWORK_CACHE=folder):
        yield
