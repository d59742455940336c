"""The shelf of modifiers: importing it puts every one on it. To add one, write a class under `Modifier` in a file here.

A file holds a family. Packages outside register through the entry point `graftwork.modifiers`.
"""

from importlib.metadata import entry_points
from typing import Any

from graftwork.choice import import_shelf

import_shelf(__name__)

for _entry in entry_points(group="graftwork.modifiers"):
    _entry.load()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"No modifier is called {name!r}.")
