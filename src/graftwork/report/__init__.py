"""The verb `report`: one page that shows a run to somebody who was not there.

It is made from the run folder alone and is one file: no script, no font, nothing that a browser would fetch. So it can
be mailed, printed, and opened in ten years.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.disk import atomic_write
from graftwork.report.forms import document
from graftwork.run import Run

if TYPE_CHECKING:
    from graftwork.report.evidence import Evidence


def report(run: Run | str | Path) -> Path:
    """Write `report.html` into the run's folder, and give back its path.

    Works at any moment of a run's life; what is not known yet is left out.

    Raises:
        InputError: the folder is not a run.
        DiskFullError: there is no room for the page.
    """
    from graftwork.report.evidence import Evidence

    run = run if isinstance(run, Run) else Run.open(run)
    path = run.path / "report.html"
    atomic_write(path, page(Evidence.of(run)).encode())
    return path


def page(evidence: Evidence) -> str:
    """The whole page, as HTML."""
    from graftwork.report.sections import SECTIONS

    body = [section(evidence) for section in SECTIONS]
    return document(f"{evidence.run['name']} · graftwork", body, styles=["style.css"])
