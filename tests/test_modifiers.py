"""Every modifier on the shelf can be added to a stage, alone and together, and the contract of methods still holds."""

from __future__ import annotations

import pytest

from graftwork.choice import lookup, names
from graftwork.methods import FullFineTuning, LinearProbe
from graftwork.modifier import Modifier
from graftwork.testing import method_checks, suited_to_tiny_networks

GENTLE = {"movement-pruning": {"share": 0.01, "every": 1}}
"""In the thirty steps of the contract, what moves most is what learns most: of a tiny network little of it can go."""
CONTRACT = [
    (modifier, name, check)
    for modifier in names(Modifier)
    for name, check in method_checks(
        suited_to_tiny_networks(
            FullFineTuning if lookup(Modifier, modifier).steps else LinearProbe,
            modifiers=[{modifier: GENTLE.get(modifier, {})}],
        )
    )
]


@pytest.mark.parametrize(("modifier", "claim", "check"), CONTRACT, ids=[f"{m}-{claim}" for m, claim, _ in CONTRACT])
def test_keeps_the_contract_of_methods(modifier, claim, check):
    check()
