"""Adapters begin as nothing, learn beside an encoder that stays as it is, and stay with the model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel

from graftwork import layers
from graftwork.choice import InputError
from graftwork.insertion import inserted_parameters
from graftwork.insertions import Adapters
from graftwork.insertions.adapters import Bottleneck, residual_writers
from graftwork.methods import FullFineTuning, HoulsbyAdapters, PfeifferAdapters, TopLayers
from graftwork.model import TransferModel
from graftwork.tasks import Classification
from graftwork.testing import TINY_LR

ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]
TEXTS = ["the old house", "we saw anna", "a", "river " * 70, "some quick letters here. often?"]


def classifier(folder):
    torch.manual_seed(0)
    return TransferModel.pretrained(folder, Classification(labels=("a", "b", "c"))).eval()


def answers(model, texts=TEXTS):
    return np.stack(model.outputs(texts))


@torch.no_grad()
def moved(model):
    """The model, whose adapters have learned something."""
    generator = torch.Generator().manual_seed(1)
    for parameter in inserted_parameters(model.encoder):
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(params=ARCHITECTURES)
def inserted(models, request):
    """A model of each architecture with adapters that have learned something, and what it answered without."""
    model = classifier(models(request.param))
    before = answers(model)
    model.insert(Adapters(reduction=4))
    return moved(model), before


def test_a_bottleneck_by_hand():
    bottleneck = Bottleneck(2, 1)
    with torch.no_grad():
        bottleneck.down.weight.copy_(torch.tensor([[1.0, -1.0]]))
        bottleneck.down.bias.fill_(0.5)
        bottleneck.up.weight.copy_(torch.tensor([[2.0], [0.0]]))
        bottleneck.up.bias.copy_(torch.tensor([0.0, 1.0]))
        found = bottleneck(torch.tensor([[3.0, 2.0]]))[0]
    inner = float(F.gelu(torch.tensor(3.0 - 2.0 + 0.5)))
    assert found.tolist() == pytest.approx([3.0 + 2.0 * inner, 2.0 + 1.0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("after", ["both", "feed-forward"])
def test_adapters_begin_as_the_identity(models, architecture, after):
    model = classifier(models(architecture))
    before = answers(model)
    model.insert(Adapters(after=after))
    np.testing.assert_array_equal(answers(model), before)


@pytest.mark.parametrize(
    ("architecture", "attention", "feed_forward"),
    [
        ("bert", "attention.output.dense", "output.dense"),
        ("roberta", "attention.output.dense", "output.dense"),
        ("distilbert", "attention.out_lin", "ffn.lin2"),
        ("gpt2", "attn.c_proj", "mlp.c_proj"),
    ],
)
def test_adapters_follow_what_writes_into_the_residual_stream(models, architecture, attention, feed_forward):
    block = layers.stacks(classifier(models(architecture)).encoder)[0][1][0]
    found = residual_writers(block, 32)
    assert [*found] == [block.get_submodule(attention), block.get_submodule(feed_forward)]


def test_a_block_is_what_the_papers_draw(tiny):
    model = classifier(tiny)
    model.insert(Adapters(after="both", reduction=4))
    block = moved(model).encoder.encoder.layer[1]
    first, second = block.attention.output.dense.inserted["0"], block.output.dense.inserted["0"]
    x = torch.randn(1, 5, 32)
    with torch.no_grad():
        attended = block.attention.self(x)[0]
        middle = block.attention.output.LayerNorm(x + first(F.linear(attended, *weights(block.attention.output.dense))))
        wide = block.intermediate(middle)
        expected = block.output.LayerNorm(middle + second(F.linear(wide, *weights(block.output.dense))))
        torch.testing.assert_close(block(x), expected)


def weights(layer):
    return layer.weight, layer.bias


@pytest.mark.parametrize(("method", "places"), [(HoulsbyAdapters, 2), (PfeifferAdapters, 1)])
def test_adapters_and_the_head_train_and_nothing_else(staged, method, places):
    work = staged(method(reduction=4, head_start="random", lr=TINY_LR, batch_size=16))
    before = {n: p.detach().clone() for n, p in work.model.encoder.named_parameters()}
    work.run()
    trains = {n: p for n, p in work.model.encoder.named_parameters() if p.requires_grad}
    d, m = 32, 8
    assert sum(p.numel() for p in trains.values()) == 3 * places * (2 * d * m + m + d)
    assert all("inserted" in name.split(".") for name in trains)
    assert all(p.requires_grad for p in work.model.head.parameters())
    after = dict(work.model.encoder.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(p.detach().any() for n, p in trains.items() if n.endswith("up.weight"))


def test_padding_changes_no_answer(inserted):
    model, before = inserted
    assert abs(answers(model) - before).max() > 1e-2
    alone = np.stack([model.outputs([text])[0] for text in TEXTS])
    np.testing.assert_allclose(answers(model), alone, atol=2e-5)


def test_a_deep_copy_has_adapters_of_its_own(inserted):
    model, _ = inserted
    before = answers(model)
    copied = moved(copy.deepcopy(model))
    assert abs(answers(copied) - before).max() > 1e-2
    np.testing.assert_array_equal(answers(model), before)


def test_saved_and_loaded_it_answers_the_same_and_plain_transformers_reads_the_encoder(inserted, tmp_path):
    model, before = inserted
    model.save(tmp_path)
    np.testing.assert_array_equal(answers(TransferModel.load(tmp_path)), answers(model))
    assert all("inserted" in name for name in load_file(tmp_path / "inserted.safetensors"))
    model.encoder = AutoModel.from_pretrained(tmp_path).eval()
    np.testing.assert_allclose(answers(model), before, atol=1e-6)


def test_adapters_follow_one_another_and_the_first_stay_as_they_are(staged):
    work = staged(HoulsbyAdapters(head_start="random", reduction=4))
    work.stage.method.prepare(work.model, work.train)
    first = [p for p in work.model.encoder.parameters() if p.requires_grad]
    PfeifferAdapters(head_start="random", reduction=4).prepare(work.model, work.train)
    assert not any(p.requires_grad for p in first)
    assert sum(p.requires_grad for p in work.model.encoder.parameters()) == 3 * 4
    assert len(work.model.encoder.encoder.layer[0].output.dense.inserted) == 2
    FullFineTuning(head_start="random").prepare(work.model, work.train)
    assert all(p.requires_grad for p in first)


def test_a_frozen_prefix_with_adapters_is_read_from_disk_to_the_same_losses(staged, every_step_is_told, monkeypatch):
    def losses():
        work = staged(TopLayers(blocks=1, batch_size=16, head_start="random", dropout=0.0))
        work.model.insert(Adapters(reduction=4))
        moved(work.model)
        work.run()
        return work.losses

    kept = losses()
    monkeypatch.setattr("graftwork.layers.has_single_stack", lambda network: False)  # nothing is kept
    assert kept == pytest.approx(losses(), abs=1e-5)


def test_an_encoder_without_attention_is_refused():
    config = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 50}
    from transformers import AutoConfig

    network = AutoModel.from_config(AutoConfig.for_model("fnet", **config))
    with pytest.raises(InputError, match=r"FNetLayer\) have no attention and feed-forward that end in a linear layer"):
        Adapters().into(network)
