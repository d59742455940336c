"""A race is fair, goes on where it was, reads test last, and says what its numbers say."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from graftwork.choice import InputError
from graftwork.compare import compare
from graftwork.comparison import Comparison
from graftwork.data import Data
from graftwork.fit import predict
from graftwork.methods import FullFineTuning, LinearProbe, TopLayers
from graftwork.run import Run
from graftwork.tasks import Classification, Tagging
from graftwork.verdict import Entry, choice, prospects, verdict

RACE = importlib.import_module("graftwork.compare")
FULL = FullFineTuning(lr=5e-3, head_lr_factor=2, batch_size=16, head_start="random")
TOP = TopLayers(blocks=1, lr=5e-3, batch_size=16)


@pytest.fixture
def race(sources, tiny, tmp_path, quick):
    """A short race with what is given changed; `events` gathers what it told."""

    def run(kind="classification", **changed):
        asked = {"methods": [LinearProbe(), TOP, FULL], "models": [tiny], "seeds": 2, "budget": "8steps"} | changed
        run.events = []
        return compare(
            asked.pop("data", sources[kind]), out=tmp_path / "race", hardware=quick, on_event=run.events.append, **asked
        )

    return run


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_a_race_ranks_every_method_with_an_interval_and_its_costs(race, kind):
    found = race(kind, methods=[TOP] if kind == "tagging" else [LinearProbe(), TOP])
    expected = {"majority", "top-layers"} | (
        {"tf-idf", "nearest-neighbours", "linear-probe"} if kind != "tagging" else set()
    )
    assert {e["name"] for e in found.entries} == expected
    assert [e["mean"] for e in found.entries] == sorted((e["mean"] for e in found.entries), reverse=True)
    assert all(e["low"] <= e["mean"] <= e["high"] for e in found.entries)
    best = found.entries[0]
    assert (best["tied"], best["behind"], best["p"]) == (True, 0, None)
    top = next(e for e in found.entries if e["name"] == "top-layers")
    assert len(top["scores"]) == len(top["runs"]) == 2
    assert min(top["latency"]["ms_1_p50"], top["seconds"], top["trained_parameters"]) > 0
    assert found.verdict.startswith("Take ")
    assert predict(found.path / found.as_dict()["use"], [["Ada"]] if kind == "tagging" else ["a text"])
    assert len(found.frame()) == len(expected)


def test_every_run_saw_the_same_rows_budget_and_seeds(race):
    found = race()
    runs = [run for entry in found.entries for run in found.runs(entry["name"])]
    assert len({run.data["fingerprint"] for run in runs}) == 1
    assert {run.asked.get("budget") for run in runs if run.happened.get("steps")} == {"8steps"}
    by_name = {e["name"]: [run.asked["seed"] for run in found.runs(e["name"])] for e in found.entries}
    assert by_name["full-fine-tuning"] == by_name["top-layers"] == [0, 1]
    assert by_name["linear-probe"] == by_name["majority"] == [0]
    tables = [run.predictions("test") for run in runs]
    assert all(t["row"].equals(tables[0]["row"]) and t["label"].equals(tables[0]["label"]) for t in tables)


def test_every_run_is_told_with_its_score_as_soon_as_it_is_there(race):
    race(methods=[LinearProbe()], baselines=["majority"])
    told = [e["message"] for e in race.events if e["event"] in ("run", "result")]
    assert [e["names"] for e in race.events if e["event"] == "race"] == [["majority", "linear-probe"]]
    first = told.index("Run 1/2: majority")
    assert told[first + 1].startswith("        accuracy ")
    assert "on validation, " in told[first + 1]
    assert told[first + 2] == "Run 2/2: linear-probe"


def test_what_is_finished_is_not_run_again_and_what_is_added_is(race):
    first = race()
    stamps = {run: os.stat(first.path / run / "run.json").st_mtime_ns for e in first.entries for run in e["runs"]}
    again = race(methods=[LinearProbe(), TOP, FULL, "lora"])
    assert {run: os.stat(first.path / run / "run.json").st_mtime_ns for run in stamps} == stamps
    assert {e["name"] for e in again.entries} - {e["name"] for e in first.entries} == {"lora"}


def test_a_race_that_broke_off_goes_on_with_the_runs_that_are_missing(race, monkeypatch):
    own, begun = RACE.start, []

    def breaks(*args, **asked):
        begun.append(args[2])
        if len(begun) == 3:
            raise KeyboardInterrupt
        return own(*args, **asked)

    monkeypatch.setattr(RACE, "start", breaks)
    with pytest.raises(KeyboardInterrupt):
        race()
    monkeypatch.setattr(RACE, "start", lambda *a, **k: begun.append(a[2]) or own(*a, **k))
    done = begun[:2]
    found = race()
    assert not set(begun[3:]) & set(done)
    assert len(found.entries) == 6


def test_a_method_that_diverges_is_told_and_does_not_end_the_race(race, monkeypatch):
    monkeypatch.setattr(
        "graftwork.objective.Objective.loss", lambda *a, **k: torch.tensor(float("nan"), requires_grad=True)
    )
    found = race(methods=[LinearProbe(), FULL])
    assert "full-fine-tuning" not in {e["name"] for e in found.entries}
    assert "loss is nan" in found.as_dict()["failed"]["full-fine-tuning"]


def test_the_test_split_is_read_only_after_everything_is_fitted(race, monkeypatch):
    seen = []
    own_start, own_score = RACE.start, RACE.scored
    monkeypatch.setattr(RACE, "start", lambda *a, **k: seen.append("fit") or own_start(*a, **k))
    monkeypatch.setattr(RACE, "scored", lambda *a, **k: seen.append("test") or own_score(*a, **k))
    race()
    assert seen == ["fit"] * 5 + ["test"] * 5


def test_a_learning_curve_races_on_few_labels_too(race):
    found = race(methods=[LinearProbe(), TOP], shots=[4, 8, 10_000])
    points = found.as_dict()["curve"]
    assert [p["shots"] for p in points] == [4, 8, None]
    assert points[0]["rows"] < points[1]["rows"] < points[2]["rows"]
    assert points[2]["scores"]["top-layers"]["mean"] == next(
        e["mean"] for e in found.entries if e["name"] == "top-layers"
    )
    foretold = found.as_dict()["prospects"]
    assert [p["rows"] for p in foretold["outlook"]["points"]] == [n * points[2]["rows"] for n in (2, 4)]
    assert len(foretold["said"]) == 2
    fingerprints = {Run.open(path).data["fingerprint"] for path in (found.path / "runs").iterdir()}
    assert len(fingerprints) == 3


def test_a_baseline_is_a_run_with_predictions_and_no_model(race):
    found = race(methods=[LinearProbe()])
    (run,) = found.runs("tf-idf")
    assert run.state == "done"
    assert not (run.path / "model").exists()
    assert run.predictions("test").num_rows == run.metrics["test"]["n"]


def test_a_race_is_a_page_a_table_and_a_picture(race, tmp_path):
    from xml.etree import ElementTree

    found = race(methods=[LinearProbe()])
    assert found.html().read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list(found.frame()["name"]) == [e["name"] for e in found.entries]
    drawn = found.plot("model_mb").save(tmp_path / "race.svg")
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    assert "linear-probe" in drawn.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no cost of this race"):
        found.plot("carbon")


def test_what_a_models_length_costs_is_said():
    from graftwork.significance import Evidence
    from graftwork.verdict import _of_truncation as found_in

    cut = np.arange(200) < 60
    generator = np.random.default_rng(0)
    right = np.where(cut, generator.random(200) < 0.6, generator.random(200) < 0.95)
    whole = generator.random(200) < 0.8
    entries = [entry("full", 0.85, tied=True, seconds=9)]
    evidence = {
        name: Evidence([correct.astype(float)[:, None]], lambda sums: sums[..., 0] / 200, [correct])
        for name, correct in (("full", right), ("tf-idf", whole))
    }
    (found,) = found_in(entries, evidence, cut)
    assert found.code == "truncation-costs"
    assert "60 test rows" in found.message
    assert "for tf-idf, which reads them whole" in found.message
    assert found_in(entries, evidence, np.zeros(200, dtype=bool)) == []
    assert found_in(entries, evidence | {"full": evidence["tf-idf"]}, cut) == []


def test_it_is_found_again_from_its_folder(race):
    made = race(methods=[LinearProbe()])
    opened = Comparison.open(made.path)
    assert opened.as_dict() == made.as_dict()
    assert json.loads((made.path / "comparison.json").read_text())["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"methods": ["lroa"]}, "Did you mean 'lora'"),
        ({"baselines": ["tfidf"]}, "Did you mean 'tf-idf'"),
        ({"seeds": []}, "at least one seed"),
        ({"budget": "many"}, "many"),
        ({"models": ["nowhere/at-all"]}, "nowhere/at-all"),
    ],
)
def test_wrong_input_is_one_sentence_before_anything_is_fitted(race, tmp_path, changed, told):
    with pytest.raises(InputError, match=told):
        race(**changed)
    assert not list(tmp_path.glob("race/runs/*"))


def test_a_folder_of_somebody_else_is_left_alone(race, tmp_path):
    (tmp_path / "race").mkdir()
    (tmp_path / "race" / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="not a comparison"):
        race()


def test_data_without_a_test_split_is_refused(race, sources):
    with pytest.raises(InputError, match="test split"):
        race(data=Data.load(str(sources["classification"] / "train.jsonl"), test=0))


# --- tallies: scores that can be drawn anew ---


def test_tallies_of_several_labels_sum_up_to_scikit_learns_macro_f1():
    generator = np.random.default_rng(0)
    task = Classification(labels=("a", "b", "c"), multi_label=True)
    truth, guess = generator.random((2, 60, 3)) < 0.4
    named = [[[n for n, on in zip(task.labels, row, strict=True) if on] for row in table] for table in (truth, guess)]
    expected = f1_score(truth, guess, average="macro")
    assert task.tallied(task.tally(*named).sum(axis=0)) == pytest.approx(expected)


def test_tallies_of_spans_sum_up_to_seqevals_f1():
    from seqeval.metrics import f1_score as span_f1

    truth = [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["O"]]
    guess = [["B-PER", "I-PER", "B-LOC"], ["O", "B-PER"], ["O"]]
    task = Tagging(labels=("B-LOC", "B-PER", "I-PER", "O"))
    assert task.tallied(task.tally(truth, guess).sum(axis=0)) == pytest.approx(span_f1(truth, guess))


# --- the verdict ---


def entry(name: str, mean: float, *, tied: bool, seconds: float) -> Entry:
    return Entry(
        name=name, model="minilm", spec=name, baseline=False, scores=[mean], mean=mean, low=mean - 0.01,
        high=mean + 0.01, sd=None, behind=0.0, p=None, tied=tied, seconds=seconds, peak_memory_mb=None,
        trained_parameters=None, model_mb=None, latency=None, runs=[],
    )  # fmt: skip


def test_of_tied_methods_the_cheapest_is_taken_and_the_price_of_the_best_is_said():
    entries = [entry("full", 0.93, tied=True, seconds=400), entry("probe", 0.925, tied=True, seconds=4)]
    assert choice(entries).name == "probe"
    assert "full cannot be told from it" in verdict(entries, "accuracy")
    assert "100 times as long" in verdict(entries, "accuracy")


def test_a_baseline_that_wins_is_told_with_the_method_that_leaves_a_model():
    words = dataclasses.replace(entry("tf-idf", 0.93, tied=True, seconds=1), baseline=True)
    entries = [words, entry("lora", 0.90, tied=False, seconds=40), entry("probe", 0.85, tied=False, seconds=4)]
    assert choice(entries) is words
    assert verdict(entries, "accuracy").endswith("of the methods that leave one, take lora (90.0%).")


def test_a_clear_winner_is_taken_at_any_price():
    entries = [entry("full", 0.93, tied=True, seconds=400), entry("probe", 0.85, tied=False, seconds=4)]
    assert verdict(entries, "accuracy").startswith(
        "Take full: accuracy 93.0% on test (92.0% to 94.0%), 8.0 points ahead"
    )


def point(rows: int, probe: float, full: float) -> dict:
    scores = {"linear-probe": probe, "full": full}
    return {"rows": rows, "scores": {n: {"mean": m, "low": m - 0.01, "high": m + 0.01} for n, m in scores.items()}}


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        ((False, True, False, True), "full overtakes linear-probe between 320 and 640 train rows."),
        ((True, True, True, True), "full is ahead of linear-probe from 80 train rows on."),
        ((False, True, True, False), "Up to all 640 train rows full does not overtake linear-probe."),
    ],
)
def test_from_how_many_labels_on_fine_tuning_pays_is_said(ahead, told):
    entries = [
        dataclasses.replace(entry("full", 0.9, tied=True, seconds=9), spec=[{"full": {}}]),
        dataclasses.replace(entry("linear-probe", 0.8, tied=False, seconds=1), spec=[{"linear-probe": {}}]),
    ]
    probe = [0.70, 0.74, 0.77, 0.79]
    rows = [80, 160, 320, 640]
    curve = [point(n, p, p + (0.05 if yes else -0.05)) for n, p, yes in zip(rows, probe, ahead, strict=True)]
    found = prospects(curve, entries)
    assert found["said"][0] == told
    assert found["outlook"]["name"] == "full"
    assert prospects(curve[:2], entries)["outlook"] is None
    assert prospects([], entries) == {"said": [], "outlook": None}


def test_a_race_tunes_every_method_that_takes_steps_alike(race):
    found = race(methods=[LinearProbe(), TOP], trials=2, seeds=1)
    told = found.as_dict()
    assert {name: len(tuned["trials"]) for name, tuned in told["tuned"].items()} == {"top-layers": 2}
    entry = next(e for e in found.entries if e["name"] == "top-layers")
    assert entry["spec"] == told["tuned"]["top-layers"]["spec"]
    assert any(
        sentence.startswith("top-layers was tuned on validation in 2 trials: lr") for sentence in told["differs"]
    )
    again = race(methods=[LinearProbe(), TOP], trials=2, seeds=1)
    assert [e["scores"] for e in again.entries] == [e["scores"] for e in found.entries]
    with pytest.raises(InputError, match="from 0 on"):
        race(trials=-1)


@pytest.mark.parametrize(
    ("task", "label", "prediction", "never"),
    [
        (Tagging(labels=("O", "B-X", "B-Y")), ["O B-X", "B-Y O"], ["B-X O", "O O"], "'B-Y'"),
        (Classification(labels=("a", "b|c")), ["b|c", "a"], ["a", "a"], "'b|c'"),
        (Classification(labels=("a", "b", "c"), multi_label=True), ["b|c", ""], ["b", "a|b"], "'c'"),
    ],
    ids=["tagging", "one", "several"],
)
def test_a_class_that_is_never_given_is_a_name_whatever_the_task(task, label, prediction, never):
    from types import SimpleNamespace

    import pyarrow as pa

    from graftwork.verdict import _of_classes as found_in

    run = SimpleNamespace(predictions=lambda _: pa.table({"label": label, "prediction": prediction}))
    (found,) = found_in([entry("full", 0.9, tied=True, seconds=9)], {"full": [run]}, task)
    assert f"never answers {never}, which" in found.message


def test_a_method_whose_every_trial_fails_does_not_end_the_race(race, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("Every trial failed. The first: the loss is nan")

    monkeypatch.setattr(RACE, "tune", fails)
    found = race(methods=[LinearProbe(), TOP], trials=2, seeds=1)
    assert "top-layers" not in {e["name"] for e in found.entries}
    assert "Every trial failed" in found.as_dict()["failed"]["top-layers"]


def test_without_optuna_nothing_is_left_behind(race, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match="optuna"):
        race(trials=2)
    assert not (tmp_path / "race").exists()
