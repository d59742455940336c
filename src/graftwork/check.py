"""Check, the data doctor: says what is wrong with the data, where, and what to do, before anything is trained.

Errors block `fit`; warnings and notes do not. Nothing is removed or repaired here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.data import Data, Split
from graftwork.finding import KINDS, ORDER, DataError, Finding
from graftwork.symptom import Case
from graftwork.symptoms import SYMPTOMS

if TYPE_CHECKING:
    from graftwork.modalities.text import Text

CODES: dict[str, str] = {code: kind.sentence for code, kind in sorted(KINDS.items()) if kind.about == "data"}
"""Every kind of finding: code -> what findings of this kind say."""
QUANTILES = (0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True, eq=False)
class Report:
    """What the doctor found: findings (errors first), the data if it could be read, what truncation costs."""

    findings: tuple[Finding, ...]
    data: Data | None = None
    ledger: dict[str, Any] = field(default_factory=dict)
    """What is cut off: `max_length`, and per split and class `rows`, `rows_cut`, `tokens`, `tokens_cut`."""
    summary: dict[str, Any] = field(default_factory=dict)
    """`rows` per split, `classes` (name -> rows per split), `tokens` per split (quantiles of the lengths)."""

    @cached_property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that block `fit`."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether the data can be fitted."""
        return not self.errors

    def require(self) -> Data:
        """The data.

        Raises:
            DataError: there are errors among the findings.
        """
        if self.errors or self.data is None:
            raise DataError(self.findings)
        return self.data

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: `ok`, `errors`, `warnings`, `notes` (counts), `findings`, `summary`, `ledger`, and `data`.

        `data` is null where it could not be read; else `task`, `multi_label`, `labels`, `text`, `label`, `said`,
        `dropped`, `fingerprint` and `source`.
        """
        data = self.data
        counts = {f"{severity}s": sum(f.severity == severity for f in self.findings) for severity in ORDER}
        return {
            "ok": self.ok,
            **counts,
            "findings": [finding.as_dict() for finding in self.findings],
            "summary": self.summary,
            "ledger": self.ledger,
            "data": data
            and {
                "task": data.task,
                "multi_label": data.multi_label,
                "labels": list(data.labels),
                "scored": data.scored,
                "ordered": data.ordered,
                "text": data.columns.text,
                "label": data.columns.label,
                "said": list(data.said),
                "dropped": dict(data.dropped),
                "fingerprint": data.fingerprint,
                "source": data.source,
            },
        }


def check(source: Any, *, model: str | Path | None = "minilm", out: str | Path | None = None, **load: Any) -> Report:
    """What is wrong with a data set, and what it holds.

    Args:
        source: `Data`, or anything `Data.load` takes.
        model: Whose tokenizer reads the texts: `minilm`, a folder, a hub id; None leaves out what needs one. Of
            pictures no model is asked.
        out: The folder that results will be written to.
        load: Options of `Data.load`.

    Raises:
        InputError: nothing of this name is there, or an option is wrong. Data that is there but broken does not
            raise: its findings are in the report.

    Example:
        >>> report = check({"train": [{"text": "fine", "label": "good"}] * 12}, model=None)
        >>> report.ok, [finding.code for finding in report.errors]
        (False, ['too-few-rows'])
    """
    text = _tokenizer(model)
    try:
        data = Data.load(source, **load)
    except DataError as error:
        return Report(_sorted(error.findings))
    case = Case(data, text if data.reads == "text" else None, Path(out) if out is not None else None)
    found = [finding for kind, look in SYMPTOMS for finding in look(kind, case)]
    return Report(_sorted([*data.findings, *found]), data, _ledger(case), _summary(case))


def _tokenizer(model: str | Path | None) -> Text | None:
    if model is None:
        return None
    from graftwork.modalities import Text, reads_pictures
    from graftwork.models import resolve

    folder = resolve(model)
    return None if reads_pictures(folder) else Text.from_folder(folder)


def _sorted(findings: Any) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))


def _summary(case: Case) -> dict[str, Any]:
    splits = case.data.splits
    counts = {name: split.counts for name, split in splits.items()}
    summary: dict[str, Any] = {
        "rows": {name: len(split) for name, split in splits.items()},
        "classes": {label: {name: counts[name].get(label, 0) for name in splits} for label in case.data.labels},
    }
    if case.text is not None:
        lengths = {name: case.tokens[name][0] for name in splits}
        summary["tokens"] = {
            name: {f"{q:.0%}": int(np.quantile(found, q)) for q in QUANTILES} for name, found in lengths.items()
        }
    return summary


def _ledger(case: Case) -> dict[str, Any]:
    """The truncation ledger of classes; empty where there are none, or no tokenizer. Windows of tagging cut nothing."""
    if case.text is None or case.data.task != "classification":
        return {}
    splits = {name: _entry(split, case.tokens[name][0], case.text.max_length) for name, split in case.labelled.items()}
    return {"max_length": case.text.max_length, "splits": splits}


def _entry(split: Split, lengths: np.ndarray, limit: int) -> dict[str, Any]:
    classes = {}
    if lengths.max(initial=0) > limit:
        for label in split.counts:
            mask = split.has(label)
            classes[label] = _loss(lengths[mask], limit)
    return _loss(lengths, limit) | {"classes": classes}


def _loss(lengths: np.ndarray, limit: int) -> dict[str, int]:
    over = np.maximum(lengths - limit, 0)
    return {
        "rows": len(lengths),
        "rows_cut": int((over > 0).sum()),
        "tokens": int(lengths.sum()),
        "tokens_cut": int(over.sum()),
    }
