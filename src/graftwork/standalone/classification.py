"""Labels and calibrated probabilities of texts. Needs onnxruntime, tokenizers, numpy and the files beside this one.

python predict.py "a text" "another", or python predict.py < texts.txt: a line of JSON for each.
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
    ids = tokenizer.encode(told["before"] + text + told["after"]).ids or [told["pad_id"]]
    over = max(len(ids) - told["max_length"], 0)
    end = len(ids) - told["closing"]
    return ids[: end - over] + ids[end:]


def outputs(text, threads=0):
    """Raw outputs, (classes,): of one text at a time, so that its answer does not depend on its company."""
    ids = np.array([encode(text)], dtype=np.int64)
    return np.array(opened(threads).run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])[0]


def answer(found):
    """Raw outputs in names, with calibrated probabilities."""
    scaled = np.asarray(found, dtype=np.float64) / told["temperature"]
    if told["multi_label"]:
        p = 1 / (1 + np.exp(-scaled))
        label = [name for name, v in zip(told["labels"], p, strict=True) if v >= told["threshold"]]
        sure = np.where(p >= told["threshold"], p, 1 - p).min()
    else:
        p = np.exp(scaled + told["offsets"] - np.max(scaled + told["offsets"]))
        p = p / p.sum()
        label, sure = told["labels"][int(p.argmax())], p.max()
    unsure = bool(sure < told["sure_from"])
    chances = {name: float(v) for name, v in zip(told["labels"], p, strict=True)}
    return {"label": label, "confidence": float(sure), "unsure": unsure, "probabilities": chances}


def answers(texts):
    """The answer to each, in turn: as many at once as there are cores, each by itself and so as `outputs` has it."""
    if len(texts) == 1:
        yield answer(outputs(texts[0]))
        return
    opened(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(texts), 1000):
            yield from pool.map(lambda text: answer(outputs(text, threads=1)), texts[first : first + 1000])


if __name__ == "__main__":
    texts = sys.argv[1:] or sys.stdin.read().splitlines()
    for text, found in zip(texts, answers(texts), strict=True):
        print(json.dumps({"text": text, **found}, ensure_ascii=False))
