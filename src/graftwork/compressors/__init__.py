"""The shelf of compressors: importing it puts every one on it. To add one, write a class under `Compressor` in a file.

A file holds a family. Packages outside register through the entry point `graftwork.compressors`.
"""

from importlib.metadata import entry_points
from typing import Any

from graftwork.choice import import_shelf

import_shelf(__name__)

for _entry in entry_points(group="graftwork.compressors"):
    _entry.load()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"No compressor is called {name!r}.")
