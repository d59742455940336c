"""A table of the used rows trains to the very same weights as the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel

from graftwork.heads.linear import LinearNetwork
from graftwork.method import GradientMethod
from graftwork.vocabulary import can_compact, compact

ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]
USED = np.array([0, 1, 2, 3, 44, 45, 50, 61, 62])


def trained(folder, small: bool) -> dict[str, torch.Tensor]:
    """Weights after 5 steps of AdamW with the groups of a method that decays weights."""
    network = AutoModel.from_pretrained(folder).eval()

    class Model(torch.nn.Module):  # what `param_groups` looks at
        encoder, head = network, LinearNetwork(1, 1, normalized=False, scale=1.0)

    def steps(remap: np.ndarray | None) -> None:
        groups = GradientMethod(lr=1e-2, weight_decay=0.1, head_lr_factor=1).param_groups(Model())  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(
            [{"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay} for g in groups]
        )
        draw = np.random.default_rng(0)
        for _ in range(5):
            ids = draw.choice(USED, size=(4, 7))
            inputs = torch.from_numpy(ids if remap is None else remap[ids]).long()
            network(input_ids=inputs, attention_mask=torch.ones(4, 7)).last_hidden_state[..., 0].mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    if small:
        with compact(network, USED) as remap:
            steps(remap)
    else:
        steps(None)
    return network.state_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_small_table_trains_to_the_weights_of_the_whole_one(models, architecture):
    whole, small = trained(models(architecture), small=False), trained(models(architecture), small=True)
    assert whole.keys() == small.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(small[name], weight, rtol=0, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_unused_rows_are_not_touched_and_used_ones_are(tiny):
    before = AutoModel.from_pretrained(tiny).state_dict()["embeddings.word_embeddings.weight"]
    after = trained(tiny, small=True)["embeddings.word_embeddings.weight"]
    moved = (before != after).any(dim=1).nonzero().flatten().numpy()
    assert set(moved) <= set(USED)
    assert len(moved) > 4


def test_repeats_and_order_of_the_used_ids_do_not_matter(tiny):
    network = AutoModel.from_pretrained(tiny)
    with compact(network, np.array([9, 5, 5, 0, 9])) as remap:
        assert np.flatnonzero(remap >= 0).tolist() == [0, 5, 9]
        assert network.get_input_embeddings().num_embeddings == 3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_padding_id_has_a_row_though_no_text_holds_it(models, architecture):
    network = AutoModel.from_pretrained(models(architecture))
    with compact(network, np.array([44, 45])) as remap:
        if network.get_input_embeddings().padding_idx is not None:
            assert remap[network.config.pad_token_id] >= 0


def test_an_error_inside_puts_the_whole_table_back(tiny):
    network = AutoModel.from_pretrained(tiny)
    whole = network.get_input_embeddings()

    def fail() -> None:
        with compact(network, USED):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert network.get_input_embeddings() is whole


def test_a_table_that_something_else_reads_whole_is_not_compacted(tiny):
    network = AutoModel.from_pretrained(tiny)
    assert can_compact(network)
    network.decoder = torch.nn.Linear(32, network.config.vocab_size, bias=False)
    network.decoder.weight = network.get_input_embeddings().weight
    assert not can_compact(network)
    assert not can_compact(torch.nn.Linear(2, 2))
