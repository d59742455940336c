"""Meta-learning: the encoder learns to learn, on many small tasks drawn from the classes of train.

Each step reads episodes: a few classes, a few rows of each to learn from (the support) and others that are asked (the
query). What comes out is an encoder whose embeddings tell classes apart that it has never seen, from a few rows of each
(`graftwork.episodes.few_shot`), and an ordinary model of the classes of train, whose head is a regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from graftwork import layers
from graftwork.choice import InputError
from graftwork.episodes import SCALE, Episode, Episodes, Metric, Prototypes
from graftwork.examples import tokenised
from graftwork.method import GradientMethod
from graftwork.methods.multitask import Mixture, Sources, other_task
from graftwork.modifier import Effect
from graftwork.objective import Objective
from graftwork.regression import read_anew, start_head

if TYPE_CHECKING:
    from graftwork.examples import Batch, Examples
    from graftwork.model import TransferModel

_OF_ANSWERS = ("places", "embeddings", "criterion", "disagreement")
"""What a modifier does to rows and their answers; an episode chooses its rows, and its answers are its own."""


class Episodic(GradientMethod, abstract=True):
    """What the methods that learn from episodes have in common."""

    needs: ClassVar[frozenset[str]] = frozenset({"one-class", "pooled"})
    reads_off: ClassVar[bool] = True

    ways: int = Field(default=5, ge=2)
    """Classes an episode; all of train's, where it has fewer."""
    shots: int = Field(default=5, ge=1)
    """Rows a class in the support."""
    queries: int = Field(default=5, ge=1)
    """Rows a class in the query; a class with fewer rows than shots and queries takes no part."""
    metric: Metric = "cosine"
    """How near an embedding is to a class: by the cosine, or by the squared Euclidean distance to its mean."""
    scale: float = Field(default=SCALE, gt=0)
    """What the cosine is multiplied by."""
    batch_size: int = Field(default=50, ge=1)
    """Examples an optimizer step: as many whole episodes as that, at least one."""
    lr: float = Field(default=5e-5, gt=0, lt=1)
    """Learning rate of the encoder's topmost block, at its peak."""
    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """Each depth below the topmost learns at this times the rate of the one above it; 1 is one rate for all."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes of the episode."""
    domains: Sources = ()
    """Files or folders of labelled rows of other domains, with classes of train's: each episode is of one of them, and
    train's own rows are for the head and the stages after."""

    @property
    def depth_factor(self) -> float:
        """`layer_decay`."""
        return self.layer_decay

    def episodes(self, train: Examples) -> Episodes:
        """What episodes there are."""
        classes = np.asarray(train.targets)
        ways = min(self.ways, len(np.unique(classes)))
        return Episodes(classes, ways=ways, shots=self.shots, queries=self.queries)

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Everything trains; train must have classes enough, unless other domains have."""
        if not self.domains:
            self.episodes(train)
        super().prepare(model, train)

    def reads(self, model: TransferModel, train: Examples) -> Examples:
        """Train, and the other domains after it."""
        if not self.domains:
            return train
        others = []
        for source in self.domains:
            data = other_task(source, train.data)
            if data.task != train.data.task or not set(data.labels) <= set(train.data.labels):
                raise InputError(f"The domain {source!r} has other classes than train. Give rows of the same classes.")
            others.append(tokenised(data, "train", train.task, model.modality))
        return Mixture([train, *others])

    def episode_loss(self, episode: Episode) -> Tensor:
        """What is minimised, of one episode: a scalar."""
        raise NotImplementedError

    def answers(self, episode: Episode) -> Tensor:
        """Logits (ways, queries, ways) of the query, once the support is learned: for `few_shot`."""
        raise NotImplementedError

    def prototypes(self, support: Tensor) -> Prototypes:
        """The classifier that an episode begins with, of embeddings (ways, shots, dim)."""
        return Prototypes.of(support, self.metric, self.scale)

    def cross_entropy(self, classifier: Prototypes, z: Tensor) -> Tensor:
        """The mean over embeddings (ways, rows, dim), of which each line is a class."""
        logits = classifier(z)  # (ways, rows, ways)
        truth = torch.arange(len(logits), device=logits.device).repeat_interleave(logits.shape[1])
        return F.cross_entropy(logits.flatten(0, 1), truth, label_smoothing=self.label_smoothing)

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The mean of `episode_loss` over the episodes of a batch."""
        return _Episodes(self, model, train, weights)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """An ordinary model of train's classes: its head is a regression on what the encoder says of them last."""
        start_head(model, train)
        return super().finish(model, train)


