"""What the pretrained model already knows: a logistic regression on its frozen embeddings. Seconds, and no budget."""

from graftwork import evaluate, fit, predict

data = {"source": "pydocs", "limit": 200, "validation": 0.05, "test": 0.05}  # little, so that this ends at once
run = fit(data, method="linear-probe")
print(f"test accuracy {evaluate(run)['accuracy']:.1%}; {run.cost['trained_parameters']:,} parameters fitted")
print(predict(run, ["Wait until all the tasks of the group have finished."])[0]["label"])
