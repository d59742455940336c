"""The shelf of heads: importing it puts every head on it. To add one, write a class under `Head` in a file here."""

from graftwork.choice import import_shelf

import_shelf(__name__)
