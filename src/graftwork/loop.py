"""The one training loop. It does not know which method it runs.

Every method, every stage and every task goes through `train`, so that a comparison of methods compares methods.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graftwork import checkpoint, layers
from graftwork.attention import quick_attention
from graftwork.budget import Budget
from graftwork.checkpoint import Progress
from graftwork.choice import InputError
from graftwork.dropout import quick_dropout
from graftwork.evaluate import outputs, quick_score
from graftwork.examples import Batch, Examples, cut_by_tokens
from graftwork.features import Features, embeddings_of, frozen_prefix
from graftwork.gradients import Gradients
from graftwork.hardware import Hardware, World, autocast, is_out_of_memory, keep_freed_memory
from graftwork.method import GradientMethod, Method, ParamGroup
from graftwork.model import TransferModel
from graftwork.objective import Objective
from graftwork.schedule import rate_factor
from graftwork.sharding import spread_blocks
from graftwork.vocabulary import can_compact, compact

OnEvent = Callable[..., None]

MIN_STEPS = 400
"""Small data is gone through more often than the method's epochs say, until there are so many steps."""
_REPORT_SECONDS = 0.5
_VALIDATE_EVERY = 1000  # steps, where an epoch is longer than that
_VALIDATE_SHARE = 0.05
"""Of the budget between two validations at least: where epochs are short, reading validation would cost more than
training, and the best of very many would be best by luck."""


class Diverged(RuntimeError):  # noqa: N818
    """The loss is no number any more."""


class StopRequested(Exception):  # noqa: N818
    """Somebody asked the run to stop; a checkpoint has been written."""


@dataclass
class Stage:
    """What the loop needs to know of one stage of a recipe."""

    number: int
    method: GradientMethod
    budget: Budget
    seed: int
    hardware: Hardware
    precision: str
    world: World
    checkpoint: Path
    on_event: OnEvent
    stop_requested: Callable[[], bool]
    spent: float = 0.0
    """Seconds of the budget that went by before the stage began."""
    schedule: Callable[[GradientMethod, float], float] | None = None
    """The learning rate's factor at a share of the budget; by default as the method's `schedule` says."""
    tell_every_step: bool = False
    """Whether there is a `step` event for each step, or one now and then."""

    @property
    def sharded(self) -> bool:
        """Whether each process holds its share of the blocks alone."""
        return self.hardware.sharded and self.world.size > 1

    def seed_of(self, *parts: int) -> tuple[int, ...]:
        """Of one random act: the run's seed, the stage, and what the act is about."""
        return (self.seed, self.number, *parts)


@dataclass(frozen=True)
class Trained:
    """What a stage did."""

    progress: Progress
    groups: list[ParamGroup]
    total_steps: int | None
    stopped: str
    """`budget` or `early`."""


def default_budget(method: GradientMethod, examples: int) -> Budget:
    """The method's epochs; more where that would be fewer than `MIN_STEPS` steps."""
    steps_per_epoch = math.ceil(examples / method.batch_size)
    return Budget(max(method.epochs, math.ceil(MIN_STEPS / steps_per_epoch)), "epochs")


def validations(steps: int, steps_per_epoch: int) -> int:
    """How often validation is read in so many steps."""
    apart = max(math.ceil(_VALIDATE_SHARE * steps / steps_per_epoch), 1) * steps_per_epoch
    return max(math.ceil(steps / apart), math.ceil(steps / _VALIDATE_EVERY))


def train(model: TransferModel, train: Examples, validation: Examples, stage: Stage) -> Trained:
    """Train what `stage.method` says; afterwards `model` holds the weights that did best on validation.

    Raises:
        Diverged: the loss became NaN or infinite; the message names the step and the rows.
        StopRequested: a stop was asked for; everything is in the checkpoint.
    """
    keep_freed_memory()
    method = stage.method
    train = method.reads(model, train)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []))
        stack.enter_context(quick_dropout(model.encoder, method.dropout))
        stack.enter_context(quick_attention(model.encoder, model.device))
        remap = None
        if can_compact(model.encoder, model) and any(p.requires_grad for p in _table(model)):
            remap = stack.enter_context(compact(model.encoder, _used(train, validation)))
        if stage.sharded:
            _require_steadiness(method)
            stack.enter_context(spread_blocks(model.encoder, stage.world))
        groups = method.param_groups(model)
        weights = [p for g in groups for p in g.parameters]
        _check_partition(model, weights)
        optimizer = method.optimizer.over(
            [{"params": g.parameters, "lr": g.lr, "peak": g.lr, "weight_decay": g.weight_decay} for g in groups],
            model.device.type,
        )
        model.head.fresh = False
        objective = method.objective(model, train, list(weights))
        stack.callback(objective.end)
        return _Runner(model, validation, stage, remap, groups, weights, optimizer, objective).run()


