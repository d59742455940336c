"""Every script of examples/ runs as it stands, from an empty folder, in seconds."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from graftwork import pydocs
from graftwork.fit import Request, fit
from graftwork.method import Method
from graftwork.run import Run

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Method, "_shelf", dict(Method._shelf))  # what an example puts there, only it sees
    few = [row for row in pydocs.records() if len(row["text"]) <= 40]  # of every class; short texts cost less
    monkeypatch.setattr(pydocs, "records", lambda: few)


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda script: script.stem)
def test_runs(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(script), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out
    (run,) = Run.list()
    assert run.state == "done"
    assert (run.path / "report.html").is_file()


def test_the_run_file_runs() -> None:
    asked = Request.from_yaml(EXAMPLES / "run.yaml").model_dump(exclude_unset=True)
    run = fit(**asked)
    assert run.state == "done"