class _Episodes(Objective):
    """Attributes:
    own: the rows that the head is read off.
    mixture: these and those of other domains, where there are such.
    sets: the rows that episodes are drawn from, each of which is of one of the sets.
    first: the place at which each set begins.
    """

    whole = True
    method: Episodic

    def __init__(self, method: Episodic, model: TransferModel, train: Examples, weights: list[Tensor]):
        mixture = train if isinstance(train, Mixture) else None
        self.own = mixture.parts[0] if mixture else train
        super().__init__(method, model, self.own, weights)
        self.train, self.mixture = train, mixture
        for modifier, effect in zip(method.modifiers, self.effects, strict=True):
            if any(getattr(type(effect), hook) is not getattr(Effect, hook) for hook in _OF_ANSWERS):
                raise InputError(
                    f"{method.name} learns from episodes, whose rows and answers are their own: {modifier.name!r} "
                    "cannot act on them. Leave it out."
                )
        domains = mixture.parts[1:] if mixture else (train,)
        self.first = mixture.first[1:-1] if mixture else np.zeros(1, dtype=np.int64)
        self.rows = sum(len(domain) for domain in domains)
        self.sets = [method.episodes(domain) for domain in domains]
        self.episodes = min(self.sets, key=lambda each: each.ways)
        for each in self.sets:
            each.ways = self.episodes.ways
        self.together = max(1, method.batch_size // self.episodes.size)

    @property
    def steps_per_epoch(self) -> int:
        """So many that as many rows are read as there are."""
        return math.ceil(self.rows / (self.together * self.episodes.size))

    def batches(self, seed: tuple[int, ...]) -> list[np.ndarray]:
        """Episodes, row by row, one after the other; those of a batch are of one domain."""
        generator = np.random.default_rng(seed)
        found = []
        for _ in range(self.steps_per_epoch):
            chosen = int(generator.integers(len(self.sets))) if len(self.sets) > 1 else 0
            rows = [self.sets[chosen].draw(generator).reshape(-1) for _ in range(self.together)]
            found.append(self.first[chosen] + np.concatenate(rows))
        return found

    def state(self) -> dict[str, Tensor]:
        return super().state() | (self.mixture.mark() if self.mixture else {})

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        if self.mixture:
            self.mixture.require_marked(state)

    def loss(self, batch: Batch) -> Tensor:
        losses = []
        for start in range(0, len(batch.places), self.episodes.size):
            inputs = {name: value[start : start + self.episodes.size] for name, value in batch.inputs.items()}
            episode = Episode(self.model, inputs, self.episodes.ways, self.episodes.shots)
            losses.append(self.method.episode_loss(episode))
        return torch.stack(losses).mean() + self.penalty()

    def before_validation(self, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        read_anew(self.model, self.own, embed)


class Prototypical(Episodic):
    """Learn embeddings in which the nearest class mean is the right one, also of classes that were never trained on.

    With c_k the mean of the support of class k, p(k | x) = softmax(-||x - c_k||^2), or softmax(scale * cos(x, c_k));
    the loss is -log p of the query's own classes. By default by cosine, as MiniLM and its like were pretrained.
    """

    paper: ClassVar[str] = (
        "Prototypical Networks, Snell, Swersky & Zemel 2017, eq. 1-2; scaled cosine: Chen et al. 2019"
    )
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "ways": (5, 10, 20)}

    def episode_loss(self, episode: Episode) -> Tensor:
        """The query against the means of the support."""
        z = episode.read(range(episode.query.stop))
        return self.cross_entropy(self.prototypes(z[:, : len(episode.support)]), z[:, len(episode.support) :])

    @torch.no_grad()
    def answers(self, episode: Episode) -> Tensor:
        """By the means of the support."""
        return self.prototypes(episode.read(episode.support))(episode.read(episode.query))


class Adapting(Episodic, abstract=True):
    """Methods that take steps within an episode, on weights of its own; the model's are left as they are.

    The classifier of an episode begins as the prototypes of its support (Proto-MAML, Triantafillou et al. 2020), so
    that there may be any number of classes, in any order.
    """

    inner_steps: int = Field(default=3, ge=1)
    """Gradient steps within an episode."""
    inner_lr: float = Field(default=0.01, gt=0)
    """Their rate, by plain gradient descent."""

    def adapting(self, encoder: nn.Module) -> dict[str, nn.Parameter]:
        """The weights that take the steps, by name: all that train."""
        return {name: p for name, p in encoder.named_parameters() if p.requires_grad}

    def adapted(
        self, episode: Episode, weights: dict[str, Tensor], classifier: Prototypes, steps: Sequence[range],
        *, order: int,
    ) -> tuple[dict[str, Tensor], Prototypes, list[Tensor]]:  # fmt: skip
        """Weights and classifier after a step on each of `steps`, columns of the episode; and the loss before each.

        theta' = theta - inner_lr * the gradient of the loss; of order 2 that gradient can itself be differentiated.
        """
        for start in (classifier.weight, classifier.bias):
            start.requires_grad_()
        losses = []
        for columns in steps:
            loss = self.cross_entropy(classifier, episode.read(columns, weights))
            moving = [*weights.values(), classifier.weight, classifier.bias]
            gradients = torch.autograd.grad(loss, moving, create_graph=order == 2, materialize_grads=True)
            *moved, weight, bias = [w - self.inner_lr * g for w, g in zip(moving, gradients, strict=True)]
            weights = dict(zip(weights, moved, strict=True))
            classifier = replace(classifier, weight=weight, bias=bias)
            losses.append(loss.detach())
        return weights, classifier, losses

    def answers(self, episode: Episode) -> Tensor:
        """After `inner_steps` on the support."""
        with torch.no_grad():
            classifier = self.prototypes(episode.read(episode.support))
        start: dict[str, Tensor] = {n: p.detach().requires_grad_() for n, p in self.adapting(episode.encoder).items()}
        weights, classifier, _ = self.adapted(episode, start, classifier, [episode.support] * self.inner_steps, order=1)
        with torch.no_grad():
            return classifier(episode.read(episode.query, weights))


class MAML(Adapting):
    """Learn weights from which a few gradient steps on a new task's few rows go far.

    theta' = theta - inner_lr * grad L_support(theta), `inner_steps` times; what is minimised is L_query(theta'). The
    gradient of that goes through the steps (`order` 2: through a gradient, by products with a Hessian), or takes them
    as given (`order` 1, which takes little more than half the time and does nearly as well, Finn et al. 2017, table 1).
    """

    name: ClassVar[str] = "maml"
    paper: ClassVar[str] = "MAML, Finn, Abbeel & Levine 2017, eq. 1; head: Proto-MAML, Triantafillou et al. 2020"
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "inner_lr": 10.0, "inner_steps": (1, 3, 5)}

    order: Literal[1, 2] = 1
    """Whether the gradient of the query takes the steps as given (1) or goes through them (2)."""
    inner_blocks: int = Field(default=2, ge=0)
    """How many of the topmost blocks take the steps within an episode, besides the head; all blocks learn from them."""

    def episode_loss(self, episode: Episode) -> Tensor:
        """The query, after steps on the support."""
        # torch's fused attention has no second derivative
        with sdpa_kernel(SDPBackend.MATH) if self.order == 2 else nullcontext():
            classifier = self.prototypes(episode.read(episode.support))
            # not the parameters themselves: the classifier is a function of those, and no step goes through it
            weights: dict[str, Tensor] = {name: p.view_as(p) for name, p in self.adapting(episode.encoder).items()}
            steps = [episode.support] * self.inner_steps
            weights, classifier, _ = self.adapted(episode, weights, classifier, steps, order=self.order)
            return self.cross_entropy(classifier, episode.read(episode.query, weights))

    def adapting(self, encoder: nn.Module) -> dict[str, nn.Parameter]:
        """The weights that take the steps, by name: of the topmost blocks, and what follows them."""
        groups = layers.layer_groups(encoder)
        blocks = [g for g in groups if g.name.startswith("block")]
        chosen = blocks[max(0, len(blocks) - self.inner_blocks) :]
        chosen += [g for g in groups if g.name == "output"] * bool(self.inner_blocks)
        names = {name for group in chosen for name in group.parameters}
        return {name: p for name, p in super().adapting(encoder).items() if name in names}


