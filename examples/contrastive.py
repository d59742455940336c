"""Learn by comparing: texts of one class come together, others apart; at home where there are few labels a class."""

from graftwork import evaluate, fit
from graftwork.methods import SupervisedContrastive

data = {"source": "pydocs", "shots": 8, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=SupervisedContrastive(temperature=0.1), budget="5steps")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
