"""Search for a prompt: the template and label words by which a language model tells the classes best, as plain text."""

from graftwork import Data, fit
from graftwork.heads import Verbalizer
from graftwork.methods import LoRA, PromptSearch

words = {"email": ["letter", "message"], "pathlib": ["file", "road"], "turtle": ["pen", "line"]}
whole = Data.load("pydocs", validation=0, test=0)
named = zip(whole["train"].inputs(), whole["train"].labels(), strict=True)
rows = [{"text": text, "label": label} for text, label in named if label in words]
data = Data.load({"train": rows[::3]})  # little, so that this ends at once

search = PromptSearch(head=Verbalizer(template="{text} It deals with a [MASK].", words=words), evaluations=4, rows=30)
run = fit(data, model="graft-mini", method=[search, LoRA(head=search.head)], budget="3steps")
print(run.happened["stages"][0]["found"]["said"])
print(f"validation accuracy {run.metrics['validation']['accuracy']:.1%}")
