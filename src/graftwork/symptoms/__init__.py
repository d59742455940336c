"""The shelf of symptoms: importing it registers them all."""

from graftwork.symptom import SYMPTOMS
from graftwork.symptoms import folders, labels, pictures, repetitions, tags, texts, tokens, triplets

__all__ = ["SYMPTOMS", "folders", "labels", "pictures", "repetitions", "tags", "texts", "tokens", "triplets"]
