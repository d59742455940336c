"""The command line: one function a verb, each thin. The verbs do the work; here it is only asked for and told.

`app` guards every verb; `road`, `choosing`, `onward`, `language` and `catalogue` hold them, in the order in which help
lists them.
"""

from graftwork.cli import road, choosing, onward, language, catalogue  # isort: skip
from graftwork.cli.app import app, main

__all__ = ["app", "catalogue", "choosing", "language", "main", "onward", "road"]
