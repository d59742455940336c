"""How alike two texts are. Needs onnxruntime, tokenizers, numpy and the files beside this one.

python predict.py "one text" "the other", or python predict.py < pairs.tsv with a tab between the two: a line of JSON
for each pair.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path(__file__).parent
told = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the cores to others
session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def encode(text):
    """Token ids of one text: where it is too long its end goes, what closes it stays."""
    ids = tokenizer.encode(text).ids or [told["pad_id"]]
    over = max(len(ids) - told["max_length"], 0)
    end = len(ids) - told["closing"]
    return ids[: end - over] + ids[end:]


def embedding(text):
    """A text at unit length, (dim,): the product of two is their cosine."""
    ids = np.array([encode(text)], dtype=np.int64)
    return np.array(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])[0]


def outputs(pair):
    """Both embeddings, (2 dim,)."""
    return np.concatenate([embedding(text) for text in pair])


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


if __name__ == "__main__":
    pairs = [sys.argv[1:]] if sys.argv[1:] else [line.split("\t") for line in sys.stdin.read().splitlines()]
    for pair in pairs:
        print(json.dumps({"text": pair, **answer(outputs(pair))}, ensure_ascii=False))
