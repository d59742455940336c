"""graftwork takes a pretrained Transformer to your task, and shows you why the result is good."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "Budget",
    "Comparison",
    "Data",
    "Hardware",
    "InputError",
    "Run",
    "TransferModel",
    "adapt",
    "advise",
    "augment",
    "check",
    "compare",
    "compress",
    "distill",
    "evaluate",
    "export",
    "fill",
    "fit",
    "generate",
    "perplexity",
    "plan",
    "predict",
    "pretrain",
    "rank",
    "rate_test",
    "resume",
    "search",
    "shift",
]

if TYPE_CHECKING:
    from graftwork.adapt import adapt
    from graftwork.advise import Advice, advise
    from graftwork.augment import augment
    from graftwork.budget import Budget
    from graftwork.check import check
    from graftwork.choice import InputError
    from graftwork.compare import compare
    from graftwork.comparison import Comparison
    from graftwork.compress import compress
    from graftwork.data import Data
    from graftwork.distill import distill
    from graftwork.evaluate import evaluate
    from graftwork.export import export
    from graftwork.fill import fill
    from graftwork.fit import fit, predict
    from graftwork.generate import generate
    from graftwork.hardware import Hardware
    from graftwork.model import TransferModel
    from graftwork.perplexity import perplexity
    from graftwork.plan import plan
    from graftwork.pretrain import pretrain
    from graftwork.rank import rank
    from graftwork.rate_test import rate_test
    from graftwork.resume import resume
    from graftwork.run import Run
    from graftwork.search import search
    from graftwork.shift import shift

_LIVES_IN = {
    "Advice": "advise",
    "InputError": "choice",
    "TransferModel": "model",
    "predict": "fit",
}


def __getattr__(name: str) -> Any:
    """Public names are loaded on first use (PEP 562): `graft --help` must not import torch."""
    if name not in __all__:
        raise AttributeError(f"module 'graftwork' has no attribute {name!r}")
    return getattr(importlib.import_module(f"graftwork.{_LIVES_IN.get(name, name.lower())}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps `graftwork.fit` the function, also after `graftwork/fit.py` has been imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
