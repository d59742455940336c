"""Depth means the same in every architecture, and a network can be run from any of its blocks."""

from __future__ import annotations

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor
from transformers import AlbertConfig, AutoModel, T5Config

from graftwork import layers

ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]


@pytest.fixture
def network(models, request):
    return AutoModel.from_pretrained(models(request.param)).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 80, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@jaxtyped(typechecker=beartype)
def shaped(states: Float[Tensor, "3 9 32"]) -> Float[Tensor, "3 9 32"]:
    return states


in_every_architecture = pytest.mark.parametrize("network", ARCHITECTURES, indirect=True)


@in_every_architecture
def test_every_parameter_stands_in_exactly_one_group_from_the_input_upwards(network):
    groups = layers.layer_groups(network)
    grouped = [name for group in groups for name in group.parameters]
    assert sorted(grouped) == sorted(name for name, _ in network.named_parameters())
    assert [g.name for g in groups][:4] == ["embeddings", "block 0", "block 1", "block 2"]


def test_what_follows_the_blocks_is_the_output(models):
    groups = layers.layer_groups(AutoModel.from_pretrained(models("gpt2")))
    assert groups[-1] == layers.LayerGroup("output", ("ln_f.weight", "ln_f.bias"))


def test_albert_whose_blocks_share_their_weights_has_one():
    config = AlbertConfig(
        vocab_size=90, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    network = AutoModel.from_config(config)
    assert [g.name for g in layers.layer_groups(network)][:2] == ["embeddings", "block 0"]
    assert not layers.has_single_stack(network)


def test_t5_has_two_stacks_and_cannot_be_run_from_the_middle():
    config = T5Config(vocab_size=90, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    network = AutoModel.from_config(config)
    assert [name for name, _ in layers.stacks(network)] == ["encoder.block", "decoder.block"]
    assert [g.name for g in layers.layer_groups(network)][:5] == ["embeddings", *(f"block {i}" for i in range(4))]
    assert not layers.has_single_stack(network)


@in_every_architecture
@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_below_and_above_together_are_the_whole_network(network, inputs, depth):
    whole = shaped(network(**inputs).last_hidden_state)
    hidden = shaped(layers.run_below(network, depth, **inputs))
    with layers.running_above(network, depth) as above:
        assert torch.equal(above(hidden, **inputs), whole)
    assert torch.equal(network(**inputs).last_hidden_state, whole), "the network is not what it was before"


@in_every_architecture
@torch.no_grad()
def test_below_everything_is_what_enters_the_first_block_and_below_nothing_the_output(network, inputs):
    assert torch.equal(layers.run_below(network, 3, **inputs), network(**inputs).last_hidden_state)
    first = shaped(layers.run_below(network, 0, **inputs))
    assert not torch.equal(first, layers.run_below(network, 1, **inputs))


@in_every_architecture
def test_an_error_while_running_above_puts_the_network_together_again(network):
    before = [name for name, _ in network.named_parameters()]

    def fail() -> None:
        with layers.running_above(network, 2):
            assert len(list(network.named_parameters())) < len(before)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert [name for name, _ in network.named_parameters()] == before


@in_every_architecture
def test_gradients_above_are_those_of_the_whole_network_with_the_rest_frozen(network, inputs):
    groups = layers.layer_groups(network)
    layers.train_only(network, groups[3:])
    network(**inputs).last_hidden_state.square().mean().backward()
    whole = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    hidden = layers.run_below(network, 2, **inputs)
    with layers.running_above(network, 2) as above:
        above(hidden, **inputs).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name not in whole)
        if name in whole:
            torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-6, atol=1e-7)


@in_every_architecture
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_frozen_depth_counts_the_groups_that_do_not_train(network, depth):
    layers.train_only(network, layers.layer_groups(network)[depth:])
    assert layers.frozen_depth(network) == depth


def test_frozen_depth_of_a_wholly_frozen_network_is_the_number_of_its_groups(models):
    network = AutoModel.from_pretrained(models("gpt2")).requires_grad_(False)
    assert layers.frozen_depth(network) == len(layers.layer_groups(network)) == 5


@pytest.mark.parametrize("network", ["bert"], indirect=True)
def test_frozen_modules_are_in_eval_mode_with_the_dropouts_below_them(network):
    layers.train_only(network, layers.layer_groups(network)[3:])
    layers.set_modes(network)
    assert not any(m.training for m in network.embeddings.modules())
    assert not any(m.training for block in network.encoder.layer[:2] for m in block.modules())
    assert all(m.training for m in network.encoder.layer[2].modules())
