"""fill: what a masked language model would put into the gaps of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from graftwork.choice import InputError
from graftwork.hardware import Hardware
from graftwork.language import opened
from graftwork.model import evaluating
from graftwork.template import MASK


@dataclass(frozen=True)
class Filling:
    """One piece that may stand in a gap."""

    piece: str
    probability: float


@torch.inference_mode()
def fill(
    texts: Sequence[str], *, model: str | Path = "graft-mini", top: int = 5, hardware: Hardware | None = None
) -> list[list[list[Filling]]]:
    """For each text and each gap in it the most probable pieces, the best first.

    Args:
        texts: with `[MASK]` where a word is to be found.
        model: a masked language model: an embedded one, a folder, a run of `pretrain`, a hub id.
        top: pieces a gap.
        hardware: device.

    Raises:
        InputError: a text without a gap or longer than the model reads, or a model that fills none.

    Example:
        fill(["He opened the [MASK] and went in."])[0][0][0].piece
    """
    language = opened(model, "masked").to((hardware or Hardware()).torch_device())
    modality = language.text
    mask = modality.mask_token or MASK
    found: list[list[list[Filling]]] = []
    with evaluating(language):
        for text in texts:
            if MASK not in text:
                raise InputError(f"There is no {MASK} in {text!r}. Put it where a word is to be found.")
            ids = modality.encodings([text.replace(MASK, mask)])[0].ids
            if len(ids) > modality.max_length:
                raise InputError(f"A text of {len(ids)} pieces is longer than the {modality.max_length} that are read.")
            given = torch.tensor([ids], device=language.device)
            states = language.encoder(input_ids=given).last_hidden_state[0]
            gaps = given[0] == modality.tokenizer.token_to_id(mask)
            chances = language.head(states[gaps]).float().softmax(dim=-1)
            best = chances.topk(min(top, chances.shape[-1]))
            found.append(
                [
                    [
                        Filling(modality.tokenizer.decode([piece]).strip() or language.task.labels[piece], chance)
                        for piece, chance in zip(pieces, shares, strict=True)
                    ]
                    for pieces, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                ]
            )
    return found
