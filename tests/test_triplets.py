"""Triplets of texts: how they are read, made of pairs, trained on by every loss, scored, and asked for."""

from __future__ import annotations

import json
import math
import random
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional as F

from graftwork.check import check
from graftwork.choice import InputError, names
from graftwork.compare import compare
from graftwork.data import Data, DataError
from graftwork.evaluate import evaluate
from graftwork.examples import tokenised
from graftwork.fit import fit, predict
from graftwork.method import Method, recipe_of, unmet
from graftwork.methods import FullFineTuning, MultipleNegatives, Pretrained, Siamese, Triplet
from graftwork.model import TransferModel
from graftwork.search import recall_at_k
from graftwork.task import Decision
from graftwork.tasks import Triplets, task_of
from graftwork.testing import FILLER, KEYWORDS

TASK = Triplets(labels=("second", "first"))
STEPS = {"lr": 5e-3, "batch_size": 24}
Z = F.normalize(torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)), dim=-1)


def triplets(rows: int = 200, seed: int = 0) -> dict[str, list[dict[str, str]]]:
    """An anchor, a text of its topic, and one of another."""
    draw = random.Random(seed)

    def text(topic: str) -> str:
        words = draw.choices(FILLER, k=draw.randint(2, 9)) + draw.sample(KEYWORDS[topic], 2)
        return " ".join(draw.sample(words, len(words)))

    made = []
    for _ in range(rows):
        topic, other = draw.sample(sorted(KEYWORDS), 2)
        made.append({"anchor": text(topic), "positive": text(topic), "negative": text(other)})
    cut = [rows * 3 // 5, rows * 4 // 5]
    return {"train": made[: cut[0]], "validation": made[cut[0] : cut[1]], "test": made[cut[1] :]}


@pytest.fixture(scope="module")
def data():
    return Data.load(triplets())


@pytest.fixture
def fitted(tiny, tmp_path, quick):
    def run(data, method, *, out="run", budget="24steps"):
        given = budget if recipe_of(method)[0].gradient else None
        return fit(data, model=tiny, method=method, budget=given, out=tmp_path / out, hardware=quick)

    return run


def outputs_of(n: int, seed: int = 0) -> list[np.ndarray]:
    z = np.random.default_rng(seed).normal(size=(n, 3, 6))
    return list((z / np.linalg.norm(z, axis=2, keepdims=True)).reshape(n, 18))


def asked_of(n: int, nearer: float = 1.0) -> list[np.ndarray]:
    return [np.full(3, nearer, dtype=np.float32)] * n


# --- columns ---


@pytest.mark.parametrize(
    "columns", [("anchor", "positive", "negative"), ("Query", "pos", "neg"), ("question", "chosen", "rejected")]
)
def test_triplets_are_known_by_their_names_and_said(columns):
    rows = [dict(zip(columns, (f"a{i}", f"b{i}", f"c{i}"), strict=True)) | {"id": i} for i in range(40)]
    data = Data.load({"train": rows})
    assert (data.task, data.comparison, data.texts, data.labels) == ("similarity", "triplets", 3, ("second", "first"))
    assert data["train"].inputs([0])[0][0].startswith("a")
    assert set(data["train"].labels()) == {"first"}
    anchor, nearer, farther = map(repr, columns)
    said = f"Triplets: a text of {nearer} is to be nearer to the one of {anchor} than that of {farther} is."
    assert data.said[0] == said
    assert task_of(data) == TASK


def test_three_columns_asked_for_are_a_triplet_whatever_their_names():
    rows = [{"x": f"a{i}", "y": f"b{i}", "z": f"c{i}", "label": "mn"[i % 2]} for i in range(40)]
    data = Data.load({"train": rows}, text="z, x,y")
    assert data["train"].inputs([0])[0][0].startswith("c")
    assert (data.columns.text, data.columns.label) == ("z,x,y", "")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"label": "other"}, "Triplets have no label.*Leave label='other' out"),
        ({"positive": "first"}, "there is no label. Leave positive='first' out"),
        ({"text": "anchor,positive,nothing"}, "no column 'nothing'"),
        ({"text": "anchor,positive,negative", "task": "tagging"}, "A tagging task reads one column"),
    ],
)
def test_what_cannot_be_triplets_is_refused_in_a_sentence(options, match):
    rows = [row | {"other": "x"} for row in triplets()["train"]]
    with pytest.raises(InputError, match=match):
        Data.load({"train": rows}, **options)


