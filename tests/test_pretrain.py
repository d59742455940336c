"""Pretraining: what is asked of plain text, how a corpus is cut, and that a base is what it says."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from graftwork.choice import InputError
from graftwork.corpus import Corpus, train_tokenizer, windows
from graftwork.extension import extend
from graftwork.fill import fill
from graftwork.generate import generate
from graftwork.language import kind_of, language_model, opened, pieces_of, save_language_model
from graftwork.material import token_flops
from graftwork.methods.pretraining import Pretraining, answered
from graftwork.model import TransferModel
from graftwork.models import LANGUAGE_MODELS, resolve
from graftwork.perplexity import perplexity
from graftwork.pretext import Pieces, Posed, chosen, groups_of, passages
from graftwork.pretexts.causal import Causal
from graftwork.pretexts.denoising import Denoising, runs, shuffled
from graftwork.pretexts.masked import Masked
from graftwork.pretexts.permuted import Permuted
from graftwork.pretrain import pretrain
from graftwork.resume import resume
from graftwork.testing import tiny_model
from graftwork.work import Interrupted

ANIMALS, VERBS, THINGS = (
    ("cat", "dog", "bird", "horse"),
    ("sees", "likes", "finds"),
    ("milk", "bread", "water", "grass"),
)
SETTINGS: dict[str, Any] = {
    "size": "tiny", "pieces": 400, "length": 16, "batch_size": 16, "hardware": {"device": "cpu", "precision": "fp32"},
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of a grammar: much of each is told by the rest."""
    luck = random.Random(0)
    folder = tmp_path_factory.mktemp("corpus")
    for name, count in (("train", 1500), ("validation", 200)):
        lines = [
            f"the {luck.choice(ANIMALS)} {luck.choice(VERBS)} the {luck.choice(THINGS)} and goes home again ."
            for _ in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A masked base that has learned something."""
    return pretrain(corpus, budget="700steps", lr=2e-3, out=tmp_path_factory.mktemp("runs") / "base", **SETTINGS)


@pytest.fixture(scope="module")
def writer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A causal base that has learned something."""
    out = tmp_path_factory.mktemp("runs") / "writer"
    return pretrain(corpus, objective="causal", budget="150steps", lr=3e-3, out=out, **SETTINGS)


PIECES = Pieces(
    100, torch.arange(100) < 5, torch.arange(100) % 3 == 0, torch.arange(100) % 10 == 9, mask_id=4, segments=2
)


def some_ids(rows: int = 64, length: int = 40) -> torch.Tensor:
    ids = torch.randint(5, 100, (rows, length))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids


# --- what is asked ---


def test_gaps_have_the_proportions_of_bert():
    torch.manual_seed(0)
    ids = some_ids(4000)
    posed = Masked().posed(ids, PIECES)
    assert (posed.asked.sum(dim=1) == round(0.15 * 38)).all()  # of 40 pieces two are special
    assert not (posed.asked & PIECES.special[ids]).any()
    assert torch.equal(posed.answers, ids[posed.asked])
    shown, count = posed.inputs["input_ids"], int(posed.asked.sum())
    assert torch.equal(shown[~posed.asked], ids[~posed.asked])
    hidden = float((shown[posed.asked] == 4).float().mean())
    kept = float((shown[posed.asked] == posed.answers).float().mean())
    five_sd = 5 * (0.8 * 0.2 / count) ** 0.5
    assert abs(hidden - (0.8 + 0.1 / 100)) < five_sd  # a random piece may be the mask
    assert abs(kept - (0.1 + 0.1 / 100)) < five_sd


def test_gaps_are_drawn_anew_each_time():
    torch.manual_seed(0)
    ids = some_ids()
    first, second = (Masked().posed(ids, PIECES).asked for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    some_ids()
    assert torch.equal(Masked().posed(ids, PIECES).asked, first)


@pytest.mark.parametrize("unit", ["word", "span"])
def test_whole_units_are_chosen_but_for_the_last(unit: str):
    torch.manual_seed(0)
    ids = some_ids()
    groups = groups_of(ids, PIECES, unit, 3.8)
    asked = chosen(ids, PIECES, 0.3, groups)
    partly = 0
    for row in range(len(ids)):
        for group in groups[row].unique():
            members = asked[row][(groups[row] == group) & ~PIECES.special[ids[row]]]
            partly += bool(members.any() and not members.all())
    assert partly <= len(ids)  # one a row at most
    assert (groups.diff(dim=1) >= 0).all()


def test_a_word_begins_where_no_piece_goes_on():
    ids = torch.tensor([[7, 9, 10, 12, 15, 16]])  # multiples of three go on
    assert groups_of(ids, PIECES, "word", 1).tolist() == [[0, 0, 1, 1, 1, 2]]


def test_runs_have_the_length_that_is_asked():
    torch.manual_seed(0)
    groups = groups_of(some_ids(200, 400), PIECES, "span", 5.0)
    assert 400 / float((groups[:, -1] + 1).float().mean()) == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize(("architecture", "pretext"), [("bert", Masked()), ("roberta", Masked()), ("gpt2", Causal())])
def test_the_loss_is_that_of_transformers(architecture: str, pretext: Any, tmp_path: Path):
    folder = tiny_model(tmp_path / architecture, architecture, language_model=True)
    auto = getattr(transformers, LANGUAGE_MODELS[pretext.kind])
    whole = auto.from_pretrained(folder).eval()
    compared(
        language_model(folder, pretext.kind), whole, pretext,
        lambda ids, posed: ids if pretext.name == "causal" else ids.masked_fill(~posed.asked, -100),
    )  # fmt: skip


def compared(model: TransferModel, whole: Any, pretext: Any, labels: Callable[[torch.Tensor, Posed], torch.Tensor]):
    """Our loss is that of the network which `transformers` reads, given these labels for ids and what is asked."""
    pieces = pieces_of(model.eval())
    torch.manual_seed(0)
    ids = torch.randint(8, pieces.count, (6, 12))
    torch.manual_seed(1)
    posed = pretext.posed(ids, pieces)
    torch.manual_seed(1)
    found = answered(model, pretext, ids, pieces)
    theirs = whole(**posed.inputs, labels=labels(ids, posed)).loss
    assert F.cross_entropy(found.logits, found.answers).item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.usefixtures("every_step_is_told")
@pytest.mark.parametrize("pretext", [Permuted(), Denoising()])
def test_a_base_is_made_and_the_loss_is_that_of_transformers(pretext: Any, corpus: Path, tmp_path: Path):
    run = pretrain(corpus, objective=pretext, budget="60steps", lr=2e-3, out=tmp_path / "run", **SETTINGS)
    losses = [event["loss"] for event in run.events() if event["event"] == "step"]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.6 * losses[0]
    assert kind_of(run.path / "model") == pretext.kind
    whole = getattr(transformers, LANGUAGE_MODELS[pretext.kind]).from_pretrained(run.path / "model").eval()
    compared(opened(run.path, pretext.kind), whole, pretext, lambda ids, posed: posed.answers.view(len(ids), -1))
    for asks, kind in ((fill, "masked"), (generate, "causal")):
        with pytest.raises(InputError, match=f"not a {kind} language model; it is a base to fit a task on"):
            asks(["the [MASK]"], model=run.path)
    assert perplexity(corpus / "validation.jsonl", model=run.path)["objective"] == pretext.kind


def test_an_objective_that_does_not_suit_the_model_is_refused(corpus: Path, tmp_path: Path):
    writes = tiny_model(tmp_path / "gpt2", "gpt2", language_model=True)
    for objective, says in (
        ("permuted", "from left to right"),
        ("denoising", "as a sequence-to-sequence language model"),
    ):
        with pytest.raises(InputError, match=says):
            pretrain(corpus, objective=objective, model=writes, budget="1steps", out=tmp_path / objective, **SETTINGS)


def test_what_is_asked_sees_the_text_and_what_was_told_before():
    torch.manual_seed(0)
    ids = some_ids(200)
    posed = Permuted().posed(ids, PIECES)
    asked = posed.inputs["target_mapping"].sum(dim=1).bool()
    assert (asked.sum(dim=1) == round(38 / 6)).all()
    assert torch.equal(posed.answers, ids[asked])
    unseen = posed.inputs["perm_mask"].bool()
    assert not unseen[:, :, ~asked.any(dim=0)].any()
    for row in range(len(ids)):
        assert not unseen[row][:, ~asked[row]].any()  # the text that is not asked is seen by all
        among = unseen[row][asked[row]][:, asked[row]]
        assert sorted(among.sum(dim=1).tolist()) == list(range(1, len(among) + 1))  # an order: the first sees none
        assert among.diagonal().all()
        assert unseen[row][~asked[row]][:, asked[row]].all()


def test_a_text_is_damaged_by_runs_and_in_the_order_of_its_sentences():
    torch.manual_seed(0)
    ids = some_ids(300)
    posed = Denoising(share=0.3, mean_span=3).posed(ids, PIECES)
    shown, gone, count = posed.inputs["input_ids"], round(0.3 * 38), round(round(0.3 * 38) / 3)
    assert shown.shape == (300, 40 - gone + count)
    assert (shown == 4).sum(dim=1).tolist() == [count] * 300
    assert not ((shown[:, 1:] == 4) & (shown[:, :-1] == 4)).any()
    assert torch.equal(posed.answers, ids.flatten())
    assert torch.equal(posed.inputs["decoder_input_ids"][:, 1:], ids[:, :-1])
    whole = Denoising(share=0.01, mean_span=1).posed(ids, PIECES).inputs["input_ids"]
    missing = [sorted(set(row.tolist()) - set(seen.tolist())) for row, seen in zip(ids, whole, strict=True)]
    assert max(map(len, missing)) == 1
    lengths = torch.cat([runs(torch.zeros(1000, 30, dtype=torch.int64), 0.3, 3.0).sum(dim=1), torch.tensor([9])])
    assert lengths.unique().tolist() == [9]


def test_sentences_are_shuffled_and_whole():
    torch.manual_seed(0)
    ids = torch.tensor([[10, 11, 19, 20, 29, 30, 31, 32, 39, 40]]).expand(500, -1)  # nine at the end closes
    mixed = ids.gather(1, shuffled(ids, PIECES)).tolist()
    sentences = [[10, 11, 19], [20, 29], [30, 31, 32, 39], [40]]
    every = {tuple(itertools.chain(*order)) for order in itertools.permutations(sentences)}
    assert {tuple(row) for row in mixed} == every


@pytest.mark.parametrize("relation", ["next", "order"])
def test_half_of_the_passages_do_not_follow_one_another(relation: Any):
    torch.manual_seed(0)
    ids = torch.arange(5, 95).repeat(4000)[: 2000 * 40].view(2000, 40)  # what follows is one more
    ids = torch.cat([torch.full((2000, 1), 2), ids, torch.full((2000, 1), 3)], dim=1)
    joined, of, apart = passages(ids, PIECES, relation)
    size = 3 * 40 // 8
    assert joined.shape == (2000, 2 * size + 3)
    assert float(apart.float().mean()) == pytest.approx(0.5, abs=5 * 0.5 / 2000**0.5)
    first, second = joined[:, 1 : size + 1], joined[:, size + 2 : -1]
    follows = (first[:, -1] - 4) % 90 + 5 == second[:, 0]
    assert follows[apart == 0].all()
    assert not follows[apart == 1].any() or relation == "next"
    assert PIECES.closes[first[apart == 0, -1]].float().mean() > 0.9  # they meet where a sentence ends
    assert (joined[:, [0, size + 1, -1]] == torch.tensor([2, 3, 3])).all()
    assert of.sum(dim=1).tolist() == [size + 1] * 2000
    alone = passages(ids[:1], PIECES, relation)
    assert relation == "order" or alone[2].tolist() == [0]


def test_table_and_head_that_are_tied_train_as_one(tmp_path: Path):
    model = language_model(tiny_model(tmp_path / "bert", "bert", language_model=True), "masked")
    groups = Pretraining().param_groups(model)
    weights = [id(p) for group in groups for p in group.parameters]
    assert len(weights) == len(set(weights)) == len(list(model.parameters()))
    decoder = model.head.network.get_output_embeddings()  # type: ignore[union-attr]
    assert decoder.weight is model.encoder.get_input_embeddings().weight  # type: ignore[operator]


# --- a corpus ---


def test_windows_are_the_text_and_nothing_else(corpus: Path, base: Any):
    model = language_model(base.path / "model", "masked")
    found = windows(Corpus(corpus), "validation", model, 16)
    ids = np.asarray(found.ids).reshape(-1, 16)
    start, end = ids[0, 0], ids[0, -1]
    assert (ids[:, 0] == start).all()
    assert (ids[:, -1] == end).all()
    lines = [json.loads(line)["text"] for line in (corpus / "validation.jsonl").read_text().splitlines()]
    encode = model.modality.tokenizer.encode
    expected = [i for line in lines for i in [*encode(line, add_special_tokens=False).ids, end]]
    assert ids[:, 1:-1].flatten().tolist() == expected[: ids[:, 1:-1].size]
    assert len(expected) - ids[:, 1:-1].size < 14  # what does not fill a window


def test_equal_passages_never_stand_on_both_sides(tmp_path: Path):
    luck = random.Random(0)
    lines = [f"passage {luck.randrange(900)}" for _ in range(3000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    texts = Corpus(tmp_path)
    train, held = ({text for text, _ in texts.passages(split)} for split in ("train", "validation"))
    assert held
    assert not train & held
    assert train | held == set(lines) == {text for text, _ in texts.passages("all")}


def test_what_nearly_repeats_is_left_out_and_told(tmp_path: Path):
    luck = random.Random(1)
    texts = [" ".join(luck.choice(ANIMALS + THINGS) + str(luck.randrange(99)) for _ in range(60)) for _ in range(40)]
    again = [text.upper().replace("CAT", "cat", 1) + " !" for text in texts[:10]]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts + again + texts[:5]))
    corpus = Corpus(file, deduplicated=True)
    assert [text for text, _ in corpus.passages("all")] == texts
    assert corpus.repeated.sum() == 15
    assert corpus.fingerprint != Corpus(file).fingerprint
    (tmp_path / "validation.jsonl").write_text(json.dumps({"text": f"{texts[7]} " + " ".join(texts[:3])}) + "\n")
    (tmp_path / "validation.txt").write_text(texts[0])
    run = pretrain(tmp_path, budget="1steps", deduplicate=True, out=tmp_path / "run", **SETTINGS)
    assert (run.data["passages"], run.data["left_out"]) == (57, 16)


def test_every_form_of_file_gives_the_same_text(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = ["One text.", 'Another, with a "quote".', "Third — déjà vu."]
    forms = {name: tmp_path / name for name in ("a.jsonl", "b.parquet", "c.csv", "d.jsonl.gz")}
    rows = "".join(json.dumps({"id": i, "text": word}) + "\n" for i, word in enumerate(words))
    forms["a.jsonl"].write_text(rows)
    forms["d.jsonl.gz"].write_bytes(gzip.compress(rows.encode()))
    pq.write_table(pa.table({"n": [1, 2, 3], "text": words}), forms["b.parquet"])
    import csv

    with forms["c.csv"].open("w", newline="") as stream:
        csv.writer(stream).writerows([["n", "text"], *enumerate(words)])
    for file in forms.values():
        assert [text for text, _ in Corpus(file).passages("all")] == words


def test_long_documents_are_parted_and_nothing_is_lost(tmp_path: Path):
    luck = random.Random(0)
    text = "\n\n".join(" ".join(luck.choice(ANIMALS) for _ in range(120)) for _ in range(80))
    (tmp_path / "long.txt").write_text(text)
    found = list(Corpus(tmp_path / "long.txt").passages("all"))
    assert len(found) > 5
    assert " ".join(part for part, _ in found).split() == text.split()
    assert [ends for _, ends in found] == [False] * (len(found) - 1) + [True]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("latin.txt", "d\xe9j\xe0 vu ".encode("latin-1") * 900, "not UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{oops', "cannot be read"),
        ("columns.csv", b"a,b\nx,y\n", "holds the text"),
        ("picture.png", b"\x89PNG", "no text that can be read"),
        ("short.txt", b"Too little.", "does not fill one window"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(name: str, content: bytes, says: str, tmp_path: Path, base: Any):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        perplexity(tmp_path / name, model=base.path)


@pytest.mark.parametrize("pretext", [Masked(), Causal()])
def test_a_tokenizer_is_the_same_each_time_and_spells_its_text(pretext: Any, corpus: Path):
    one, other = (train_tokenizer(Corpus(corpus), *pretext.tokenizer(), 300) for _ in range(2))
    assert one.to_str() == other.to_str()
    assert one.get_vocab_size() <= 300
    read = one.encode("the cats like bread", add_special_tokens=False)
    assert "[UNK]" not in read.tokens
    assert "".join(read.tokens).replace("##", "").replace("Ġ", "") == "thecatslikebread"


# --- a base ---


def test_a_base_learns_and_is_what_transformers_reads(base: Any, corpus: Path):
    scores = base.metrics["validation"]
    first = next(e for e in base.events() if e["event"] == "step")["loss"]
    assert scores["loss"] < 0.4 * first
    folder = base.path / "model"
    whole = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokenizer("the cat [MASK] the milk and goes home again .", return_tensors="pt", return_token_type_ids=False)
    at = int((given["input_ids"][0] == tokenizer.mask_token_id).nonzero())
    chances = whole(**given).logits[0, at].softmax(dim=-1)
    ours = fill(["the cat [MASK] the milk and goes home again ."], model=base.path, top=3)[0][0]
    assert {each.piece for each in ours} == set(VERBS)
    assert ours[0].probability == pytest.approx(chances.max().item(), rel=1e-4)
    assert "perplexity" in (folder / "README.md").read_text()


def test_how_fast_it_learned_is_told(base: Any):
    steps = [event for event in base.events() if event["event"] == "step" and event["examples_per_second"]]
    assert all(event["tokens_per_second"] == round(16 * event["examples_per_second"]) for event in steps)
    assert all(0 < event["utilisation"] < 1 for event in steps)
    assert 0 < base.cost["utilisation"] < 1
    assert token_flops(BertModel(BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                            intermediate_size=16)), 10) == 6 * 2 * 600 + 12 * 2 * 8 * 10  # fmt: skip


def test_a_base_is_listed_among_the_runs(base: Any):
    from graftwork.cli.tables import run_row

    row = run_row(base)
    assert (row["state"], row["method"]) == ("done", "pretraining")
    assert row["metrics"]["validation"]["perplexity"] > 1


def test_a_base_answers_no_task_and_says_so(base: Any):
    from graftwork.compress import compress
    from graftwork.evaluate import evaluate
    from graftwork.export import export
    from graftwork.fit import predict

    for asked in (
        lambda: evaluate(base), lambda: predict(base, ["a text"]), lambda: compress(base), lambda: export(base)
    ):  # fmt: skip
        with pytest.raises(InputError, match="is a base, which answers no task yet"):
            asked()


def test_a_base_is_a_model_to_fit_a_task_on(base: Any, sources: dict[str, Path], tmp_path: Path):
    from graftwork.fit import fit

    run = fit(sources["classification"], model=base.path, method="linear-probe", out=tmp_path / "run")
    assert run.state == "done"
    assert resolve(base.path) == (base.path / "model").resolve()


def test_the_one_that_writes_writes(writer: Any):
    text = generate(["the cat"], model=writer.path, tokens=6, top_k=1)[0]
    assert text.split()[0] in VERBS
    assert generate(["the cat"], model=writer.path, seed=1) == generate(["the cat"], model=writer.path, seed=1)


def test_perplexity_is_the_exponential_of_the_mean_loss(writer: Any, corpus: Path):
    found = perplexity(corpus / "validation.jsonl", model=writer.path)
    assert found["objective"] == "causal"
    whole = transformers.AutoModelForCausalLM.from_pretrained(writer.path / "model").eval()
    texts = windows(Corpus(corpus / "validation.jsonl"), "all", opened(writer.path, "causal"), 16)
    ids = torch.from_numpy(np.asarray(texts.ids).reshape(-1, 16).astype(np.int64))
    with torch.no_grad():
        assert found["loss"] == pytest.approx(float(whole(input_ids=ids, labels=ids).loss), rel=1e-4)
    assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))


def test_a_body_without_a_head_is_given_one(corpus: Path, tmp_path: Path):
    tiny = tiny_model(tmp_path / "body", "bert", language_model=True)
    body = transformers.AutoModel.from_pretrained(tiny)
    body.save_pretrained(tiny)
    with pytest.raises(InputError, match="no language-model head"):
        fill(["the [MASK]"], model=tiny)
    run = pretrain(corpus, model=tiny, budget="30steps", out=tmp_path / "run", **SETTINGS)
    assert fill(["the [MASK]"], model=run.path)[0][0]
    old = transformers.AutoModel.from_pretrained(tiny).state_dict()
    new = transformers.AutoModel.from_pretrained(run.path / "model").state_dict()
    assert old["embeddings.word_embeddings.weight"].shape == new["embeddings.word_embeddings.weight"].shape
    assert Pretraining(**run.asked["method"]["pretraining"]).lr == 2e-4


@pytest.mark.parametrize("objective", ["masked", "causal", Masked(sentences="order")])
@pytest.mark.usefixtures("every_step_is_told")
def test_one_that_was_interrupted_ends_the_same_to_the_last_bit(objective: Any, corpus: Path, tmp_path: Path):
    asked = SETTINGS | {"objective": objective, "budget": "24steps"}
    whole = pretrain(corpus, out=tmp_path / "whole", **asked)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] >= 5:
            import signal

            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted) as raised:
        pretrain(corpus, out=tmp_path / "parts", on_event=stop, **asked)
    assert raised.value.run is not None
    assert raised.value.run.state == "interrupted"
    parts = resume(tmp_path / "parts")
    read = [(run.path / "model" / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert read[0] == read[1]
    assert parts.metrics == whole.metrics
    assert ("relation_accuracy" in parts.metrics["validation"]) == (not isinstance(objective, str))
    with pytest.raises(InputError, match="nothing to resume"):
        resume(parts)


def test_a_corpus_that_has_changed_is_not_gone_on_with(corpus: Path, tmp_path: Path):
    texts = tmp_path / "texts.txt"
    texts.write_text("the cat likes the milk .\n" * 900)

    def stop(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(texts, out=tmp_path / "run", on_event=stop, **SETTINGS)
    texts.write_text("the dog likes the milk .\n" * 900)
    with pytest.raises(InputError, match="has changed"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"objective": "maskd"}, "Did you mean 'masked'"),
        ({"size": "huge"}, "size"),
        ({"pieces": 10}, "pieces"),
        ({"learning_rate": 1}, "has no 'learning_rate'"),
        ({"lr": -1}, "lr"),
        ({"budget": "soon"}, "not understood"),
    ],
)
def test_wrong_words_are_refused_before_anything(asked: dict[str, Any], says: str, corpus: Path, tmp_path: Path):
    with pytest.raises(InputError, match=says):
        pretrain(corpus, out=tmp_path / "run", **SETTINGS | asked)
    assert not (tmp_path / "run").exists()


