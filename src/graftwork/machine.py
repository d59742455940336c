"""Where a run happens, and whether the process that is at work on it still lives."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("graftwork", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "peft", "datasets")
PACKAGES += ("numpy", "pandas", "pyarrow", "scikit-learn", "seqeval", "pydantic")


def environment() -> dict[str, Any]:
    """Where a run happens: python, platform, cpu, cores, memory_mb, packages {name: version}, git {commit, dirty}."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": cores,
        "memory_mb": _memory_mb(),
        "packages": {name: version for name, version in versions.items() if version},
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def _git() -> dict[str, Any] | None:
    def ask(*command: str) -> str:
        return subprocess.run(["git", *command], capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def born(pid: int) -> str | None:
    """A mark of the living process that has this number now; None when there is none (or it is a zombie)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _born_elsewhere(pid)
    # The name (in parentheses) may hold anything; after it: state, then 18 fields, then the start in ticks since boot.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _born_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None
