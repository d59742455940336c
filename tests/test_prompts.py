"""Prompts and prefixes are read beside the text, leave no trace in its positions, and stay with the model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, DynamicCache

from graftwork.attention import quick_attention
from graftwork.choice import InputError
from graftwork.examples import tokenised
from graftwork.features import layer_states
from graftwork.insertion import inserted_parameters
from graftwork.insertions import Prefix, Prompt
from graftwork.insertions.prompts import PrefixVectors, PromptVectors, first_position
from graftwork.methods import FullFineTuning, LoRA, PrefixTuning, PromptTuning, PTuning, TopLayers
from graftwork.model import TransferModel
from graftwork.regression import start_head
from graftwork.tasks import Classification, Tagging
from graftwork.testing import TINY_LR

ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]
INSERTIONS = [Prompt(length=4), Prefix(length=4)]
METHODS = [PromptTuning, PTuning, PrefixTuning]
TEXTS = ["the old house", "we saw anna", "a", "river " * 70, "some quick letters here. often?"]
CPU = torch.device("cpu")


def classifier(folder):
    torch.manual_seed(0)
    return TransferModel.pretrained(folder, Classification(labels=("a", "b", "c"))).eval()


def answers(model, texts=TEXTS):
    return np.stack(model.outputs(texts))


@torch.no_grad()
def moved(model):
    """The model, whose prompts and prefixes have learned something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in inserted_parameters(model.encoder):
        parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model


def parts(model, kind):
    return [module for module in model.encoder.modules() if isinstance(module, kind)]


@pytest.fixture(params=[(a, i) for a in ARCHITECTURES for i in INSERTIONS], ids=lambda p: f"{p[0]}-{p[1].name}")
def inserted(models, request):
    """A model of each architecture that reads something beside the text, and what it answered without."""
    architecture, insertion = request.param
    model = classifier(models(architecture))
    before = answers(model)
    model.insert(insertion)
    return moved(model), before


# --- what they are ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_prompt_of_words_is_read_as_these_words_at_the_first_position(models, architecture):
    model = classifier(models(architecture))
    words, text = torch.tensor([[10, 11, 12]]), torch.tensor([[4, 20, 30, 5]])
    first = first_position(model.encoder)
    positions = first + torch.tensor([[0, 0, 0, 0, 1, 2, 3]])
    whole = {"input_ids": torch.cat([words, text], dim=1), "attention_mask": torch.ones(1, 7, dtype=torch.long)}
    with torch.no_grad():
        expected = model.encoder(**whole, position_ids=positions).last_hidden_state[:, 3:]
        model.insert(Prompt(length=3))
        parts(model, PromptVectors)[0].vectors.copy_(model.encoder.get_input_embeddings()(words[0]))
        found = model.encoder(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("architecture", "first"), [("bert", 0), ("roberta", 2), ("distilbert", 0), ("gpt2", 0)])
