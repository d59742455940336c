"""Pairs of texts that are alike or not: the encoder learns it, and then finds the texts that are nearest to a query."""

from itertools import pairwise

from graftwork import Data, evaluate, fit, search

docs = Data.load("pydocs", limit=200, validation=0, test=0)["train"]
rows = sorted(zip(docs.labels(), docs.inputs(), strict=True))
alike = [{"text_a": a, "text_b": b, "label": "yes"} for (m, a), (n, b) in pairwise(rows) if m == n]
strange = [{"text_a": a, "text_b": b, "label": "no"} for (_, a), (_, b) in zip(rows, rows[100:], strict=False)]

data = Data.load({"train": alike[::2] + strange[::2], "test": alike[1::2] + strange[1::2]})
run = fit(data, budget="5steps")
print(f"test accuracy {evaluate(run, data)['accuracy']:.1%}")
(hits,) = search(run, ["Wait for a task"], docs.inputs(), top=3)
for hit in hits:
    print(f"{hit.score:.3f}  {hit.text}")
