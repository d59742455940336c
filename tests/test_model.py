"""A model is one thing in memory and on disk, and its answers depend on nothing but the input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, jaxtyped
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from graftwork.choice import InputError
from graftwork.heads.linear import LinearNetwork
from graftwork.model import TransferModel, evaluating, pool
from graftwork.task import Decision
from graftwork.tasks import Classification, Tagging
from graftwork.testing import FILLER, PEOPLE

ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]
TEXTS = ["the old house", "we saw anna", "a", "river " * 70, "some quick letters here. often?"]
texts = st.lists(
    st.lists(st.sampled_from(FILLER + PEOPLE), min_size=1, max_size=75).map(" ".join), min_size=1, max_size=6
)


def classifier(folder, **options):
    torch.manual_seed(0)
    return TransferModel.pretrained(folder, Classification(labels=("a", "b", "c")), **options).eval()


@pytest.fixture(scope="module")
def model(tiny):
    return classifier(tiny)


@pytest.fixture(scope="module")
def tagger(tiny):
    torch.manual_seed(0)
    return TransferModel.pretrained(tiny, Tagging(labels=("O", "B-X", "I-X"))).eval()


# --- pooling and head, by hand ---


@jaxtyped(typechecker=beartype)
def pooled(hidden: Float[Tensor, "batch length dim"], mask: Tensor, how: str) -> Float[Tensor, "batch dim"]:
    return pool(hidden, mask, how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", [[2.0, 3.0], [5.0, 6.0]]), ("cls", [[1.0, 2.0], [5.0, 6.0]]), ("max", [[3.0, 4.0], [5.0, 6.0]])],
)
def test_pooling_by_hand_and_padding_has_no_say(how, expected):
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]], [[5.0, 6.0], [99.0, 99.0], [99.0, 99.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert pooled(hidden, mask, how).tolist() == expected


def test_head_by_hand():
    head = LinearNetwork(2, 2, normalized=True, scale=10.0)
    head.linear.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    head.linear.bias.data = torch.tensor([0.5, 0.0])
    assert head(torch.tensor([[3.0, 4.0]]))[0].tolist() == pytest.approx([6.5, 16.0])
    plain = LinearNetwork(2, 2, normalized=False, scale=10.0)
    plain.load_state_dict(head.state_dict())
    assert plain(torch.tensor([[3.0, 4.0]]))[0].tolist() == pytest.approx([3.5, 8.0])


@pytest.mark.parametrize("normalized", [True, False])
def test_a_head_answers_as_the_weights_written_into_it_do_on_prepared_embeddings(normalized):
    head = LinearNetwork(4, 3, normalized=normalized, scale=10.0)
    generator = np.random.default_rng(0)
    x, weight, bias = (generator.normal(size=shape).astype(np.float32) for shape in ((5, 4), (3, 4), (3,)))
    head.write(weight, bias)
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(x)), head.prepared(x) @ weight.T + bias, atol=1e-5)


# --- answers depend on the input alone ---


@given(texts, st.randoms(use_true_random=False), st.integers(1, 7))
def test_order_padding_and_batch_size_do_not_change_predictions(model, given_, shuffler, batch_size):
    alone = np.stack([model.outputs([text])[0] for text in given_])
    order = shuffler.sample(range(len(given_)), len(given_))
    together = model.outputs([given_[i] for i in order], batch_size=batch_size)
    np.testing.assert_allclose(np.stack(together), alone[order], atol=2e-5)


@given(texts, st.integers(1, 5))
def test_batch_size_does_not_change_tags(tagger, given_, batch_size):
    sentences = [text.split() for text in given_]
    alone = [tagger.outputs([s])[0] for s in sentences]
    for one, other, sentence in zip(alone, tagger.outputs(sentences, batch_size=batch_size), sentences, strict=True):
        assert one.shape == (len(sentence), 3)
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_padding_changes_no_answer_in_any_architecture(models, architecture, pooling):
    model = classifier(models(architecture), pooling=pooling)
    together, alone = model.outputs(TEXTS), [model.outputs([text])[0] for text in TEXTS]
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=2e-5)


def test_tags_of_a_short_text_are_those_without_windows(tagger):
    words = ["we", "saw", "anna", "often"]
    ids = tagger.modality.encode([words])
    with torch.no_grad():
        logits = tagger(tagger.modality.collate(ids))[0].numpy()
    first_pieces = [1, 2, 3, 4]
    np.testing.assert_allclose(tagger.outputs([words])[0], logits[first_pieces], atol=1e-6)


def test_tags_of_a_long_text_have_one_answer_a_word(tagger):
    assert tagger.outputs([["river"] * 500])[0].shape == (500, 3)
    assert len(tagger.predict([["anna"] * 333])[0].label) == 333


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("text", ["", " ", "\x00"])
def test_a_text_of_nothing_has_an_answer_too(models, architecture, text):
    for prediction in classifier(models(architecture)).predict([text, "the river"]):
        assert prediction.label in "abc"
        assert np.isfinite(prediction.confidence)


def test_a_sentence_without_words_has_no_tags(tagger):
    none, one = tagger.predict([[], ["river"]])
    assert (none.label, len(one.label)) == ([], 1)


def test_nothing_in_is_nothing_out(model, tagger):
    assert model.predict([]) == [] == tagger.predict([])


# --- disk ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_save_and_load_is_identity(models, architecture, tmp_path):
    model = classifier(models(architecture), pooling="max")
    model.decision = Decision(temperature=1.7, threshold=0.3, sure_from=0.4)
    model.save(tmp_path)
    loaded = TransferModel.load(tmp_path)
    assert (loaded.task, loaded.pooling, loaded.decision) == (model.task, model.pooling, model.decision)
    np.testing.assert_array_equal(np.stack(loaded.outputs(TEXTS)), np.stack(model.outputs(TEXTS)))
    assert loaded.predict(TEXTS) == model.predict(TEXTS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_transformers_reads_the_folder_and_computes_the_same(models, architecture, tmp_path):
    model = classifier(models(architecture))
    model.save(tmp_path)
    tokenizer, network = AutoTokenizer.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path).eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    ours = model.modality.collate(model.modality.encode(TEXTS))
    assert torch.equal(inputs["input_ids"], ours["input_ids"])
    with torch.no_grad():
        theirs = network(**inputs).last_hidden_state  # exactly what the tokenizer gives, as everybody writes it
        mine = model.encoder(**ours).last_hidden_state
    mask = ours["attention_mask"].bool()
    torch.testing.assert_close(mine[mask], theirs[mask], atol=1e-6, rtol=1e-6)


def test_no_pickle_is_written(model, tmp_path):
    model.save(tmp_path)
    assert {f.suffix for f in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_no_pickle_is_read(tiny, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    (tmp_path / "tokenizer.json").write_bytes((tiny / "tokenizer.json").read_bytes())
    torch.save(load_file(tiny / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no \.safetensors weights; pickled ones are never read"):
        classifier(tmp_path)


def test_saving_prints_nothing(model, tmp_path, capfd):
    capfd.readouterr()
    model.save(tmp_path)
    TransferModel.load(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"is not a saved model: it has no graft\.json"):
        TransferModel.load(tmp_path)


def test_a_newer_format_is_refused(model, tmp_path):
    model.save(tmp_path)
    told = json.loads((tmp_path / "graft.json").read_text())
    (tmp_path / "graft.json").write_text(json.dumps(told | {"format": 99}))
    with pytest.raises(InputError, match=r"saved by a newer graftwork \(format 99\)"):
        TransferModel.load(tmp_path)


def test_a_head_that_does_not_fit_the_labels_is_refused(model, tmp_path):
    model.save(tmp_path)
    save_file({"linear.weight": torch.zeros(2, 32), "linear.bias": torch.zeros(2)}, tmp_path / "head.safetensors")
    told = json.loads((tmp_path / "graft.json").read_text())
    (tmp_path / "graft.json").write_text(json.dumps(told | {"sha256": {}}))  # as one is that was written by hand
    with pytest.raises(InputError, match="does not fit its 3 labels"):
        TransferModel.load(tmp_path)


def test_a_file_that_is_missing_is_named(model, tmp_path):
    model.save(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(InputError, match=r"head\.safetensors"):
        TransferModel.load(tmp_path)


def test_labels_keep_their_names_and_order(tiny, tmp_path):
    torch.manual_seed(0)
    labels = ("z", "a", "mit Umlaut ü", "日本", "with | bar")
    TransferModel.pretrained(tiny, Classification(labels=labels)).save(tmp_path)
    assert TransferModel.load(tmp_path).task.labels == labels


def test_a_task_without_labels_is_refused(tiny):
    with pytest.raises(InputError, match="has no labels yet"):
        TransferModel.pretrained(tiny, Classification())


def test_predicting_leaves_every_mode_as_it_was(model):
    model.train()
    model.encoder.embeddings.eval()
    before = {name: module.training for name, module in model.named_modules()}
    with evaluating(model):
        assert not any(m.training for m in model.modules())
    model.predict(TEXTS[:1])
    assert {name: module.training for name, module in model.named_modules()} == before
    model.eval()
