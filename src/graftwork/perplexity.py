"""perplexity: how well a language model foretells a text."""

from __future__ import annotations

from pathlib import Path

import graftwork.pretexts  # noqa: F401  puts every pretext on its shelf
from graftwork.corpus import Corpus, windows
from graftwork.hardware import Hardware
from graftwork.language import kind_of, opened, pieces_of
from graftwork.methods.pretraining import pretext_scores
from graftwork.models import require_reader, resolve
from graftwork.pretext import pretext_of


def perplexity(
    corpus: str | Path,
    *,
    model: str | Path = "graft-mini-gpt",
    length: int | None = None,
    column: str | None = None,
    hardware: Hardware | None = None,
) -> dict[str, float | int | str]:
    """The perplexity of a text, and the share of pieces told right.

    A causal model is asked for each piece after those before it in its window; a masked one for 15 % of the pieces,
    from both sides, the same ones each time. The two are not to be compared.

    Args:
        corpus: a text file, or a folder of them; all of it is read.
        model: a language model: an embedded one, a folder, a run of `pretrain`, a hub id.
        length: tokens a window; by default what the model reads.
        column: which column holds the text, where files have columns.
        hardware: device and precision.

    Returns:
        `objective`, `perplexity`, `loss` (nats a piece), `accuracy`, `tokens`.

    Raises:
        InputError: nothing to read, or a model without a language-model head.
    """
    hardware = hardware or Hardware()
    require_reader(model, "text")
    kind = kind_of(resolve(model))
    language = opened(model, kind).to(hardware.torch_device())
    texts = windows(Corpus(corpus, column), "all", language, length or min(language.modality.max_length, 512))
    scores = pretext_scores(language, pretext_of(kind), pieces_of(language), texts, "fp32", most=len(texts))
    return {"objective": kind, "tokens": texts.tokens} | {k: scores[k] for k in ("perplexity", "loss", "accuracy")}
