"""evaluate scores a finished run, and writes a prediction for every row."""

from __future__ import annotations

import json

import numpy as np
import pytest

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.evaluate import evaluate, outputs
from graftwork.examples import tokenised
from graftwork.fit import fit, predict
from graftwork.methods import FullFineTuning
from graftwork.model import TransferModel
from graftwork.run import Run

METHOD = FullFineTuning(lr=5e-3, head_lr_factor=2, batch_size=16)
KINDS = ["classification", "multi-label", "tagging"]


@pytest.fixture(scope="module")
def runs(tiny, sources, tmp_path_factory):
    """A finished run of each kind, made once."""
    made = {}

    def get(kind="classification"):
        if kind not in made:
            out = tmp_path_factory.mktemp("runs") / kind
            made[kind] = fit(
                sources[kind], model=tiny, method=METHOD, budget="20steps", out=out, coverage=0.8,
                hardware={"device": "cpu", "precision": "fp32"},
            )  # fmt: skip
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_split_is_scored_and_recorded(runs, kind):
    run = runs(kind)
    found = evaluate(run)
    assert (found["split"], found["rows"], found["n"]) == ("test", 30, 30)
    assert run.metrics["test"] == {k: v for k, v in found.items() if k not in ("split", "rows")}
    assert set(run.metrics) == {"validation", "test"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_a_prediction_and_it_is_the_one_that_predict_gives(runs, sources, kind):
    run = runs(kind)
    evaluate(run)
    rows = run.predictions("test").to_pylist()
    assert [r["row"] for r in rows] == list(range(1, 31))
    given = [json.loads(line) for line in (sources[kind] / "test.jsonl").read_text().splitlines()]
    inputs = [row["words"] if kind == "tagging" else row["text"] for row in given]
    separator = " " if kind == "tagging" else "|"
    for row, answer in zip(rows, predict(run, inputs), strict=True):
        label = answer["label"] if isinstance(answer["label"], str) else separator.join(answer["label"])
        assert (row["prediction"], row["unsure"]) == (label, answer["unsure"])
        assert row["confidence"] == pytest.approx(answer["confidence"], abs=1e-5)
    assert {s: len(run.predictions(s)) for s in ("validation", "test")} == {"validation": 30, "test": 30}


def test_probabilities_stand_in_the_order_of_the_labels(runs):
    run = runs()
    for row in run.predictions("validation").to_pylist():
        assert run.data["labels"][int(np.argmax(row["probabilities"]))] == row["prediction"]


def test_metrics_are_those_of_the_predictions_on_disk(runs):
    run = runs()
    evaluate(run)
    rows = run.predictions("test").to_pylist()
    assert run.metrics["test"]["accuracy"] == np.mean([r["label"] == r["prediction"] for r in rows])
    assert run.metrics["test"]["coverage"] == np.mean([not r["unsure"] for r in rows])


def test_a_file_of_its_own_is_scored_whole_and_the_run_is_left_alone(runs, sources):
    run = runs()
    before = (run.path / "run.json").read_bytes(), (run.path / "predictions.parquet").read_bytes()
    found = evaluate(run, sources["classification"] / "test.jsonl")
    assert found["n"] == 30
    assert before == ((run.path / "run.json").read_bytes(), (run.path / "predictions.parquet").read_bytes())


def test_the_same_rows_from_another_file_score_the_same(runs, sources):
    run = runs()
    own, other = evaluate(run), evaluate(run, sources["classification"] / "test.jsonl")
    assert own["accuracy"] == other["accuracy"]
    assert own["loss"] == pytest.approx(other["loss"], abs=1e-6)


def test_labels_that_the_model_lacks_are_named(runs, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"text": f"the old house {i}", "label": label} for i, label in enumerate(["sports", "food"] * 10)]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(InputError, match=r"Label 'sports' is none of the model's\. Did you mean 'sport'\?"):
        evaluate(runs(), file)


def test_a_split_that_is_not_there_is_named(runs):
    with pytest.raises(InputError, match=r"has no split 'dev', only \['test', 'train', 'validation'\]"):
        evaluate(runs(), split="dev")


def test_a_run_that_is_not_finished_cannot_be_scored(tmp_path):
    run = Run.create(tmp_path / "r", asked={})
    with pytest.raises(InputError, match="is queued: there is nothing to evaluate yet"):
        evaluate(run)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_tokens", [1, 100])
def test_how_much_is_computed_at_once_changes_no_output(runs, kind, max_tokens):
    run = runs(kind)
    model = TransferModel.load(run.path / "model")

    data = Data.load(**run.asked["data"])
    examples = tokenised(data, "test", model.task, model.modality)
    few, targets = outputs(model, examples, max_tokens=max_tokens)
    many, again = outputs(model, examples, max_tokens=10**6)
    for a, b, t, u in zip(few, many, targets, again, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
        np.testing.assert_array_equal(t, u)
    np.testing.assert_allclose(np.concatenate(model.outputs(data["test"].inputs())), np.concatenate(few), atol=2e-5)


def test_a_run_fitted_on_rows_in_memory_says_that_it_needs_them(tiny, tmp_path, quick):
    from graftwork.testing import learnable

    run = fit(learnable("classification"), model=tiny, method="linear-probe", out=tmp_path / "r", hardware=quick)
    with pytest.raises(InputError, match=r"(?i)in memory"):
        evaluate(run)
    assert evaluate(run, learnable("classification"))["n"] == 30
