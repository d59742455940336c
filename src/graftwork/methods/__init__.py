"""The shelf of methods: importing it puts every method on it.

A file holds a family. To add a method, write a class under `Method` or `GradientMethod`, import it here, and let
`graftwork.testing.check_method` try it; packages outside register through the entry point `graftwork.methods`.
"""

from importlib.metadata import entry_points

from graftwork.methods.depth import LowerLayers
from graftwork.methods.finetune import DiscriminativeRates, FullFineTuning, GradualUnfreezing, TopLayers
from graftwork.methods.lora import LoRA
from graftwork.methods.probe import LinearProbe

__all__ = [
    "DiscriminativeRates",
    "FullFineTuning",
    "GradualUnfreezing",
    "LinearProbe",
    "LoRA",
    "LowerLayers",
    "TopLayers",
]

RACING = ("linear-probe", ("lower-layers", "linear-probe"), "top-layers", "lora", "full-fine-tuning")
"""What races where nothing is asked for, as far as it suits the task."""

for _entry in entry_points(group="graftwork.methods"):
    _entry.load()
