"""The shelf of pretexts: importing it puts every one on it. To add one, write a class under `Pretext` in a file here.

Packages outside register through the entry point `graftwork.pretexts`.
"""

from importlib.metadata import entry_points
from typing import Any

from graftwork.choice import import_shelf

import_shelf(__name__)

for _entry in entry_points(group="graftwork.pretexts"):
    _entry.load()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"No pretext is called {name!r}.")
