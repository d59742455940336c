"""The shelf of tasks: importing it puts every task on it."""

from graftwork.tasks.classification import Classification
from graftwork.tasks.tagging import Tagging

__all__ = ["Classification", "Tagging"]
