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
    found: dict[str, float] = {}
    for size in (1, 32):
        taken: list[float] = []
        began = time.perf_counter()
        while len(taken) < _TIMES + _WARM and (len(taken) < _WARM + 2 or time.perf_counter() - began < _SECONDS):
            first = len(taken) * size
            batch = [inputs[(first + i) % len(inputs)] for i in range(size)]
            start = time.perf_counter()
            ask(batch)
            taken.append(1000 * (time.perf_counter() - start))
        p50, p95 = np.percentile(taken[_WARM:], [50, 95])
        found |= {f"ms_{size}_p50": round(float(p50), 2), f"ms_{size}_p95": round(float(p95), 2)}
    return found | {"per_second": round(32_000 / found["ms_32_p50"], 1)}