def test_a_split_without_its_third_column_is_an_error():
    rows = triplets()
    rows["test"] = [{"anchor": row["anchor"], "positive": row["positive"]} for row in rows["test"]]
    with pytest.raises(DataError, match="no column 'negative', which train has"):
        Data.load(rows)


def test_triplets_load_again_from_their_source_and_from_their_folder(data, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, part in triplets().items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    read = Data.load(folder)
    for other in (Data.load(**read.source), Data.open(data.save(tmp_path / "saved"))):
        assert (other.fingerprint, other.comparison, other.labels) == (data.fingerprint, "triplets", data.labels)


# --- pairs without a label ---


def test_pairs_without_a_label_get_a_text_of_another_row():
    rows = [{"anchor": f"a{i}", "positive": f"b{i}"} for i in range(60)]
    data = Data.load({"train": rows})
    assert (data.comparison, data.texts) == ("triplets", 3)
    assert "another row's, drawn at random" in data.said[0]
    for split in data.splits.values():
        own = {second for _, second, _ in split.inputs()}
        assert all(third in own - {second} for _, second, third in split.inputs()), "of its own split, not its own"
    assert Data.load({"train": rows}).fingerprint == data.fingerprint
    assert Data.load({"train": rows}, seed=1).fingerprint != data.fingerprint


def test_pairs_with_a_further_column_still_ask_for_their_label():
    rows = [{"anchor": f"a{i}", "positive": f"b{i}", "where": f"page {i}"} for i in range(60)]
    with pytest.raises(DataError, match="Say which: --label NAME"):
        Data.load({"train": rows})


# --- the doctor ---


def test_the_doctor_has_nothing_to_say_of_good_triplets():
    assert not {f.code for f in check(triplets(600), model=None).findings} - {"small-test", "near-overlap"}


def test_the_doctor_finds_what_says_nothing_and_what_contradicts():
    rows = triplets()
    first, second = rows["train"][0], rows["train"][1]
    rows["train"][2] |= {"negative": rows["train"][2]["positive"].upper()}
    rows["train"][3] |= {"anchor": " "}
    rows["train"][4] |= {"negative": rows["train"][4]["anchor"]}
    rows["train"].append({"anchor": first["anchor"], "positive": first["negative"], "negative": first["positive"]})
    rows["train"].append(second)
    found = {f.code: f.rows for f in check(rows, model=None).findings}
    assert found["triplet-without-choice"] == (3, 5)
    assert found["contradicting-triplets"] == (1, 121)
    assert found["empty-text"] == (4,)
    assert found["duplicates"] == (122,)


# --- the losses ---


def test_the_tasks_loss_is_the_margin_ranking_loss_of_cosines():
    by_torch = F.margin_ranking_loss(
        (Z[:, 0] * Z[:, 1]).sum(1), (Z[:, 0] * Z[:, 2]).sum(1), torch.ones(4), margin=TASK.margin
    )
    torch.testing.assert_close(TASK.loss(Z.flatten(0, 1), torch.ones(12)), by_torch)
    turned = Z[:, [0, 2, 1]].flatten(0, 1)
    torch.testing.assert_close(TASK.loss(turned, torch.zeros(12)), by_torch)
    with pytest.raises(AssertionError, match="torn apart"):
        TASK.asked(torch.zeros(4, 2), torch.zeros(4))


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("hinge", lambda a, p, n: max(0.0, (a - p).norm() - (a - n).norm() + 0.4)),
        ("softmax", lambda a, p, n: -math.log(
            math.exp(-(a - p).norm()) / (math.exp(-(a - p).norm()) + math.exp(-(a - n).norm()))
        )),
        ("ranking", lambda a, p, n: max(0.0, a @ n - a @ p + 0.4)),
    ],
)  # fmt: skip
def test_triplets_that_are_given_by_hand(loss, of):
    expected = np.mean([float(of(*row)) for row in Z])
    assert float(Triplet(loss=loss, margin=0.4).told(Z, torch.ones(4))) == pytest.approx(expected, abs=1e-5)


