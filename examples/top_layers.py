"""Only the topmost block and the head train. The frozen rest is computed once an example and read from disk."""

from graftwork import evaluate, fit
from graftwork.methods import TopLayers

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=TopLayers(blocks=1), budget="2epochs")
share = run.cost["trained_parameters"] / run.cost["total_parameters"]
print(f"test accuracy {evaluate(run)['accuracy']:.1%} with {share:.1%} of the parameters trained")
