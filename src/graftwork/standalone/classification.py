"""Labels and calibrated probabilities of texts. Needs onnxruntime, tokenizers, numpy and the files beside this one.

python predict.py "a text" "another", or python predict.py < texts.txt: a line of JSON for each.
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
    ids = tokenizer.encode(told["before"] + text + told["after"]).ids or [told["pad_id"]]
    over = max(len(ids) - told["max_length"], 0)
    end = len(ids) - told["closing"]
    return ids[: end - over] + ids[end:]


def outputs(text):
    """Raw outputs, (classes,): of one text at a time, so that its answer does not depend on its company."""
    ids = np.array([encode(text)], dtype=np.int64)
    return np.array(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])[0]


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


if __name__ == "__main__":
    for text in sys.argv[1:] or sys.stdin.read().splitlines():
        print(json.dumps({"text": text, **answer(outputs(text))}, ensure_ascii=False))