def test_hinge_is_torchs_triplet_margin_loss():
    by_torch = F.triplet_margin_loss(*Z.unbind(1), margin=0.3, eps=0)
    torch.testing.assert_close(Triplet().told(Z, torch.ones(4)), by_torch, atol=1e-5, rtol=0)


def test_pairs_that_are_given_by_hand():
    alike = torch.tensor([1.0, 0.0, 0.25, 1.0])
    cosine = (Z[:, 0] * Z[:, 1]).sum(1)
    torch.testing.assert_close(Siamese().told(Z[:, :2], alike), F.mse_loss(cosine, alike))
    apart = (Z[:, 0] - Z[:, 1]).norm(dim=1)
    each = (alike * apart**2 + (1 - alike) * (1.5 - apart).clamp(min=0) ** 2) / 2
    found = Siamese(loss="contrastive", margin=1.5).told(Z[:, :2], alike)
    torch.testing.assert_close(found, each.mean(), atol=1e-5, rtol=0)
    other = (Z[:, 0] * Z[:, 2]).sum(1)
    of_triplets = ((cosine - 1).square().mean() + other.square().mean()) / 2
    torch.testing.assert_close(Siamese().told(Z, torch.ones(4)), of_triplets)


def test_multiple_negatives_that_are_given_by_hand():
    def found(one, texts, right):
        scores = [math.exp(20 * float(one @ text)) for text in texts]
        return -math.log(scores[right] / sum(scores))

    nearer, every = [row[1] for row in Z], [row[1] for row in Z] + [row[2] for row in Z]
    there = np.mean([found(row[0], every, i) for i, row in enumerate(Z)])
    back = np.mean([found(text, [row[0] for row in Z], i) for i, text in enumerate(nearer)])
    one_way, both = MultipleNegatives(symmetric=False), MultipleNegatives()
    assert float(one_way.told(Z, torch.ones(4))) == pytest.approx(there, abs=1e-4)
    assert float(both.told(Z, torch.ones(4))) == pytest.approx((there + back) / 2, abs=1e-4)
    pairs = np.mean([found(row[0], nearer, i) for i, row in enumerate(Z)])
    assert float(one_way.told(Z[:, :2], torch.ones(4))) == pytest.approx(pairs, abs=1e-4)


