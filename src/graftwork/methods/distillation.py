"""Distillation: a student learns from what a teacher answers, and from how the teacher sees each text on the way there.

How sure a teacher is of every class tells more than a label: which wrong answers are nearly right. The student may be
any model, or be made of some of the teacher's own layers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork import layers
from graftwork.choice import InputError
from graftwork.examples import building, cache_folder, tokenised
from graftwork.heads.linear import Linear
from graftwork.method import ParamGroup
from graftwork.methods.finetune import FullFineTuning
from graftwork.methods.probe import LinearProbe
from graftwork.model import TransferModel, evaluating
from graftwork.modifier import Effect
from graftwork.objective import Objective

if TYPE_CHECKING:
    from graftwork.examples import Batch, Examples
    from graftwork.task import Task

FORMAT = 1

_TOKENS = 8192  # that a teacher reads at once, padding included


class Distillation(FullFineTuning):
    """Train a student on what teachers answer; with `layers` it is made of the teacher's own, smaller and faster.

    (1 - weight) * loss on the labels + weight * T^2 KL(p_teacher || p_student) + hidden * L_hidden + relations *
    L_relations. Here p = softmax(z / T) of logits z at a temperature T, the mean over the teachers; where a text may
    have several labels, the yes or no of each with sigmoid(z / T), summed over the labels; in tagging of each word.

    Without teachers it is the model itself as this stage finds it: `full-fine-tuning,distillation` with `layers` makes
    a fine-tuned model smaller. Where nothing was trained before, a linear probe on the encoder teaches.

    What a teacher answers may come from any tokenizer and network; to learn its states, or to be made of its layers,
    the student must read the same tokens.
    """

    paper: ClassVar[str] = (
        "Hinton, Vinyals & Dean 2015, section 2; layers: DistilBERT, Sanh et al. 2019, section 3; hidden: TinyBERT, "
        "Jiao et al. 2020, eq. 8-9; relations: MiniLM, Wang et al. 2020, eq. 8, MiniLMv2, Wang et al. 2021, eq. 6; "
        "itself: Born-Again Networks, Furlanello et al. 2018, section 3"
    )
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {
        "lr": 5.0, "temperature": (1.0, 2.0, 4.0), "weight": (0.3, 0.5, 0.7, 0.9),
    }  # fmt: skip

    teachers: tuple[str, ...] = ()
    """Finished runs, or folders of saved models, with the labels of the data; by default the model as it is before."""
    layers: int | tuple[int, ...] | None = None
    """The student is the first teacher's encoder with so many of its blocks, evenly spaced from the lowest to the
    topmost, or with these, counted from 0; by default it is the model given."""
    temperature: float = Field(default=2.0, gt=0)
    """T: the higher, the more the unlikely classes count."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """How much the teacher's answers count against the labels; 1 is without labels, 0 without those answers."""
    hidden: float = Field(default=0.0, ge=0)
    """Weight of L_hidden, by which the student's states become the first teacher's at the same relative depth."""
    relations: float = Field(default=0.0, ge=0)
    """Weight of L_relations, by which the student's last states are to one another as the first teacher's are."""
    relation_heads: int = Field(default=8, ge=1)
    """Into how many parts states are cut for L_relations; it must divide the widths of teacher and student."""

    @field_validator("teachers", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        several = value if isinstance(value, (list, tuple)) else [value]
        return tuple(str(each) if isinstance(each, os.PathLike) else each for each in several)

    @field_validator("teachers")
    @classmethod
    def _are_there(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for given in value:
            if not (_model_in(given) / "graft.json").is_file():
                raise ValueError(f"{given!r} is no finished run and no saved model")
        return tuple(str(Path(given).expanduser().resolve()) for given in value)

    @field_validator("layers")
    @classmethod
    def _rise_from_the_lowest(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("at least 1 block is kept")
        if isinstance(value, tuple) and (not value or min(value) < 0 or list(value) != sorted(set(value))):
            raise ValueError("blocks are named once each, from the lowest upwards")
        return value

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """The teachers answer all of train; the student is cut from the first, where it is to be; everything trains."""
        teachers = []
        if self.layers is not None or self._learns_from_teachers:
            teachers = [_loaded(folder, model) for folder in self.teachers] or [_itself(model, train)]
        if self.layers is not None or self.hidden or self.relations:
            _require_same_tokens(teachers[0], model)
        if self.layers is not None:
            self._become_part_of(teachers[0], model)
        super().prepare(model, train)
        if self._learns_from_teachers:
            model.lesson = self._lesson(model, teachers, train)

    @property
    def _learns_from_teachers(self) -> bool:
        return bool(self.weight or self.hidden or self.relations)

    def _become_part_of(self, teacher: TransferModel, model: TransferModel) -> None:
        """Give `model` some blocks of the teacher's encoder, and a head that fits it and counts as fresh, unless it
        was pretrained.
        """
        assert self.layers is not None
        if not layers.has_single_stack(teacher.encoder):
            raise InputError("The teacher's blocks share their weights or stand in two stacks: none can be left out.")
        count = layers.block_count(teacher.encoder)
        wanted = self.layers if isinstance(self.layers, int) else max(self.layers) + 1
        if wanted > count:
            raise InputError(
                f"distillation is to keep layers={self.layers} of the teacher, which has {count} blocks (0 to "
                f"{count - 1}). Give fewer."
            )
        model.encoder = copy.deepcopy(teacher.encoder)
        layers.keep_blocks(model.encoder, spread(count, wanted) if isinstance(self.layers, int) else self.layers)
        model.insertions = list(teacher.insertions)
        if model.head.pretrained:
            return
        fitting = model.head_choice.build(
            model.width, len(model.task.labels), token_level=model.task.token_level,
            layers=layers.block_count(model.encoder) + 1,
        )  # fmt: skip
        if [p.shape for p in fitting.parameters()] != [p.shape for p in model.head.parameters()]:
            model.head = fitting.to(model.device)
        model.head.fresh = True  # what it has learned, it has learned of another encoder

    def _lesson(self, model: TransferModel, teachers: Sequence[TransferModel], train: Examples) -> _Lesson:
        widths = model.width, teachers[0].width
        if self.relations and any(width % self.relation_heads for width in widths):
            raise InputError(
                f"relation_heads={self.relation_heads} must divide the widths of student and teacher, {widths[0]} and "
                f"{widths[1]}. Give such a number."
            )
        answers = [_Answers(teacher, model.task, train) for teacher in teachers] if self.weight else []
        shown = teachers[0].encoder if self.hidden or self.relations else None
        projected = self.hidden and widths[0] != widths[1]
        return _Lesson(answers, _starts(train), shown, widths if projected else None).to(model.device)

    def param_groups(self, model: TransferModel) -> list[ParamGroup]:
        """The projections to the teacher's width, too, where there are any, at the rate of the head."""
        groups = super().param_groups(model)
        if self._learns_from_teachers:
            projections = [p for p in _lesson_of(model).parameters() if p.requires_grad]
            groups += self._split("projections", projections, self.lr * self.head_lr_factor, set())
        return groups

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The labels, and what the teachers say."""
        kind = _Taught if self._learns_from_teachers else Objective
        return kind(self, model, train, weights)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The student alone."""
        if self._learns_from_teachers:
            del model.lesson
        return super().finish(model, train)


# --- teachers and students ---


def _model_in(given: str) -> Path:
    """The folder of the saved model: of a run, its model/."""
    path = Path(given).expanduser()
    return path / "model" if (path / "model").is_dir() else path


def _loaded(folder: str, student: TransferModel) -> TransferModel:
    """A saved teacher, on the student's device.

    Raises:
        InputError: it answers something else.
    """
    teacher = TransferModel.load(_model_in(folder))
    kinds = [(m.task.name, getattr(m.task, "multi_label", False)) for m in (teacher, student)]
    if kinds[0] != kinds[1]:
        raise InputError(f"The teacher {folder!r} answers another kind of task. Give one that was trained on this one.")
    if odd := sorted(set(teacher.task.labels) ^ set(student.task.labels)):
        raise InputError(
            f"The teacher {folder!r} has other labels than the data: {odd[:5]} are known to one of them alone. "
            "Give a teacher that was trained on these labels."
        )
    return teacher.to(student.device)


def _require_same_tokens(teacher: TransferModel, student: TransferModel) -> None:
    theirs, own = teacher.modality, student.modality
    if theirs.digest != own.digest or theirs.max_length < own.max_length:
        raise InputError(
            "The teacher has another tokenizer than the student, or reads fewer tokens, so its layers and states do "
            "not suit it. Give the model that the teacher was made of, or leave out layers, hidden and relations."
        )


def _itself(model: TransferModel, train: Examples) -> TransferModel:
    """The model as it is now; with a linear probe as its head, where the head has learned nothing yet."""
    if not model.head.fresh:
        return copy.deepcopy(model)
    encoder = copy.deepcopy(model.encoder)
    head = Linear(template=model.head_choice.template)
    teacher = TransferModel(encoder, model.modality, model.task, pooling=model.pooling, head=head).to(model.device)
    teacher.insertions = list(model.insertions)
    return LinearProbe(strengths=(10.0,)).finish(teacher, train)


def spread(count: int, kept: int) -> tuple[int, ...]:
    """`kept` of `count` blocks, evenly spaced, the lowest and the topmost among them.

    Example:
        >>> spread(12, 6)  # those that DistilBERT was made of
        (0, 2, 4, 7, 9, 11)
    """
    return tuple(int(place) for place in np.linspace(0, count - 1, kept).round())


# --- a teacher's answers ---


def answers_of(teacher: TransferModel, train: Examples) -> np.ndarray:
    """What a teacher says wherever train asks: raw outputs (answers, classes) float32, in train's order.

    In eval mode and fp32, computed once and kept on disk: for other seeds, temperatures and students, and resumed runs.
    The teacher reads the texts with its own tokenizer.
    """
    read = tokenised(train.data, "train", teacher.task, teacher.modality)
    folder = cache_folder() / "answers" / _digest(teacher, read)
    if not (folder / "outputs.npy").is_file():
        with building(folder) as work:
            _write_answers(teacher, read, work / "outputs.npy")
    return np.load(folder / "outputs.npy", mmap_mode="r")


@torch.inference_mode()
def _write_answers(teacher: TransferModel, read: Examples, file: Path) -> None:
    starts = _starts(read)
    shape = (int(starts[-1]), len(teacher.task.labels))
    found = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    with evaluating(teacher):
        for places in read.in_order_of_length(_TOKENS):
            batch = read.batch(places).to(teacher.device)
            logits, _ = teacher.task.asked(teacher(batch.inputs), batch.targets)
            found[_rows(starts, places)] = logits.float().cpu().numpy()
    found.flush()


def _digest(teacher: TransferModel, read: Examples) -> str:
    """Names the answers by all they depend on."""
    parts = [insertion.spec() for insertion in teacher.insertions]
    about = [FORMAT, read.key, teacher.pooling, teacher.head_choice.spec(), parts]
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, value in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _starts(read: Examples) -> np.ndarray:
    """Where the answers of each window begin among all that are asked for, and where they end: (windows + 1,)."""
    return np.cumsum([0, *(read.weight(np.array([place])) for place in range(len(read)))])


def _rows(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The answers of some windows, in the order of the windows."""
    return np.array([row for place in places for row in range(starts[place], starts[place + 1])], dtype=np.int64)


class _Answers:
    """A teacher's answers with their classes in the order of `task`, whatever the teacher's: matched by name."""

    def __init__(self, teacher: TransferModel, task: Task, train: Examples):
        self.found = answers_of(teacher, train)
        self.order = [teacher.task.labels.index(name) for name in task.labels]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(rows, classes)."""
        return self.found[rows][:, self.order]


# --- what the student is taught ---


class _Lesson(nn.Module):
    """What the student learns from, on the model while the stage runs.

    Attributes:
        answers: of each teacher; none where only states are learned from.
        starts: where those of each window begin, (windows + 1,).
        teacher: the encoder whose states are to be learned; frozen.
        embeddings: W_e, from the student's width to the teacher's; nothing where they are the same.
        states: W_h, likewise.
    """

    def __init__(
        self, answers: list[_Answers], starts: np.ndarray, teacher: nn.Module | None, widths: tuple[int, int] | None
    ):
        super().__init__()
        self.answers, self.starts = answers, starts
        self.teacher = teacher.requires_grad_(False) if teacher else None
        self.embeddings, self.states = (nn.Linear(*widths, bias=False) if widths else nn.Identity() for _ in range(2))


def _lesson_of(model: TransferModel) -> _Lesson:
    lesson = model.get_submodule("lesson")
    assert isinstance(lesson, _Lesson)
    return lesson


class _Taught(Objective):
    method: Distillation

    def __init__(self, method: Distillation, model: TransferModel, train: Examples, weights: list[Any]):
        super().__init__(method, model, train, weights)
        self.lesson = _lesson_of(model)
        self._softly = self._soft
        for effect in self.effects:
            if type(effect).embeddings is not Effect.embeddings:  # where texts are blended, so are the answers to them
                self._softly = effect.criterion(self._softly)

    def loss(self, batch: Batch) -> Tensor:
        with _seeing(self.model.encoder) if self.lesson.teacher is not None else nullcontext([]) as passes:
            logits = self._logits(batch)
        loss = (1 - self.method.weight) * self.answers(logits, batch.targets) + self.penalty()
        if self.method.weight:
            loss = loss + self.method.weight * self._told(logits, batch)
        if self.lesson.teacher is not None:
            loss = loss + self._shown(passes, batch)
        return loss

    def _soft(self, logits: Tensor, teachers: Tensor) -> Tensor:
        return soft_losses(
            logits, teachers, self.method.temperature, several=getattr(self.model.task, "multi_label", False)
        )

    def _told(self, passes: list[Tensor], batch: Batch) -> Tensor:
        """The mean loss against the teachers' answers."""
        rows = _rows(self.lesson.starts, batch.places)
        teachers = torch.from_numpy(np.stack([each[rows] for each in self.lesson.answers], axis=1))
        asked = [self.model.task.asked(logits, batch.targets)[0] for logits in passes]
        return torch.stack([self._softly(logits, teachers.to(logits.device)) for logits in asked]).mean()

    def _shown(self, passes: list[Sequence[Tensor]], batch: Batch) -> Tensor:
        """The mean loss against the teacher's states; a window counts by how much it is asked."""
        assert self.lesson.teacher is not None
        read = self.train.batch(batch.places).to(self.model.device)  # the student's ids may be those of a small table
        lengths = torch.from_numpy(self.train.lengths[batch.places])  # what is not padded has no mask
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(self.model.device)
        with torch.no_grad():
            theirs = self.lesson.teacher(**read.inputs, output_hidden_states=True).hidden_states
        counts = torch.from_numpy(np.diff(self.lesson.starts)[batch.places]).to(mask.device)
        total = torch.zeros((), device=mask.device)
        for ours in passes:
            losses = torch.zeros(len(counts), device=mask.device)
            if self.method.hidden:
                losses = losses + self.method.hidden * hidden_losses(
                    ours, theirs, mask, embeddings=self.lesson.embeddings, states=self.lesson.states
                )
            if self.method.relations:
                heads = self.method.relation_heads
                losses = losses + self.method.relations * relation_losses(ours[-1], theirs[-1], mask, heads)
            total = total + (losses * counts).sum() / counts.sum()
        return total / len(passes)


@contextmanager
def _seeing(encoder: nn.Module) -> Iterator[list[Sequence[Tensor]]]:
    """While open, the states of each forward pass at every depth are collected, the embeddings' first."""
    passes: list[Sequence[Tensor]] = []
    hooks = (
        encoder.register_forward_pre_hook(
            lambda _module, args, kwargs: (args, kwargs | {"output_hidden_states": True}), with_kwargs=True
        ),
        encoder.register_forward_hook(lambda _module, _args, output: passes.append(output.hidden_states)),
    )
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def soft_losses(logits: Tensor, teachers: Tensor, temperature: float, *, several: bool = False) -> Tensor:
    """T^2 KL(p || q) of each answer, (n,): p the mean of the teachers' softmax(z / T), q the student's.

    Args:
        logits: the student's, (n, classes).
        teachers: (n, teachers, classes).
        temperature: T.
        several: whether each label is a yes or no of its own; the sum over the labels is taken.
    """
    options = _yes_or_no if several else Tensor.float
    told = F.softmax(options(teachers) / temperature, dim=-1).mean(dim=1)
    said = F.log_softmax(options(logits) / temperature, dim=-1)
    return temperature**2 * F.kl_div(said, told, reduction="none").flatten(start_dim=1).sum(dim=1)


def _yes_or_no(logits: Tensor) -> Tensor:
    """(..., labels) to (..., labels, 2), whose softmax is that of the sigmoid: yes, no."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=-1).float()


def hidden_losses(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], mask: Tensor, *, embeddings: nn.Module, states: nn.Module
) -> Tensor:
    """||W_e e - e'||^2 + the sum over blocks m = 1..M of ||W_h h_m - h'_g(m)||^2, each a mean over tokens and width.

    TinyBERT, Jiao et al. 2020, eq. 8-9, with its uniform mapping of M blocks to N: g(m) = m N / M, rounded.

    Args:
        ours: the student's states (batch, length, dim), of the embeddings and after each block.
        theirs: the teacher's, likewise.
        mask: (batch, length), true for tokens.
        embeddings: W_e.
        states: W_h, one for all blocks.

    Returns:
        The loss of each window, (batch,).
    """
    ratio = (len(theirs) - 1) / (len(ours) - 1)
    pairs = [(embeddings(ours[0]), theirs[0])]
    pairs += [(states(our), theirs[round(m * ratio)]) for m, our in enumerate(ours[1:], start=1)]
    apart = torch.stack([(our.float() - their.float()).square().mean(dim=-1) for our, their in pairs]).sum(dim=0)
    return _mean_over_tokens(apart, mask)


def relation_losses(ours: Tensor, theirs: Tensor, mask: Tensor, heads: int) -> Tensor:
    """KL(R' || R) of each window, (batch,), the mean over `heads` and tokens; R' is the teacher's.

    R_a = softmax(H_a H_a^T / sqrt(d)), (length, length), where H_a is the a-th part of the states, d wide: how much
    each token has to do with every other. MiniLM's value relation (Wang et al. 2020, eq. 6-8) and MiniLMv2's
    multi-head self-relations (Wang et al. 2021, eq. 3-6), taken of the last states instead of their queries, keys and
    values, so that any architecture has them; the widths of teacher and student may differ.

    Args:
        ours: the student's states (batch, length, dim).
        theirs: the teacher's.
        mask: (batch, length), true for tokens.
        heads: into how many parts states are cut.
    """
    said, told = (_relations(states, mask, heads) for states in (ours, theirs))
    apart = F.kl_div(said, told, reduction="none", log_target=True).sum(dim=-1).mean(dim=1)  # (batch, length)
    return _mean_over_tokens(apart, mask)


def _relations(states: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Log-probabilities (batch, heads, length, length) of every token over the tokens of its window."""
    parts = states.float().unflatten(-1, (heads, -1)).transpose(1, 2)  # (batch, heads, length, d)
    scores = parts @ parts.transpose(2, 3) / parts.shape[-1] ** 0.5
    padded = ~mask[:, None, None, :]
    return F.log_softmax(scores.masked_fill(padded, torch.finfo(scores.dtype).min), dim=-1)


def _mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """(batch, length) to (batch,); padding has no say."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1)
