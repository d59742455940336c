"""LoRA's kin merge without a trace, and what is trained is as little as the papers say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.examples import tokenised
from graftwork.methods import IA3, BitFit, DoRA, HoulsbyAdapters, LayerNormTuning, LoRA, RSLoRA
from graftwork.model import TransferModel
from graftwork.tasks import Classification
from graftwork.testing import learnable


@pytest.fixture
def work(tiny, models):
    def make(architecture=None):
        data = Data.load(learnable("classification"))
        torch.manual_seed(0)
        folder = models(architecture) if architecture else tiny
        model = TransferModel.pretrained(folder, Classification(labels=data.labels))
        return model, data, tokenised(data, "train", model.task, model.modality)

    return make


def trainable(model):
    return {n: p for n, p in model.encoder.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])  # GPT-2 holds the weights of its layers transposed
@pytest.mark.parametrize("method", [LoRA(rank=4), RSLoRA(rank=4), DoRA(rank=4), IA3()])
def test_begins_as_the_pretrained_model_and_merges_to_the_same_answers(work, method, architecture):
    model, data, train = work(architecture)
    method = method.model_copy(update={"head_start": "random"})
    texts = data["test"].inputs()
    before = np.stack(model.outputs(texts))
    names = {n: tuple(p.shape) for n, p in model.encoder.named_parameters()}
    method.prepare(model, train)
    np.testing.assert_allclose(np.stack(model.outputs(texts)), before, atol=1e-5)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    beside = np.stack(model.outputs(texts))
    assert abs(beside - before).max() > 1e-3
    merged = method.finish(model, train)
    np.testing.assert_allclose(np.stack(merged.outputs(texts)), beside, atol=5e-5)
    assert {n: tuple(p.shape) for n, p in merged.encoder.named_parameters()} == names


@pytest.mark.parametrize(("method", "scale"), [(LoRA(rank=4, alpha=8), 2.0), (RSLoRA(rank=4, alpha=8), 4.0)])
def test_updates_are_scaled_as_the_papers_say(work, method, scale):
    model, _, train = work()
    method.prepare(model, train)
    layer = model.encoder.base_model.model.encoder.layer[0].intermediate.dense
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        x = torch.randn(3, 32)
        low = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        torch.testing.assert_close(layer(x), layer.base_layer(x) + scale * low)


def test_dora_learns_length_and_direction_apart(work):
    model, _, train = work()
    DoRA(rank=4, alpha=4).prepare(model, train)
    layer = model.encoder.base_model.model.encoder.layer[0].intermediate.dense
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        length = layer.lora_magnitude_vector["default"].weight.mul_(1.5)
        direction = layer.base_layer.weight + layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        weight = length[:, None] * direction / direction.norm(dim=1, keepdim=True)  # eq. 5
        x = torch.randn(3, 32)
        torch.testing.assert_close(layer(x), x @ weight.T + layer.base_layer.bias, atol=1e-4, rtol=1e-4)


def test_ia3_trains_one_factor_a_key_value_and_inner_feature(work):
    model, _, train = work()
    IA3().prepare(model, train)
    assert sum(p.numel() for p in trainable(model).values()) == 3 * (32 + 32 + 64)  # keys, values, inner features


def test_bitfit_trains_the_biases_and_nothing_else(work):
    model, _, train = work()
    BitFit().prepare(model, train)
    biases = {n for n, _ in model.encoder.named_parameters() if n.endswith(".bias")}
    assert trainable(model).keys() == biases
    assert all(p.requires_grad for p in model.head.parameters())


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2"])
def test_norms_are_found_in_every_architecture(work, architecture):
    model, _, train = work(architecture)
    LayerNormTuning().prepare(model, train)
    found = trainable(model)
    assert sum(p.numel() for p in found.values()) == 7 * 2 * 32  # two a block and one more
    assert all("norm" in n.lower() or ".ln_" in n or n.startswith("ln_") for n in found)


def test_an_encoder_without_biases_is_refused(work):
    model, _, train = work()
    for module in model.encoder.modules():
        if isinstance(getattr(module, "bias", None), torch.nn.Parameter):
            module.bias = None
    with pytest.raises(InputError, match="nothing that 'bitfit' could train"):
        BitFit(head_start="random").prepare(model, train)


def test_an_ia3_layer_scales_what_it_gives_and_the_last_of_a_feed_forward_what_it_takes(work):
    model, _, train = work()
    IA3().prepare(model, train)
    block = model.encoder.base_model.model.encoder.layer[1]
    key, down = block.attention.self.key, block.output.dense
    x, inner = torch.randn(3, 32), torch.randn(3, 64)
    with torch.no_grad():
        for layer in (key, down):
            layer.ia3_l["default"].normal_()
        torch.testing.assert_close(key(x), key.ia3_l["default"].flatten() * key.base_layer(x))
        torch.testing.assert_close(down(inner), down.base_layer(down.ia3_l["default"].flatten() * inner))
    assert not hasattr(block.attention.output.dense, "ia3_l")


def test_an_update_beside_a_layer_that_an_adapter_follows_could_not_be_merged_and_is_left_out(work):
    model, data, train = work()
    HoulsbyAdapters(head_start="random").prepare(model, train)
    method = LoRA(rank=4, head_start="random")
    method.prepare(model, train)
    updated = {n.split(".lora_")[0].removeprefix("base_model.model.") for n in trainable(model)}
    assert {n.split(".", 3)[3] for n in updated} == {
        "attention.self.query", "attention.self.key", "attention.self.value", "intermediate.dense",
    }  # fmt: skip
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    beside = np.stack(model.outputs(data["test"].inputs()))
    merged = method.finish(model, train)
    np.testing.assert_allclose(np.stack(merged.outputs(data["test"].inputs())), beside, atol=2e-5)


def test_targets_that_no_layer_has_are_refused_with_those_there_are(work):
    model, _, train = work()
    with pytest.raises(InputError, match=r"ends in 'q_proj'\. Give targets of: dense, key, query, value"):
        LoRA(targets="q_proj", head_start="random").prepare(model, train)


def test_norms_without_a_mean_are_norms_too(work):
    model, _, train = work()
    model.encoder.encoder.layer[0].output.LayerNorm = torch.nn.RMSNorm(32)
    LayerNormTuning(head_start="random").prepare(model, train)
    found = trainable(model)
    assert sum(p.numel() for p in found.values()) == (6 * 2 + 1) * 32
    assert "encoder.layer.0.output.LayerNorm.weight" in found
