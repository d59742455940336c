"""Advice in a minute, and a fit that follows it."""

from graftwork import advise, fit

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
advice = advise(data, methods=["linear-probe", "top-layers"], budget="5steps")
for option in advice.options:
    print(f"{option.name}: {option.low:.1%} to {option.high:.1%} expected, {option.seconds:.0f} s to fit")
run = fit(data, method=advice.best.spec, budget=advice.best.budget)
print(f"{advice.best.name}: validation accuracy {run.metrics['validation']['accuracy']:.1%}")
