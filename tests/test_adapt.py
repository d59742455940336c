"""Measuring a shift, adapting over it, and saying whether that helped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from graftwork import Data, Run, adapt, evaluate, predict, shift
from graftwork.adapt import PRETRAINING, Forgetting, Judged, _corpus, _findings, _of_pseudo_labels, supported
from graftwork.choice import InputError
from graftwork.methods import Coral
from graftwork.shift import Domain, Shift
from graftwork.testing import learnable, tiny_model


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """A tiny masked language model, head and all."""
    return tiny_model(tmp_path_factory.mktemp("models") / "language", language_model=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A file of target texts, each with words that the source never has."""
    file = tmp_path_factory.mktemp("texts") / "target.txt"
    rows = learnable("classification", seed=1)["train"]
    file.write_text("\n\n".join(f"paris {row['text']} london" for row in rows), encoding="utf-8")
    return file


def judged(difference, p, on="target"):
    return Judged(on, 100, "accuracy", 0.8, 0.8 + difference, difference, difference - 0.01, difference + 0.01, p)


MEASURED = Shift(
    distance=1.0, low=0.8, high=1.2, error=0.25, source=Domain(500, 0.0, 1.2, 3.0), target=Domain(500, 0.0, 1.2, 3.1),
    model="m", language_model="m", shared=0,
)  # fmt: skip


# --- measuring ---


def test_domains_that_lie_apart_are_told_apart_and_a_domain_from_itself_is_not(language, texts):
    rows = learnable("classification", rows=300)
    apart = shift(rows, target=str(texts), model=language)
    alike = shift(rows, target={"train": learnable("classification", seed=1)["train"]}, model=language)
    assert apart.distance > 0.7 > 0.5 > alike.distance
    assert apart.low <= apart.distance <= apart.high
    assert apart.target.pieces_a_word > 1.3 > alike.target.pieces_a_word == 1.0  # cities are read in pieces
    assert apart.language_model == str(language)
    assert apart.harder == apart.target.masked_loss - apart.source.masked_loss
    assert apart.rarer
    assert json.loads(json.dumps(apart.as_dict()))["said"] == list(apart.said)


def test_without_a_head_graft_mini_foretells(tiny, texts):
    found = shift(learnable("classification"), target=str(texts), model=tiny)
    assert found.language_model == "graft-mini"


def test_nothing_is_measured_without_a_target():
    with pytest.raises(InputError, match="--target FILE"):
        shift(learnable("classification"))


def test_a_text_file_has_a_text_a_line_and_empty_lines_are_none(texts):
    data = Data.load(learnable("classification"), target=str(texts))
    assert len(data["target"]) == 90
    assert data["target"].inputs([0])[0].startswith("paris ")
    assert data.fingerprint != Data.load(learnable("classification")).fingerprint


def test_a_measure_says_what_it_supports():
    assert supported(MEASURED)[0] == [Coral()]
    assert supported(replace(MEASURED, distance=0.2))[0] == []
    assert supported(replace(MEASURED, target=Domain(500, 0.0, 1.5, 3.1)))[0] == [PRETRAINING]
    assert supported(replace(MEASURED, target=Domain(500, 0.0, 1.2, 3.4)))[0] == [PRETRAINING]


# --- adapting ---


@pytest.fixture(scope="module")
def adapted(language, texts, tmp_path_factory):
    """The target read on, then aligned, and judged."""
    rows = learnable("classification", seed=2)["train"]
    return adapt(
        language, texts, source=learnable("classification"), method=[PRETRAINING, "dann"], judge={"train": rows},
        budget="4steps", out=tmp_path_factory.mktemp("runs") / "run", hardware={"device": "cpu", "precision": "fp32"},
    )  # fmt: skip


def test_what_was_done_stands_in_a_run_like_any_other(adapted):
    assert adapted.state == "done"
    assert predict(adapted, ["the goal of the team"])[0]["label"] in ("food", "sport", "travel")
    told = adapted.happened["adaptation"]
    before, base = Run.open(told["before"]), Run.open(told["base"])
    assert base.is_base
    assert adapted.asked["model"] == str(base.path)
    assert before.asked["method"][0]["dann"]["weight"] == 0
    assert before.data["fingerprint"] == adapted.data["fingerprint"]
    assert before.asked["budget"] == adapted.asked["budget"] == "4steps"
    assert "adaptation-" in (adapted.path / "report.html").read_text()