def test_multiple_negatives_learn_from_the_pairs_that_are_alike_alone(tiny):
    draw = random.Random(0)
    rows = [
        {"text_a": draw.choice(FILLER), "text_b": draw.choice(FILLER), "label": "ny"[i % 3 == 0]} for i in range(60)
    ]
    data = Data.load({"train": rows, "validation": rows}, positive="y")
    model = TransferModel.pretrained(tiny, task_of(data))
    train = tokenised(data, "train", model.task, model.modality)
    objective = MultipleNegatives(batch_size=8).objective(model, train, [])
    seen = np.concatenate(objective.batches((0,)))
    assert sorted(seen.tolist()) == [i for i in range(120) if i // 2 % 3 == 0]
    assert objective.steps_per_epoch == len(objective.batches((0,))) == 5
    everything = Siamese(batch_size=8).objective(model, train, [])
    assert len(np.concatenate(everything.batches((0,)))) == 120


# --- windows, batches, answers ---


def test_a_triplet_is_three_windows_that_stay_together(data, tiny):
    model = TransferModel.pretrained(tiny, TASK)
    examples = tokenised(data, "train", TASK, model.modality)
    assert (examples.together, len(examples), examples.rows) == (3, 360, 120)
    batches = examples.shuffled(16, (0,))
    assert sorted(np.concatenate(batches).tolist()) == list(range(360))
    assert len(batches) == -(-360 // 16)
    assert all((batch.reshape(-1, 3) == batch[::3, None] + np.arange(3)).all() for batch in batches)


def test_scores_are_counted_by_hand():
    out = outputs_of(40)
    z = np.stack(out).reshape(40, 3, 6)
    difference = [float(a @ p - a @ n) for a, p, n in z]
    decision = TASK.decide(out, asked_of(40), 1.0)
    scores = TASK.score(out, asked_of(40), decision)
    assert scores["accuracy"] == np.mean([d > 0 for d in difference])
    ranked = [np.argsort(-z[:, 1] @ anchor).tolist() for anchor in z[:, 0]]
    for k in (1, 10):
        assert scores[f"recall_at_{k}"] == recall_at_k(ranked, [{i} for i in range(40)], k)
    answers = TASK.read(out, decision)
    assert [a.label for a in answers] == ["first" if d > 0 else "second" for d in difference]
    p = [[a.probabilities["second"], a.probabilities["first"]] for a in answers]
    assert scores["loss"] == pytest.approx(log_loss([1] * 40, p, labels=[0, 1]), abs=1e-6)
    tally = TASK.tally(["first"] * 40, [a.label for a in answers])
    assert TASK.tallied(tally.sum(axis=0)) == scores["accuracy"]


def test_an_order_that_is_turned_round_is_as_wrong_as_it_was_right():
    out = outputs_of(40)
    right, wrong = (TASK.score(out, asked_of(40, nearer), Decision()) for nearer in (1.0, 0.0))
    assert right["accuracy"] + wrong["accuracy"] == 1
    ranked = [np.argsort(-np.stack(out).reshape(40, 3, 6)[:, 2] @ o[:6]).tolist() for o in out]
    assert wrong["recall_at_10"] == recall_at_k(ranked, [{i} for i in range(40)], 10)


def test_how_sure_it_is_follows_how_often_it_is_right_and_the_stated_share_is_sure():
    generator = np.random.default_rng(0)
    signed = generator.uniform(-1, 1, 4000)
    keep = generator.random(4000) < 1 / (1 + np.exp(-5 * signed))  # right with this chance, by how far apart
    first = np.stack([np.ones(4000), np.zeros(4000)], 1)
    near = np.where(keep, abs(signed), -abs(signed))
    one = np.stack([near, np.sqrt(1 - near**2)], 1)
    out = list(np.concatenate([first, one, np.tile([0.0, 1.0], (4000, 1))], axis=1))
    out, n = [o for o, s in zip(out, signed, strict=True) if s > 0], int((signed > 0).sum())
    decision = TASK.decide(out, asked_of(n), 0.8)
    assert 1 / decision.temperature == pytest.approx(5, rel=0.15)
    assert np.mean([not p.unsure for p in TASK.read(out, decision)]) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("copies", [1, 5])
def test_texts_that_are_the_same_are_not_in_order_and_warn_nobody(copies):
    out = [np.tile([0.6, 0.8], 3)] * copies
    decision = TASK.decide(out, asked_of(copies), 1.0)
    scores = TASK.score(out, asked_of(copies), decision)
    assert (scores["accuracy"], scores["recall_at_1"]) == (0.0, 1.0)
    assert all(np.isfinite(value) for value in scores.values())
    assert TASK.read(out, decision)[0].label == "second"


# --- methods ---


def test_methods_say_what_they_learn_from(data):
    takes = {name for name in names(Method) if unmet(recipe_of(name), data) is None}
    assert {"full-fine-tuning", "lora", "pretrained", "siamese", "triplet", "multiple-negatives"} <= takes
    assert not {"linear-probe", "supervised-contrastive", "side-network"} & takes
    assert "has no answer for triplets of texts" in unmet(recipe_of("linear-probe"), data)
    pairs = Data.load([{"text_a": f"a{i}", "text_b": f"b{i}", "score": str(i % 7)} for i in range(60)])
    assert "'triplet' learns from triplets; these are pairs with scores." in unmet(recipe_of("triplet"), pairs)
    assert "learns from classes or triplets; these" in unmet(recipe_of("multiple-negatives"), pairs)
    assert "needs one class a text" in unmet(recipe_of("triplet:class-weights"), data)


@pytest.mark.parametrize(
    "method",
    [
        FullFineTuning(**STEPS),
        *(Triplet(loss=loss, **STEPS) for loss in ("hinge", "softmax", "ranking")),
        MultipleNegatives(**STEPS),
        Siamese(**STEPS),
        Siamese(loss="contrastive", **STEPS),
    ],
    ids=lambda method: f"{method.name}-{getattr(method, 'loss', '')}",
)
def test_every_loss_brings_what_is_alike_together(fitted, data, method):
    before = fitted(data, Pretrained(), out="before").metrics["validation"]
    after = fitted(data, method, budget="100steps").metrics["validation"]
    assert after["accuracy"] > before["accuracy"] + 0.05
    assert after["recall_at_10"] > before["recall_at_10"]


@pytest.mark.parametrize("scored", [True, False])
def test_siamese_learns_from_pairs_as_the_task_does(scored, tiny, tmp_path, quick):
    rows = triplets(300)
    pairs = {
        name: [
            {"text_a": row["anchor"], "text_b": row[of], "label": label}
            for row in part
            for of, label in (("positive", "5" if scored else "yes"), ("negative", "0" if scored else "no"))
        ]
        for name, part in rows.items()
    }
    if scored:
        pairs["train"][0] |= {"label": "2.5"}
    data = Data.load(pairs)
    metric = task_of(data).selection
    before = fit(data, model=tiny, method="pretrained", out=tmp_path / "a", hardware=quick)
    after = fit(data, model=tiny, method=Siamese(**STEPS), budget="100steps", out=tmp_path / "b", hardware=quick)
    assert after.metrics["validation"][metric] > before.metrics["validation"][metric] + 0.05


# --- a run ---


def test_a_run_on_triplets_is_saved_and_says_the_same_again(fitted, data, tmp_path):
    run = fitted(str(data.save(tmp_path / "data")), Triplet(**STEPS))
    model = TransferModel.load(run.path / "model")
    assert model.task == TASK
    inputs = data["test"].inputs()
    answers = predict(run, inputs)
    assert answers == [p.as_dict() for p in model.predict(inputs)]
    assert evaluate(run)["accuracy"] == np.mean([a["label"] == "first" for a in answers])
    assert run.predictions("test")["input"].to_pylist()[0] == " | ".join(inputs[0])
    report = (run.path / "report.html").read_text()
    assert "similarity, triplets" in report
    assert "recall at 10" in report
    with pytest.raises(InputError, match=r"A model of triplets reads three texts.*Give each as a list of three"):
        predict(run, [["one", "two"]])


def test_methods_race_on_triplets(data, tiny, tmp_path, quick):
    race = compare(
        data, methods=[Pretrained(), Triplet(**STEPS)], models=[tiny], seeds=2, budget="12steps",
        out=tmp_path / "race", hardware=quick,
    )  # fmt: skip
    assert race.metric == "accuracy"
    for entry in race.entries:
        tested = [run.metrics["test"]["accuracy"] for run in race.runs(entry["name"])]
        assert entry["mean"] == pytest.approx(np.mean(tested))
    assert race.html().stat().st_size > 1000


# --- the command line ---


def test_triplets_are_typed_and_read_from_files(fitted, data, tmp_path, capsys, monkeypatch):
    from graftwork.cli import main

    def graft(*words):
        monkeypatch.setattr(sys, "argv", ["graft", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    run = fitted(data, Pretrained()).path
    label = predict(run, [["the team", "a coach", "a bank"]])[0]["label"]
    assert f"→ {label}" in graft("predict", run, "the team", "a coach", "a bank")[1]
    (tmp_path / "few.txt").write_text("the team\ta coach\ta bank\nx\ty\tz\n")
    (tmp_path / "few.csv").write_text("negative,anchor,positive\na bank,the team,a coach\nz,x,y\n")
    for name in ("few.txt", "few.csv"):
        code, out, _ = graft("predict", run, tmp_path / name)
        assert code == 0
        assert out.splitlines()[1].startswith(f"the team | a coach | a bank,{label},")
    for words in (("the team",), ("the team", "a coach"), (tmp_path / "few.csv", "--text", "anchor,positive")):
        code, _, err = graft("predict", run, *words)
        assert code == 2
        assert "A model of triplets" in " ".join(err.split())
