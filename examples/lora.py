"""A low-rank update beside each frozen matrix, merged into it at the end: the fitted model is as large as before."""

from graftwork import evaluate, fit
from graftwork.methods import LoRA

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=LoRA(rank=4), budget="5steps")
print(f"{run.cost['trained_parameters']:,} of {run.cost['total_parameters']:,} parameters trained")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
