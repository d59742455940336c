"""fit leaves a run that tells the truth, can be resumed to the same bits, and depends on what was asked alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from graftwork.choice import InputError
from graftwork.data import Data, DataError
from graftwork.fit import Request, fit, predict, resume
from graftwork.methods import FullFineTuning, GradualUnfreezing, LinearProbe, TopLayers
from graftwork.objective import Objective
from graftwork.run import Run
from graftwork.testing import learnable
from graftwork.work import Interrupted

METHOD = FullFineTuning(lr=5e-3, head_lr_factor=2, batch_size=16, head_start="random")


@pytest.fixture
def fitted(sources, tiny, tmp_path, quick):
    """A short fit with what is given changed."""

    def run(kind="classification", *, out="run", **changed):
        asked = {"model": tiny, "method": METHOD, "budget": "12steps", "hardware": quick} | changed
        return fit(asked.pop("data", sources[kind]), out=tmp_path / out, **asked)

    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {
        f"{file}/{name}": tensor
        for file in ("model.safetensors", "head.safetensors")
        for name, tensor in load_file(run.path / "model" / file).items()
    }


def assert_equal(one: Run, other: Run) -> None:
    there = weights(other)
    assert there.keys() == weights(one).keys()
    differ = [name for name, tensor in weights(one).items() if not torch.equal(tensor, there[name])]
    assert not differ, differ[:3]


# --- what is left ---


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_a_finished_run_holds_everything_and_no_leftovers(fitted, kind):
    run = fitted(kind)
    assert run.state == "done"
    assert {f.name for f in run.path.iterdir()} - {"log.txt"} == {
        "run.json", "state", "metrics.jsonl", "predictions.parquet", "model", "report.html",
    }  # fmt: skip
    assert run.happened["steps"] == 12
    assert run.happened["stopped"] == "budget"
    assert run.data["rows"] == {"train": 90, "validation": 30, "test": 30}
    assert run.cost["total_parameters"] >= run.cost["trained_parameters"] > 0
    assert 0 <= run.happened["padding_waste"] < 0.5
    assert set(run.metrics) == {"validation"}
    (stage,) = run.happened["stages"]
    assert sum(g["parameters"] for g in stage["groups"]) == stage["trained_parameters"]


def test_nothing_printed_and_no_global_state_moved(fitted, capfd):
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    capfd.readouterr()
    fitted(hardware={"device": "cpu", "precision": "fp32", "threads": 1})
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), signal.getsignal(signal.SIGTERM)) == before[1:]


def test_what_is_told_is_what_is_logged(fitted):
    told = []
    run = fitted(on_event=told.append)
    logged = [e for e in told if e["event"] in ("step", "evaluation", "note")]
    assert run.events() == json.loads(json.dumps(logged))
    assert "stage" in {e["event"] for e in told}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(fitted):
    one = fitted(out="a")
    assert_equal(one, fitted(out="b"))
    other = weights(fitted(out="c", seed=1))
    assert any(not torch.equal(t, other[n]) for n, t in weights(one).items())


def test_the_test_split_is_not_read(fitted, sources, tmp_path):
    clean = fitted()
    poisoned = tmp_path / "poisoned"
    poisoned.mkdir()
    for name in ("train", "validation"):
        (poisoned / f"{name}.jsonl").write_bytes((sources["classification"] / f"{name}.jsonl").read_bytes())
    rows = learnable("classification", seed=99)["test"]
    labels = [row["label"] for row in rows]
    random.Random(3).shuffle(labels)
    poison = [{"text": row["text"] + " arsenic", "label": label} for row, label in zip(rows, labels, strict=True)]
    (poisoned / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in poison))
    other = fitted(data=poisoned, out="other")
    assert_equal(clean, other)
    assert clean.metrics == other.metrics
    assert "arsenic" not in (other.path / "report.html").read_text()


def test_hardware_changes_no_result(fitted):
    method = METHOD.model_copy(update={"dropout": 0.0})
    one = fitted(method=method, out="a")
    other = fitted(method=method, out="b", hardware={"device": "cpu", "precision": "fp32", "max_tokens": 64})
    assert one.metrics["validation"]["loss"] == pytest.approx(other.metrics["validation"]["loss"], abs=1e-4)


# --- recipes ---


def test_a_recipe_runs_its_stages_in_order_and_records_each(fitted):
    run = fitted(method=[LinearProbe(), TopLayers(lr=1e-3), METHOD], budget="8steps")
    stages = run.happened["stages"]
    assert [next(iter(s["method"])) for s in stages] == ["linear-probe", "top-layers", "full-fine-tuning"]
    assert [s.get("steps") for s in stages] == [None, 4, 4]


def test_a_probe_before_fine_tuning_begins_where_the_probe_ended(fitted):
    told = []
    method = METHOD.model_copy(update={"lr": 1e-9, "head_lr_factor": 1.0})
    both = fitted(method=[LinearProbe(), method], budget="1steps", out="both", on_event=told.append)
    probe = fitted(method=LinearProbe(), budget=None, out="probe")
    assert both.metrics["validation"]["accuracy"] == probe.metrics["validation"]["accuracy"]


@pytest.mark.parametrize("method", [["linear-probe"], "linear-probe", {"linear-probe": {"folds": 3}}])
def test_a_method_without_steps_needs_no_budget(fitted, method):
    run = fitted(method=method, budget=None)
    assert (run.happened["steps"], run.happened["stopped"]) == (0, "closed form")


# --- requests that cannot be ---


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"method": "lroa"}, r"Unknown method 'lroa'\. Did you mean 'lora'\?"),
        ({"method": {"lora": {"rank": 0}}}, r"The 'rank' of LoRA must be an integer in \[1, inf\); got 0"),
        ({"method": []}, "A recipe needs at least one method"),
        ({"model": "minilmm"}, r"Unknown model 'minilmm'\. Did you mean 'minilm'\?"),
        ({"budget": "3 parsecs"}, "Budget '3 parsecs' is not understood"),
        ({"seed": -1}, r"seed: .* got -1"),
        ({"coverage": 0.0}, r"coverage: .* got 0\.0"),
        ({"coverage": 1.5}, r"coverage: .* got 1\.5"),
        ({"hardware": {"precision": "fp8"}}, r"precision.*fp8"),
        ({"hardware": {"gpus": 2}}, "gpus"),
        ({"hardware": {"device": "gpu"}}, "Device 'gpu' is not to be had"),
        ({"task": "tagging"}, "other numbers of words and tags"),
        ({"task": "translation"}, "translation"),
        ({"data": "/no/such/file.csv"}, r"There is no 'file\.csv' because the folder /no/such is not there"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_what_cannot_be_is_told_in_one_sentence_and_leaves_nothing_behind(fitted, tmp_path, changed, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        fitted(**changed)
    assert isinstance(caught.value, DataError) or "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_yaml_run_is_the_run_it_describes(sources, tiny, tmp_path):
    file = tmp_path / "run.yaml"
    described = {
        "model": str(tiny), "data": {"source": str(sources["classification"])}, "budget": "2epochs", "seed": 3,
        "method": [{"linear-probe": {"folds": 3}}, "lora"], "hardware": {"precision": "fp32"},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(described))
    request = Request.from_yaml(file)
    assert [m.name for m in request.recipe] == ["linear-probe", "lora"]
    assert (request.seed, request.budget, request.hardware.precision) == (3, "2epochs", "fp32")
    assert Request.build(**request.model_dump(mode="json")) == request


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: minilm", "must be a mapping with at least `data: ...`"),
        ("- a\n- b", "must be a mapping with at least `data: ...`"),
        ("data: [1", "is not YAML"),
        ("data: x.csv\nmethood: lora", r"A run has no 'methood'\. Did you mean 'method'\?"),
        ("data: x.csv\nseed: many", r"seed: .* got 'many'"),
        ("data: x.csv\nhardware: {precision: fp8}", r"hardware\.precision: .* got 'fp8'"),
    ],
)
def test_a_yaml_that_is_no_run_is_told(tmp_path, text, sentence):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        Request.from_yaml(tmp_path / "run.yaml")


def test_a_yaml_names_its_data_from_where_it_lies(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "run.yaml").write_text("data: rows.csv")
    assert Request.from_yaml(tmp_path / "run.yaml").data == str(tmp_path / "rows.csv")
    with pytest.raises(InputError, match=r"Run file '.*none\.yaml' cannot be read: No such file"):
        Request.from_yaml(tmp_path / "none.yaml")


# --- the folder ---


def test_a_finished_run_is_kept_unless_force_is_said(fitted):
    first = fitted()
    before = weights(first)
    with pytest.raises(InputError, match="--force"):
        fitted(seed=1)
    assert all(torch.equal(t, before[n]) for n, t in weights(first).items())
    second = fitted(seed=1, force=True)
    assert second.asked["seed"] == 1


def test_a_folder_that_is_no_run_is_never_replaced(fitted, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("my thesis")
    with pytest.raises(InputError, match=r"run"):
        fitted(force=True)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "my thesis"


def test_force_with_a_wrong_request_keeps_the_old_run(fitted):
    run = fitted()
    with pytest.raises(InputError, match="parsecs"):
        fitted(force=True, budget="1 parsecs")
    assert Run.open(run.path).state == "done"
    assert predict(run, ["the team"])


# --- budgets ---


def test_epochs_are_kept(fitted):
    run = fitted(budget="1.5epochs")
    assert (run.happened["steps"], run.happened["epochs"]) == (9, pytest.approx(1.5, abs=0.1))


def test_seconds_are_kept(fitted):
    began = time.perf_counter()
    run = fitted(budget="4s")
    took = time.perf_counter() - began
    assert run.happened["steps"] > 3
    assert 1.5 < took < 8  # the last parts of so short a run, and a busy machine, weigh more than 10 %


@pytest.mark.slow
def test_twenty_seconds_are_kept_within_a_tenth(fitted):
    began = time.perf_counter()
    run = fitted(budget="20s")
    assert time.perf_counter() - began == pytest.approx(20, rel=0.1)
    assert run.cost["seconds"] == pytest.approx(20, rel=0.1)


def test_stages_share_a_budget_equally(fitted):
    run = fitted(method=[TopLayers(batch_size=16), METHOD], budget="2epochs")
    assert [s["steps"] for s in run.happened["stages"]] == [6, 6]


# --- stopped and resumed ---


def interrupt_at(step: int, stage: int = 0):
    """An `on_event` that sends SIGTERM when a step has been taken."""

    def told(event):
        if event["event"] == "step" and event["step"] == step and event["stage"] == stage:
            os.kill(os.getpid(), signal.SIGTERM)

    return told


@pytest.mark.usefixtures("every_step_is_told")
@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_sigterm_saves_and_resume_ends_with_the_same_bits(fitted, tmp_path, kind):
    whole = fitted(kind, out="whole")
    with pytest.raises(Interrupted, match=r"Stopped at step 7\. Go on with: graft resume ") as caught:
        fitted(kind, on_event=interrupt_at(7))
    run = Run.open(tmp_path / "run")
    assert caught.value.run == run
    assert (run.state, (run.path / "model").exists()) == ("interrupted", False)
    resumed = resume(run)
    assert resumed.state == "done"
    assert_equal(whole, resumed)
    assert resumed.metrics == whole.metrics
    steps = [e["step"] for e in resumed.events() if e["event"] == "step"]
    assert steps == list(range(1, 13))
    for name in ("steps", "best_step", "epochs", "padding_waste", "stages", "unfreezing", "stopped"):
        assert resumed.happened[name] == whole.happened[name], name


@pytest.mark.usefixtures("every_step_is_told")
def test_a_recipe_resumed_in_its_second_stage_is_the_whole_recipe(fitted, tmp_path):
    recipe = [GradualUnfreezing(lr=5e-3, batch_size=16), METHOD]
    whole = fitted(method=recipe, budget="16steps", out="whole")
    with pytest.raises(Interrupted, match="Stopped at step 3"):
        fitted(method=recipe, budget="16steps", on_event=interrupt_at(3, stage=1))
    resumed = resume(tmp_path / "run")
    assert_equal(whole, resumed)
    assert [next(iter(s["method"])) for s in resumed.happened["stages"]] == ["gradual-unfreezing", "full-fine-tuning"]


@pytest.mark.usefixtures("every_step_is_told")
def test_the_log_of_a_recipe_resumed_in_its_second_stage_holds_the_first(fitted, tmp_path):
    recipe = [GradualUnfreezing(lr=5e-3, batch_size=16), METHOD]
    with pytest.raises(Interrupted, match="Stopped at step 3"):
        fitted(method=recipe, budget="16steps", on_event=interrupt_at(3, stage=1))
    events = [(e["stage"], e["step"]) for e in resume(tmp_path / "run").events() if e["event"] == "step"]
    assert events == [(stage, step) for stage in (0, 1) for step in range(1, 9)]


def test_a_second_stop_while_resuming_still_ends_with_the_same_bits(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("graftwork.loop._REPORT_SECONDS", -1.0)
    whole = fitted(out="whole")
    with pytest.raises(Interrupted, match="step 2"):
        fitted(on_event=interrupt_at(2))
    with pytest.raises(Interrupted, match="step 9"):
        resume(tmp_path / "run", on_event=interrupt_at(9))
    assert_equal(whole, resume(tmp_path / "run"))


def test_a_finished_run_is_not_resumed(fitted):
    with pytest.raises(InputError, match="is finished: there is nothing to resume"):
        resume(fitted())


def test_a_run_whose_data_changed_is_not_resumed(fitted, sources, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr("graftwork.loop._REPORT_SECONDS", -1.0)
    copy = Path(shutil.copytree(sources["classification"], tmp_path / "copy"))
    with pytest.raises(Interrupted, match="step 3"):
        fitted(data=copy, on_event=interrupt_at(3))
    lines = (copy / "train.jsonl").read_text().splitlines(keepends=True)
    (copy / "train.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(InputError, match=r"The data of run .* has changed since it began"):
        resume(tmp_path / "run")


def test_what_cannot_be_resumed_is_told(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        resume(tmp_path / "nowhere")


def test_a_failed_run_says_why(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(Objective, "loss", lambda self, batch: self.model(batch.inputs).sum() * float("nan"))
    with pytest.raises(RuntimeError, match="at step 1, on rows"):
        fitted()
    run = Run.open(tmp_path / "run")
    assert run.state == "failed"
    assert "at step 1, on rows" in (run.cause or "")


IN_A_PROCESS = """
import faulthandler, sys
faulthandler.dump_traceback_later(100, exit=True)  # a process that hangs says where
from graftwork import loop
from graftwork.fit import fit
from graftwork.methods import FullFineTuning
loop._REPORT_SECONDS = -1.0
data, model, out, seconds, steps, dropout = sys.argv[1:]
method = FullFineTuning(
    lr=5e-3, head_lr_factor=2, batch_size=16, head_start="random", dropout=float(dropout) if dropout else None
)
fit(
    data, model=model, method=method, budget=steps, out=out,
    hardware={"device": "cpu", "precision": "fp32", "checkpoint_seconds": float(seconds)},
)
"""


def in_a_process(source, tiny, out, *, seconds=0, steps="40steps", dropout="", launch=()):
    arguments = [str(source), str(tiny), str(out), str(seconds), steps, dropout]
    command = [sys.executable, *launch, *([] if launch else ["-c", IN_A_PROCESS]), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], seconds: float) -> str:
    """What the process said; one that does not end is stopped, and that fails the test."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.terminate()
        pytest.fail(f"the process did not end: {process.communicate()[1][-2000:]}")


