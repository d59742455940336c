"""TransferModel: encoder, pooling, head, modality and task in one. The narrow waist of graftwork.

Every method hands back exactly this; compress, export and serve know nothing else. What it was trained with is what
it predicts with, and class names, decision thresholds and preprocessing are saved beside its weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftwork.choice import InputError, first_line, parse
from graftwork.head import Head
from graftwork.heads.linear import Linear
from graftwork.insertion import Insertion, inserted_weights
from graftwork.intact import read_json, require_sealed, seals, tensor_names
from graftwork.layers import RunAbove, block_count, stacks
from graftwork.modalities import Text, modality_in
from graftwork.models import load_network, quiet, require_weights
from graftwork.shapes import Storage, anatomy, bytes_of, packed, reshape, unpacked
from graftwork.sharding import LARGEST_FILE, load_offloaded, read_shards, remove_shards, shards, write_shards
from graftwork.task import Decision, Prediction, Task, Window
from graftwork.template import Template

if TYPE_CHECKING:
    from graftwork.modality import Modality

Pooling = Literal["mean", "cls", "max"]

FORMAT = 2

_SEALED = ("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Token states (batch, length, dim) to one vector an example (batch, dim); padding has no say.

    Without a mask (batch, length) there is none.
    """
    if pooling == "cls":
        return hidden[:, 0]
    if attention_mask is None:
        return hidden.mean(dim=1) if pooling == "mean" else hidden.amax(dim=1)
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (batch, length, 1)
    if pooling == "mean":
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    return hidden.masked_fill(mask == 0, float("-inf")).amax(dim=1)


