"""Learning several tasks at once: what the labels of one teach the encoder may serve another.

One encoder, a head for each task, and every step reads a batch of one of them. The task that counts is the target: an
epoch is one pass over its rows, validation is its own, and its model is what is handed back.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, nn

from graftwork import layers
from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.examples import Batch, Examples, Joined, passes, tokenised
from graftwork.finding import number
from graftwork.heads.linear import Linear
from graftwork.method import ParamGroup
from graftwork.methods.finetune import FullFineTuning
from graftwork.objective import Objective
from graftwork.regression import start_head
from graftwork.tasks import task_of

if TYPE_CHECKING:
    from graftwork.head import HeadNetwork
    from graftwork.model import TransferModel
    from graftwork.task import Task

log = logging.getLogger(__name__)


def _one_or_several(value: Any) -> Any:
    several = value if isinstance(value, (list, tuple)) else [value]
    return tuple(str(each) if isinstance(each, os.PathLike) else each for each in several)


def _place(source: str) -> str:
    """A source as a run file can keep it: the absolute path of what is on this machine, other names as they are."""
    path = Path(source).expanduser()
    if path.exists():
        return str(path.resolve())
    if source != "pydocs" and not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", source):  # it may be an id of the hub
        raise ValueError(f"there is no file or folder {source!r}")
    return source


Sources = Annotated[tuple[Annotated[str, AfterValidator(_place)], ...], BeforeValidator(_one_or_several)]
"""Data sets besides the one that is fitted: one or several."""


class MultiTask(FullFineTuning):
    """Learn your task together with others that have labels of their own; without others it is full fine-tuning.

    Of k tasks with n_i rows each, a step reads a batch of task i with probability p_i = n_i^(1/T) / sum_j n_j^(1/T),
    T being the temperature. An epoch is one pass over the target and so many batches of the others that the target's
    share is p_0; steps count over all tasks. Modifiers see the target's answers alone, but for what they do to weights.
    Rows of other tasks that are near-identical to a text of the target's validation or test are left out.
    """

    paper: ClassVar[str] = (
        "Multitask Learning, Caruana 1997; sampling: T5, Raffel et al. 2020, section 3.5.2, 'temperature-scaled mixing'"
    )

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {
        "lr": 5.0, "temperature": (1.0, 2.0, 5.0), "weight": 3.0,
    }  # fmt: skip

    tasks: Sources = ()
    """Files, folders or hub ids of the other data sets; of a lone file every row is learned, of a folder train."""
    temperature: float = Field(default=2.0, ge=1)
    """T: at 1 a task is read as often as it has rows; the higher, the more all are read alike. T5 did well with 2."""
    weight: float = Field(default=1.0, gt=0)
    """What the loss on the other tasks is multiplied by."""
    blocks: int | None = Field(default=None, ge=1)
    """How many of the topmost blocks train, and learn all tasks; by default the whole encoder."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Everything that is shared trains; each other task gets a head, which starts as the target's does."""
        super().prepare(model, train)
        if self.blocks is not None:
            layers.train_top(model.encoder, self.blocks)
        if not self.tasks:
            return
        heads, examples = [], []
        for source in self.tasks:
            data = other_task(source, train.data)
            rows = tokenised(data, "train", task_of(data), model.modality)
            head = Linear().build(model.width, len(data.labels), token_level=rows.task.token_level).to(model.device)
            if self.head_start == "probe" and not rows.task.token_level:
                with answering(model, rows.task, head):
                    start_head(model, rows)
            heads.append(head)
            examples.append(rows)
        model.others = _Others(heads, examples)

    def reads(self, model: TransferModel, train: Examples) -> Examples:
        """The target's rows, and those of the others after them."""
        return Mixture([train, *_others(model).examples]) if self.tasks else train

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The loss of the task that a batch is of."""
        if not isinstance(train, Mixture):
            return super().objective(model, train, weights)
        return _OneTaskAStep(self, model, train, weights)

    def param_groups(self, model: TransferModel) -> list[ParamGroup]:
        """The other heads, too, at the rate of the target's."""
        groups = super().param_groups(model)
        if self.tasks:
            heads = list(_others(model).parameters())
            groups += self._split("other heads", heads, self.lr * self.head_lr_factor, set())
        return groups

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The target's model, without the other heads."""
        if self.tasks:
            del model.others
        return super().finish(model, train)


class _Others(nn.Module):
    """The other tasks, on the model while the stage runs: the head and the rows of each."""

    def __init__(self, heads: Sequence[HeadNetwork], examples: Sequence[Examples]):
        super().__init__()
        self.heads, self.examples = nn.ModuleList(heads), examples


def _others(model: TransferModel) -> _Others:
    others = model.get_submodule("others")
    assert isinstance(others, _Others)
    return others


@contextmanager
def answering(model: TransferModel, task: Task, head: HeadNetwork) -> Iterator[None]:
    """While open, `model` answers another task."""
    own = model.task, model.head
    model.task, model.head = task, head
    try:
        yield
    finally:
        model.task, model.head = own


