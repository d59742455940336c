"""generate: what a causal language model writes after a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graftwork.augmentations.language_model import LanguageModel
from graftwork.choice import InputError
from graftwork.hardware import Hardware
from graftwork.language import require_kind


def generate(
    prompts: Sequence[str],
    *,
    model: str | Path = "graft-mini-gpt",
    tokens: int = 60,
    top_k: int = 40,
    temperature: float = 0.9,
    seed: int = 0,
    hardware: Hardware | None = None,
) -> list[str]:
    """What the model writes after each prompt, drawn token by token.

    Args:
        prompts: texts to go on from.
        model: a causal language model: an embedded one, a folder, a run of `pretrain`, a hub id.
        tokens: at most so many new ones; fewer where the model reads no more.
        top_k: the most probable tokens that are drawn from; 1 for always the best.
        temperature: logits are divided by this first.
        seed: of the draws.
        hardware: device.

    Raises:
        InputError: the model writes nothing, or a prompt leaves no room.
    """
    require_kind(model, "causal")
    language = LanguageModel.load(str(model), "causal", hardware or Hardware(), asked_by="model")
    room = np.minimum(language.max_length - language.lengths(prompts), tokens)
    if (room < 1).any():
        long = prompts[int(room.argmin())]
        raise InputError(
            f"The prompt {long[:40]!r}... fills the {language.max_length} tokens that are read. Shorten it."
        )
    luck = [np.random.default_rng((seed, number)) for number in range(len(prompts))]
    return language.write(prompts, luck, room=room, top_k=top_k, temperature=temperature)
