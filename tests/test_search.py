"""search finds what is nearest, exactly, and embeds a collection once."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from graftwork.choice import InputError
from graftwork.fit import fit
from graftwork.model import TransferModel
from graftwork.search import embedded, nearest, recall_at_k, search
from graftwork.testing import KEYWORDS, learnable

SEARCH = importlib.import_module("graftwork.search")
CORPUS = [row["text"] for row in learnable("classification")["test"]]


@pytest.fixture(scope="module")
def run(sources, tiny, tmp_path_factory):
    """A finished run of each kind of task, made once."""
    made = {}

    def get(kind="classification", method="full-fine-tuning"):
        if kind not in made:
            out = tmp_path_factory.mktemp("search") / kind
            hardware = {"device": "cpu", "precision": "fp32"}
            made[kind] = fit(sources[kind], model=tiny, method=method, budget="4steps", out=out, hardware=hardware)
        return made[kind]

    return get


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))


@given(
    st.integers(1, 40), st.integers(0, 5), st.integers(1, 50), st.integers(1, 60), st.booleans(), st.integers(0, 2**16)
)
def test_nearest_is_a_full_sort(texts, queries, top, at_once, tied, seed):
    draw = np.random.default_rng(seed)
    corpus, asked = (draw.normal(size=(n, 3)).astype(np.float32) for n in (texts, queries))
    if tied:
        corpus, asked = np.sign(corpus), np.sign(asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SEARCH, "_AT_ONCE", at_once)
        found = nearest(asked, corpus, top)
    for query, (rows, scores) in zip(asked, found, strict=True):
        products = corpus @ query
        assert len(rows) == min(top, texts)
        np.testing.assert_allclose(scores, np.sort(products)[::-1][:top], rtol=1e-5)
        np.testing.assert_allclose(products[rows], scores, rtol=1e-5)
        if tied:  # sums of whole numbers are exact, so the order is settled
            assert rows.tolist() == np.argsort(-products, kind="stable")[:top].tolist()


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_any_model_finds_a_text_itself_first(run, kind):
    for row, hits in zip((3, 11), search(run(kind), [CORPUS[3], CORPUS[11]], CORPUS, top=3), strict=True):
        assert (hits[0].row, hits[0].text) == (row, CORPUS[row])
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_embeddings_are_pooled_at_unit_length_whatever_the_company(run):
    model = TransferModel.load(run().path / "model")
    found = embedded(model, CORPUS)
    with torch.no_grad():
        for row in (0, 7):
            alone = model.embed(model.modality.collate(model.modality.encode([CORPUS[row]])))
            np.testing.assert_allclose(found[row], F.normalize(alone, dim=1)[0], atol=1e-5)


def test_a_collection_is_embedded_once_for_each_model_and_text(run, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(SEARCH, "embedded", lambda model, texts: calls.append(len(texts)) or embedded(model, texts))
    first = search(run(), ["a goal"], CORPUS)
    assert search(run(), ["a goal"], CORPUS) == first
    assert calls == [1, len(CORPUS), 1] or calls == [len(CORPUS), 1, 1]
    search(run(), [], CORPUS[:-1])
    search(run("tagging"), [], CORPUS)
    assert calls[-4:].count(len(CORPUS) - 1) == 1
    assert calls.count(len(CORPUS)) == 2
    assert len(list((tmp_path / "cache" / "collections").iterdir())) == 3


def test_the_least_recently_used_collections_make_room(run, tmp_path, monkeypatch):
    monkeypatch.setattr(SEARCH, "COLLECTIONS", 2)
    for size in (2, 3, 2, 4):
        search(run(), ["a goal"], CORPUS[:size])
    kept = (tmp_path / "cache" / "collections").glob("*/embeddings.npy")
    assert sorted(len(np.load(file)) for file in kept) == [2, 4]


def test_what_was_fitted_on_topics_finds_texts_of_the_topic(sources, tiny, tmp_path, quick):
    trained = fit(
        sources["classification"], model=tiny, method={"full-fine-tuning": {"lr": 5e-3, "batch_size": 16}},
        budget="40steps", out=tmp_path / "run", hardware=quick,
    )  # fmt: skip
    rows = learnable("classification")["test"]
    found = search(trained, [" ".join(words) for words in KEYWORDS.values()], [row["text"] for row in rows], top=5)
    right = [rows[hit.row]["label"] == topic for topic, hits in zip(KEYWORDS, found, strict=True) for hit in hits]
    assert np.mean(right) > 0.8


# --- recall ---


def test_recall_by_hand():
    found, relevant = [[4, 2, 9], [1, 0, 3], [7, 8, 5]], [{2}, {1, 3}, {6}]
    assert recall_at_k(found, relevant, 1) == pytest.approx((0 + 1 / 2 + 0) / 3)
    assert recall_at_k(found, relevant, 3) == pytest.approx((1 + 1 + 0) / 3)


@pytest.mark.parametrize(
    ("found", "relevant", "match"),
    [([[1]], [set()], "has no relevant text"), ([[1]], [], "1 searches and 0 lists"), ([], [], "0 searches")],
)
def test_recall_of_nothing_is_refused(found, relevant, match):
    with pytest.raises(InputError, match=match):
        recall_at_k(found, relevant, 1)


# --- what cannot be searched, and the command line ---


@pytest.mark.parametrize(
    ("queries", "corpus", "top", "match"),
    [(["a"], ["b"], 0, "from 1 on; got 0"), ("a", ["b"], 1, "lists of texts"), (["a"], [], 1, "has no texts")],
)
def test_what_cannot_be_searched_is_refused(run, queries, corpus, top, match):
    with pytest.raises(InputError, match=match):
        search(run(), queries, corpus, top=top)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a run|no run"):
        search(tmp_path, ["a"], ["b"])


@pytest.fixture
def graft(capsys, monkeypatch):
    from graftwork.cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["graft", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call


def test_lines_and_columns_are_searched_from_the_command_line(graft, run, tmp_path):
    (tmp_path / "faq.txt").write_text("\n".join(CORPUS))
    (tmp_path / "faq.csv").write_text("id,line\n" + "".join(f"{i},{text}\n" for i, text in enumerate(CORPUS)))
    for words in (("faq.txt",), ("faq.csv", "--text", "line")):
        code, out, _ = graft("search", run().path, CORPUS[5], tmp_path / words[0], *words[1:], "--top", 2, "--json")
        (found,) = json.loads(out)["queries"]
        assert (code, found["query"], found["hits"][0]["row"]) == (0, CORPUS[5], 5)
        assert len(found["hits"]) == 2
    code, out, _ = graft("search", run().path, CORPUS[5], tmp_path / "faq.txt")
    assert (code, out.splitlines()[0], out.splitlines()[1]) == (0, CORPUS[5], f"  1.000  {CORPUS[5]}")


@pytest.mark.parametrize(
    ("words", "said"),
    [(("x", "none.txt"), "There is no file 'none.txt'"), (("x", "a.csv", "--text", "no"), "has no column 'no'")],
)
def test_a_wrong_corpus_exits_with_2_and_a_sentence(graft, run, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("q,r\nx,y\n")
    code, _, err = graft("search", run().path, *words)
    assert code == 2
    assert said in " ".join(err.split())