def test_windows_longer_than_the_model_are_refused(tiny: Path, corpus: Path, tmp_path: Path):
    with pytest.raises(InputError, match="--length"):
        pretrain(corpus, model=tiny, out=tmp_path / "run", **SETTINGS | {"length": 4096})


def test_nothing_is_filled_or_written_by_the_wrong_kind(base: Any, writer: Any):
    with pytest.raises(InputError, match="not a masked language model; it writes on"):
        fill(["a [MASK]"], model=writer.path)
    with pytest.raises(InputError, match="not a causal language model; it fills gaps"):
        generate(["a"], model=base.path)
    with pytest.raises(InputError, match=r"no \[MASK\]"):
        fill(["a"], model=base.path)


def test_saved_and_read_again_it_answers_the_same(tmp_path: Path, base: Any):
    model = language_model(base.path / "model", "masked").eval()
    save_language_model(model, tmp_path / "again")
    again = language_model(tmp_path / "again", "masked").eval()
    ids = torch.randint(6, 30, (2, 12))
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(model.encoder(ids).last_hidden_state, again.encoder(ids).last_hidden_state)


# --- the shipped ones ---


def test_graft_mini_knows_doors():
    folder = resolve("graft-mini")
    assert kind_of(folder) == "masked"
    assert (folder / "model.safetensors").stat().st_size < 16e6
    found = fill(["He opened the [MASK] and went into the [MASK]."])[0]
    assert found[0][0].piece == "door"
    assert {"house", "room"} & {each.piece for each in found[1]}


