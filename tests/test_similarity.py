"""Pairs of texts: how they are read, compared, trained on together, scored, asked for and refused."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch.nn import functional as F

from graftwork.check import check
from graftwork.choice import InputError, names
from graftwork.compare import compare
from graftwork.data import Data, DataError
from graftwork.evaluate import evaluate, outputs
from graftwork.examples import cut_by_tokens, tokenised
from graftwork.fit import fit, predict, resume
from graftwork.method import Method, recipe_of, unmet
from graftwork.methods import FullFineTuning, LoRA, Pretrained, TopLayers
from graftwork.model import TransferModel
from graftwork.task import Decision
from graftwork.tasks import Similarity, task_of
from graftwork.testing import FILLER, KEYWORDS
from graftwork.work import Interrupted

SCORES = Similarity(labels=("0", "5"))
CLASSES = Similarity(labels=("no", "yes"), scored=False)
STEPS = {"lr": 5e-3, "batch_size": 16}
FULL = FullFineTuning(**STEPS)


def pairs(*, scored: bool, rows: int = 160, seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """Pairs that are alike where their key words are: the same two 5, of one topic 3, of two topics 0."""
    draw = random.Random(seed)

    def text(keys: list[str]) -> str:
        words = draw.choices(FILLER, k=draw.randint(2, 9)) + keys
        return " ".join(draw.sample(words, len(words)))

    made = []
    for i in range(rows):
        topic, other = draw.sample(sorted(KEYWORDS), 2)
        score = (5, 3, 0, 0)[i % 4]
        keys = draw.sample(KEYWORDS[topic], 2)
        there = keys if score == 5 else draw.sample(KEYWORDS[topic if score else other], 2)
        label = str(score) if scored else ("yes" if score else "no")
        made.append({"text_a": text(keys), "text_b": text(there), "label": label})
    cut = [rows * 3 // 5, rows * 4 // 5]
    return {"train": made[: cut[0]], "validation": made[cut[0] : cut[1]], "test": made[cut[1] :]}


@pytest.fixture(scope="module", params=[True, False], ids=["scores", "classes"])
def data(request):
    return Data.load(pairs(scored=request.param))


@pytest.fixture
def model(data, tiny):
    torch.manual_seed(0)
    return TransferModel.pretrained(tiny, task_of(data))


@pytest.fixture
def fitted(tiny, tmp_path, quick):
    def run(data, method=FULL, *, out="run", budget="24steps", hardware=quick, **changed):
        given = budget if recipe_of(method)[0].gradient else None
        return fit(data, model=tiny, method=method, budget=given, out=tmp_path / out, hardware=hardware, **changed)

    return run


def written(rows: dict[str, list[dict[str, str]]], folder: Path) -> str:
    folder.mkdir()
    for name, part in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return str(folder)


def embeddings(n: int, dim: int = 6, seed: int = 0) -> list[np.ndarray]:
    """Pairs of vectors of unit length, joined."""
    both = np.random.default_rng(seed).normal(size=(n, 2, dim))
    return list((both / np.linalg.norm(both, axis=2, keepdims=True)).reshape(n, 2 * dim))


def asked_of(truth) -> list[np.ndarray]:
    return [np.array([t, t], dtype=np.float32) for t in truth]


# --- columns ---


@pytest.mark.parametrize(
    ("one", "other"),
    [("sentence1", "sentence2"), ("text_a", "text_b"), ("Question1", "Question2"), ("premise", "hypothesis")],
)
def test_a_pair_is_known_by_its_names_and_said(one, other):
    rows = [{one: f"a{i}", other: f"b{i}", "score": f"{i % 7}.5"} for i in range(60)]
    data = Data.load({"train": rows})
    assert (data.task, data.scored, data.labels) == ("similarity", True, ("0.5", "6.5"))
    assert data["train"].inputs([0])[0][0].startswith("a")
    assert data.said[0] == f"Columns {one!r} and {other!r} are a pair of texts: how alike are they?"
    assert "from 0.5 to 6.5" in data.said[1]
    assert len(data["train"]) + len(data["validation"]) == 60
    assert 5 <= len(data["validation"]) <= 7


def test_two_columns_asked_for_are_a_pair_whatever_their_names():
    rows = [{"left": f"a{i}", "right": f"b{i}", "same": "ny"[i % 2]} for i in range(40)]
    data = Data.load({"train": rows}, text="left, right", label="same", positive="y")
    assert data.labels == ("n", "y")
    assert data.columns.text == "left,right"
    assert data.source["positive"] == "y"


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("0", "1"), ("0", "1")), (("True", "False"), ("False", "True")), (("different", "similar"),) * 2,
     (("2", "7"), ("2", "7")), (("contradiction", "entailment"),) * 2, (("1.0", "0.0"), ("0", "1"))],
)  # fmt: skip
def test_which_of_two_classes_means_similar_is_known_by_its_name(classes, expected):
    rows = [{"text_a": f"a{i}", "text_b": f"b{i}", "label": classes[i % 2]} for i in range(40)]
    assert Data.load({"train": rows}).labels == expected


def test_one_column_asked_for_is_read_alone():
    rows = [{"text_a": f"a{i}", "text_b": f"b{i}", "label": "xyz"[i % 3]} for i in range(40)]
    data = Data.load({"train": rows}, text="text_a", label="label")
    assert (data.task, data.labels) == ("classification", ("x", "y", "z"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"text": "text_a,nothing"}, "no column 'nothing' to be the text"),
        ({"text": "text_a,text_b,label"}, "reads two columns.*--text names text_a, text_b, label"),
        ({"text": "text_a,text_b", "task": "classification"}, "A classification task reads one column"),
        ({"text": "text_a", "task": "similarity"}, r"--text names text_a.*--text A,B"),
        ({"text": "text_a,text_b", "label": "text_b"}, "asked for as text and as label"),
        ({"positive": "maybe"}, r"No pair is of class 'maybe'.*Known: no, yes"),
        ({"text": "text_a", "label": "label", "positive": "yes"}, "the data has no pairs of texts"),
    ],
)
def test_what_cannot_be_a_pair_is_refused_in_a_sentence(options, match):
    with pytest.raises(InputError, match=match):
        Data.load(pairs(scored=False), **options)


def test_classes_and_scores_are_not_confused():
    rows = pairs(scored=True)
    with pytest.raises(InputError, match="holds scores"):
        Data.load(rows, positive="5")
    odd = [row | {"label": "high" if i == 7 else row["label"]} for i, row in enumerate(rows["train"])]
    with pytest.raises(DataError, match="neither a number nor one of two classes: 'high'"):
        Data.load({"train": odd})


@pytest.mark.parametrize("scored", [True, False])
def test_data_loads_again_from_its_source_and_from_its_folder(scored, tmp_path):
    data = Data.load(written(pairs(scored=scored), tmp_path / "pairs"))
    again = Data.load(**data.source)
    opened = Data.open(data.save(tmp_path / "saved"))
    for other in (again, opened):
        assert (other.fingerprint, other.scored, other.labels) == (data.fingerprint, scored, data.labels)


def test_scores_are_cut_so_that_every_height_is_in_both_parts():
    rows = [{"text_a": f"a{i}", "text_b": f"b{i}", "score": str(i / 200)} for i in range(200)]
    data = Data.load({"train": rows}, validation=0.2, limit=100)
    for split in ("train", "validation"):
        counts = np.histogram(np.array(data[split].labels(), dtype=float), bins=5, range=(0, 1))[0]
        assert counts.max() <= counts.min() + 4


# --- the doctor ---


def test_the_doctor_reads_both_texts(tmp_path):
    rows = pairs(scored=True)
    first = rows["train"][0]
    rows["train"] += [{"text_a": first["text_b"], "text_b": first["text_a"], "label": first["label"]}]
    rows["train"][1] |= {"text_b": "  "}
    rows["train"][2] |= {"text_b": "word " * 600}
    rows["train"][3] |= {"text_a": "word " * 300, "text_b": "other " * 300}
    rows["test"][0] = first
    found = {f.code: f for f in check(rows).findings}
    assert found["empty-text"].rows == (2,)
    assert found["duplicates"].rows == (97,), "a pair turned round is the same pair"
    assert found["overlap"].rows == (1,)
    assert found["truncation"].rows == (3,), "row 4 is too long only when its texts are counted together"
    assert not {"unknown-test-label", "small-class", "class-missing-from-split", "numeric-label"} & found.keys()


def test_labels_of_another_kind_than_trains_are_found():
    rows = pairs(scored=True)
    rows["test"][4]["label"] = "n/a"
    (error,) = check(rows, model=None).errors
    assert (error.code, error.rows) == ("unfit-pair-label", (5,))
    rows = pairs(scored=False)
    rows["validation"][2]["label"] = "perhaps"
    (error,) = check(rows, model=None).errors
    assert (error.code, error.rows) == ("unfit-pair-label", (3,))


def test_unlabelled_pairs_and_a_single_class_are_errors():
    rows = pairs(scored=False)
    rows["train"][5]["label"] = ""
    assert [e.code for e in check(rows, model=None).errors] == ["empty-label"]
    alike = {name: [row for row in part if row["label"] == "yes"] for name, part in pairs(scored=False).items()}
    assert [e.code for e in check(alike, model=None).errors] == ["one-class"]


# --- the loss ---


def test_the_loss_of_scores_is_the_squared_error_of_the_cosine():
    logits = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    targets = torch.tensor([0.0, 0.25, 0.5, 1.0]).repeat_interleave(2)
    by_torch = F.mse_loss(F.cosine_similarity(logits[0::2], logits[1::2]), targets[0::2])
    torch.testing.assert_close(SCORES.loss(logits, targets), by_torch)


def test_the_loss_of_classes_is_the_contrastive_loss_by_hand():
    cosine = torch.tensor([[0.8], [0.8], [0.3], [1.0]])
    found = CLASSES.losses(cosine, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    # d = 0.2, 0.2, 0.7, 0: d^2 / 2 where similar, (0.5 - d)^2 / 2 where not and nearer than the margin
    torch.testing.assert_close(found, torch.tensor([0.02, 0.045, 0.0, 0.0]))


def test_a_pair_torn_apart_is_never_compared():
    with pytest.raises(AssertionError, match="torn apart"):
        SCORES.asked(torch.zeros(3, 4), torch.zeros(3))


def test_scores_are_shares_of_the_scale_that_train_has():
    np.testing.assert_allclose(SCORES.targets(["0", "2.5", "5", "6"]), [0, 0.5, 1, 1.2])
    np.testing.assert_allclose(CLASSES.targets(["yes", "no"]), [1, 0])
    with pytest.raises(InputError, match=r"A score must be a number; among those given are \['x'\]"):
        SCORES.targets(["x"])
    with pytest.raises(InputError, match=r"Label 'yess' is none of the model's. Did you mean 'yes'"):
        CLASSES.targets(["yess"])


# --- windows and batches ---


def test_a_pair_is_two_windows_as_the_tokenizer_reads_each_text(data, model):
    examples = tokenised(data, "train", model.task, model.modality)
    assert (examples.together, len(examples), examples.rows) == (2, 2 * len(data["train"]), len(data["train"]))
    for row, (one, other) in enumerate(data["train"].inputs(range(5))):
        ids = [examples.ids[examples.starts[p] : examples.starts[p + 1]].tolist() for p in (2 * row, 2 * row + 1)]
        assert ids == [each.tolist() for each in model.modality.encode([one, other])]
        assert examples.target(2 * row) == examples.target(2 * row + 1)


@given(batch_size=st.integers(2, 40), seed=st.integers(0, 3), max_tokens=st.integers(1, 400), parts=st.integers(1, 3))
def test_pairs_stay_together_in_batches_and_in_their_parts(data, tiny, batch_size, seed, max_tokens, parts):
    examples = tokenised(data, "train", task_of(data), TransferModel.pretrained(tiny, task_of(data)).modality)
    batches = examples.shuffled(batch_size, (seed,))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(examples)))
    assert len(batches) == -(-len(examples) // batch_size)
    for batch in batches:
        assert abs(len(batch) - batch_size) < 2 or len(batch) < batch_size
        cut = cut_by_tokens(batch, examples.lengths, max_tokens, parts, examples.together)
        assert np.concatenate(cut).tolist() == batch.tolist()
        for part in cut:
            assert (part[0::2] % 2 == 0).all()
            assert (part[1::2] == part[0::2] + 1).all()
            assert len(part) * examples.lengths[part].max() <= max_tokens or len(part) == 2


def test_batches_of_pairs_are_hardly_padded(data, model):
    examples = tokenised(data, "train", model.task, model.modality)
    padded = [
        sum(len(b) * examples.lengths[b].max() for b in batches)
        for batches in (examples.shuffled(16, (0,)), np.split(np.arange(len(examples)), len(examples) // 16))
    ]
    assert padded[0] < 0.92 * padded[1]


def test_a_batch_that_could_not_hold_a_pair_is_refused(data, model):
    with pytest.raises(InputError, match="A pair is 2 texts, so batch_size must be at least that; got 1"):
        tokenised(data, "train", model.task, model.modality).shuffled(1, (0,))


# --- answers ---


def test_padding_and_company_have_no_say(data, model):
    inputs = data["validation"].inputs()
    together = model.task.cosines(model.outputs(inputs, batch_size=7))
    alone = [model.task.cosines(model.outputs([pair]))[0] for pair in inputs[:10]]
    turned = model.task.cosines(model.outputs([pair[::-1] for pair in inputs]))
    np.testing.assert_allclose(together[:10], alone, atol=1e-5)
    np.testing.assert_allclose(together, turned, atol=1e-5)


def test_the_cosine_is_that_of_the_pooled_embeddings(data, model):
    examples = tokenised(data, "validation", model.task, model.modality)
    found, targets = outputs(model, examples)
    with torch.no_grad():
        z = torch.cat([model.eval().embed(examples.batch(np.array([p])).inputs) for p in range(20)])
    np.testing.assert_allclose(model.task.cosines(found)[:10], F.cosine_similarity(z[0::2], z[1::2]), atol=1e-5)
    np.testing.assert_allclose(np.stack(targets)[:, 0], model.task.targets(data["validation"].labels()))


def test_scores_are_read_off_the_line_with_the_least_squares():
    out = embeddings(80)
    truth = np.clip(0.5 + 0.3 * SCORES.cosines(out) + 0.05 * np.random.default_rng(1).normal(size=80), 0, 1)
    decision = SCORES.decide(out, asked_of(truth), 1.0)
    slope, offset = np.polyfit(SCORES.cosines(out), truth, 1)
    assert (1 / decision.temperature, decision.offsets[0]) == pytest.approx((slope, offset), rel=1e-4)
    first = SCORES.read(out, decision)[0]
    assert float(first.label) == pytest.approx(5 * (slope * SCORES.cosines(out)[0] + offset), rel=1e-3)
    assert (first.confidence, first.unsure, first.probabilities) == (None, False, {})


def test_a_score_stays_within_the_scale():
    far = [np.array([1.0, 0, 1, 0]), np.array([1.0, 0, -1, 0])]
    assert [p.label for p in SCORES.read(far, Decision(temperature=0.5))] == ["5", "0"]


def test_scores_of_scores_are_scipys():
    out, truth = embeddings(60), np.random.default_rng(2).integers(0, 6, 60) / 5
    cosine, scores = SCORES.cosines(out), SCORES.score(out, asked_of(truth), Decision())
    assert scores["spearman"] == pytest.approx(stats.spearmanr(cosine, truth).statistic)
    assert scores["pearson"] == pytest.approx(stats.pearsonr(cosine, truth).statistic, abs=1e-6)
    assert scores["loss"] == pytest.approx(np.mean((cosine - truth) ** 2), abs=1e-6)


@pytest.mark.parametrize("task", [SCORES, CLASSES], ids=["scores", "classes"])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_what_does_not_vary_scores_as_nothing_and_warns_nobody(task, truth):
    for out in (embeddings(5), [embeddings(1)[0]] * 5):
        scores = task.score(out, asked_of([truth] * 5), task.decide(out, asked_of([truth] * 5), 1.0))
        assert all(np.isfinite(value) for value in scores.values())
        assert scores.get("spearman", 0) == 0


def test_scores_of_classes_are_sklearns():
    out = embeddings(80)
    cosine = CLASSES.cosines(out)
    truth = (cosine + np.random.default_rng(3).normal(size=80) > 0.1).astype(float)
    decision = CLASSES.decide(out, asked_of(truth), 1.0)
    guess = cosine >= decision.threshold
    scores = CLASSES.score(out, asked_of(truth), decision)
    assert scores["average_precision"] == pytest.approx(average_precision_score(truth, cosine))
    assert scores["f1"] == pytest.approx(f1_score(truth, guess))
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert scores["f1"] == pytest.approx(max(f1_score(truth, cosine >= c) for c in cosine))
    p = np.array([each.probabilities["yes"] for each in CLASSES.read(out, decision)])
    assert scores["loss"] == pytest.approx(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))


def test_equal_cosines_are_on_one_side_of_the_threshold():
    one, other = np.array([1.0, 0, 0.8, 0.6]), np.array([1.0, 0, 0.6, 0.8])
    out, truth = [one, one, one, other, other], [1, 1, 0, 1, 0]
    decision = CLASSES.decide(out, asked_of(truth), 1.0)
    # 3 of 5 as similar: F1 = 4 / 6; all of them: 6 / 8
    assert decision.threshold == pytest.approx(0.6)
    assert CLASSES.score(out, asked_of(truth), decision)["f1"] == pytest.approx(0.75)


def test_probabilities_follow_platt_and_the_stated_share_is_sure():
    out = embeddings(200)
    cosine = CLASSES.cosines(out)
    truth = (np.random.default_rng(4).random(200) < 1 / (1 + np.exp(-(4 * cosine - 0.5)))).astype(float)
    decision = CLASSES.decide(out, asked_of(truth), 0.8)
    assert 1 / decision.temperature == pytest.approx(4, abs=1.5)
    assert np.mean([not p.unsure for p in CLASSES.read(out, decision)]) == pytest.approx(0.8, abs=0.01)

    def loss(line):
        logits = cosine * line[0] + line[1]
        high, low = (truth.sum() + 1) / (truth.sum() + 2), 1 / ((1 - truth).sum() + 2)
        return np.mean(np.logaddexp(0, logits) - np.where(truth == 1, high, low) * logits)

    best = (1 / decision.temperature, decision.offsets[0])
    near = [(best[0] + a, best[1] + b) for a, b in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1))]
    assert loss(best) < min(map(loss, near))


@pytest.mark.parametrize("task", [SCORES, CLASSES], ids=["scores", "classes"])
def test_what_a_race_adds_up_is_the_metric_that_chooses(task):
    out = embeddings(90)
    truth = np.clip(np.round(2.5 + 3 * task.cosines(out) + np.random.default_rng(5).normal(size=90)), 0, 5) / 5
    truth = truth if task.scored else np.round(truth)
    decision = task.decide(out, asked_of(truth), 1.0)
    low, high = task.scale if task.scored else (0, 1)
    given_ = [f"{low + t * (high - low):g}" if task.scored else task.labels[int(t)] for t in truth]
    answers = task.read(out, decision)
    chances = [list(p.probabilities.values()) for p in answers]
    tally = task.tally(given_, [p.label for p in answers], chances)
    expected = task.score(out, asked_of(truth), decision)[task.selection]
    assert float(task.tallied(tally.sum(axis=0))) == pytest.approx(expected, abs=1e-6)
    drawn = np.random.default_rng(6).integers(0, 90, (4, 90))
    assert task.tallied(tally[drawn].sum(axis=1)).shape == (4,)


# --- methods ---


def test_methods_that_train_by_the_tasks_loss_take_pairs_and_the_others_say_so(data):
    takes = {name for name in names(Method) if unmet(recipe_of(name), data) is None}
    assert {"full-fine-tuning", "top-layers", "lora", "bitfit", "gradual-unfreezing", "pretrained"} <= takes
    assert not {"linear-probe", "lower-layers", "siamese", "triplet", "side-network"} & takes
    said = unmet(recipe_of("linear-probe"), data)
    assert said == (
        "Method 'linear-probe' has no answer for pairs of texts, whose embeddings are compared. Choose one that trains "
        "the encoder, such as 'full-fine-tuning' or 'lora', or 'pretrained', which leaves it as it is."
    )
    assert "Method 'lora@mlp' has no answer for pairs" in unmet(recipe_of("lora@mlp"), data)
    assert unmet(recipe_of("lora@embedding"), data) is None
    assert "needs one class a text" in unmet(recipe_of("lora:class-weights"), data)


def test_the_head_for_pairs_is_refused_where_classes_are_asked():
    rows = [{"text": f"a{i}", "label": "xy"[i % 2]} for i in range(40)]
    assert "'embedding' cannot answer a classification" in unmet(recipe_of("lora@embedding"), Data.load(rows))


@pytest.mark.parametrize("method", [FullFineTuning(**STEPS), TopLayers(blocks=1, **STEPS), LoRA(**STEPS)])
def test_training_brings_what_is_alike_together(fitted, data, method):
    data = Data.load(pairs(scored=data.scored, rows=480))
    before = fitted(data, Pretrained(), out="before").metrics["validation"]
    after = fitted(data, method, budget="100steps").metrics["validation"]
    name = task_of(data).selection
    assert after[name] > before[name] + 0.05


def test_nothing_trains_where_the_encoder_is_left_as_it_is(fitted, data, tiny):
    run = fitted(data, Pretrained())
    (stage,) = run.happened["stages"]
    assert (stage["trained_parameters"], run.happened["stopped"]) == (0, "closed form")
    saved, plain = TransferModel.load(run.path / "model"), TransferModel.pretrained(tiny, task_of(data))
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), plain.state_dict().values(), strict=True))


def test_how_batches_are_split_changes_no_result(fitted, data, quick):
    found = [
        fitted(data, FullFineTuning(dropout=0.0, **STEPS), out=str(size), hardware=quick | {"max_tokens": size})
        for size in (8192, 50)
    ]
    scores = [run.metrics["validation"]["loss"] for run in found]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)
    losses = [[e["loss"] for e in run.events() if e["event"] == "step"] for run in found]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)


@pytest.mark.usefixtures("every_step_is_told")
def test_an_interrupted_run_ends_with_the_same_bits(fitted, data, tmp_path):
    def stop_at_nine(event):
        if event["event"] == "step" and event["step"] == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    kept = str(data.save(tmp_path / "data"))
    whole = fitted(kept, out="whole")
    with pytest.raises(Interrupted, match="Stopped at step 9"):
        fitted(kept, on_event=stop_at_nine)
    again = resume(tmp_path / "run")
    one, other = (load_file(run.path / "model" / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.metrics == whole.metrics


# --- a run ---


def test_a_run_is_saved_with_its_scale_and_says_the_same_again(fitted, data, tmp_path):
    run = fitted(str(data.save(tmp_path / "data")))
    model = TransferModel.load(run.path / "model")
    assert model.task == task_of(data)
    assert model.head_choice.name == "embedding"
    inputs = data["test"].inputs()
    answers = predict(run, inputs)
    assert answers == [p.as_dict() for p in model.predict(inputs)]
    metrics = evaluate(run)
    assert run.metrics["test"].keys() <= metrics.keys()
    table = run.predictions("test")
    assert table["prediction"].to_pylist() == [a["label"] for a in answers]
    assert table["input"].to_pylist()[0] == " | ".join(inputs[0])
    report = (run.path / "report.html").read_text()
    assert ("Spearman" in report) == data.scored
    assert ("mistakes it was surest of" in report) != data.scored
    assert run.data["labels"] == list(data.labels)


@pytest.mark.parametrize("inputs", [["one text"], [["one"]], [["one", "two", "three"]], [["one", 2]], [7]])
def test_what_is_no_pair_cannot_be_predicted(fitted, data, inputs):
    with pytest.raises(InputError, match=r"A similarity model reads pairs of texts\. Give each as a list of two"):
        predict(fitted(data, budget="1steps"), inputs)


def test_other_pairs_can_be_scored(fitted, data):
    run = fitted(data)
    other = pairs(scored=data.scored, seed=5)["test"]
    assert evaluate(run, other)["rows"] == len(other)


def test_methods_race_on_pairs(data, tiny, tmp_path, quick):
    methods = [Pretrained(), TopLayers(blocks=1, **STEPS)]
    race = compare(
        data, methods=methods, models=[tiny], seeds=2, budget="12steps", out=tmp_path / "race", hardware=quick
    )
    assert race.metric == task_of(data).selection
    assert {e["name"] for e in race.entries} == {"pretrained", "top-layers"}
    for entry in race.entries:
        tested = [run.metrics["test"][race.metric] for run in race.runs(entry["name"])]
        # the race reads answers, which end with the scale; the metric reads cosines
        assert entry["mean"] == pytest.approx(np.mean(tested), abs=0.02 if data.scored else 1e-6)
    assert not data.scored or "never-predicted" not in {f["code"] for f in race.findings}
    assert race.html().stat().st_size > 1000


# --- the command line ---


@pytest.fixture
def graft(capsys, monkeypatch):
    from graftwork.cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["graft", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def run(fitted, tmp_path):
    return fitted(written(pairs(scored=True), tmp_path / "pairs"), budget="1steps")


def test_pairs_are_typed_piped_and_read_from_files(graft, run, tmp_path, monkeypatch):
    one = predict(run, [["the team", "a coach"]])[0]
    code, out, _ = graft("predict", run.path, "the team", "a coach", "--json")
    assert code == 0
    assert json.loads(out)["predictions"] == [{"text": ["the team", "a coach"]} | one]
    assert f"→ {one['label']}\n" in graft("predict", run.path, "the team", "a coach")[1]
    (tmp_path / "few.txt").write_text("the team\ta coach\nx\ty\n")
    (tmp_path / "few.csv").write_text("text_b,text_a\na coach,the team\ny,x\n")
    (tmp_path / "other.csv").write_text("q,r\nthe team,a coach\nx,y\n")
    for words in (("few.txt",), ("few.csv",), ("other.csv", "--text", "q,r")):
        code, out, _ = graft("predict", run.path, tmp_path / words[0], *words[1:])
        assert code == 0
        assert out.splitlines()[1] == f"the team | a coach,{one['label']},,false"
    assert graft("predict", run.path, tmp_path / "few.csv", "--out", tmp_path / "out.jsonl")[0] == 0
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["text"] == ["the team", "a coach"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("one text",), "A model of pairs compares two texts; got 'one text'. Give a second text"),
        (("few.txt",), "compares two texts; got 'alone'"),
        (("few.csv",), "has no column 'text_b'; name the one to read with --text."),
        (("few.csv", "--text", "text_a"), "A model of pairs reads two columns; got text_a. Name them with --text A,B."),
        (("none.csv",), "There is no file 'none.csv'"),
    ],
)
def test_what_is_no_pair_exits_with_2_and_a_sentence(graft, run, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.txt").write_text("a\tb\nalone\n")
    (tmp_path / "few.csv").write_text("text_a,label\nx,3\n")
    code, _, err = graft("predict", run.path, *words)
    assert code == 2
    assert said in " ".join(err.split())


def test_a_second_text_is_refused_by_a_model_that_reads_one(graft, sources, tiny, tmp_path, quick):
    one = fit(sources["classification"], model=tiny, method="pretrained", out=tmp_path / "one", hardware=quick)
    code, _, err = graft("predict", one.path, "a goal", "another")
    assert code == 2
    assert "'another' is a second" in " ".join(err.split())


def test_the_doctor_and_the_fit_take_pairs_from_the_command_line(graft, run, tmp_path, tiny):
    code, out, _ = graft("check", tmp_path / "pairs", "--model", tiny, "--json")
    told = json.loads(out)
    assert (code, told["data"]["task"], told["data"]["text"]) == (0, "similarity", "text_a,text_b")
    assert told["ledger"] == {}
    code, _, err = graft(
        "fit", tmp_path / "pairs", "--model", tiny, "--method", "linear-probe", "--out", tmp_path / "no"
    )
    assert (code, "has no answer for pairs" in " ".join(err.split())) == (2, True)
    for verb in ("advise", "rank", "augment"):
        code, _, err = graft(verb, tmp_path / "pairs")
        assert code == 2, verb
        assert len(err.split()) > 5
