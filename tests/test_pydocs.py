from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

from graftwork.data import Data
from graftwork.pydocs import MODULES, PER_MODULE, records


def test_twenty_modules_with_texts_of_their_own():
    counts = Counter(record["label"] for record in records())
    assert len(counts) == MODULES
    assert max(counts.values()) <= PER_MODULE
    assert 2000 < len(records()) < 4000
    assert len({record["text"] for record in records()}) == len(records())
    assert all(20 <= len(record["text"]) <= 400 for record in records())


def test_building_is_deterministic_and_imports_none_of_the_modules():
    code = (
        "import sys; from graftwork.pydocs import records; import hashlib;"
        "print(hashlib.sha256(repr(records()).encode()).hexdigest(), 'turtle' in sys.modules, 'asyncio' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert told == f"{hashlib.sha256(repr(records()).encode()).hexdigest()} False False\n"


def test_pydocs_is_data_like_any_other():
    data = Data.load("pydocs")
    assert len(data.labels) == MODULES
    assert set(data.splits) == {"train", "validation", "test"}
    assert data.source["source"] == "pydocs"
    assert Data.load(**data.source).fingerprint == data.fingerprint
