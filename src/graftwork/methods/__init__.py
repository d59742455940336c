"""The shelf of methods: importing it puts every method on it.

A file holds a family. To add a method, write a class under `Method` or `GradientMethod` in a file here, and let
`graftwork.testing.check_method` try it; packages outside register through the entry point `graftwork.methods`.
"""

from importlib.metadata import entry_points
from typing import Any

from graftwork import modifiers  # noqa: F401  so that a stage can be given them
from graftwork.choice import import_shelf

RACING = ("linear-probe", ("lower-layers", "linear-probe"), "top-layers", "lora", "full-fine-tuning")
"""What races where nothing is asked for, as far as it suits the task."""

import_shelf(__name__)

for _entry in entry_points(group="graftwork.methods"):
    _entry.load()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"No method is called {name!r}.")
