"""Updates beside the frozen weights, which are merged into them at the end: LoRA and its kin, by `peft`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from graftwork import layers
from graftwork.choice import InputError
from graftwork.insertion import NAME
from graftwork.insertions.adapters import linear_layers, residual_writers
from graftwork.method import GradientMethod

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Merged(GradientMethod, abstract=True):
    """What the methods have in common whose updates are merged: the encoder is what it was, with other numbers."""

    targets: str = "all-linear"
    """Which layers: `all-linear`, or the ends of their names separated by commas, such as `query,value`."""
    lr: float = Field(default=1e-3, gt=0, lt=1)
    """Learning rate of the updates, at its peak."""
    head_lr_factor: float = Field(default=2.0, gt=0)
    """The head learns this many times as fast."""

    def config(self, encoder: nn.Module) -> PeftConfig:
        """What `peft` is to put beside the encoder's layers."""
        raise NotImplementedError

    def targeted(self, encoder: nn.Module) -> list[str]:
        """The names of the layers that get an update.

        Raises:
            InputError: there is none.
        """
        # what follows a layer acts on its output before an update beside it could: merged, the two would differ
        free = [name for name, layer in linear_layers(encoder).items() if not hasattr(layer, NAME)]
        if self.targets == "all-linear":
            return free
        ends = {end.strip() for end in self.targets.split(",")}
        found = [name for name in free if any(f".{name}".endswith(f".{end}") for end in ends)]
        if not found:
            there = ", ".join(sorted({name.rpartition(".")[2] for name in free}))
            raise InputError(f"No linear layer's name ends in {self.targets!r}. Give targets of: {there}.")
        return found

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Put the updates beside the layers, where they change nothing yet, and freeze the rest."""
        from peft import get_peft_model

        super().prepare(model, train)
        with warnings.catch_warnings():
            # peft asks transformers by a name that transformers calls old, and tells how it reads GPT-2's layers
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            model.encoder = get_peft_model(model.encoder, self.config(model.encoder))  # type: ignore[arg-type]

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """Merge the updates into the weights."""
        model.encoder = model.encoder.merge_and_unload()  # type: ignore[operator]
        return model


class LoRA(Merged):
    """Train a low-rank update of each linear layer, a few percent of the parameters; merged, it costs nothing more."""

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "LoRA, Hu et al. 2021, section 4.1, eq. 3"

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "rank": (4, 8, 16, 32)}
    variant: ClassVar[Mapping[str, Any]] = {}
    """What `peft` is told besides."""

    rank: int = Field(default=8, ge=1)
    """Rank of the update of each matrix."""
    alpha: int = Field(default=16, ge=1)
    """The update is scaled by alpha / rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of what enters the update."""

    def config(self, encoder: nn.Module) -> PeftConfig:
        """Low-rank updates, whose product starts at zero."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.lora_dropout,
            target_modules=self.targeted(encoder), **self.variant,
        )  # fmt: skip


class RSLoRA(LoRA):
    """LoRA whose scale suits every rank: with many ranks its updates do not shrink, so that they are worth having."""

    name: ClassVar[str] = "rslora"
    paper: ClassVar[str] = "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA, Kalajdzievski 2023, eq. 3"

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "rank": (16, 32, 64)}
    variant: ClassVar[Mapping[str, Any]] = {"use_rslora": True}

    rank: int = Field(default=32, ge=1)
    """Rank of the update of each matrix."""
    alpha: int = Field(default=16, ge=1)
    """The update is scaled by alpha / sqrt(rank)."""
    lr: float = Field(default=4e-4, gt=0, lt=1)
    """Learning rate of the updates, at its peak."""
    head_lr_factor: float = Field(default=5.0, gt=0)
    """The head learns this many times as fast."""


class DoRA(LoRA):
    """LoRA that turns each matrix apart from stretching it: W' = m (W + BA) / |W + BA|, with a length m a row.

    Nearer to full fine-tuning than LoRA of the same rank, and slower to train; merged, it costs nothing more.
    """

    name: ClassVar[str] = "dora"
    paper: ClassVar[str] = "DoRA, Liu et al. 2024, section 4.1, eq. 5"

    variant: ClassVar[Mapping[str, Any]] = {"use_dora": True}


class IA3(Merged):
    """Learn one factor for each key, value and inner feature of the feed-forwards: a few thousand parameters in all."""

    name: ClassVar[str] = "ia3"
    paper: ClassVar[str] = "(IA)3 in Few-Shot Parameter-Efficient Fine-Tuning, Liu et al. 2022, section 3.3"

    targets: str = "key,value,k_lin,v_lin,k_proj,v_proj,key_proj,value_proj,k,v,c_attn,Wqkv"
    """Whose outputs are scaled, by the ends of their names; where query, key and value are one layer, all of it is."""
    lr: float = Field(default=1e-2, gt=0, lt=1)
    """Learning rate of the factors, at its peak."""
    head_lr_factor: float = Field(default=0.2, gt=0)
    """The head learns this many times as fast."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay; of the factors, which start at 1, it would be a pull towards 0."""

    def config(self, encoder: nn.Module) -> PeftConfig:
        """Factors, all 1 at first, of what `targets` give and of what enters the last layer of each feed-forward."""
        from peft import IA3Config

        width = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        last = {id(residual_writers(block, width)[1]) for _, blocks in layers.stacks(encoder) for block in blocks}
        feed_forwards = [name for name, layer in linear_layers(encoder).items() if id(layer) in last]
        return IA3Config(target_modules=self.targeted(encoder) + feed_forwards, feedforward_modules=feed_forwards)
