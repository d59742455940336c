"""A run folder tells the truth, loses nothing, and never takes away what is not its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graftwork.choice import InputError
from graftwork.disk import DiskFullError
from graftwork.run import Run, as_json, is_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "a", asked={"model": "minilm", "seed": 3})


def predictions(*texts: str) -> pa.Table:
    n = len(texts)
    return pa.table(
        {
            "row": list(range(1, n + 1)),
            "input": list(texts),
            "label": ["a"] * n,
            "prediction": ["b"] * n,
            "confidence": [0.5] * n,
            "unsure": [False] * n,
            "probabilities": [[0.5, 0.5]] * n,
        }
    )


def in_another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# Making and finding


def test_a_new_run_is_queued_and_says_what_was_asked_and_where(run: Run):
    assert run.state == "queued"
    assert run.asked == {"model": "minilm", "seed": 3}
    assert run.environment["python"].startswith("3.")
    assert Run.open(run.path) == run
    assert json.loads((run.path / "run.json").read_text())["format"] == 1


def test_a_finished_run_is_not_overwritten_without_force(run: Run):
    run.update(metrics={"test": {"accuracy": 0.9}})
    run.set_state("done")
    with pytest.raises(InputError, match=r"is a finished run.*--force"):
        Run.create(run.path, asked={})
    assert run.metrics["test"] == {"accuracy": 0.9}


def test_an_interrupted_run_with_a_checkpoint_is_not_overwritten_without_force(run: Run):
    (run.path / "checkpoint").mkdir()
    run.set_state("interrupted")
    with pytest.raises(InputError, match="graft resume"):
        Run.create(run.path, asked={})


def test_a_failed_run_that_holds_nothing_is_replaced(run: Run):
    run.set_state("failed", "no memory")
    assert Run.create(run.path, asked={"seed": 4}).asked == {"seed": 4}


def test_force_replaces_the_run_and_keeps_files_that_are_not_ours(run: Run):
    (run.path / "model").mkdir()
    (run.path / "model" / "weights").write_text("old")
    (run.path / "my-notes.txt").write_text("mine")
    run.set_state("done")
    new = Run.create(run.path, asked={"seed": 4}, force=True)
    assert new.state == "queued"
    assert new.asked == {"seed": 4}
    assert new.name == "a"
    assert not (new.path / "model").exists()
    assert (new.path / "my-notes.txt").read_text() == "mine"
    assert [folder.name for folder in new.path.parent.iterdir()] == ["a"]


def test_the_old_run_stays_when_the_new_one_cannot_be_set_up(run: Run, monkeypatch: pytest.MonkeyPatch):
    run.set_state("done")
    monkeypatch.setattr("graftwork.run.environment", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Run.create(run.path, asked={"seed": 4}, force=True)
    assert run.asked["seed"] == 3
    assert run.state == "done"
    assert [folder.name for folder in run.path.parent.iterdir()] == ["a"]


def test_a_run_that_cannot_be_set_up_leaves_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Run, "_write", lambda self, whole: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Run.create(tmp_path / "a", asked={})
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_not_a_run_is_never_touched(tmp_path: Path, force: bool):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "run.json").write_text('{"format": 1, "scripts": {}}')
    with pytest.raises(InputError, match="not a run, and is left alone"):
        Run.create(tmp_path, asked={}, force=force)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Run.create(tmp_path / "out", asked={}, force=True)
    with pytest.raises(InputError, match="Cannot write a run"):
        Run.create(tmp_path / "out" / "deeper", asked={})


def test_an_empty_folder_becomes_a_run(tmp_path: Path):
    assert Run.create(tmp_path, asked={}).state == "queued"


def test_opening_what_is_not_a_run_says_which_runs_there_are(run: Run, tmp_path: Path):
    with pytest.raises(InputError, match=r"no run folder.*Known: a\."):
        Run.open(run.path.parent / "b")
    with pytest.raises(InputError, match="is not a run"):
        Run.open(tmp_path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(InputError, match="is not a run"):
        Run.open(run.path)


def test_a_run_of_another_format_is_refused(run: Run):
    run.update(format=2)
    with pytest.raises(InputError, match="run format 2"):
        Run.open(run.path)


def test_the_default_path_is_the_first_free_one(tmp_path: Path):
    assert Run.default_path("my data.csv", "linear-probe", tmp_path).name == "my-data.csv-linear-probe"
    (tmp_path / "pydocs-lora").mkdir()
    (tmp_path / "pydocs-lora-2").mkdir()
    assert Run.default_path("pydocs", "lora", tmp_path).name == "pydocs-lora-3"


def test_runs_are_listed_oldest_first_and_nothing_else_is(tmp_path: Path):
    for name, created in (("late", "2026-02"), ("early", "2026-01")):
        Run.create(tmp_path / name, asked={}).update(created=created)
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    assert [run.path.name for run in Run.list(tmp_path)] == ["early", "late"]
    assert [run.path.name for run in Run.list(tmp_path / "late")] == ["late"]
    assert Run.list(tmp_path / "nowhere") == []


# The state tells the truth


def test_a_killed_run_reads_as_interrupted(run: Run):
    code = """