def rehearse(
    model: TransferModel,
    method: GradientMethod,
    some: Examples,
    validation: Examples,
    hardware: Hardware,
    precision: str,
    steps: int,
    *,
    on_event: OnEvent,
    seed: int = 0,
    stop_requested: Callable[[], bool] = lambda: False,
    schedule: Callable[[GradientMethod, float], float] | None = None,
) -> tuple[TransferModel, Trained]:
    """A few steps of `method` on a copy of `model`, each told: gives the copy and what was done; nothing is kept.

    The arguments are those of `train` and the fields of `Stage`. Raises what `train` raises.
    """
    model = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method.prepare(model, some)
        whole = Stage(
            number=0, method=method, budget=Budget(steps, "steps"), seed=seed, hardware=hardware, precision=precision,
            world=World(model.device), checkpoint=Path(folder) / "none", on_event=on_event,
            stop_requested=stop_requested, schedule=schedule, tell_every_step=True,
        )  # fmt: skip
        return model, train(model.to(model.device), some, validation, whole)


class _Runner:
    """The state of one stage while it runs."""

    def __init__(
        self,
        model: TransferModel,
        validation: Examples,
        stage: Stage,
        remap: np.ndarray | None,
        groups: list[ParamGroup],
        weights: list[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        objective: Objective,
    ):
        self.model, self.train, self.validation = model, objective.train, validation
        self.stage, self.remap = stage, remap
        self.groups, self.weights, self.optimizer, self.objective = groups, weights, optimizer, objective
        self.method, self.world = stage.method, stage.world
        self.gradients = Gradients(weights, optimizer, stage.world, sharded=stage.sharded)
        self.steps_per_epoch = objective.steps_per_epoch
        self.total_steps = stage.budget.steps(self.steps_per_epoch)
        self.best: list[Tensor] = []
        self.progress = Progress(stage=stage.number, max_tokens=stage.hardware.max_tokens)
        if checkpoint.stage_of(stage.checkpoint) == stage.number:
            self.progress, self.best, remembered = checkpoint.load(stage.checkpoint, weights, optimizer)
            objective.load_state(remembered)
        self.began = time.perf_counter() - self.progress.seconds
        self.reported = self.saved = time.perf_counter()
        self.losses: list[float] = []
        self.next_epoch = 0
        self.prefix = ExitStack()
        self.features: list[Features] | None = None

    def run(self) -> Trained:
        """Steps until the budget is spent or validation stops improving; then the best weights are put back."""
        stopped = "budget"
        with self.prefix:
            for step, places in self._batches():
                self._step(step, places)
                done = self._done(step + 1)
                if self._validates(step + 1) or done:
                    self._validate(step + 1)
                    if self.method.patience and self.progress.since_best >= self.method.patience:
                        stopped = "early"
                        break
                if done:
                    break
                self._save_if_due()
            self._put(self.objective.final(self._score_with) or self.best)
        return Trained(self.progress, self.groups, self.total_steps, stopped)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        """Let the weights that train have these values."""
        for weight, value in zip(self.weights, values, strict=True):
            weight.copy_(value)

    # --- which examples when ---

    def _batches(self) -> Iterator[tuple[int, np.ndarray]]:
        """(step, windows) from where the progress stands; at each epoch's start the method may change what trains."""
        step = self.progress.step
        while True:
            epoch, done_in_epoch = divmod(step, self.steps_per_epoch)
            self._begin_epoch(epoch)
            batches = self.objective.batches(self.stage.seed_of(epoch))
            for places in batches[done_in_epoch:]:
                yield step, places
                step += 1

    def _begin_epoch(self, epoch: int) -> None:
        may_change = type(self.method).on_epoch is not Method.on_epoch
        if self.features is None or may_change:
            self.prefix.close()
            for begun in range(self.next_epoch, epoch + 1):  # a resumed run catches up on the epochs before
                self.method.on_epoch(self.model, begun)
            self.next_epoch = epoch + 1
            training = [g.name for g in layers.layer_groups(self.model.encoder) if self._trains(g)]
            if not self.progress.unfreezing or self.progress.unfreezing[-1][1] != training:
                self.progress.unfreezing.append([epoch, training])
            self._set_modes()
            self.features = self.prefix.enter_context(
                frozen_prefix(
                    self.model, [self.train, self.validation], precision=self.stage.precision, remap=self.remap,
                    worthwhile=not may_change,
                )
            )  # fmt: skip

    def _set_modes(self) -> None:
        layers.set_modes(self.model)
        layers.set_encoder_modes(self.model.encoder)

    def _trains(self, group: layers.LayerGroup) -> bool:
        parameters = dict(self.model.encoder.named_parameters())
        return any(parameters[name].requires_grad for name in group.parameters)

    # --- one step ---

    def _step(self, step: int, places: np.ndarray) -> None:
        factor = self._factor(self._fraction(step))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        while (loss := self._loss(step, places)) is None:
            self.optimizer.zero_grad()
            self.progress.max_tokens //= 2
            message = f"Out of memory: computing {self.progress.max_tokens} tokens at once from now on."
            self.stage.on_event(event="note", message=message)
        if not math.isfinite(loss):
            rows = sorted(set(self.train.example[places].tolist()))
            raise Diverged(
                f"The loss is {loss} at step {step + 1}, on rows {rows} of train (counted from 0). "
                f"Give a lower lr than {self.method.lr:g}, or look at these rows."
            )
        self.gradients.clip(self.method.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.on_step(self.model, step + 1)
        self.objective.after_step(step + 1, self._fraction(step + 1))
        self.progress.step = step + 1
        self.progress.examples += len(places)
        self.progress.seconds = time.perf_counter() - self.began
        self.losses.append(loss)
        self._report(factor)

    def _factor(self, fraction: float) -> float:
        if self.stage.schedule:
            return self.stage.schedule(self.method, fraction)
        return rate_factor(self.method.schedule, self.method.warmup, fraction, self.progress.reductions)

    def _loss(self, step: int, places: np.ndarray) -> float | None:
        """The mean loss over the whole batch, and its gradients, however it is split over parts and processes.

        None where memory did not suffice, on any process, and smaller parts may help.
        """
        failure: RuntimeError | None = None
        loss = torch.zeros((), device=self.model.device)
        try:
            loss = self._own_loss(step, places)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failure = error
        if self.world.agree(failure is not None):
            if self.objective.whole or self.progress.max_tokens <= int(self.train.lengths.max()):
                raise failure or RuntimeError("Another process ran out of memory.")
            return None
        self.gradients.add_up(loss)
        return float(loss)

    def _own_loss(self, step: int, places: np.ndarray) -> Tensor:
        """The part of the loss, and in the weights of the gradients, that falls to this process."""
        parts = [places]
        if not self.objective.whole:
            parts = cut_by_tokens(
                places,
                self.train.lengths,
                self.progress.max_tokens,
                parts=self.world.size,
                together=self.train.together,
            )
        total = self.train.weight(places)
        loss_sum = torch.zeros((), device=self.model.device)
        shares = [self.train.weight(part) / max(total, 1) for part in parts]
        for part in parts:
            self.progress.padded += int(self.train.lengths[part].max()) * len(part)
            self.progress.tokens += int(self.train.lengths[part].sum())
        for number, part, share in self.gradients.parts_here(parts, shares):
            torch.manual_seed(_mixed(self.stage.seed_of(step, number)))
            batch = self._batch(part)
            with autocast(self.model.device, self.stage.precision):
                loss = self.objective.loss(batch) * share
            loss.backward()
            loss_sum += loss.detach()
        return loss_sum

    def _batch(self, places: np.ndarray) -> Batch:
        batch = self.train.batch(places, self.remap)
        return (self.features[0].into(batch) if self.features else batch).to(self.model.device)

    # --- how far, how good ---

    def _fraction(self, step: int) -> float:
        """Share of the budget spent, in [0, 1]."""
        if self.total_steps is not None:
            return min(1.0, step / self.total_steps)
        allowed = self.stage.budget.amount - self.stage.spent - self._closing_seconds()
        return min(1.0, (time.perf_counter() - self.began) / max(allowed, 1e-3))

    def _closing_seconds(self) -> float:
        """What the last validation, the fit of the decision in fp32, and writing the model will take, by its pace."""
        pace = self.progress.seconds / max(self.progress.examples, 1)
        return 1.0 + 1.2 * pace * len(self.validation)

    def _done(self, step: int) -> bool:
        if self.total_steps is not None:
            return step >= self.total_steps
        return self.world.agree(self._fraction(step) >= 1)

    def _validates(self, step: int) -> bool:
        if step % self.steps_per_epoch:
            return step % _VALIDATE_EVERY == 0
        return bool(self.method.patience) or self._fraction(step) - self.progress.validated >= _VALIDATE_SHARE - 1e-9

    def _validate(self, step: int) -> None:
        with self._holding(self.objective.weights() or self.method.optimizer.learned(self.optimizer, self.weights)):
            self.objective.before_validation(self._embedded)
            scores = self._scores()
            value = self._value(scores)
            self.progress.since_best += 1
            self.progress.validated = self._fraction(step)
            if value > self.progress.best or not self.best:
                self.progress.best, self.progress.best_step, self.progress.since_best = value, step, 0
                self.best = [w.detach().clone() for w in self.weights]
            bears = self.method.schedule.bears
            if bears and self.progress.since_best and self.progress.since_best % bears == 0:
                self.progress.reductions += 1
            self.objective.validated(value, list[Tensor](self.weights))
        self.progress.seconds = time.perf_counter() - self.began
        self.stage.on_event(
            event="evaluation", stage=self.stage.number, step=step, epoch=round(step / self.steps_per_epoch, 3),
            split="validation", seconds=round(self.progress.seconds, 2), **scores,
        )  # fmt: skip

    def _embedded(self, places: np.ndarray) -> np.ndarray:
        """What the head reads of windows of train, (places, ...), by the weights as they are."""
        return embeddings_of(
            self.model, self.train, places, self.stage.precision, features=self.features[0] if self.features else None,
            remap=self.remap, max_tokens=self.progress.max_tokens,
        )  # fmt: skip

    def _scores(self) -> dict[str, float]:
        own = self.objective.scores(self.validation, self.stage.precision)
        if own is not None:
            return own
        found, targets = outputs(
            self.model, self.validation, features=self.features[1] if self.features else None, remap=self.remap,
            precision=self.stage.precision, max_tokens=self.progress.max_tokens,
        )  # fmt: skip
        return quick_score(self.model, found, targets)

    @contextmanager
    def _holding(self, values: list[Tensor] | None) -> Iterator[None]:
        """Let the weights have other values for a while, if there are any; then they are again what they were."""
        before = None if values is None else [w.detach().clone() for w in self.weights]
        if values is not None:
            self._put(values)
        try:
            yield
        finally:
            if before is not None:
                self._put(before)

    def _score_with(self, values: list[Tensor]) -> float:
        with self._holding(values):
            return self._value(self._scores())

    def _value(self, scores: dict[str, float]) -> float:
        """What the best is chosen by: of two equal ones, the more certain."""
        return scores[self.model.task.selection] - 1e-6 * scores["loss"]

    def _report(self, factor: float) -> None:
        now = time.perf_counter()
        if now - self.reported < _REPORT_SECONDS and self.progress.step > 1 and not self.stage.tell_every_step:
            return
        self.reported = now
        fraction = self._fraction(self.progress.step)
        self.stage.on_event(
            event="step", stage=self.stage.number, step=self.progress.step,
            epoch=round(self.progress.step / self.steps_per_epoch, 3), loss=float(np.mean(self.losses)),
            lr=self.method.lr * factor, seconds=round(self.progress.seconds, 2),
            examples_per_second=round(self.progress.examples / self.progress.seconds, 1), fraction=round(fraction, 4),
            seconds_left=round(self.progress.seconds * (1 - fraction) / max(fraction, 1e-6), 1),
        )  # fmt: skip
        self.losses.clear()

    def _save_if_due(self) -> None:
        stop = self.stage.stop_requested()
        due = time.perf_counter() - self.saved >= self.stage.hardware.checkpoint_seconds
        if not self.world.agree(stop or due):
            return
        checkpoint.save(
            self.stage.checkpoint if self.world.leads else None, self.progress, self.weights, self.optimizer, self.best,
            self.objective.state(),
        )  # fmt: skip
        if self.world.leads:
            self.stage.on_event(event="checkpoint", step=self.progress.step)
        self.saved = time.perf_counter()
        if self.world.agree(stop):
            raise StopRequested(f"Stopped at step {self.progress.step}")


def _mixed(parts: tuple[int, ...]) -> int:
    """One 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _used(*splits: Examples) -> np.ndarray:
    """The token ids of the splits, and the one that pads them."""
    return np.concatenate([np.flatnonzero(np.bincount(s.ids)) for s in splits] + [[splits[0].modality.pad_id]])


def _require_steadiness(method: GradientMethod) -> None:
    """Refuse to spread over processes what a method changes on its way.

    Raises:
        InputError: in a sentence.
    """
    if type(method).on_epoch is not Method.on_epoch or type(method).on_step is not Method.on_step:
        raise InputError(
            f"{method.title} changes on its way what trains, which processes that share the weights cannot follow. "
            "Leave hardware.sharded out, or choose another method."
        )


def _table(model: TransferModel) -> list[torch.nn.Parameter]:
    return list(model.encoder.get_input_embeddings().parameters())  # type: ignore[operator]


def _check_partition(model: TransferModel, weights: list[torch.nn.Parameter]) -> None:
    """Every parameter that trains stands in exactly one group: a method that forgets one would train it never."""
    grouped = [id(w) for w in weights]
    assert len(grouped) == len(set(grouped)), "a parameter stands in two groups"
    forgotten = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in set(grouped)]
    assert not forgotten, f"parameters that train but stand in no group: {forgotten[:3]}"
