"""Every weight trains. The default: the most accurate where labels are many, the most expensive always.

The budget here is tiny; leave it out and the method takes what it asks for.
"""

from graftwork import evaluate, fit

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method="full-fine-tuning", budget="5steps")
print(f"test accuracy {evaluate(run)['accuracy']:.1%} in {run.cost['seconds']:.0f} s")
print(f"the report: {run.path / 'report.html'}")
