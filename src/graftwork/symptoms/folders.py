"""Folders: results must not land where data is read."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
from collections.abc import Iterator
from pathlib import Path

from graftwork.finding import Finding, Kind
from graftwork.symptom import (
    Case,
    symptom,
)


@symptom(
    "output-in-data", "error", "The output folder lies inside the data folder, where results would be read as data."
)
def _output_in_data(say: Kind, case: Case) -> Iterator[Finding]:
    source = Path(str(case.data.source["source"]))
    if case.out is not None and source.is_dir() and case.out.resolve().is_relative_to(source):
        yield say(f"{case.out} lies inside {source}.", where=str(case.out), fix="Choose another folder with --out.")
