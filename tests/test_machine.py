"""What a run says of the machine that it ran on."""

from __future__ import annotations

import subprocess
import sys

from graftwork.machine import environment


def test_the_environment_names_versions_without_importing_them():
    code = """
import sys
from graftwork.machine import environment
print(environment()["packages"]["torch"], "torch" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.split() == [environment()["packages"]["torch"], "False"]
