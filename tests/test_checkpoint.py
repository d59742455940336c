"""A checkpoint holds everything a stage has learned, and is either whole or not there."""

from __future__ import annotations

import math
import os

import pytest
import torch
from torch import nn

from graftwork import checkpoint
from graftwork.checkpoint import Progress


def learned(steps: int = 3):
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))]
    optimizer = torch.optim.AdamW([{"params": weights[:2], "lr": 0.1}, {"params": weights[2:], "lr": 0.2}], fused=True)
    for _ in range(steps):
        (weights[0].sum() ** 2 + weights[1].square().sum()).backward()  # the third never has a gradient
        optimizer.step()
        optimizer.zero_grad()
    return weights, optimizer


def test_weights_optimizer_progress_and_best_come_back_to_the_last_bit(tmp_path):
    weights, optimizer = learned()
    best = [torch.randn(4, 3), torch.randn(3), torch.randn(2)]
    progress = Progress(
        stage=1, step=3, seconds=1.23456789, examples=48, best=0.5, best_step=2, unfreezing=[[0, []], [1, ["block 1"]]]
    )
    checkpoint.save(tmp_path / "c", progress, weights, optimizer, best, {"0.mean": torch.arange(3.0)})
    fresh, empty = learned(steps=0)
    for weight in fresh:
        weight.data.zero_()
    found, found_best, remembered = checkpoint.load(tmp_path / "c", fresh, empty)
    assert found == progress
    assert remembered.keys() == {"0.mean"}
    assert torch.equal(remembered["0.mean"], torch.arange(3.0))
    assert all(torch.equal(a, b) for a, b in zip(fresh + found_best, weights + best, strict=True))
    for a, b in zip(fresh, weights, strict=True):
        assert empty.state[a].keys() == optimizer.state[b].keys()
        for name in optimizer.state[b]:
            assert torch.equal(empty.state[a][name], optimizer.state[b][name]), name


def test_steps_after_loading_are_the_steps_that_would_have_been_taken(tmp_path):
    def step(weights, optimizer):
        weights[0].square().sum().backward()
        optimizer.step()
        return weights[0].detach().clone()

    weights, optimizer = learned()
    checkpoint.save(tmp_path / "c", Progress(), weights, optimizer, [], {})
    fresh, empty = learned(steps=0)
    checkpoint.load(tmp_path / "c", fresh, empty)
    assert torch.equal(step(fresh, empty), step(weights, optimizer))


def test_before_the_first_validation_there_is_no_best_yet(tmp_path):
    weights, optimizer = learned()
    checkpoint.save(tmp_path / "c", Progress(), weights, optimizer, [], {})
    progress, best, _ = checkpoint.load(tmp_path / "c", weights, optimizer)
    assert (progress.best, best) == (-math.inf, [])


def test_where_it_stands_is_read_without_the_weights(tmp_path):
    assert (checkpoint.stage_of(tmp_path / "c"), checkpoint.step_of(tmp_path / "c")) == (None, 0)
    checkpoint.save(tmp_path / "c", Progress(stage=2, step=17), *learned(), [], {})
    assert (checkpoint.stage_of(tmp_path / "c"), checkpoint.step_of(tmp_path / "c")) == (2, 17)


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_litter(tmp_path, monkeypatch):
    weights, optimizer = learned()
    checkpoint.save(tmp_path / "c", Progress(step=1), weights, optimizer, [], {})

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"No space left|is full"):
        checkpoint.save(tmp_path / "c", Progress(step=2), weights, optimizer, [], {})
    assert checkpoint.step_of(tmp_path / "c") == 1
    assert os.listdir(tmp_path) == ["c"]
