"""Labels of one domain, texts of another: how far apart are they, and is the encoder to be kept from telling them?"""

from graftwork import Data, evaluate, fit, shift
from graftwork.methods import Dann

few = Data.load("pydocs", limit=150, validation=0.05, test=0.05)  # little, so that this ends at once
texts = [{"text": f"hi, how do i {text.lower().rstrip('.')} please?"} for text in few["train"].inputs()]
asked = {"source": "pydocs", "limit": 150, "validation": 0.05, "test": 0.05, "target": {"train": texts}}
print(*shift(asked).said, sep="\n")

run = fit(asked, method=Dann(blocks=1, weight=0.3), budget="5steps")
print(f"test accuracy {evaluate(run, Data.load(**asked))['accuracy']:.1%} on the source")
