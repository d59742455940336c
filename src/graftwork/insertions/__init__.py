"""The shelf of insertions: importing it puts every one on it. To add one, write a class under `Insertion` in a file."""

from graftwork.choice import import_shelf

import_shelf(__name__)
