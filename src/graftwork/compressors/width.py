"""Narrower blocks: attention heads and feed-forward neurons that the loss hardly feels are cut out of the matrices.

Both are judged alike: what enters the layer that sums them up is multiplied by a mask of ones, and a unit matters as
much as the loss would change with its mask, in the first order. Then the matrices really become smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from graftwork import layers
from graftwork.choice import InputError
from graftwork.compressor import Compressor
from graftwork.examples import cut_by_tokens
from graftwork.insertions.adapters import linear_layers, width_out
from graftwork.model import evaluating

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel

_TOKENS = 4096  # computed at once, with gradients
_TOLERANCE = 1e-3  # of the states' own spread, between a network with units masked and one with them cut out


@dataclass(frozen=True)
class Part:
    """An attention or a feed-forward: layers that make units, and the one that sums them up."""

    makers: tuple[nn.Module, ...]
    writer: nn.Module
    units: int
    """Heads, or neurons; each is as wide as the others."""


class Narrowing(Compressor, abstract=True):
    """Keep the units that matter most."""

    main: ClassVar[str] = "keep"
    faster: ClassVar[bool] = True

    keep: float = Field(default=0.5, gt=0, lt=1)
    """Share that stays."""
    rows: int = Field(default=1000, ge=1)
    """Of train, at most, on which it is seen what matters; drawn at random."""
    rounds: int = Field(default=1, ge=1)
    """In how many rounds, each of the same share: what matters is seen anew in each, and the head, or with a budget
    the model, recovers after each."""

    @classmethod
    def levels(cls, model: TransferModel) -> list[Compressor]:
        """A quarter less each time."""
        return [cls(keep=keep) for keep in (0.75, 0.5, 0.25)]

    def in_rounds(self, model: TransferModel) -> list[Compressor]:
        """One cut a round; the last leaves as many units as one cut would."""
        self.require_suited(model)
        units = self.counted(self.parts(model.encoder))
        left = [units, *(round(units * self.keep ** (cut / self.rounds)) for cut in range(1, self.rounds + 1))]
        return [self.model_copy(update={"keep": b / a, "rounds": 1}) for a, b in pairwise(left) if b < a]

    def counted(self, parts: Sequence[Part]) -> int:
        """Of how many units a share is kept."""
        raise NotImplementedError

    def parts(self, encoder: nn.Module) -> list[Part]:
        """What is to be narrowed, from the lowest block upwards.

        Raises:
            InputError: a block has no such part.
        """
        raise NotImplementedError

    def kept(self, importance: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Which units of each part stay, in their order, given how much each matters."""
        raise NotImplementedError

    def unsuited(self, model: TransferModel) -> str | None:
        """Every block must have the part, and there must be something to leave out."""
        try:
            found = self.parts(model.encoder)
        except InputError as error:
            return str(error)
        if not any(round(self.keep * part.units) < part.units for part in found):
            return f"{self.title} leaves nothing out: there are {found[0].units}. Give a smaller share."
        return None

    def change(self, model: TransferModel, train: Examples) -> None:
        """Judge, cut, and see that the network computes what it would with the rest masked.

        Raises:
            InputError: it does not.
        """
        parts = self.parts(model.encoder)
        kept = self.kept(importance(model, parts, train, self.rows))
        inputs = {k: v.to(model.device) for k, v in train.batch(_some(train, 4)).inputs.items()}
        with torch.no_grad(), masked(parts, kept):
            expected = model.encoder(**inputs).last_hidden_state
        cut(parts, kept)
        self.write_down(model.encoder, parts)
        why = (
            f"This encoder ({type(model.encoder).__name__}) does more with what {self.name!r} cuts than is known here."
        )
        try:
            with torch.no_grad():
                found = model.encoder(**inputs).last_hidden_state
        except RuntimeError as error:
            raise InputError(why) from error
        seen = inputs["attention_mask"] == 1 if "attention_mask" in inputs else slice(None)
        if (found - expected)[seen].abs().max() > _TOLERANCE * expected[seen].std():
            raise InputError(why)

    def write_down(self, encoder: nn.Module, parts: Sequence[Part]) -> None:
        """Let the config say what it can."""