import sys, time
from graftwork.run import Run
Run.open(sys.argv[1]).set_state("running")
print("ready", flush=True)
time.sleep(60)
"""
    worker = in_another_process(code, run.path)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    assert run.state == "running"
    with pytest.raises(InputError, match=f"Process {worker.pid} .* is at work"):
        run.set_state("running")
    with pytest.raises(InputError, match="A run is at work"):
        Run.create(run.path, asked={}, force=True)

    worker.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    # Not waited for: a zombie that its parent has not collected does not work either.
    while run.state == "running" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run.state == "interrupted"
    assert "ended without saying why" in (run.cause or "")
    worker.wait()
    worker.stdout.close()
    run.set_state("running")
    assert run.state == "running"


def test_a_process_that_took_over_the_number_is_not_the_run(run: Run):
    run.set_state("running")
    said = json.loads((run.path / "state").read_text())
    (run.path / "state").write_text(json.dumps(said | {"born": "1"}))
    assert run.state == "interrupted"


def test_a_run_on_another_machine_is_believed_while_its_folder_changes(run: Run):
    run.set_state("running")
    said = json.loads((run.path / "state").read_text())
    (run.path / "state").write_text(json.dumps(said | {"host": "elsewhere"}))
    assert run.state == "running"
    for file in run.path.iterdir():
        os.utime(file, (0, 0))
    assert run.state == "interrupted"


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"state": "fine"}', b'{"state": "running"}'])
def test_a_missing_or_broken_state_is_not_taken_for_success(run: Run, content: bytes | None):
    (run.path / "state").unlink()
    if content is not None:
        (run.path / "state").write_bytes(content)
    assert run.state == "interrupted"


def test_work_that_fails_leaves_its_cause_and_its_traceback(run: Run):
    with pytest.raises(ZeroDivisionError) as caught, run.working():
        _ = 1 / (run.state != "running")
    assert run.state == "failed"
    assert run.cause == "division by zero (ZeroDivisionError)"
    assert "Traceback" in (run.path / "log.txt").read_text()
    assert caught.value.run == run  # type: ignore[attr-defined]


def test_work_that_is_interrupted_says_so_without_a_traceback(run: Run):
    with pytest.raises(KeyboardInterrupt), run.working():
        raise KeyboardInterrupt
    assert run.state == "interrupted"
    assert run.cause is None
    assert not (run.path / "log.txt").exists()


def test_memory_and_input_errors_get_a_plain_cause(run: Run):
    with pytest.raises(MemoryError), run.working():
        raise MemoryError
    assert "memory did not suffice" in (run.cause or "")
    with pytest.raises(InputError, match="Unknown label"), run.working():
        raise InputError("Unknown label 'x'.")
    assert run.cause == "Unknown label 'x'."


# Writing into it


def test_a_full_disk_is_told_plainly_and_the_old_file_stays(run: Run, monkeypatch: pytest.MonkeyPatch):
    run.update(happened={"steps": 5})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"The disk is full: .*run\.json.* could not be written") as caught:
        run.update(happened={"steps": 6})
    assert caught.value.errno == errno.ENOSPC
    assert run.happened == {"steps": 5}
    assert not list(run.path.glob(".*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_while_logging_is_told_plainly(run: Run):
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="The disk is full"):
        run.log(event="step", step=1)


def test_readers_beside_a_writer_always_see_a_whole_run(run: Run):
    code = """
import sys
from graftwork.run import Run
run = Run.open(sys.argv[1])
for step in range(60):
    run.update(happened={"steps": step, "padding": "x" * 20000})
"""
    writer = in_another_process(code, run.path)
    while writer.poll() is None:
        assert is_run(run.path)
    assert run.happened["steps"] == 59
    assert writer.stdout is not None
    writer.stdout.close()


def test_update_merges_a_section_and_keeps_the_others(run: Run):
    run.update(metrics={"validation": {"accuracy": 0.8}}, findings=[{"code": "imbalance"}])
    run.update(metrics={"test": {"accuracy": 0.7}}, findings=[])
    assert run.metrics == {"validation": {"accuracy": 0.8}, "test": {"accuracy": 0.7}}
    assert run.findings == []


def test_what_json_cannot_say_becomes_null_or_plain(run: Run):
    run.log(loss=float("nan"), lr=np.float32(0.5), path=Path("x"), counts=np.arange(2), labels=("a", "b"), best=np.inf)
    assert run.events() == [
        {"loss": None, "lr": 0.5, "path": "x", "counts": [0, 1], "labels": ["a", "b"], "best": None},
    ]
    assert as_json({1: True, "s": {"one"}}) == '{"1": true, "s": ["one"]}'


def test_events_come_back_in_order_and_a_torn_line_is_left_out(run: Run):
    assert run.events() == []
    for step in range(3):
        run.log(event="step", step=step)
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"event": "st')
    assert [event["step"] for event in run.events()] == [0, 1, 2]


def test_resuming_drops_the_events_after_the_checkpoint(run: Run):
    run.log(event="note", message="start")
    for step in range(5):
        run.log(event="step", step=step)
    run.truncate_log(2)
    run.log(event="step", step=3)
    assert [event.get("step") for event in run.events()] == [None, 0, 1, 2, 3]


# Predictions


def test_predictions_of_a_split_are_replaced_and_the_others_kept(run: Run):
    assert run.predictions().num_rows == 0
    run.write_predictions("validation", predictions("one"))
    run.write_predictions("test", predictions("two", "three"))
    run.write_predictions("test", predictions("four"))
    assert run.predictions("test")["input"].to_pylist() == ["four"]
    assert run.predictions()["split"].to_pylist() == ["validation", "test"]
    assert run.predictions("test")["probabilities"].to_pylist() == [[0.5, 0.5]]


def test_predictions_of_tagging_have_no_probabilities(run: Run):
    table = predictions("a b").set_column(6, "probabilities", pa.nulls(1))
    run.write_predictions("test", table)
    assert run.predictions("test")["probabilities"].to_pylist() == [None]


def test_predictions_without_a_needed_column_are_refused(run: Run):
    with pytest.raises(ValueError, match="lack the columns \\['confidence'\\]"):
        run.write_predictions("test", predictions("x").drop_columns(["confidence"]))
