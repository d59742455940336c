"""resume: go on with a run that was interrupted or failed, whatever kind of run it is."""

from __future__ import annotations

from pathlib import Path

from graftwork.fit import resume as resume_fit
from graftwork.pretrain import resume as resume_pretraining
from graftwork.run import Run
from graftwork.work import OnEvent


def resume(run: Run | str | Path, *, on_event: OnEvent | None = None) -> Run:
    """Go on with an interrupted or failed run from its last checkpoint, as if nothing had happened.

    Raises:
        InputError: the run is finished or at work, or its data has changed since.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    return (resume_pretraining if run.is_base else resume_fit)(run, on_event=on_event)
