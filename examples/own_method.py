"""A method of your own: one class that states only its difference from full fine-tuning.

This one leaves the table of word embeddings as it is. `check_method` tries it as every method of the shelf is tried:
does it move only what it says, go on after a kill to the same bits, hand back a plain model?
"""

from graftwork import evaluate, fit
from graftwork.method import GradientMethod
from graftwork.testing import check_method


class FrozenWords(GradientMethod):
    """Train everything but the word embeddings: rows of rare words would only learn noise."""

    def prepare(self, model, train):
        super().prepare(model, train)
        model.encoder.get_input_embeddings().requires_grad_(False)


if __name__ == "__main__":
    check_method(FrozenWords)
    data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}
    run = fit(data, method=FrozenWords(batch_size=16), budget="5steps")
    print(f"test accuracy {evaluate(run)['accuracy']:.1%}, {run.cost['trained_parameters']:,} parameters trained")
