"""Each optimiser takes torch's own steps, trains, and goes on from a checkpoint to the same bits."""

from __future__ import annotations

import pytest
import torch

from graftwork.choice import lookup, names
from graftwork.methods import FullFineTuning
from graftwork.optimizer import SGD, Adafactor, AdamW, Optimizer
from graftwork.testing import method_checks

RATES = {"adamw": 5e-3, "sgd": 0.04, "adafactor": 3e-2}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (AdamW(beta1=0.8, beta2=0.9, eps=1e-6), lambda g: torch.optim.AdamW(g, betas=(0.8, 0.9), eps=1e-6)),
        (SGD(momentum=0.7), lambda g: torch.optim.SGD(g, momentum=0.7)),
        (SGD(momentum=0.7, nesterov=True), lambda g: torch.optim.SGD(g, momentum=0.7, nesterov=True)),
        (SGD(momentum=0, nesterov=True), lambda g: torch.optim.SGD(g, momentum=0)),
        (Adafactor(threshold=1.5), lambda g: torch.optim.Adafactor(g, d=1.5)),
    ],
)
def test_steps_are_torchs(ours, theirs):
    def walked(make):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
        optimizer = make([{"params": [weight], "lr": 0.1, "weight_decay": 0.05}])
        for _ in range(4):
            (weight**3).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return weight.detach()

    torch.testing.assert_close(walked(lambda groups: ours.over(groups, "cpu")), walked(theirs))


CONTRACT = [
    (name, claim, check)
    for name in names(Optimizer)
    for claim, check in method_checks(
        FullFineTuning(optimizer=lookup(Optimizer, name)(), lr=RATES[name], head_lr_factor=5, batch_size=16)
    )
]


@pytest.mark.parametrize(("name", "claim", "check"), CONTRACT, ids=[f"{n}-{claim}" for n, claim, _ in CONTRACT])
def test_keeps_the_contract_of_methods(name, claim, check):
    check()
