"""How alike two texts are. Needs onnxruntime, tokenizers, numpy and the files beside this one.

python predict.py "one text" "the other", or python predict.py < pairs.tsv with a tab between the two: a line of JSON
for each pair.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
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


def encode(text):
    """Token ids of one text: where it is too long its end goes, what closes it stays."""
    ids = tokenizer.encode(text).ids or [told["pad_id"]]
    over = max(len(ids) - told["max_length"], 0)
    end = len(ids) - told["closing"]
    return ids[: end - over] + ids[end:]


def embedding(text, threads=0):
    """A text at unit length, (dim,): the product of two is their cosine."""
    ids = np.array([encode(text)], dtype=np.int64)
    return np.array(opened(threads).run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])[0]


def outputs(pair, threads=0):
    """Both embeddings, (2 dim,)."""
    return np.concatenate([embedding(text, threads) for text in pair])


def answer(found):
    """The score; or the class, with calibrated probabilities."""
    one, other = np.asarray(found, dtype=np.float64).reshape(2, -1)
    cosine = np.clip((one * other).sum(), -1, 1)
    line = cosine / told["temperature"] + sum(told["offsets"])
    if told["scored"]:
        low, high = map(float, told["labels"])
        score = low + np.clip(line, 0, 1) * (high - low)
        return {"label": f"{score:.5g}", "confidence": None, "unsure": False, "probabilities": {}}
    p = float(np.exp(-np.logaddexp(0, -line)))
    alike = bool(cosine >= told["threshold"])
    sure = p if alike else 1 - p
    chances = dict(zip(told["labels"], (1 - p, p), strict=True))
    unsure = sure < told["sure_from"]
    return {"label": told["labels"][alike], "confidence": sure, "unsure": unsure, "probabilities": chances}


def answers(pairs):
    """The answer to each, in turn: as many at once as there are cores, each by itself and so as `outputs` has it."""
    if len(pairs) == 1:
        yield answer(outputs(pairs[0]))
        return
    opened(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(pairs), 1000):
            yield from pool.map(lambda pair: answer(outputs(pair, threads=1)), pairs[first : first + 1000])


if __name__ == "__main__":
    pairs = [sys.argv[1:]] if sys.argv[1:] else [line.split("\t") for line in sys.stdin.read().splitlines()]
    for pair, found in zip(pairs, answers(pairs), strict=True):
        print(json.dumps({"text": pair, **found}, ensure_ascii=False))