class TransferModel(nn.Module):
    """A network that answers a task.

    Args:
        encoder: a `transformers` model whose output has `last_hidden_state`.
        modality: turns raw examples into the encoder's inputs.
        task: what is asked; its `labels` must be filled in.
        pooling: how token states become one vector, for tasks that need one.
        head: how embeddings become answers; its network is fresh.
        decision: how raw outputs become an answer.
    """

    def __init__(
        self,
        encoder: nn.Module,
        modality: Modality,
        task: Task,
        *,
        pooling: Pooling = "mean",
        head: Head | None = None,
        decision: Decision | None = None,
    ):
        super().__init__()
        if not task.labels:
            raise InputError(f"Task {task.name!r} has no labels yet. Give them, or let `fit` take them from the data.")
        self.encoder, self.task = encoder, task
        modality.require_fit(encoder.config)
        self.pooling: Pooling = pooling
        self.head_choice = parse(Head, task.head) if task.head else head or Linear()
        if task.token_level and not self.head_choice.for_tokens:
            raise InputError(f"The head {self.head_choice.name!r} cannot answer a {task.name} task. Choose another.")
        if task.token_level and self.head_choice.template:
            raise InputError(f"A {task.name} task has an answer for each token, so no template. Leave it out.")
        within = Template(self.head_choice.template) if self.head_choice.template else None
        self.modality: Modality = modality.within(within)
        self.head = self.head_choice.build(
            width_of(encoder), len(task.labels), token_level=task.token_level, layers=block_count(encoder) + 1
        )
        self.head.meet(self)
        self.insertions: list[Insertion] = []
        self.decision = decision or Decision()
        self.found: dict[str, Any] = {}  # what the method that hands it back found out, for the run to keep
        self.storage: Storage = "fp32"  # what the encoder's weights were rounded to, and are stored in
        for _, blocks in stacks(encoder):
            blocks[0].register_forward_pre_hook(_enter_in_half, with_kwargs=True)
        self.above: RunAbove | None = None  # set while the frozen prefix is read from disk, see `features`

    @classmethod
    def pretrained(
        cls, folder: Path, task: Task, *, pooling: Pooling = "mean", head: Head | None = None, remote_code: bool = False
    ) -> TransferModel:
        """A pretrained encoder with a fresh head.

        Args:
            folder: what `models.resolve` gave.
            task: what is asked, with its labels.
            pooling: `mean`, `cls` or `max`.
            head: how embeddings become answers; by default linearly.
            remote_code: whether Python code inside the model's folder may run. Off: a model is data.

        Raises:
            InputError: no safetensors weights (a pickle is never read), or an architecture `transformers` lacks.
        """
        model = cls(_load_encoder(folder, remote_code), modality_in(folder), task, pooling=pooling, head=head)
        model.head.inherit(model, folder)
        return model

    @property
    def text(self) -> Text:
        """Its modality, where that is text.

        Raises:
            InputError: it reads pictures.
        """
        if not isinstance(self.modality, Text):
            raise InputError("This model reads pictures, and texts are what is asked for. Choose a model of texts.")
        return self.modality

    # --- tensors in, tensors out ---

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """What the head reads: (batch, dim); (batch, length, dim) where it `reads_tokens`; (batch, layers + 1, dim)
        where it `reads_layers`.

        `inputs` holds the encoder's own arguments and, while a frozen prefix is read from disk (see `features`),
        either `hidden`, the states that enter the first block that trains, or `embedding`, already what the head reads.
        """
        if "embedding" in inputs:
            return inputs["embedding"]
        if self.head.reads_layers:
            return self.embed_layers(inputs)
        if "hidden" in inputs:
            assert self.above is not None
            rest = {k: v for k, v in inputs.items() if k != "hidden"}
            hidden = self.above(inputs["hidden"], **rest)
        else:
            hidden = self.encoder(**inputs).last_hidden_state
        hidden = hidden.float()
        return hidden if self.reads_tokens else self._pooled(hidden, inputs.get("attention_mask"))

    def embed_layers(self, inputs: dict[str, Tensor]) -> Tensor:
        """Every layer's pooled states, the embeddings' first: (batch, layers + 1, dim)."""
        states = self.encoder(**inputs, output_hidden_states=True).hidden_states
        return torch.stack([self._pooled(state.float(), inputs.get("attention_mask")) for state in states], dim=1)

    def _pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if self.modality.template is None or mask is None:
            return pool(hidden, mask, self.pooling)
        place = self.modality.place
        at = mask.sum(dim=1) + place if place < 0 else torch.full_like(mask[:, 0], place)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), at]  # len() would fix the batch in a graph

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits: (batch, classes), or (batch, length, tags)."""
        return self.head(self.embed(inputs), inputs.get("attention_mask"))

    @property
    def reads_tokens(self) -> bool:
        """Whether the head reads every token's state, or one pooled vector an example."""
        return self.task.token_level or self.head.reads_tokens

    def insert(self, insertion: Insertion) -> None:
        """Put a part into the encoder that stays there, with fresh weights; it is saved and loaded with the model."""
        insertion.into(self.encoder)
        self.insertions.append(insertion)

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return width_of(self.encoder)

    @property
    def device(self) -> torch.device:
        """Where inputs go: where the weights are, those of layers that wait on disk left aside."""
        return next((p.device for p in self.parameters() if p.device.type != "meta"), torch.device("cpu"))

    # --- raw examples in, answers out ---

    @torch.inference_mode()
    def outputs(self, inputs: Sequence[Any], *, batch_size: int = 32) -> list[np.ndarray]:
        """Raw outputs of each example: (classes,) or (words, tags). Order and padding do not change them."""
        windows = list(self.task.windows(self.modality, inputs, None))
        order = np.argsort([-len(w.ids) for w in windows], kind="stable")
        gathered = [np.zeros(0)] * len(windows)
        with evaluating(self):
            for start in range(0, len(order), batch_size):
                places = order[start : start + batch_size]
                for place, logits in zip(places, self._logits([windows[i] for i in places]), strict=True):
                    gathered[place] = self.task.gather(logits, windows[place].target)[0]
        return list(join([w.example for w in windows], gathered, len(inputs)))

    def _logits(self, windows: list[Window]) -> np.ndarray:
        inputs = self.modality.collate([w.ids for w in windows])
        return self({k: v.to(self.device) for k, v in inputs.items()}).float().cpu().numpy()

    def predict(self, inputs: Sequence[Any], *, batch_size: int = 32) -> list[Prediction]:
        """Answers in names, one an example, in the order given.

        Args:
            inputs: texts, lists of words for tagging, or the files of pictures.
            batch_size: how many are read at once; it does not change the answers.
        """
        return self.task.read(self.outputs(inputs, batch_size=batch_size), self.decision)

    # --- disk ---

    def save(self, folder: Path | str, *, shard: str | None = None) -> None:
        """Write the model: the encoder as plain `transformers` reads it, beside it head.safetensors and graft.json.

        What plain `transformers` cannot read, because the config does not tell it, is called encoder.safetensors.

        Args:
            folder: where; what lies there of an earlier model is replaced.
            shard: the most that one file of weights may hold, such as `500MB`; by default 5 GB. More are numbered, with
                an index.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        inserted = inserted_weights(self.encoder)
        plain = {k: v for k, v in self.encoder.state_dict().items() if k not in inserted}
        untold = anatomy(self.encoder)
        largest = bytes_of(shard) if shard else LARGEST_FILE
        remove_shards(folder, "model", "encoder")
        weights = packed(plain, self.storage)
        with quiet():
            if untold or self.storage in ("int8", "int4"):
                write_shards(weights, folder, "encoder", largest=largest, write=_write)
                self.encoder.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
            else:
                self.encoder.save_pretrained(folder, state_dict=weights, max_shard_size=largest)  # type: ignore[operator]
        self.modality.save(folder)
        _write(self.head.state_dict(), folder / "head.safetensors", labels=self.task.labels)
        if inserted:
            _write(inserted, folder / "inserted.safetensors")
        described = {
            "format": FORMAT,
            "task": self.task.spec(),
            "pooling": self.pooling,
            "head": self.head_choice.spec(),
            "inserted": [insertion.spec() for insertion in self.insertions],
            "max_length": self.modality.max_length,
            "pad_id": self.modality.pad_id,
            "decision": dataclasses.asdict(self.decision),
            "encoder": {"storage": self.storage} | untold,
            "sha256": seals(file for file in folder.iterdir() if file.name in _SEALED or ".safetensors" in file.name),
        }
        (folder / "graft.json").write_text(json.dumps(described, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, *, memory: str | None = None) -> TransferModel:
        """The model that `save` wrote; its outputs are the same to the last bit on the same machine.

        Args:
            folder: where it lies.
            memory: main memory for weights, such as `200MB`: what does not fit is read from disk whenever it is
                computed. By default all.

        Raises:
            InputError: a file is missing, damaged, not the one that was saved, or of a newer format, or the labels are
                not those of the head.
        """
        folder = Path(folder)
        for name in ("graft.json", "head.safetensors", "config.json"):
            if not (folder / name).is_file():
                raise InputError(f"{str(folder)!r} is not a saved model: it has no {name}. Give a run or its model/.")
        described = _described(folder)
        from graftwork import insertions, tasks  # noqa: F401  puts all of them on their shelves

        task = parse(Task, described["task"])
        modality = modality_in(folder)
        modality.max_length, modality.pad_id = described["max_length"], described["pad_id"]
        about = described.get("encoder", {})
        own = bool(shards(folder, "encoder"))
        if own and memory:
            raise InputError(
                f"The model in {str(folder)!r} is kept in a form that cannot wait on disk. Leave --memory out."
            )
        limit = bytes_of(memory) if memory else None
        encoder = _rebuilt_encoder(folder, about) if own else _load_encoder(folder, remote_code=False, memory=limit)
        model = cls(
            encoder, modality, task, pooling=described["pooling"], head=parse(Head, described["head"]),
            decision=described["decision"],
        )  # fmt: skip
        model.storage = about.get("storage", "fp32")
        weights = _head(folder, task)
        if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in model.head.state_dict().items()}:
            raise InputError(f"The head in {str(folder)!r} does not fit its {len(task.labels)} labels. Was it edited?")
        model.head.load_state_dict(weights)
        model.head.fresh = False
        for spec in described.get("inserted", []):
            model.insert(parse(Insertion, spec))
        if model.insertions:
            inserted = _inserted(folder)
            if inserted.keys() != inserted_weights(model.encoder).keys():
                raise InputError(f"inserted.safetensors in {str(folder)!r} does not fit its graft.json. Was it edited?")
            model.encoder.load_state_dict(inserted, strict=False)
        return model.eval()


def _described(folder: Path) -> dict[str, Any]:
    """What graft.json says, checked, as the newest format has it.

    Raises:
        InputError: it is damaged, or a file beside it is not the one that was saved.
    """
    said = read_json(folder / "graft.json")
    damaged = f"graft.json in {str(folder)!r} is damaged ({{}}). Copy the model again."
    try:
        if said["format"] > FORMAT:
            raise InputError(f"{str(folder)!r} was saved by a newer graftwork (format {said['format']}). Update.")
        if said["format"] == 1:  # there was one kind of head
            said["head"] = {Linear.name: said["head"]}
        said["decision"] = TypeAdapter(Decision).validate_python(said["decision"])
        counts = all(
            type(said[name]) is int and said[name] >= least for name, least in (("max_length", 1), ("pad_id", 0))
        )
        if said["pooling"] not in get_args(Pooling) or not counts:
            told = {name: said[name] for name in ("pooling", "max_length", "pad_id")}
            raise InputError(damaged.format(f"it says {told}"))
        if said.get("encoder", {}).get("storage", "fp32") not in get_args(Storage):
            raise InputError(damaged.format(f"its weights are stored as {said['encoder']['storage']!r}"))
        require_sealed(folder, said.get("sha256", {}))  # formats are the same without
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise InputError(damaged.format(f"{type(error).__name__}: {first_line(error)}")) from None
    return said


def _head(folder: Path, task: Task) -> dict[str, Tensor]:
    """The head's weights, whose columns must mean what graft.json says."""
    file = folder / "head.safetensors"
    tensor_names(file)
    with safe_open(file, framework="pt") as opened:
        told = (opened.metadata() or {}).get("labels")
        if told is not None and json.loads(told) != list(task.labels):
            raise InputError(
                f"The labels in {str(folder)!r} are not those of its head, or in another order: graft.json begins with "
                f"{', '.join(map(repr, task.labels[:3]))}, the head with {', '.join(map(repr, json.loads(told)[:3]))}. "
                "Copy the model again."
            )
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping


