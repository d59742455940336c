"""The topmost layers know best what the encoder was last trained for: cut them off where a probe reads better."""

from graftwork import fit, rank
from graftwork.methods import LinearProbe, LowerLayers

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
for layer in rank(data, layers=True, rows=100)[:3]:
    print(f"layer {layer.layer}: a probe reads {layer.scores['probe']:.1%} right")
run = fit(data, method=[LowerLayers(), LinearProbe()])
print(f"{run.cost['model_mb']} MB; validation accuracy {run.metrics['validation']['accuracy']:.1%}")
