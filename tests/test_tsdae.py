"""TSDAE: what goes of a text, what the decoder sees, and whose weights it has."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from graftwork.adapt import adapt
from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.examples import tokenised
from graftwork.fit import fit
from graftwork.language import pieces_of
from graftwork.loop import train
from graftwork.method import recipe_of
from graftwork.methods import LinearProbe, TopLayers
from graftwork.methods.domain import Beside, plain
from graftwork.methods.tsdae import TSDAE, Decoder, damaged
from graftwork.model import TransferModel
from graftwork.tasks import Classification
from graftwork.testing import learnable

TEXTS = ["the river is quick and quiet today.", "a", "we ate bread, and then some more bread"]


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    return TransferModel.pretrained(tiny, Classification(labels=("a", "b"))).eval()


@pytest.fixture
def read(model):
    inputs = model.modality.collate(model.modality.encode(TEXTS))
    return inputs["input_ids"], inputs["attention_mask"]


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_whole_words_go_and_what_stays_keeps_its_order(model, share, seed):
    inputs = model.modality.collate(model.modality.encode(TEXTS))
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    torch.manual_seed(seed)
    seen = damaged(ids, mask, ids, pieces_of(model), share)
    encodings = model.modality.encodings(TEXTS)
    for row, encoding in enumerate(encodings):
        left = seen["input_ids"][row][seen["attention_mask"][row].bool()].tolist()
        assert (left[0], left[-1]) == (encoding.ids[0], encoding.ids[-1])
        whole = [encoding.ids[slice(*tokens)] for word in range(99) if (tokens := encoding.word_to_tokens(word))]
        inner, kept = left[1:-1], 0
        for word in whole:  # greedily: a text's words in order, each either there or not
            if inner[: len(word)] == word:
                inner, kept = inner[len(word) :], kept + 1
        assert not inner
        assert kept >= 1


def test_as_many_words_go_as_are_asked_for(model):
    ids = model.modality.collate(model.modality.encode(["a b c d e " * 4] * 500))["input_ids"]
    torch.manual_seed(0)
    seen = damaged(ids, torch.ones_like(ids).bool(), ids, pieces_of(model), 0.6)
    left = (seen["attention_mask"].sum(dim=1) - 2).float().mean() / 20
    assert float(left) == pytest.approx(0.4, abs=0.02)


def test_the_decoder_sees_the_embedding_and_what_stands_before(model, read):
    ids, mask = read
    decoder = Decoder(model.encoder).eval()
    embedding = torch.randn(3, model.width)
    with torch.no_grad():
        before = decoder(ids, mask, embedding)
        later = ids.clone()
        later[0, 5] = 7
        changed = decoder(later, mask, embedding)
        other = decoder(ids, mask, embedding + 1)
    assert torch.equal(before[0, :5], changed[0, :5])
    assert not torch.allclose(before[0, 5:], changed[0, 5:])
    assert not torch.allclose(before[0, 0], other[0, 0])


def test_the_decoder_is_berts_with_the_encoders_weights(model, read):
    from transformers import AutoConfig, BertModel

    ids, mask = read
    decoder = Decoder(model.encoder).eval()
    config = AutoConfig.for_model(**model.encoder.config.to_dict())
    config.is_decoder, config.add_cross_attention = True, True
    theirs = BertModel(config, add_pooling_layer=False).eval()
    own = {name: value for name, value in decoder.body.state_dict().items() if "crossattention" in name}
    theirs.load_state_dict(model.encoder.state_dict() | own)
    embedding = torch.randn(3, model.width)
    with torch.no_grad():
        states = theirs(input_ids=ids, attention_mask=mask, encoder_hidden_states=embedding[:, None]).last_hidden_state
        logits = decoder.transform(states) @ model.encoder.embeddings.word_embeddings.weight.T
        assert torch.allclose(decoder(ids, mask, embedding), logits, atol=1e-5)
    shared = {id(p) for p in model.encoder.parameters()}
    assert shared <= {id(p) for p in decoder.parameters()}
    fresh = [name for name, p in decoder.named_parameters() if id(p) not in shared]
    assert all("crossattention" in name or name.startswith("transform") for name in fresh)


def test_texts_are_learned_without_their_labels(staged, every_step_is_told):
    """Other labels give the same losses, and of a text the decoder learns to tell its own embedding's pieces."""
    told = []
    for turn in (0, 1):
        work = staged(TSDAE(lr=5e-3, batch_size=16), steps=80)
        if turn:
            work.train.targets = work.train.targets[::-1].copy()
        torch.manual_seed(0)
        work.stage.method.prepare(work.model, work.train)
        train(work.model, work.train, work.validation, work.stage)
        told.append(work.losses)
    assert told[0] == told[1]
    assert told[0][-1] < told[0][0] - 0.4