def _inserted(folder: Path) -> dict[str, Tensor]:
    if not (folder / "inserted.safetensors").is_file():
        raise InputError(f"{str(folder)!r} is not a whole model: it has no inserted.safetensors. Copy it again.")
    tensor_names(folder / "inserted.safetensors")
    return load_file(folder / "inserted.safetensors")


def _write(weights: Mapping[str, Tensor], file: Path, **told: Any) -> None:
    metadata = {"format": "pt"} | {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, file, metadata)


def width_of(encoder: nn.Module) -> int:
    """The width of the encoder's token states."""
    return int(encoder.config.hidden_size)  # type: ignore[union-attr]


def join(example: Iterable[int], parts: Iterable[np.ndarray], examples: int) -> Iterator[np.ndarray]:
    """The parts of `examples` examples, each a window's answers, joined in order to one array an example."""
    collected: list[list[np.ndarray]] = [[] for _ in range(examples)]
    for which, part in zip(example, parts, strict=True):
        collected[which].append(part)
    return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for pieces in collected)


class evaluating:  # noqa: N801  used like torch's own no_grad
    """Eval mode for the length of a `with`; each module goes back to the mode it had."""

    def __init__(self, network: nn.Module):
        self.network = network

    def __enter__(self) -> None:
        self.training = [module for module in self.network.modules() if module.training]  # none, while serving
        for module in self.training:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.training = True


