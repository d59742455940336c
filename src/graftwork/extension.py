"""More pieces for a vocabulary: words of a domain that the tokenizer cuts become pieces of their own.

A new piece begins as the mean of those that it was cut into, so that the model goes on from what it knew.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer

from graftwork.choice import InputError
from graftwork.modalities.text import Text
from graftwork.models import LANGUAGE_MODELS, load_network, quiet

if TYPE_CHECKING:
    from graftwork.corpus import Corpus

OFTEN = 5
"""Words that a corpus holds less often are not worth a piece."""


def cut_words(corpus: Corpus, tokenizer: Tokenizer, count: int) -> dict[str, list[int]]:
    """At most `count` words of a corpus's train text, each with the ids that it is cut into now.

    Those come first that save the most pieces: how often a word stands there, times the pieces that it is cut into less
    one. Words of which a part is unknown, and such as stand there fewer than 5 times, are left.
    """
    seen: Counter[str] = Counter()
    for text, _ in corpus.passages("train"):
        seen.update(_words(tokenizer, text))
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "") if tokenizer.model else None
    cut = {word: tokenizer.encode(word, add_special_tokens=False).ids for word, n in seen.items() if n >= OFTEN}
    cut = {word: ids for word, ids in cut.items() if len(ids) > 1 and unknown not in ids}
    order = sorted(cut, key=lambda word: (-seen[word] * (len(cut[word]) - 1), word))
    return {word: cut[word] for word in order[:count]}


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    """As the tokenizer sees them, before it cuts them."""
    plain = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(plain)]


def extend(folder: Path, kind: str, corpus: Corpus, count: int, out: Path) -> list[str]:
    """Write a model whose tokenizer knows `count` more words of a corpus; gives these words.

    On texts without them it answers as before; a new piece's row of the embeddings, and of a head that is not tied to
    them, is the mean of the rows of the pieces that the word was cut into (Gururangan et al. 2020 keep the vocabulary;
    the mean is that of AVocaDo, Hong et al. 2021, without its regularisation).

    Args:
        folder: of a language model, or a body that can be one.
        kind: `masked` or `causal`.
        corpus: whose words.
        count: how many, at most.
        out: where to.

    Raises:
        InputError: the tokenizer is no WordPiece, whose pieces alone can be added to without changing the others.
    """
    import transformers

    modality = Text.from_folder(folder)
    described: dict[str, Any] = json.loads(modality.tokenizer.to_str())
    if described["model"]["type"] != "WordPiece":
        raise InputError(
            f"The tokenizer of {str(folder)!r} is {described['model']['type']}, and only WordPiece can be extended. "
            "Leave --extend out."
        )
    words = cut_words(corpus, modality.tokenizer, count)
    if not words:
        raise InputError("The tokenizer cuts no frequent word of these texts: there is nothing to extend it by.")
    network, _ = load_network(getattr(transformers, LANGUAGE_MODELS[kind]), folder, how=" as a language model")
    first = modality.tokenizer.get_vocab_size()
    described["model"]["vocab"] |= {word: first + i for i, word in enumerate(words)}
    modality.tokenizer = Tokenizer.from_str(json.dumps(described))
    with quiet():
        network.resize_token_embeddings(max(first + len(words), network.config.vocab_size), mean_resizing=False)
    _begin_as_means(network, first, list(words.values()))
    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        network.save_pretrained(out)
    modality.save(out)
    return list(words)


@torch.no_grad()
def _begin_as_means(network: Any, first: int, cut: list[list[int]]) -> None:
    tables = {id(p): p for p in network.get_input_embeddings().parameters()}
    if (head := network.get_output_embeddings()) is not None:
        tables |= {id(p): p for p in head.parameters()}  # the bias, too, and the table once where it is tied
    for table in tables.values():
        for place, ids in enumerate(cut):
            table[first + place] = table[ids].mean(dim=0)
