"""Staying near what is known: penalties on the weights, pretrained weights mixed in, and answers that agree."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.dropout import QuickDropout
from graftwork.modifier import Effect, Modifier

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class L1(Modifier):
    """Pull every matrix that trains towards zero by the sum of its absolute values, so that few weights matter.

    loss + strength * sum |w|, over what weight decay is over: no biases, norms or embedding tables. Steps of a gradient
    make weights small; none becomes exactly zero.
    """

    paper: ClassVar[str] = "Regression Shrinkage and Selection via the Lasso, Tibshirani 1996, eq. 1, as a penalty"

    strength: float = Field(default=1e-6, ge=0)
    """What the sum is multiplied by; suits a whole encoder, updates as small as LoRA's bear a hundred times as much."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """The sum over the matrices that train."""
        tables = {id(m.weight) for m in model.encoder.modules() if isinstance(m, nn.Embedding)}
        return _Absolute(self.strength, [w for w in weights if w.ndim > 1 and id(w) not in tables])


class _Absolute(Effect):
    def __init__(self, strength: float, matrices: list[Tensor]):
        self.strength, self.matrices = strength, matrices

    def penalty(self) -> Tensor | None:
        sizes = [w.abs().sum() for w in self.matrices if w.requires_grad]
        return self.strength * sum(sizes[1:], sizes[0]) if sizes else None


class L2SP(Modifier):
    """Pull the encoder back to where it began instead of to zero: what is pretrained is kept unless the data objects.

    loss + alpha/2 ||w - w0||^2 over what trains of the encoder, w0 being its value as training began, + beta/2 ||v||^2
    over the head. Of a method that trains parts beside the weights, such as LoRA, it is these parts that are pulled
    back. It takes the place of weight decay: set `weight_decay` to 0 to have the paper's own.
    """

    name: ClassVar[str] = "l2-sp"
    paper: ClassVar[str] = "Explicit Inductive Bias for Transfer Learning, Li, Grandvalet & Davoine 2018, eq. 4"

    alpha: float = Field(default=0.1, ge=0)
    """Strength of the pull back to the start."""
    beta: float = Field(default=0.01, ge=0)
    """Strength of the pull of the head to zero."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """The distance from the values that the weights have now."""
        head = {id(p) for p in model.head.parameters()}
        return _Distance(self, [w for w in weights if id(w) not in head], [w for w in weights if id(w) in head])


class _Distance(Effect):
    def __init__(self, choice: L2SP, pretrained: list[Tensor], head: list[Tensor]):
        self.choice, self.pretrained, self.head = choice, pretrained, head
        self.start = [w.detach().clone() for w in pretrained]

    def penalty(self) -> Tensor | None:
        away = sum((w - start).square().sum() for w, start in zip(self.pretrained, self.start, strict=True))
        size = sum(w.square().sum() for w in self.head)
        return self.choice.alpha / 2 * away + self.choice.beta / 2 * size  # type: ignore[return-value]


class Mixout(Modifier):
    """At each step replace a random share of the encoder's weights by their pretrained values: steadier on few labels.

    Each weight w of a linear layer is read as w0 + dropout(w - w0), at a rate of p: w0 with probability p, and right in
    expectation. This is eq. 3 with its terms collected. w0 is the value as training began; only layers
    that train are touched, and only while they do.
    """

    paper: ClassVar[str] = "Mixout, Lee, Cho & Kang 2020, eq. 3"

    probability: float = Field(default=0.7, ge=0, lt=1)
    """That a weight is replaced at a step."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Mix, in every linear layer of the encoder that trains."""
        return _Mixed(self.probability, model.encoder)


class _Mixed(Effect):
    def __init__(self, probability: float, encoder: nn.Module):
        self.drop = QuickDropout(probability).train()
        self.hooks = []
        for layer in encoder.modules():
            weight = dict(layer.named_parameters(recurse=False)).get("weight")
            if weight is None or weight.ndim != 2 or not weight.requires_grad or isinstance(layer, nn.Embedding):
                continue
            mix = partial(self._mix, weight, weight.detach().clone())
            self.hooks.append(layer.register_forward_pre_hook(mix))
            self.hooks.append(layer.register_forward_hook(_unmix, always_call=True))

    def _mix(self, weight: Tensor, start: Tensor, layer: nn.Module, _inputs: Any) -> None:
        if layer.training:  # hides the parameter for one forward pass; its name, place and identity stay
            vars(layer)["weight"] = start + self.drop(weight - start)

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()


def _unmix(layer: nn.Module, _inputs: Any, _output: Any) -> None:
    vars(layer).pop("weight", None)


class RDrop(Modifier):
    """Read each batch twice with other dropout masks, and ask both answers to agree; twice the time a step.

    The mean loss of both readings + alpha/4 (KL(p1 || p2) + KL(p2 || p1)): eq. 4 divided by two, as it sums the losses
    of the readings. Of several labels a text, each is a distribution over yes and no, and their divergences add up.
    """

    name: ClassVar[str] = "r-drop"
    paper: ClassVar[str] = "R-Drop, Liang et al. 2021, eq. 4"

    alpha: float = Field(default=1.0, ge=0)
    """Strength of the agreement."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Two readings."""
        return _Agreement(self.alpha)


class _Agreement(Effect):
    passes = 2

    def __init__(self, alpha: float):
        self.alpha = alpha

    def disagreement(self, logits: list[Tensor], targets: Tensor) -> Tensor | None:
        one, other = (_log_probabilities(each.float(), several=targets.ndim > 1) for each in logits)
        both = (one.exp() - other.exp()) * (one - other)  # KL(p1 || p2) + KL(p2 || p1), class by class
        return self.alpha / 4 * both.flatten(1).sum(dim=1)


def _log_probabilities(logits: Tensor, *, several: bool) -> Tensor:
    """(n, classes); of `several` labels a text (n, 2 labels), of yes and of no."""
    if several:
        return F.logsigmoid(logits.new_tensor([1.0, -1.0]) * logits.unsqueeze(-1)).flatten(1)
    return F.log_softmax(logits, dim=-1)