def test_graft_mini_gpt_writes_english():
    folder = resolve("graft-mini-gpt")
    assert kind_of(folder) == "causal"
    assert (folder / "model.safetensors").stat().st_size < 16e6
    assert generate(["Once upon a"], tokens=1, top_k=1) == [" time"]


# --- more pieces ---


@pytest.mark.parametrize("tied", [True, False])
def test_a_word_that_is_cut_becomes_a_piece_that_means_its_parts(tmp_path, tied):
    folder = tiny_model(tmp_path / "old", language_model=True, tie_word_embeddings=tied)
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"Paris saw {w}, paris went"}) + "\n" for w in ["london", "we"] * 9))
    words = extend(folder, "masked", Corpus(file), 2, tmp_path / "new")
    assert words == ["paris", "london"]  # 36 times 4 pieces saved, 9 times 5
    old, new = language_model(folder, "masked").eval(), language_model(tmp_path / "new", "masked").eval()
    parts = old.modality.tokenizer.encode("paris", add_special_tokens=False).ids
    (piece,) = new.modality.tokenizer.encode("paris", add_special_tokens=False).ids
    assert (len(parts), piece) == (5, len(old.task.labels))
    tables = [model.encoder.get_input_embeddings().weight for model in (old, new)]
    assert torch.equal(tables[1][piece], tables[0][parts].mean(0))
    inputs = old.modality.collate(old.modality.encode(["we saw the old house"]))
    with torch.no_grad():
        before, after = (model.head(model.encoder(**inputs).last_hidden_state[0]) for model in (old, new))
    torch.testing.assert_close(after[:, :piece], before)  # texts without the words are read and foretold as before
    torch.testing.assert_close(after[:, piece], before[:, parts].mean(1), atol=1e-4, rtol=1e-4)


def test_only_word_pieces_are_extended_and_only_by_words_that_are_cut(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("we saw the old house " * 20)
    with pytest.raises(InputError, match="cuts no frequent word"):
        extend(tiny_model(tmp_path / "m", language_model=True), "masked", Corpus(file), 5, tmp_path / "new")
    with pytest.raises(InputError, match="only WordPiece"):
        extend(resolve("graft-mini-gpt"), "causal", Corpus(file), 5, tmp_path / "new")
    with pytest.raises(InputError, match="--from MODEL"):
        pretrain(file, extend=5)
