"""Each optimiser takes torch's own steps or its paper's, trains, and goes on from a checkpoint to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.choice import lookup, names, parse
from graftwork.method import Method
from graftwork.methods import FullFineTuning
from graftwork.optimizer import SGD, Adafactor, AdamW, Lion, Optimizer, ScheduleFree
from graftwork.testing import method_checks

RATES = {"adamw": 5e-3, "sgd": 0.04, "adafactor": 3e-2, "lion": 2e-3, "schedule-free": 1e-2}


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


def stepped(choice, gradients, rates, *, start, decay):
    """The weight after each step, and what it has learned by then."""
    weight = torch.nn.Parameter(torch.tensor(start))
    stepper = choice.over([{"params": [weight], "lr": 0.0, "weight_decay": decay}], "cpu")
    walked = []
    for gradient, rate in zip(gradients, rates, strict=True):
        stepper.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(gradient)
        stepper.step()
        learned = choice.learned(stepper, [weight])
        walked.append((weight.detach().tolist(), (learned or [weight.detach()])[0].tolist()))
    return walked


def test_lion_by_hand():
    walked = stepped(Lion(beta1=0.9, beta2=0.5), [[1.0, -4.0], [-2.0, 0.5]], [0.1, 0.2], start=[1.0, 2.0], decay=0.5)
    # both gradients' signs: 1 - 0.1 (1 + 0.5 * 1), 2 - 0.1 (-1 + 0.5 * 2); the momentum is then (0.5, -2)
    assert walked[0][0] == pytest.approx([0.85, 2.0])
    # 0.9 * 0.5 - 0.1 * 2 = 0.25 keeps the sign of the momentum, as does 0.9 * -2 + 0.1 * 0.5
    assert walked[1][0] == pytest.approx([0.85 - 0.2 * (1 + 0.425), 2 - 0.2 * (-1 + 1)])


def test_a_momentum_that_is_zero_without_a_gradient_stays_there():
    assert stepped(Lion(), [[0.0]], [0.1], start=[3.0], decay=0.0)[0][0] == [3.0]


def test_schedule_free_by_hand():
    choice = ScheduleFree(beta1=0.5, beta2=0.0, eps=1e-12)
    walked = stepped(choice, [[2.0], [-3.0]], [0.1, 0.3], start=[1.0], decay=0.0)
    # without a memory of squares each step is the rate: z = 0.9, weighed whole, so x = y = 0.9
    assert walked[0] == (pytest.approx([0.9]), pytest.approx([0.9]))
    # z = 1.2 weighs 0.09 / (0.01 + 0.09): x = 0.1 * 0.9 + 0.9 * 1.2, and y is halfway between
    assert walked[1] == (pytest.approx([(1.2 + 1.17) / 2]), pytest.approx([1.17]))


def test_schedule_free_follows_its_algorithm_line_by_line():
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(30, 5, generator=draw).tolist()
    rates = [0.02 * min(1, (t + 1) / 6) for t in range(30)]
    start, decay, beta1, beta2, eps = torch.randn(5, generator=draw).tolist(), 0.1, 0.8, 0.95, 1e-6
    walked = stepped(ScheduleFree(beta1=beta1, beta2=beta2, eps=eps), gradients, rates, start=start, decay=decay)
    x = z = np.array(start)
    v, weighed = np.zeros(5), 0.0
    for t, (g, rate, (found, learned)) in enumerate(zip(np.array(gradients), rates, walked, strict=True), start=1):
        y = (1 - beta1) * z + beta1 * x
        v = beta2 * v + (1 - beta2) * g**2
        gamma = rate * (1 - beta2**t) ** 0.5
        z = z - gamma * g / (np.sqrt(v) + eps) - gamma * decay * y
        weighed += gamma**2
        x = (1 - gamma**2 / weighed) * x + gamma**2 / weighed * z
        np.testing.assert_allclose(learned, x, atol=2e-6)
        np.testing.assert_allclose(found, (1 - beta1) * z + beta1 * x, atol=2e-6)


def test_a_weight_without_a_gradient_is_its_own_average():
    weight = torch.nn.Parameter(torch.ones(2))
    choice = ScheduleFree()
    stepper = choice.over([{"params": [weight], "lr": 1.0, "weight_decay": 0.1}], "cpu")
    stepper.step()
    (learned,) = choice.learned(stepper, [weight])
    assert torch.equal(learned, weight)
    assert learned.data_ptr() != weight.data_ptr()


def test_what_is_handed_back_is_the_average_and_what_validation_read(staged):
    from graftwork.evaluate import outputs, quick_score

    s = staged(FullFineTuning(optimizer=ScheduleFree(), lr=1e-2, batch_size=16), steps=30)
    s.run()
    found = quick_score(s.model, *outputs(s.model, s.validation))
    best = max((e for e in s.events if e["event"] == "evaluation"), key=lambda e: (e["accuracy"], -e["loss"]))
    assert found["loss"] == pytest.approx(best["loss"], abs=1e-5)


def test_schedule_free_brings_its_schedule_unless_one_is_given():
    assert FullFineTuning(optimizer=ScheduleFree()).schedule.name == "constant"
    asked = {"lora": {"optimizer": {"schedule-free": {"beta1": 0.95}}}}
    made = parse(Method, asked)
    assert made.schedule.name == "constant"
    assert parse(Method, made.spec()) == made
    assert FullFineTuning(optimizer=ScheduleFree(), schedule="cosine").schedule.name == "cosine"
    assert FullFineTuning(optimizer=AdamW()).schedule.name == "linear"


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
