"""How long a fitted model takes to answer, from text to names, as a user would wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graftwork.model import TransferModel

_SECONDS = 2.0  # at most so long for each batch size
_TIMES = 50
_WARM = 3
_IN_TURN = {1: 30, 32: 15}
_BLOCK = 6  # answers of one, before it is the other's turn; of these the first wakes threads and does not count
_REST = 0.05
"""Seconds before a block: threads of the one before look for work for a while."""


def latency(model: TransferModel, inputs: Sequence[Any]) -> dict[str, float]:
    """Milliseconds of `model.predict` at batch 1 and 32, and how many answers a second it gives.

    Args:
        model: on the device it is to be measured on.
        inputs: real ones; they are taken in turn.

    Returns:
        as `waited`.
    """
    return waited(model.predict, inputs)


def waited(ask: Callable[[list[Any]], Any], inputs: Sequence[Any]) -> dict[str, float]:
    """How long `ask` takes for 1 and for 32 inputs.

    Args:
        ask: answers some inputs.
        inputs: real ones; they are taken in turn.

    Returns:
        `ms_1_p50`, `ms_1_p95`, `ms_32_p50`, `ms_32_p95` in milliseconds, and `per_second` at batch 32.
    """
    taken: dict[int, list[float]] = {}
    for size in (1, 32):
        taken[size], began = [], time.perf_counter()
        while len(taken[size]) < _TIMES + _WARM and (
            len(taken[size]) < _WARM + 2 or time.perf_counter() - began < _SECONDS
        ):
            taken[size].append(_asked(ask, inputs, size, len(taken[size])))
    return _summed({size: each[_WARM:] for size, each in taken.items()})


def waited_beside(
    ask: Callable[[list[Any]], Any],
    reference: Callable[[list[Any]], Any],
    known: dict[str, float],
    inputs: Sequence[Any],
) -> dict[str, float]:
    """As `waited`, but measured in turn with another, so that a machine that is busier now than before tells no lie.

    Args:
        ask: answers some inputs.
        reference: the other one.
        known: what `waited` found of `reference`.
        inputs: real ones; they are taken in turn.

    Returns:
        What `ask` would have taken then: `known`, by the ratio of what both take now.
    """
    now: list[dict[int, list[float]]] = [{1: [], 32: []}, {1: [], 32: []}]
    for size in (1, 32):
        began, first = time.perf_counter(), 0
        while len(now[0][size]) < _IN_TURN[size] and (not first or time.perf_counter() - began < 2 * _SECONDS):
            for which, taken in zip((reference, ask), now, strict=True):
                time.sleep(_REST)
                taken[size] += [_asked(which, inputs, size, turn) for turn in range(first, first + _BLOCK)][1:]
            first += _BLOCK
    theirs, ours = now
    slower = {size: float(np.median(each)) / known[f"ms_{size}_p50"] for size, each in theirs.items()}
    return _summed({size: [ms / slower[size] for ms in each] for size, each in ours.items()})


def _asked(ask: Callable[[list[Any]], Any], inputs: Sequence[Any], size: int, turn: int) -> float:
    """Milliseconds that one answer takes, to `size` inputs from the `turn`-th lot of them on."""
    batch = [inputs[(turn * size + i) % len(inputs)] for i in range(size)]
    start = time.perf_counter()
    ask(batch)
    return 1000 * (time.perf_counter() - start)


def _summed(taken: dict[int, list[float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for size, each in taken.items():
        p50, p95 = np.percentile(each, [50, 95])
        found |= {f"ms_{size}_p50": round(float(p50), 2), f"ms_{size}_p95": round(float(p95), 2)}
    return found | {"per_second": round(32_000 / found["ms_32_p50"], 1)}
