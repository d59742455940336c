"""How the page, and the command line, write numbers and nested values for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The name of each number for people, and whether it is a share; in the order they are read.
METRICS = {
    "spearman": ("Spearman's rank correlation", False),
    "pearson": ("Pearson's correlation", False),
    "average_precision": ("average precision", True),
    "accuracy": ("accuracy", True),
    "recall_at_1": ("recall at 1", True),
    "recall_at_10": ("recall at 10", True),
    "f1": ("F1", True),
    "macro_f1": ("macro F1", True),
    "micro_f1": ("micro F1", True),
    "subset_accuracy": ("all labels of a text right", True),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "token_accuracy": ("token accuracy", True),
    "ece": ("expected calibration error", True),
    "coverage": ("answered (coverage)", True),
    "accuracy_when_sure": ("accuracy of the answers given", True),
    "loss": ("loss", False),
    "n": ("examples", False),
}
# A mistake is to be recognised, not to be read to its end.
LONGEST_TEXT = 600


def figure(name: str, value: Any) -> str:
    """A metric's value as people read it: a share in percent."""
    if value is None:
        return "–"
    if name == "n":
        return f"{value:,}"
    return f"{value:.1%}" if METRICS[name][1] else f"{value:.4g}"


def number(value: float | None) -> str | None:
    """A count or a measure with as many digits as are worth reading; None stays None."""
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`7.3 s`, `42 s`, `3 min 5 s`, `2 h 7 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def method_name(method: Any) -> str:
    """The names of a recipe's stages: `linear-probe → lora`."""
    parts = method if isinstance(method, list) else [method]
    return " → ".join(next(iter(part)) if isinstance(part, Mapping) and part else str(part) for part in parts if part)


def data_name(data: Any) -> str | None:
    """Where the data came from."""
    return data.get("source") if isinstance(data, Mapping) else data


def task(data: Mapping[str, Any]) -> str:
    """The task, as run.json's data section says it."""
    more = ", several labels a text" if data.get("multi_label") else ", triplets" if data.get("texts") == 3 else ""
    return f"{data.get('task')}{more}"


def said(value: Any) -> str | None:
    """A nested value as a person would write it: lora (rank 8, alpha 16)."""
    if value is None or value in ({}, []):
        return None
    if isinstance(value, Mapping):
        parts = [
            f"{key} ({said(item)})" if isinstance(item, Mapping) and item else f"{key} {said(item)}"
            for key, item in value.items()
            if item is not None
        ]
        return ", ".join(part.removesuffix(" None") for part in parts)
    if isinstance(value, (list, tuple)):
        return " → ".join(str(said(item)) for item in value)
    return str(value)


def cut(text: str) -> str:
    """A text of at most LONGEST_TEXT characters, and how long the whole one is."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT].rstrip() + f" … ({len(text):,} characters)"