class Reptile(Adapting):
    """Learn weights near those that each small task would come to: the plainest of the meta-learners.

    Within an episode phi becomes phi~ by `inner_steps` steps, each on other rows, and the optimizer is given (phi -
    phi~) / inner_lr as the gradient; with plain gradient descent phi moves towards phi~.
    """

    paper: ClassVar[str] = "On First-Order Meta-Learning Algorithms, Nichol, Achiam & Schulman 2018, algorithm 1"
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "inner_lr": 10.0, "inner_steps": (2, 3, 5)}

    @model_validator(mode="after")
    def _has_rows_for_each_step(self) -> Reptile:
        if self.inner_steps > self.shots + self.queries:
            raise ValueError(f"{self.shots} + {self.queries} rows a class cannot be cut over {self.inner_steps} steps")
        return self

    def episode_loss(self, episode: Episode) -> Tensor:
        """The loss over the steps, with the way that they went as its gradient."""
        with torch.no_grad():
            classifier = self.prototypes(episode.read(episode.support))
        phi = self.adapting(episode.encoder)
        start: dict[str, Tensor] = {name: p.detach().requires_grad_() for name, p in phi.items()}
        cuts = [i * episode.query.stop // self.inner_steps for i in range(self.inner_steps + 1)]
        steps = [range(*cut) for cut in pairwise(cuts)]
        there, _, losses = self.adapted(episode, start, classifier, steps, order=1)
        way = [(start[name] - there[name]).detach() / self.inner_lr for name in phi]
        pull = torch.stack([(p * g).sum() for p, g in zip(phi.values(), way, strict=True)]).sum()
        return pull - pull.detach() + torch.stack(losses).mean()
