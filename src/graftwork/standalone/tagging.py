"""A tag for each word. Needs onnxruntime, tokenizers, numpy and the files beside this one.

python predict.py "words with spaces between them", or python predict.py < texts.txt: a line of JSON for each.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path(__file__).parent
told = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))


@cache
def opened(threads):
    """The network, on so many threads; 0 is one a core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def encoding(words):
    """The tokenizer's record, in which every word has a token: one that it drops is read as unknown."""
    found = tokenizer.encode(words, is_pretokenized=True)
    missing = set(range(len(words))).difference(found.word_ids)
    if not missing:
        return found
    kept = [told["stand_in"] if k in missing else word for k, word in enumerate(words)]
    return tokenizer.encode(kept, is_pretokenized=True)


def windows(words):
    """(token ids, places): the places of the words asked there. What is too long is read in overlapping windows.

    A word is asked where it stands farther from a cut edge.
    """
    found = encoding(words)
    special = np.array(found.special_tokens_mask, dtype=bool)
    of_word = np.array([-1 if word is None else word for word in found.word_ids], dtype=int)
    first = np.concatenate([[True], of_word[1:] != of_word[:-1]])[: len(of_word)] & (of_word >= 0) & ~special
    ids = np.array(found.ids, dtype=int)
    if len(ids) <= told["max_length"]:
        return [(ids.tolist(), np.flatnonzero(first))]
    inner = np.flatnonzero(~special)
    head, body, tail = ids[: inner[0]], ids[inner], ids[inner[-1] + 1 :]
    asked, room = np.flatnonzero(first[inner]), told["max_length"] - len(head) - len(tail)
    starts = [*range(0, len(body) - room, room - room // 4), len(body) - room]
    seams = [0, *((one + room + other) // 2 for one, other in pairwise(starts)), len(body)]
    cut = []
    for at, (low, high) in zip(starts, pairwise(seams), strict=True):
        part = np.concatenate([head, body[at : at + room], tail]).tolist()
        cut.append((part, asked[(asked >= low) & (asked < high)] - at + len(head)))
    return cut


def outputs(words, threads=0):
    """Raw outputs of each word, (words, tags)."""
    found = []
    for part, places in windows(words):
        ids = np.array([part], dtype=np.int64)
        (tags,) = opened(threads).run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        found.append(np.array(tags)[0, places])
    return np.concatenate(found)


def answer(found):
    """Raw outputs in names; a text is as sure as its least certain word."""
    scaled = np.asarray(found, dtype=np.float64) / told["temperature"]
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    sure = float((p.max(axis=1) / p.sum(axis=1)).min()) if len(p) else 1.0
    tags = [told["labels"][k] for k in scaled.argmax(axis=1)] if len(p) else []
    return {"label": tags, "confidence": sure, "unsure": sure < told["sure_from"], "probabilities": None}


def answers(texts):
    """The answer to each, in turn: as many at once as there are cores, each by itself and so as `outputs` has it."""
    if len(texts) == 1:
        yield answer(outputs(texts[0]))
        return
    opened(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(texts), 1000):
            yield from pool.map(lambda words: answer(outputs(words, threads=1)), texts[first : first + 1000])


if __name__ == "__main__":
    texts = sys.argv[1:] or sys.stdin.read().splitlines()
    for text, found in zip(texts, answers([text.split() for text in texts]), strict=True):
        print(json.dumps({"text": text, **found}, ensure_ascii=False))
