"""Search for a prompt: the template and label words by which a language model tells the classes best, as plain text."""

from graftwork import evaluate, fit
from graftwork.heads import Verbalizer
from graftwork.methods import LoRA, PromptSearch

modules = {"random": ["random", "chance"], "os": ["file", "folder"], "math": ["number", "sum"]}
rows = [
    {"text": f"{verb} {what}.", "label": label}
    for label, things in {
        "random": ["a seed", "a card", "dice", "a sample"],
        "os": ["a path", "a file", "a folder", "a process"],
        "math": ["a sine", "a root", "a power", "a sum"],
    }.items()
    for what in things
    for verb in ("Return", "Take", "Give", "Find")
]
search = PromptSearch(
    head=Verbalizer(template="{text} It deals with [MASK].", words=modules), evaluations=6, rows=30, folds=2
)
run = fit({"train": rows}, model="graft-mini", method=[search, LoRA(head=search.head)], budget="3steps")
print(run.happened["stages"][0]["found"]["said"])
print(f"test accuracy {evaluate(run)['accuracy']:.1%}")