class Heads(Narrowing):
    """Cut out the attention heads that matter least, over all blocks together; each block keeps one at least."""

    paper: ClassVar[str] = "Michel, Levy & Neubig 2019, Are Sixteen Heads Really Better than One?, eq. 2"

    def parts(self, encoder: nn.Module) -> list[Part]:
        """Query, key and value, and what sums up the heads."""
        found = []
        for block in _blocks(encoder):
            linear = [layer for name, layer in linear_layers(block).items() if "att" in name.lower()]
            sizes = [
                getattr(m, n) for m in block.modules() for n in ("attention_head_size", "head_dim") if hasattr(m, n)
            ]
            makers = [layer for layer in linear[:-1] if width_out(layer) == _width_in(linear[-1])]
            if len(makers) != 3 or not sizes or width_out(makers[0]) % sizes[0]:
                raise InputError(
                    f"The heads of this encoder ({type(encoder).__name__}) do not stand in three equal layers for "
                    "query, key and value. Choose other steps, such as 'ffn'."
                )
            found.append(Part(tuple(makers), linear[-1], width_out(makers[0]) // sizes[0]))
        return found

    def counted(self, parts: Sequence[Part]) -> int:
        """All heads together."""
        return sum(part.units for part in parts)

    def kept(self, importance: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The best of all, each block's importance brought to length 1; the best of each block in any case."""
        scaled = [each / max(float(np.linalg.norm(each)), 1e-30) for each in importance]
        best = [int(each.argmax()) for each in scaled]
        for each, place in zip(scaled, best, strict=True):
            each[place] = np.inf
        everything = np.concatenate(scaled)
        count = max(round(self.keep * len(everything)), len(scaled))
        stays = np.zeros(len(everything), dtype=bool)
        stays[np.argsort(-everything, kind="stable")[:count]] = True
        ends = np.cumsum([len(each) for each in scaled])[:-1]
        return [np.flatnonzero(each) for each in np.split(stays, ends)]


class FFN(Narrowing):
    """Cut out the feed-forward neurons that matter least, as many in every block."""

    name: ClassVar[str] = "ffn"
    paper: ClassVar[str] = "Molchanov et al. 2017, Pruning Convolutional Neural Networks, eq. 7-8, on neurons"

    def parts(self, encoder: nn.Module) -> list[Part]:
        """All layers of the feed-forward, and its last."""
        found = []
        for block in _blocks(encoder):
            linear = [layer for name, layer in linear_layers(block).items() if "att" not in name.lower()]
            makers = linear[:-1]
            if not makers or any(width_out(layer) != _width_in(linear[-1]) for layer in makers):
                raise InputError(
                    f"The feed-forward of this encoder ({type(encoder).__name__}) is not made of layers of one width. "
                    "Choose other steps, such as 'layers'."
                )
            found.append(Part(tuple(makers), linear[-1], width_out(makers[0])))
        return found

    def counted(self, parts: Sequence[Part]) -> int:
        """The neurons of a block."""
        return max(part.units for part in parts)

    def kept(self, importance: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The best of each block."""
        return [
            np.sort(np.argsort(-each, kind="stable")[: max(1, round(self.keep * len(each)))]) for each in importance
        ]

    def write_down(self, encoder: nn.Module, parts: Sequence[Part]) -> None:
        """The one width of all blocks, under the name that this config has for it."""
        config: Any = encoder.config
        name = next((name for name in ("intermediate_size", "hidden_dim", "n_inner") if hasattr(config, name)), None)
        if name:
            setattr(config, name, width_out(parts[0].makers[0]))


def importance(model: TransferModel, parts: Sequence[Part], train: Examples, rows: int) -> list[np.ndarray]:
    """How much each unit matters: the mean over rows of |dL / d mask| at a mask of ones; one (units,) a part.

    The derivative is the unit's activation times the gradient that reaches it, summed over the positions of a text.

    Args:
        model: as it answers, in eval mode.
        parts: whose units.
        train: labelled rows.
        rows: how many of them at most.
    """
    found = [np.zeros(part.units) for part in parts]
    places = _some(train, rows)
    places = places[np.argsort(-train.lengths[places], kind="stable")] if train.together == 1 else places
    masks: list[Tensor] = []
    with evaluating(model), torch.enable_grad(), masking(parts, masks):
        for chunk in cut_by_tokens(
            places, np.full(len(train), train.lengths[places].max()), _TOKENS, 1, train.together
        ):
            batch = train.batch(chunk).to(model.device)
            masks[:] = [torch.ones(len(chunk), part.units, device=model.device, requires_grad=True) for part in parts]
            logits, asked = model.task.asked(model(batch.inputs), batch.targets)
            gradients = torch.autograd.grad(model.task.losses(logits, asked).sum(), masks)
            for total, gradient in zip(found, gradients, strict=True):
                total += gradient.abs().sum(dim=0).double().cpu().numpy()
    return [total / len(places) for total in found]


@contextmanager
def masking(parts: Sequence[Part], masks: Sequence[Tensor]) -> Iterator[None]:
    """While open, the units of each part are multiplied by its mask, (batch, units) or (1, units), as it is then."""

    def multiply(number: int, _layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        states, mask = args[0], masks[number]  # (batch, length, width)
        units = states.unflatten(-1, (mask.shape[1], -1)) * mask[:, None, :, None]
        return (units.flatten(-2), *args[1:])

    handles = [part.writer.register_forward_pre_hook(partial(multiply, i)) for i, part in enumerate(parts)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def masked(parts: Sequence[Part], kept: Sequence[np.ndarray]) -> Iterator[None]:
    """While open, only these units of each part count."""
    masks = []
    for part, places in zip(parts, kept, strict=True):
        mask = torch.zeros(1, part.units, device=next(part.writer.parameters()).device)
        mask[0, torch.from_numpy(places)] = 1
        masks.append(mask)
    with masking(parts, masks):
        yield


def cut(parts: Sequence[Part], kept: Sequence[np.ndarray]) -> None:
    """Make the layers of each part narrower, so that only these units are left."""
    for part, places in zip(parts, kept, strict=True):
        wide = width_out(part.makers[0]) // part.units
        columns = torch.from_numpy((places[:, None] * wide + np.arange(wide)).ravel())
        for layer in part.makers:
            _keep(layer, columns, outputs=True)
        _keep(part.writer, columns, outputs=False)


def _keep(layer: nn.Module, places: Tensor, *, outputs: bool) -> None:
    """Leave only these outputs, or inputs, of a linear layer."""
    upright = isinstance(layer, nn.Linear)  # GPT-2's layer has its weight transposed
    weight: Tensor = layer.weight  # type: ignore[assignment]
    places = places.to(weight.device)
    shorter = weight.detach().index_select(0 if outputs == upright else 1, places).clone()
    layer.weight = nn.Parameter(shorter, requires_grad=weight.requires_grad)
    if outputs and layer.bias is not None:
        bias: Tensor = layer.bias  # type: ignore[assignment]
        layer.bias = nn.Parameter(bias.detach()[places].clone(), requires_grad=bias.requires_grad)
    name = ("out_features" if outputs else "in_features") if upright else ("nf" if outputs else "nx")
    setattr(layer, name, len(places))


def _width_in(layer: nn.Module) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.nx)  # type: ignore[arg-type]


def _blocks(encoder: nn.Module) -> list[nn.Module]:
    return [block for _, blocks in layers.stacks(encoder) for block in blocks]


def _some(train: Examples, rows: int) -> np.ndarray:
    """The windows of at most `rows` rows, drawn at random, in their order."""
    chosen = np.random.default_rng(0).permutation(train.rows)[:rows]
    return np.flatnonzero(np.isin(train.example, chosen))