class _OneTaskAStep(Objective):
    """The target's own objective on its batches; on those of another task that task's loss, by its head."""

    method: MultiTask
    train: Mixture

    def __init__(self, method: MultiTask, model: TransferModel, mixture: Mixture, weights: list[Tensor]):
        super().__init__(method, model, mixture.parts[0], weights)  # what modifiers look at is the target
        self.train = mixture
        self.shares = shares([len(part) for part in mixture.parts], method.temperature)

    @property
    def steps_per_epoch(self) -> int:
        """So many that the target's are p_0 of them; of the others there is at least one."""
        own = super().steps_per_epoch
        return max(own + 1, round(own / self.shares[0]))

    def batches(self, seed: tuple[int, ...]) -> list[np.ndarray]:
        """Those of the target, and in between others, each of one task that is drawn."""
        found = super().batches(seed)
        generator = np.random.default_rng((*seed, 2))
        wanted = (self.steps_per_epoch - len(found), self.shares[1:] / self.shares[1:].sum())
        for part, count in enumerate(generator.multinomial(*wanted), start=1):
            rows = passes(len(self.train.parts[part]), count * self.method.batch_size, generator)
            found += self.train.shuffled(self.method.batch_size, (*seed, 2, part), self.train.first[part] + rows)
        return [found[i] for i in generator.permutation(len(found))]

    def _places(self, seed: tuple[int, ...]) -> np.ndarray:
        chosen = super()._places(seed)
        return np.arange(len(self.train.parts[0])) if chosen is None else chosen

    def loss(self, batch: Batch) -> Tensor:
        """Of the head whose task the batch is; `weight` times it, where that is not the target."""
        part = self.train.part_of(batch.places)
        if part == 0:
            return super().loss(batch)
        task, head = self.train.parts[part].task, _others(self.model).heads[part - 1]
        with answering(self.model, task, head):  # pyright: ignore[reportArgumentType]
            logits = self.model(batch.inputs)
        loss = task.loss(logits, batch.targets, smoothing=self.method.label_smoothing)
        return self.method.weight * loss + self.penalty()

    def state(self) -> dict[str, Tensor]:
        return super().state() | self.train.mark()

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.train.require_marked(state)


class Mixture(Joined):
    """Sets of several tasks. What is read at once, such as a batch, is of one of them.

    It has no `targets` of its own: those of two tasks differ in shape.
    """

    def part_of(self, places: np.ndarray) -> int:
        """Which of the sets these windows are of."""
        part = int(np.searchsorted(self.first, places[0], side="right")) - 1
        assert self.first[part] <= places.min() <= places.max() < self.first[part + 1], "windows of two tasks"
        return part

    def mark(self) -> dict[str, Tensor]:
        """What a checkpoint holds to know these rows again."""
        return {"rows": torch.tensor(list(bytes.fromhex(self.key)))}

    def require_marked(self, state: dict[str, Tensor]) -> None:
        """Refuse a checkpoint of other rows.

        Raises:
            InputError: another data set is not what it was.
        """
        if not torch.equal(state["rows"].cpu(), self.mark()["rows"]):
            raise InputError(
                "The data of another task has changed since the run began. Put the old data back, or start a new run."
            )

    def _own(self, places: np.ndarray) -> tuple[Examples, np.ndarray]:
        """The set that these windows are of, and their places there."""
        part = self.part_of(places)
        return self.parts[part], places - self.first[part]

    def weight(self, places: np.ndarray) -> int:
        """How many answers these windows ask for."""
        part, own = self._own(places)
        return part.weight(own)

    def target(self, place: int) -> np.ndarray:
        """What is asked of one window."""
        part, own = self._own(np.array([place]))
        return part.target(int(own[0]))

    def batch(self, places: np.ndarray, remap: np.ndarray | None = None) -> Batch:
        """The windows at `places`, all of one set."""
        part, own = self._own(places)
        return replace(part.batch(own, remap), places=places)

    def in_order_of_length(self, max_tokens: int) -> Iterator[np.ndarray]:
        """Every window once, the longest of each set first."""
        for part, first in zip(self.parts, self.first, strict=False):
            yield from (first + places for places in part.in_order_of_length(max_tokens))


def shares(rows: Sequence[int], temperature: float) -> np.ndarray:
    """How much of the batches each task gets, p_i = n_i^(1/T) / sum_j n_j^(1/T): (tasks,), of n_i `rows`."""
    powers = np.asarray(rows, dtype=np.float64) ** (1 / temperature)
    return powers / powers.sum()


# --- the data of another task ---


def other_task(source: str, target: Data) -> Data:
    """The data of another task, without train rows whose texts the target's validation or test asks about.

    Args:
        source: a file, a folder, or an id of the hub.
        target: the task that counts.

    Raises:
        InputError: it cannot be read, not every row has a label, or there is nothing to tell apart.
    """
    try:
        data = Data.load(source, validation=0, test=0)
    except InputError as error:
        raise InputError(f"The task {source!r} cannot be learned along: {error}") from None
    rows = data["train"]
    if data.task == "classification" and not data.multi_label:
        if unlabelled := rows.counts.get("", 0):
            raise InputError(f"{number(unlabelled, 'row')} of the task {source!r} have no label. Take them out.")
        if len(data.labels) < 2:
            raise InputError(f"All rows of the task {source!r} are of one class. Leave it out.")
    seen = target.near_held_out(rows.shown)
    if seen.all():
        raise InputError(f"Every row of the task {source!r} stands in the target's validation or test. Leave it out.")
    if not seen.any():
        return data
    log.warning(
        "%s of %s left out: near-identical texts stand in the target's validation or test.",
        number(int(seen.sum()), "row"), data.name,
    )  # fmt: skip
    return replace(data, splits=MappingProxyType({**data.splits, "train": rows.where(~seen)}), groups={})
