"""The head trains first, then one more depth each epoch, from the top (ULMFiT, section 3.3)."""

from graftwork import evaluate, fit
from graftwork.methods import GradualUnfreezing

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=GradualUnfreezing(), budget="3epochs")
for epoch, depths in run.happened["unfreezing"]:
    print(f"epoch {epoch}: the head{', ' if depths else ''}{', '.join(depths)}")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
