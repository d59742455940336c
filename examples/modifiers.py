"""What goes with any method: another head, and modifiers, here against rare classes and against forgetting.

On the command line the same is `--method lora@cosine:class-weights:l2-sp`.
"""

from graftwork import evaluate, fit
from graftwork.heads import Cosine
from graftwork.methods import LoRA
from graftwork.modifiers import L2SP, ClassWeights

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=LoRA(head=Cosine(), modifiers=(ClassWeights(), L2SP())), budget="5steps")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