def test_an_embedding_is_enough_to_write_its_text(tiny):
    torch.manual_seed(0)
    model = TransferModel.pretrained(tiny, Classification(labels=("a", "b")))
    read = model.modality.collate(model.modality.encode(["river bread today", "bread river", "today we ate", "quick"]))
    ids, mask = read["input_ids"], read["attention_mask"]
    decoder = Decoder(model.encoder).eval()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=5e-3)
    embedding = torch.randn(4, model.width)
    for _ in range(100):
        logits = decoder(ids[:, :-1], mask[:, :-1], embedding)
        losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * mask[:, 1:]
        losses.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    written = logits.argmax(dim=-1)
    assert torch.equal(written * mask[:, 1:], ids[:, 1:] * mask[:, 1:])


def test_the_texts_of_the_target_are_read_too(staged):
    work = staged(TSDAE())
    target = {"train": learnable("classification", seed=1)["train"][:7]}
    work.data = Data.load(learnable("classification"), target=target)
    rows = tokenised(work.data, "train", work.model.task, work.model.modality)
    reads = work.stage.method.reads(work.model, rows)
    assert isinstance(reads, Beside)
    assert len(reads) == len(rows) + 7


def test_what_adapting_is_compared_with_goes_without_it():
    assert plain(recipe_of("tsdae")) == [LinearProbe()]
    assert plain(recipe_of(["tsdae", {"top-layers": {"blocks": 1}}])) == [TopLayers(blocks=1)]


def test_an_architecture_that_cannot_write_is_refused(models, sources, tmp_path):
    with pytest.raises(InputError, match="tsdae needs an encoder that can also write, as BERT and RoBERTa can"):
        fit(sources["classification"], model=models("distilbert"), method="tsdae", out=tmp_path / "run")


def test_a_head_that_no_regression_fits_is_refused():
    with pytest.raises(InputError, match="a regression fits a linear head, not 'mlp'"):
        recipe_of("tsdae@mlp")


def test_a_template_whose_words_would_go_too_is_refused():
    with pytest.raises(InputError, match="words of a template would go as those of the text do"):
        recipe_of({"tsdae": {"head": {"linear": {"template": "This is {text}"}}}})


def test_roberta_and_a_stage_after_it(models, sources, tmp_path, quick):
    run = fit(
        sources["classification"], model=models("roberta"), method=["tsdae", "full-fine-tuning"], budget="6steps",
        out=tmp_path / "run", hardware=quick,
    )  # fmt: skip
    assert run.state == "done"
    assert not any("decoder" in name for name, _ in TransferModel.load(run.path / "model").named_parameters())


def test_adapt_compares_with_and_without_it(tiny, sources, tmp_path, quick):
    texts = tmp_path / "target.txt"
    texts.write_text("\n".join(row["text"] for row in learnable("classification", seed=1)["train"]))
    run = adapt(
        tiny, texts, source=sources["classification"], method=["tsdae", "linear-probe"], budget="4steps",
        out=tmp_path / "run", hardware=quick,
    )  # fmt: skip
    assert run.happened["adaptation"]["judged"][0]["rows"]
