"""A fine-tuned model teaches one of half its layers: the student learns what the teacher answers, and how sure it is.

A list of methods is a recipe; without teachers of its own, distillation takes the model as the stage before handed it
back, and keeps three of its blocks.
"""

from graftwork import evaluate, fit
from graftwork.methods import Distillation, FullFineTuning

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=[FullFineTuning(), Distillation(layers=3, temperature=2.0)], budget="10steps")
print(f"{run.cost['model_mb']} MB, test accuracy {evaluate(run)['accuracy']:.1%}")
