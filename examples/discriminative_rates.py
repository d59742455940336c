"""Every weight trains, the lower the slower: what lies low is general, and is kept (ULMFiT, section 3.2)."""

from graftwork import evaluate, fit
from graftwork.methods import DiscriminativeRates

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method=DiscriminativeRates(decay=2.6), budget="5steps")
for group in run.happened["stages"][0]["groups"]:
    print(f"{group['name']:<22} learning rate {group['lr']:.1e}, {group['parameters']:>10,} parameters")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
