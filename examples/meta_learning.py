"""Learn to learn: episodes of a few classes each train an encoder that tells apart classes it has never seen."""

from graftwork import Data, fit
from graftwork.episodes import few_shot
from graftwork.methods import Prototypical
from graftwork.model import TransferModel

whole = Data.load("pydocs", validation=0, test=0)
rows = [{"text": t, "label": k} for t, k in zip(whole["train"].inputs(), whole["train"].labels(), strict=True)]
unseen = set(whole.labels[:6])  # these classes nobody trains on
known = {"train": [row for row in rows if row["label"] not in unseen][::5]}
new = Data.load({"train": [row for row in rows if row["label"] in unseen][::3]}, validation=0, test=0)

run = fit(known, method=Prototypical(ways=4, shots=2, queries=2), budget="5steps")
print("accuracy on new classes", few_shot(TransferModel.load(run.path / "model"), new, ways=3, queries=5))
