"""LoRA: low-rank updates beside the frozen weights, added into them at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from graftwork.method import GradientMethod

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class LoRA(GradientMethod):
    """Train a low-rank update of each linear layer, a few percent of the parameters; merged, it costs nothing more."""

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "LoRA, Hu et al. 2021, section 4.1, eq. 3"

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "rank": (4, 8, 16, 32)}

    rank: int = Field(default=8, ge=1)
    """Rank of the update of each matrix."""
    alpha: int = Field(default=16, ge=1)
    """The update is scaled by alpha / rank."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of what enters the update."""
    targets: str = "all-linear"
    """Which layers: `all-linear`, or the ends of their names separated by commas, such as `query,value`."""
    lr: float = Field(default=1e-3, gt=0, lt=1)
    """Learning rate of the updates, at its peak."""
    head_lr_factor: float = Field(default=2.0, gt=0)
    """The head learns this many times as fast."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Insert the updates (their product starts at zero) and freeze the rest."""
        import warnings

        from peft import LoraConfig, get_peft_model

        super().prepare(model, train)
        targets = self.targets if self.targets == "all-linear" else [t.strip() for t in self.targets.split(",")]
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.lora_dropout, target_modules=targets)
        with warnings.catch_warnings():  # peft asks transformers by a name that transformers calls old
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            model.encoder = get_peft_model(model.encoder, config)  # type: ignore[arg-type]

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """Add the updates into the weights: the encoder is what it was before, with other numbers."""
        model.encoder = model.encoder.merge_and_unload()  # type: ignore[operator]
        return model
