"""The verb distill: a student of a finished run, on its rows, compared with it in pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.distill import distill
from graftwork.fit import fit, predict
from graftwork.run import Run

QUICK = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def teacher(tiny: Path, sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "teacher"
    method = {"full-fine-tuning": {"lr": 5e-3, "batch_size": 16}}
    return fit(str(sources["classification"]), model=tiny, method=method, budget="40steps", out=out, hardware=QUICK)


def test_a_student_of_two_blocks_is_a_run_and_is_compared_on_the_same_rows(teacher: Run, tmp_path: Path):
    student = distill(teacher, student="layers=2", budget="20steps", out=tmp_path / "student", hardware=QUICK)
    told = student.happened["distilled"]
    rows = [run.predictions("validation").to_pylist() for run in (teacher, student)]
    assert [row["row"] for row in rows[0]] == [row["row"] for row in rows[1]]
    right = [np.mean([row["label"] == row["prediction"] for row in each]) for each in rows]
    assert (told["teacher"], told["student"]) == (pytest.approx(right[0]), pytest.approx(right[1]))
    assert told["difference"] == pytest.approx(right[1] - right[0])
    assert told["difference_low"] <= told["difference"] <= told["difference_high"]
    assert told["parameters"][1] < told["parameters"][0]
    assert student.data["fingerprint"] == teacher.data["fingerprint"]
    assert json.loads((student.path / "model" / "config.json").read_text())["num_hidden_layers"] == 2
    assert "keeps" in told["said"]
    assert set(student.metrics) == {"validation"}


def test_texts_without_labels_are_labelled_by_the_teacher(teacher: Run, sources: dict[str, Path], tmp_path: Path):
    held_out = Data.load(**teacher.asked["data"])["validation"].inputs()[0]
    texts = ["warm soup and cold ice", "the ice was warm", held_out]
    (tmp_path / "more.txt").write_text("\n".join(texts), encoding="utf-8")
    student = distill(
        teacher, student=1, unlabelled=str(tmp_path / "more.txt"), budget="3steps", out=tmp_path / "student",
        hardware=QUICK,
    )  # fmt: skip
    assert student.happened["distilled"]["unlabelled"] == 2
    train = Data.load(**student.asked["data"])["train"]
    assert train.inputs()[-2:] == texts[:2]
    assert train.labels()[-2:] == [answer["label"] for answer in predict(teacher, texts[:2])]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"student": "layers=9"}, "the teacher, which has 3 blocks"),
        ({"student": "blocks=2"}, "Write layers=3, or name a model"),
        ({"fields": {"lenght": 1}}, "lenght"),
        ({"out": "teacher"}, "the place of its teacher"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str, teacher: Run, tmp_path: Path):
    given = {"out": tmp_path / "student", "budget": "3steps", "hardware": QUICK} | options
    if given["out"] == "teacher":
        given["out"] = teacher.path
    with pytest.raises(InputError, match=said):
        distill(teacher, **given)


def test_the_command_line_says_what_was_kept(
    teacher: Run, tmp_path: Path, typed: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    words = ("distill", teacher.path, "--student", "layers=1", "--budget", "3steps", "--set", "weight=0.9")
    assert typed(*words, "--out", tmp_path / "student", "--precision", "fp32", "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["of"] == str(teacher.path)
    assert told["kept"] >= 0
    assert "The student keeps" in said.err
    method = Run.open(tmp_path / "student").asked["method"]
    assert method[0]["distillation"]["weight"] == 0.9