def test_the_text_keeps_the_positions_that_it_has_without_a_prompt(models, architecture, first):
    encoder = classifier(models(architecture)).encoder
    assert first_position(encoder) == first
    ids = torch.tensor([[4, 20, 30, 5]])
    told = {"position_ids": first + torch.arange(4)[None], "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        given, own = encoder(input_ids=ids, **told), encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    torch.testing.assert_close(given.last_hidden_state, own.last_hidden_state)


def test_a_prefix_is_attention_over_its_keys_and_values_and_then_the_texts(tiny):
    model = classifier(tiny)
    model.insert(Prefix(length=4))
    attention = moved(model).encoder.encoder.layer[1].attention.self
    prefix, x = attention.inserted["0"], torch.randn(2, 5, 32)
    mask = torch.zeros(2, 1, 1, 5)
    mask[1, ..., 3:] = torch.finfo(mask.dtype).min
    with torch.no_grad():
        query, key, value = (
            f(x).view(2, 5, 4, 8).transpose(1, 2) for f in (attention.query, attention.key, attention.value)
        )
        key = torch.cat([prefix.keys.expand(2, -1, -1, -1), key], dim=2)  # (batch, heads, 4 + 5, dim)
        value = torch.cat([prefix.values.expand(2, -1, -1, -1), value], dim=2)
        scores = query @ key.transpose(2, 3) / 8**0.5 + torch.cat([torch.zeros(2, 1, 1, 4), mask], dim=3)
        expected = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(2, 5, 32)
        torch.testing.assert_close(attention(x, attention_mask=mask)[0], expected)


def test_a_prefix_of_a_decoder_is_its_cache_of_the_past(models):
    model = classifier(models("gpt2"))
    model.insert(Prefix(length=4))
    prefixes = parts(moved(model), PrefixVectors)
    ids, mask = torch.tensor([[10, 11, 12, 13], [14, 15, 16, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    past = DynamicCache()
    for number, prefix in enumerate(prefixes):
        past.update(*(p.detach().expand(2, -1, -1, -1) for p in (prefix.keys, prefix.values)), number)
    plain = AutoModel.from_pretrained(models("gpt2")).eval()
    for attention_mask in (mask, torch.ones_like(mask)):
        with torch.no_grad():
            found = model.encoder(input_ids=ids, attention_mask=attention_mask).last_hidden_state
            theirs = plain(
                input_ids=ids, past_key_values=copy.deepcopy(past), position_ids=torch.arange(4)[None],
                attention_mask=torch.cat([torch.ones(2, 4, dtype=torch.long), attention_mask], dim=1),
            ).last_hidden_state  # fmt: skip
        torch.testing.assert_close(found[attention_mask == 1], theirs[attention_mask == 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "count"), [(PromptTuning, 5 * 32), (PTuning, 5 * 32), (PrefixTuning, 3 * 2 * 5 * 32)]
)
def test_what_is_left_is_as_many_vectors_as_were_asked_for(staged, method, count):
    work = staged(method(length=5, head_start="random", lr=TINY_LR, batch_size=16))
    before = {n: p.detach().clone() for n, p in work.model.encoder.named_parameters()}
    work.run()
    model = work.stage.method.finish(work.model, work.train)
    assert sum(p.numel() for p in inserted_parameters(model.encoder)) == count
    after = dict(model.encoder.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


LSTM = 2 * 2 * 4 * 16 * (32 + 16 + 2)  # layers, directions, gates, width of each; input, state and two biases


@pytest.mark.parametrize(("network", "count"), [("lstm", LSTM), ("mlp", 0)])
@pytest.mark.parametrize("length", [1, 5])
def test_the_vectors_of_p_tuning_come_out_of_a_network_that_is_not_kept(staged, network, count, length):
    work = staged(PTuning(length=length, network=network, head_start="random", lr=TINY_LR, batch_size=16))
    method, model = work.stage.method, work.model
    work.run()
    prompt = parts(model, PromptVectors)[0]
    assert sum(p.numel() for p in prompt.parameters()) == length * 32 + count + 2 * (32 * 32 + 32)
    vectors, before = prompt.vectors.detach().clone(), answers(model)
    assert not torch.equal(vectors, prompt.parametrizations.vectors.original)
    model = method.finish(model, work.train)
    assert type(prompt) is PromptVectors
    assert dict(prompt.named_parameters()).keys() == {"vectors"}
    torch.testing.assert_close(prompt.vectors.detach(), vectors)
    np.testing.assert_allclose(answers(model), before, atol=1e-6)


# --- how they start ---


def test_a_prompt_starts_as_embeddings_of_pieces_that_train_holds(staged):
    work = staged(PromptTuning(length=6, head_start="random"))
    work.stage.method.prepare(work.model, work.train)
    seen = work.model.encoder.get_input_embeddings()(torch.from_numpy(np.unique(work.train.ids)))
    vectors = parts(work.model, PromptVectors)[0].vectors
    assert (vectors[:, None] == seen).all(dim=2).any(dim=1).all()


def test_a_prefix_starts_as_what_the_heads_see_of_a_text(staged):
    work = staged(PrefixTuning(length=6, head_start="random"))
    work.stage.method.prepare(work.model, work.train)
    attention = work.model.encoder.encoder.layer[0].attention.self
    pieces, positions = torch.from_numpy(np.unique(work.train.ids)), torch.arange(6)[None]
    with torch.no_grad():
        words = work.model.encoder.embeddings(pieces[:, None].expand(-1, 6), position_ids=positions)
        possible = attention.value(words)  # every piece at every position: (pieces, positions, dim)
        found = attention.inserted["0"].values.transpose(0, 1).reshape(6, 32)
    assert (possible - found).norm(dim=2).amin(dim=0).max() < 1e-4


def test_a_fresh_prefix_scores_four_lower_with_the_usual_query():
    prefix = PrefixVectors(None)
    query, key, value = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    prefix.hear(query, key, value, 0.3)
    usual = torch.stack([query[0, :2].mean(dim=(0, 1)), query[0, 2:].mean(dim=(0, 1))])[:, None]  # a key serves two
    with torch.no_grad():
        before, after = ((0.3 * usual @ k.transpose(1, 2)) for k in (key[0], prefix.keys))
    torch.testing.assert_close(after, before - 4.0)
    assert torch.equal(prefix.values, value[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_head_is_read_off_the_encoder_that_reads_them(staged, method):
    work = staged(method(length=4))
    work.stage.method.prepare(work.model, work.train)
    kept = work.model.head.linear.weight.clone()
    start_head(work.model, work.train)
    torch.testing.assert_close(kept, work.model.head.linear.weight)
    plain = staged(FullFineTuning())
    start_head(plain.model, plain.train)
    assert not torch.allclose(kept, plain.model.head.linear.weight, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_head_that_has_learned_is_kept(staged, method):
    work = staged(method(length=4))
    work.model.head.fresh = False
    before = work.model.head.linear.weight.clone()
    work.stage.method.prepare(work.model, work.train)
    assert torch.equal(work.model.head.linear.weight, before)


# --- what others rely on ---


def test_padding_changes_no_answer_and_a_text_may_be_as_long_as_ever(inserted):
    model, before = inserted
    assert abs(answers(model) - before).max() > 1e-2
    alone = np.stack([model.outputs([text])[0] for text in TEXTS])
    np.testing.assert_allclose(answers(model), alone, atol=2e-5)


def test_states_are_those_of_the_texts_positions(inserted):
    model, _ = inserted
    ids = torch.arange(10).view(2, 5) + 4
    with torch.no_grad():
        found = model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    assert found.last_hidden_state.shape == (2, 5, 32)
    assert {states.shape for states in found.hidden_states} == {(2, 5, 32)}


@pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda i: i.name)
def test_each_word_of_a_tagged_text_has_its_answer(tiny, insertion):
    torch.manual_seed(0)
    model = TransferModel.pretrained(tiny, Tagging(labels=("O", "B-X", "I-X"))).eval()
    model.insert(insertion)
    assert [len(o) for o in model.outputs([["we", "saw", "anna"], ["river"] * 200])] == [3, 200]


def test_a_deep_copy_has_its_own(inserted):
    model, _ = inserted
    before = answers(model)
    copied = moved(copy.deepcopy(model))
    assert abs(answers(copied) - before).max() > 1e-3
    np.testing.assert_array_equal(answers(model), before)


def test_saved_and_loaded_it_answers_the_same_and_plain_transformers_reads_the_encoder(inserted, tmp_path):
    model, before = inserted
    model.save(tmp_path)
    np.testing.assert_array_equal(answers(TransferModel.load(tmp_path)), answers(model))
    assert all("inserted" in name for name in load_file(tmp_path / "inserted.safetensors"))
    model.encoder = AutoModel.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(answers(model), before, atol=1e-6)


def test_attention_may_be_computed_in_any_way(inserted):
    model, _ = inserted
    expected = answers(model)
    with quick_attention(model.encoder, CPU):
        assert model.encoder.config._attn_implementation == "graftwork"
        np.testing.assert_allclose(answers(model), expected, atol=1e-5)
    model.encoder.set_attn_implementation("eager")
    np.testing.assert_allclose(answers(model), expected, atol=1e-5)


def test_two_of_a_kind_are_both_read(inserted):
    model, _ = inserted
    one = answers(model)
    model.insert(model.insertions[0])
    both = answers(model)
    assert abs(both - one).max() > 1e-3
    alone = np.stack([model.outputs([text])[0] for text in TEXTS])
    np.testing.assert_allclose(both, alone, atol=2e-5)


@pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda i: i.name)
@pytest.mark.parametrize("method", [LoRA, FullFineTuning])
def test_a_later_stage_trains_the_encoder_with_them_in_place(staged, insertion, method):
    work = staged(method(lr=TINY_LR, batch_size=16, head_start="random"))
    work.model.insert(insertion)
    work.run()
    inputs = work.data["test"].inputs()
    beside = answers(work.model, inputs)
    model = work.stage.method.finish(work.model, work.train)
    np.testing.assert_allclose(answers(model, inputs), beside, atol=2e-5)


@pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda i: i.name)
def test_losses_are_the_same_whether_a_frozen_part_is_read_from_disk_or_not(
    staged, insertion, every_step_is_told, monkeypatch
):
    def losses():
        work = staged(TopLayers(blocks=1, batch_size=16, head_start="random", dropout=0.0))
        work.model.insert(insertion)
        moved(work.model)
        work.run()
        return work.losses

    kept = losses()
    monkeypatch.setattr("graftwork.layers.has_single_stack", lambda network: False)  # nothing is kept
    assert kept == pytest.approx(losses(), abs=1e-5)


@pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda i: i.name)
def test_states_at_every_depth_can_be_read(staged, insertion):
    work = staged(PromptTuning())
    work.model.insert(insertion)
    train = tokenised(work.data, "train", work.model.task, work.model.modality)
    assert layer_states(work.model, train, np.arange(7), "fp32").shape == (4, 7, 32)


@pytest.mark.parametrize(
    ("architecture", "insertion", "message"),
    [
        ("fnet", Prompt(), "takes no embeddings with positions of their own, so it cannot read a prompt"),
        ("mpnet", Prefix(), "computes attention in a way of its own and cannot be given a prefix"),
    ],
)
def test_an_encoder_that_cannot_read_them_is_refused(architecture, insertion, message):
    config = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 50}
    network = AutoModel.from_config(AutoConfig.for_model(architecture, num_attention_heads=4, **config))
    with pytest.raises(InputError, match=message):
        insertion.into(network)
