"""Every head on the shelf can be taken by a method, and each answers as its own formula says."""

from __future__ import annotations

import pytest

import graftwork.heads  # noqa: F401  puts every head on its shelf
from graftwork.choice import lookup, names
from graftwork.head import Head
from graftwork.methods import FullFineTuning
from graftwork.testing import method_checks, suited_to_tiny_networks

CONTRACT = [
    (head, name, check)
    for head in names(Head)
    if lookup(Head, head).for_texts
    for name, check in method_checks(suited_to_tiny_networks(FullFineTuning, head=head))
]


@pytest.mark.parametrize(("head", "claim", "check"), CONTRACT, ids=[f"{h}-{claim}" for h, claim, _ in CONTRACT])
def test_keeps_the_contract_of_methods(head, claim, check):
    check()
