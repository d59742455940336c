"""Quick attention gives the answers of the network's own, and stands back where it would not."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from graftwork.attention import quick_attention

CPU = torch.device("cpu")


@pytest.fixture
def network(models, request):
    return AutoModel.from_pretrained(models(request.param)).eval()


def answers(network, mask):
    ids = torch.arange(4, 4 + mask.numel()).view(mask.shape)
    return network(input_ids=ids, attention_mask=mask).last_hidden_state[mask == 1]


@pytest.mark.parametrize("network", ["bert", "roberta", "distilbert", "gpt2"], indirect=True)
def test_answers_and_gradients_are_those_of_the_networks_own_attention(network):
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    answers(network, mask).square().sum().backward()
    expected = answers(network, mask).detach(), [p.grad for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    with quick_attention(network, CPU):
        assert network.config._attn_implementation == "graftwork"
        found = answers(network, mask)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    torch.testing.assert_close(gradients, expected[1], atol=1e-3, rtol=1e-3)
    assert network.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("network", ["bert"], indirect=True)
def test_a_network_that_does_more_between_query_and_value_keeps_its_own(network, monkeypatch):
    from transformers.models.bert import modeling_bert

    own = modeling_bert.eager_attention_forward

    def capped(module, query, key, value, mask, scaling, **more):  # soft-capped scores, as Gemma 2 has them
        return own(module, 3 * torch.tanh(query / 3), key, value, mask, scaling=scaling, **more)

    monkeypatch.setattr(modeling_bert, "eager_attention_forward", capped)
    with quick_attention(network, CPU):
        assert network.config._attn_implementation == "eager"


@pytest.mark.parametrize("network", ["bert"], indirect=True)
def test_a_text_that_is_all_padding_gives_no_nan_in_half_precision(network):
    mask = torch.tensor([[1] * 4, [0] * 4])
    with quick_attention(network, CPU), torch.autocast("cpu", torch.bfloat16):
        states = network(input_ids=torch.arange(8).view(2, 4), attention_mask=mask).last_hidden_state
    assert states.isfinite().all()