def test_both_are_judged_on_the_same_rows(adapted):
    told = adapted.happened["adaptation"]
    validation, target = told["judged"]
    before = Run.open(told["before"])
    rows = {"test": learnable("classification", seed=2)["train"], "train": learnable("classification")["train"]}
    for run, key in ((before, "before"), (adapted, "after")):
        assert validation[key] == pytest.approx(run.metrics["validation"]["accuracy"])
        assert target[key] == pytest.approx(evaluate(run, rows)["accuracy"])
    assert target["difference"] == pytest.approx(target["after"] - target["before"])
    assert target["rows"] == 90


def test_forgetting_is_measured_on_the_source(adapted):
    told = adapted.happened["adaptation"]["forgetting"]
    assert told["before"] > 0
    assert told["after"] > 0
    assert -1 <= told["similarity"] < 1
    assert any(told["of"] in sentence for sentence in adapted.happened["adaptation"]["said"])


def test_it_hurt_helped_or_nobody_can_tell():
    assert [f.code for f in _findings([judged(-0.05, 0.01)], None)] == ["adaptation-hurt"]
    assert [f.code for f in _findings([judged(0.05, 0.01)], None)] == ["adaptation-helped"]
    assert [f.code for f in _findings([judged(-0.05, 0.2)], None)] == ["adaptation-untold"]
    on_source = judged(-0.05, 0.01, "source validation")
    assert [f.code for f in _findings([on_source], None)] == ["adaptation-hurt", "adaptation-untold"]
    assert [f.code for f in _findings([on_source, judged(0.05, 0.01)], None)] == [
        "adaptation-hurt",
        "adaptation-helped",
    ]
    assert [f.code for f in _findings([], Forgetting("x", 3.0, 3.5, 0.9))] == ["adaptation-forgot"]
    assert _findings([], Forgetting("x", None, 3.5, 0.9)) == []


def test_pseudo_labels_are_told_with_their_precision_or_as_unchecked():
    told = {"threshold": 0.9, "target_rows": 90, "taken": 30, "validation_taken": 20, "validation_precision": 0.95}
    assert "30 of 90 target rows" in _of_pseudo_labels(told)
    assert "of the 20 source validation rows that were, 95% are right" in _of_pseudo_labels(told)
    assert "unchecked" in _of_pseudo_labels(told | {"validation_taken": 0, "validation_precision": None})


def test_without_a_source_the_model_reads_on(language, texts, tmp_path, quick):
    run = adapt(language, texts, budget="2steps", out=tmp_path / "run", hardware=quick)
    told = run.happened["adaptation"]
    assert run.is_base
    assert told["shift"] is None
    assert told["judged"] == []
    assert "Python" in told["forgetting"]["of"]
    assert (tmp_path / "run" / "model" / "config.json").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "lora", "source": learnable("classification")}, "does nothing with the target"),
        ({"method": "dann"}, "give --source"),
        ({"judge": "rows.csv"}, "Without --source"),
        (
            {"source": learnable("classification"), "judge": {"train": [{"text": "a b", "label": "other"}] * 9}},
            "labels that the source has not",
        ),
        ({"method": "dann", "source": learnable("tagging")}, "needs"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tiny, texts, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        adapt(tiny, texts, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_nothing_of_the_user_is_replaced(language, texts, adapted, tmp_path):
    options = {"source": learnable("classification"), "method": "dann"}
    with pytest.raises(InputError, match="is a finished run"):
        adapt(language, texts, out=adapted.path, **options)
    (tmp_path / "run-texts").mkdir()
    (tmp_path / "run-texts" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="Choose another --out"):
        adapt(language, texts, out=tmp_path / "run", force=True, **options)


def test_few_texts_are_held_out_in_a_larger_share(tmp_path):
    _corpus(tmp_path / "few", ["three words here"] * 300)
    _corpus(tmp_path / "many", ["three words here"] * 10_000)
    counts = [
        [len((tmp_path / name / f"{split}.jsonl").read_text().splitlines()) for split in ("train", "validation")]
        for name in ("few", "many")
    ]
    assert counts == [[233, 67], [9500, 500]]
    assert np.sum(counts) == 10_300


def test_it_is_typed(typed, language, texts, sources, capsys, tmp_path):
    assert typed("shift", sources["classification"], "--target", texts, "--model", language, "--json") == 0
    assert json.loads(capsys.readouterr().out)["distance"] > 0.5
    words = ["adapt", language, "--target", texts, "--source", sources["classification"], "--method", "coral"]
    words += ["--set", "weight=2", "--budget", "2steps", "--out", tmp_path / "run", "--device", "cpu", "--json"]
    assert typed(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"] == [{"coral": {"weight": 2}}]
    assert [j["on"] for j in told["judged"]] == ["source validation"]
    assert told["run"] == str(tmp_path / "run")