def wait_for_steps(out: Path, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        log = out / "metrics.jsonl"
        if log.exists() and log.read_text().count('"step"') > 2 * steps:
            return
        time.sleep(0.005)
    process.kill()
    pytest.fail(f"no {steps} steps were taken: {process.communicate()[1][-2000:]}")


def test_killed_at_a_random_moment_and_resumed_it_ends_with_the_same_bits(fitted, sources, tiny, tmp_path):
    out = tmp_path / "killed"
    process = in_a_process(sources["classification"], tiny, out)
    wait_for_steps(out, random.randint(2, 20), process)
    time.sleep(random.random() * 0.05)
    process.kill()
    process.communicate()
    run = Run.open(out)
    assert run.state == "interrupted"
    assert_equal(fitted(budget="40steps", out="whole"), resume(run))


def test_sigterm_to_a_process_leaves_a_run_that_resume_ends_with_the_same_bits(fitted, sources, tiny, tmp_path):
    out = tmp_path / "stopped"
    process = in_a_process(sources["classification"], tiny, out, seconds=1000)
    wait_for_steps(out, 4, process)
    process.send_signal(signal.SIGTERM)
    said = ended(process, 60)
    assert f"Go on with: graft resume {out}" in said
    assert Run.open(out).state == "interrupted"
    assert_equal(fitted(budget="40steps", out="whole"), resume(out))


# --- processes ---


def test_two_processes_give_the_losses_of_one(fitted, sources, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("graftwork.loop._REPORT_SECONDS", -1.0)
    script = tmp_path / "script.py"
    script.write_text(IN_A_PROCESS)
    launch = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone", str(script))
    process = in_a_process(
        sources["classification"], tiny, tmp_path / "two", steps="8steps", seconds=1000, dropout="0", launch=launch
    )
    method = METHOD.model_copy(update={"dropout": 0.0})
    one = fitted(method=method, budget="8steps", out="one")
    said = ended(process, 120)
    assert process.returncode == 0, said[-3000:]
    two = Run.open(tmp_path / "two")
    assert two.happened["processes"] == 2
    losses = [[e["loss"] for e in run.events() if e["event"] == "step"] for run in (one, two)]
    np.testing.assert_allclose(*losses, atol=1e-5)
    assert two.metrics["validation"]["loss"] == pytest.approx(one.metrics["validation"]["loss"], abs=1e-4)


# --- predict ---


def test_predictions_are_plain_values_in_the_order_given(fitted):
    run = fitted(coverage=0.5)
    found = predict(run, ["the goal of the team", "a ticket to the hotel"])
    assert json.loads(json.dumps(found)) == found
    assert [set(f) for f in found] == [{"label", "confidence", "unsure", "probabilities"}] * 2
    assert predict(run.path / "model", ["the goal of the team", "a ticket to the hotel"]) == found
    assert predict(run, []) == []


def test_tagging_reads_texts_cut_at_white_space_as_words(fitted):
    run = fitted("tagging")
    text = "we saw anna  often"
    assert predict(run, [text]) == predict(run, [text.split()])
    assert len(predict(run, [text])[0]["label"]) == 4


def test_inputs_of_the_wrong_kind_are_told(fitted):
    with pytest.raises(InputError, match="A classification model reads texts"):
        predict(fitted(), [["a", "list"]])


def test_a_run_without_a_model_has_nothing_to_predict_with(tmp_path):
    run = Run.create(tmp_path / "r", asked={})
    with pytest.raises(InputError, match="is queued: it has no model to predict with yet"):
        predict(run, ["x"])


def test_a_fitted_model_is_a_model_to_go_on_from(fitted):
    first = fitted()
    second = fitted(model=first.path, method=LinearProbe(), budget=None, out="second")
    assert second.metrics["validation"]["accuracy"] >= 0.5


def test_the_saved_request_repeats_the_run(fitted, tmp_path):
    run = fitted()
    asked = Request.build(**run.asked)
    again = fit(
        asked.data, model=asked.model, method=asked.method, budget=asked.budget, seed=asked.seed,
        out=tmp_path / "again", hardware=asked.hardware,
    )  # fmt: skip
    assert Data.load(**asked.data).fingerprint == run.data["fingerprint"]
    assert_equal(run, again)
