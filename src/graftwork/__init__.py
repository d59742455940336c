"""graftwork takes a pretrained Transformer to your task, and shows you why the result is good."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module it lives in. Loaded on first use (PEP 562): `graft --help` must not import torch.
_PUBLIC = {
    "Budget": "graftwork.budget",
    "Data": "graftwork.data",
    "Hardware": "graftwork.hardware",
    "InputError": "graftwork.choice",
    "Run": "graftwork.run",
    "TransferModel": "graftwork.model",
    "check": "graftwork.check",
    "evaluate": "graftwork.evaluate",
    "fit": "graftwork.fit",
    "predict": "graftwork.fit",
    "resume": "graftwork.fit",
}

__all__ = ["Budget", "InputError", "__version__"]

if TYPE_CHECKING:
    from graftwork.budget import Budget
    from graftwork.choice import InputError


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'graftwork' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
