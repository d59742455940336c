"""A recipe of stages: read the head off the frozen encoder first, then let LoRA move the encoder from there.

A list of methods is a recipe; each stage begins with what the one before it handed back. The stages that take steps
share the budget equally.
"""

from graftwork import evaluate, fit
from graftwork.methods import LinearProbe, LoRA

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=[LinearProbe(), LoRA(rank=4)], budget="5steps")
for stage in run.happened["stages"]:
    print(*stage["method"], f"{stage['trained_parameters']:,} parameters")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
