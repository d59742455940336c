"""What is inserted starts as nothing, stays with the model, and leaves the encoder as plain transformers reads it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModel

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.examples import tokenised
from graftwork.insertion import inserted_parameters, inserted_weights
from graftwork.methods import HoulsbyAdapters, PfeifferAdapters, PrefixTuning, PromptTuning, PTuning
from graftwork.model import TransferModel
from graftwork.tasks import Classification
from graftwork.testing import learnable

EVERY = [HoulsbyAdapters(), PfeifferAdapters(), PromptTuning(length=3), PTuning(length=3), PrefixTuning(length=3)]
ADAPTERS = EVERY[:2]
TEXTS = ["the coach saw a goal", "soup", "we kept a ticket to the hotel near the river in the old street"]


def made(folder, method):
    """A model with the parts in, moved away from their start."""
    data = Data.load(learnable("classification"))
    torch.manual_seed(0)
    model = TransferModel.pretrained(folder, Classification(labels=data.labels))
    train = tokenised(data, "train", model.task, model.modality)
    before = np.stack(model.outputs(TEXTS))
    method.model_copy(update={"head_start": "random"}).prepare(model, train)
    started = np.stack(model.outputs(TEXTS))
    with torch.no_grad():
        for parameter in inserted_parameters(model.encoder):
            parameter.add_(0.2 * torch.randn_like(parameter))
    return method.finish(model, train), before, started


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2"])
def test_adapters_start_as_the_identity_in_every_architecture(models, method, architecture):
    model, before, started = made(models(architecture), method)
    np.testing.assert_allclose(started, before, atol=1e-6)
    assert abs(np.stack(model.outputs(TEXTS)) - before).max() > 1e-3


@pytest.mark.parametrize(("method", "places"), [(HoulsbyAdapters(reduction=4), 6), (PfeifferAdapters(reduction=4), 3)])
def test_adapters_have_as_many_parameters_as_their_formula_says(tiny, method, places):
    model, _, _ = made(tiny, method)
    assert sum(p.numel() for p in inserted_parameters(model.encoder)) == places * (2 * 32 * 8 + 8 + 32)


@pytest.mark.parametrize(
    ("method", "count"), [(PromptTuning(length=3), 3 * 32), (PrefixTuning(length=3), 3 * 2 * 3 * 32)]
)
def test_prompts_and_prefixes_have_as_many_parameters_as_their_formula_says(tiny, method, count):
    model, _, _ = made(tiny, method)
    assert sum(p.numel() for p in inserted_parameters(model.encoder)) == count


@pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
def test_it_is_saved_beside_an_encoder_that_plain_transformers_reads(tiny, tmp_path, method):
    model, _, _ = made(tiny, method)
    model.save(tmp_path)
    expected = np.stack(model.outputs(TEXTS))
    np.testing.assert_array_equal(np.stack(TransferModel.load(tmp_path).outputs(TEXTS)), expected)
    plain, own = AutoModel.from_pretrained(tmp_path).state_dict(), AutoModel.from_pretrained(tiny).state_dict()
    assert all(torch.equal(plain[name], own[name]) for name in own if "pooler" not in name)
    (tmp_path / "inserted.safetensors").unlink()
    with pytest.raises(InputError, match=r"no inserted\.safetensors"):
        TransferModel.load(tmp_path)


@pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
def test_padding_has_no_say(tiny, method):
    model, _, _ = made(tiny, method)
    alone = np.stack([model.outputs([text])[0] for text in TEXTS])
    np.testing.assert_allclose(np.stack(model.outputs(TEXTS, batch_size=3)), alone, atol=2e-5)


@pytest.mark.parametrize("method", EVERY, ids=lambda m: m.name)
def test_a_deep_copy_has_parts_of_its_own(tiny, method):
    model, _, _ = made(tiny, method)
    expected = np.stack(model.outputs(TEXTS))
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in inserted_parameters(other.encoder):
            parameter.add_(torch.randn_like(parameter))
    np.testing.assert_array_equal(np.stack(model.outputs(TEXTS)), expected)
    assert abs(np.stack(other.outputs(TEXTS)) - expected).max() > 1e-3


def test_a_model_without_insertions_has_no_such_file(tiny, tmp_path):
    TransferModel.pretrained(tiny, Classification(labels=("a", "b"))).save(tmp_path)
    assert not (tmp_path / "inserted.safetensors").exists()


def test_several_methods_after_one_another_each_add_their_own(tiny):
    model, _, _ = made(tiny, PfeifferAdapters())
    first = set(inserted_weights(model.encoder))
    data = Data.load(learnable("classification"))
    PromptTuning(length=3).prepare(model, tokenised(data, "train", model.task, model.modality))
    assert {n for n, p in model.encoder.named_parameters() if p.requires_grad}.isdisjoint(first)
    assert len(inserted_weights(model.encoder)) == len(first) + 1
