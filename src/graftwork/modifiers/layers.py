"""What is done to the encoder's layers for a stage: fresh weights at the top, dropout that comes or goes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from graftwork import layers
from graftwork.choice import InputError
from graftwork.modifier import Effect, Modifier

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class ReinitialisedLayers(Modifier):
    """Give the topmost blocks fresh weights: they know the pretraining task, not yours, and few labels unteach slowly.

    For methods that train every weight of these blocks. Of an encoder-decoder, the decoder's.
    """

    paper: ClassVar[str] = "Revisiting Few-sample BERT Fine-tuning, Zhang et al. 2021, section 5"

    blocks: int = Field(default=1, ge=1)
    """How many of the topmost blocks."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Draw the blocks as their architecture does: they are taken from a fresh network of the same config."""
        found = layers.stacks(model.encoder)
        count = len(found[-1][1]) if found else 0
        if self.blocks > count:
            raise InputError(
                f"{self.name} is to draw {self.blocks} blocks anew, and the encoder has {count}. Give at most that."
            )
        fresh = type(model.encoder)(copy.deepcopy(model.encoder.config))
        for block, drawn in zip(self._of(model), layers.stacks(fresh)[-1][1][-self.blocks :], strict=True):
            block.load_state_dict(drawn.state_dict(), strict=False)  # what was inserted is not in the fresh one

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Nothing more; refuses a method that would leave fresh weights as they were drawn."""
        if not all(p.requires_grad for block in self._of(model) for p in block.parameters()):
            raise InputError(
                f"{self.name} gives the top {self.blocks} block(s) fresh weights, and the method does not train all of "
                "them. Take one that does, such as 'full-fine-tuning'."
            )
        return Effect()

    def _of(self, model: TransferModel) -> nn.ModuleList:
        return layers.stacks(model.encoder)[-1][1][-self.blocks :]


class DropoutSchedule(Modifier):
    """Let dropout rise from none to its rate over the stage, or fall from its rate to none.

    Rising, it spares a network that still knows little (curriculum dropout). Falling, it steadies the first steps and
    then stands aside, which suits a network that underfits (early dropout). The rate of every dropout layer of the
    encoder is its own times min(1, t / over), or 1 minus that, at a share t of the budget.
    """

    paper: ClassVar[str] = (
        "Curriculum Dropout, Morerio et al. 2017, with a linear course; Dropout Reduces Underfitting, Liu et al. 2023, "
        "section 4, 'early dropout'"
    )

    course: Literal["rise", "fall"] = "rise"
    """From none to the rate, or from the rate to none."""
    over: float = Field(default=1.0, gt=0, le=1)
    """Share of the budget over which it does."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Every dropout layer of the encoder, at the rate that it has now."""
        return _Scheduled(self, [m for m in model.encoder.modules() if isinstance(m, nn.Dropout)])


class _Scheduled(Effect):
    def __init__(self, choice: DropoutSchedule, dropouts: list[nn.Dropout]):
        self.choice, self.dropouts, self.rates = choice, dropouts, [dropout.p for dropout in dropouts]
        self._go_to(0.0)

    def _go_to(self, fraction: float) -> None:
        self.fraction, risen = fraction, min(1.0, fraction / self.choice.over)
        self._set(risen if self.choice.course == "rise" else 1.0 - risen)

    def _set(self, factor: float) -> None:
        for dropout, rate in zip(self.dropouts, self.rates, strict=True):
            dropout.p = rate * factor

    def after_step(self, step: int, fraction: float) -> None:
        self._go_to(fraction)

    def state(self) -> dict[str, Tensor]:
        return {"fraction": torch.tensor(self.fraction, dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._go_to(float(state["fraction"]))

    def end(self) -> None:
        self._set(1.0)
