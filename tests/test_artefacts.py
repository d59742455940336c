"""A run that an earlier release saved still loads, and answers as it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from graftwork.fit import predict
from graftwork.report import report
from graftwork.run import Run

RELEASES = sorted(p.parent for p in (Path(__file__).parent / "artefacts").glob("*/expected.json"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_an_old_run_answers_as_it_did(release):
    expected = json.loads((release / "expected.json").read_text())
    for found, answer in zip(predict(release / "run", expected["texts"]), expected["answers"], strict=True):
        assert found["label"] == answer["label"]
        assert found["unsure"] == answer["unsure"]
        assert found["confidence"] == pytest.approx(answer["confidence"], abs=1e-5)
        assert found["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_an_old_run_can_be_read_and_reported(release, tmp_path):
    run = Run.open(shutil.copytree(release / "run", tmp_path / "run"))
    assert run.state == "done"
    assert 0 <= run.metrics["validation"]["accuracy"] <= 1
    assert len(run.predictions("validation")) == run.data["rows"]["validation"]
    assert "<html" in report(run).read_text()


def test_there_is_an_artefact():
    assert RELEASES
