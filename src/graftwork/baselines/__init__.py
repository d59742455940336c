"""The shelf of baselines: importing it puts every baseline on it."""

from graftwork.baselines.majority import Majority
from graftwork.baselines.neighbours import NearestNeighbours
from graftwork.baselines.tfidf import Tfidf

__all__ = ["Majority", "NearestNeighbours", "Tfidf"]