def _enter_in_half(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The states that enter the first block, in the precision of the products where that is lower, on a CPU.

    Autocast alone keeps the states between blocks in fp32, and casts them on their way into every product and back.
    """
    if not torch.is_autocast_enabled("cpu"):
        return args, kwargs
    half = torch.get_autocast_dtype("cpu")
    if args:
        return (args[0].to(half), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": kwargs["hidden_states"].to(half)}


def _load_encoder(folder: Path, remote_code: bool, memory: int | None = None) -> nn.Module:
    """The bare network, in fp32, of which at most `memory` bytes are in memory."""
    from transformers import AutoModel

    if memory is None:
        encoder, said = load_network(AutoModel, folder, trust_remote_code=remote_code)
    else:
        encoder, said = load_offloaded(folder, memory)
    require_weights(encoder, said, folder)
    return without_pooler(encoder)


def _rebuilt_encoder(folder: Path, described: dict[str, Any]) -> nn.Module:
    """The network of a config, given the shapes that it does not tell, and then its weights in fp32.

    Raises:
        InputError: the three do not fit.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with quiet():
            encoder = without_pooler(AutoModel.from_config(config, dtype=torch.float32))
        reshape(encoder, described)
        encoder.load_state_dict(unpacked(read_shards(folder, "encoder")))
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"encoder.safetensors in {str(folder)!r} does not fit its config: {first_line(error)}"
        ) from error
    return encoder


def without_pooler(encoder: Any) -> Any:
    """The network without its pooler, which no head of ours reads."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
