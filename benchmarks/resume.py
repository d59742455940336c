"""Killed with -9 at random moments and resumed: are the final weights those of the run that nobody disturbed?

    python benchmarks/resume.py DATA_FOLDER

Each of 20 runs is killed once, at a moment drawn (seeded) from the whole life of the undisturbed run: from the instant
its folder says "running" to its end, so also while a checkpoint or the model is written. Then it is resumed and its
model compared with the undisturbed one, file by file, bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import Benchmark, table, workplace

KILLS = 20
CODE = """
import json, sys
from graftwork.fit import fit, resume
from graftwork.run import Run
folder, asked = sys.argv[1], json.loads(sys.argv[2])
resume(Run.open(folder)) if asked is None else fit(**asked, out=folder)
"""


def asked(benchmark: Benchmark) -> dict[str, Any]:
    """A small real fit: every part of a run, in a few dozen seconds."""
    return {
        "data": {"source": str(benchmark.source("banking77")), "limit": 1200, "validation": 0.02},
        "budget": "12steps" if benchmark.quick else "60steps",
        "seed": 7,
        "hardware": {"threads": benchmark.asked.threads, "checkpoint_seconds": 0.5},
    }


def start(folder: Path, given: dict[str, Any] | None) -> subprocess.Popen[bytes]:
    """A process that fits, or with nothing given resumes."""
    command = [sys.executable, "-c", CODE, str(folder), json.dumps(given)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that must succeed."""
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"the run failed:\n{said.decode()}")


def wait_until_running(folder: Path, process: subprocess.Popen[bytes]) -> float:
    """The time at which the run's state says running."""
    state = folder / "state"
    while process.poll() is None and not (state.is_file() and '"running"' in state.read_text()):
        time.sleep(0.005)
    return time.perf_counter()


def weights(folder: Path) -> dict[str, str]:
    """A digest of each file of weights."""
    files = sorted((folder / "model").glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def undisturbed(benchmark: Benchmark) -> dict[str, Any]:
    """The run that nobody kills: its weights and how long it lives."""
    with workplace() as work:
        process = start(work / "run", asked(benchmark))
        began = wait_until_running(work / "run", process)
        finish(process)
        return {"seconds": time.perf_counter() - began, "weights": weights(work / "run")}


def killed(benchmark: Benchmark, number: int, whole: dict[str, Any]) -> dict[str, Any]:
    """One run, killed and resumed."""
    after = random.Random(number).uniform(0, whole["seconds"])
    with workplace() as work:
        process = start(work / "run", asked(benchmark))
        began = wait_until_running(work / "run", process)
        time.sleep(max(0.0, began + after - time.perf_counter()))
        process.kill()
        process.wait()
        state = subprocess.run(
            [sys.executable, "-c", "import sys; from graftwork.run import Run; r = Run.open(sys.argv[1]);"
             "print(r.state, max([e['step'] for e in r.events() if 'step' in e], default=0))", str(work / "run")],
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout.split()  # fmt: skip
        if state[0] != "done":  # a slower moment of the machine may find it finished
            finish(start(work / "run", None))
        same = weights(work / "run") == whole["weights"]
        return {"killed_after": after, "state": state[0], "last_step_seen": int(state[1]), "identical": same}


def main() -> None:
    benchmark = Benchmark("resume", parts=["all"])
    before = benchmark.entries().get("undisturbed")
    if before and before["git"] != benchmark.environment["git"]:
        benchmark.asked.again = True  # the weights of other code say nothing about this one's
    whole = benchmark.measured("undisturbed", undisturbed, benchmark)
    kills = range(2 if benchmark.quick else KILLS)
    runs = [benchmark.measured(f"kill {kill}", killed, benchmark, kill, whole) for kill in kills]
    rows: list[tuple[str, ...]] = [("killed after", "state then", "last step seen", "final weights")]
    for run in runs:
        same = "identical" if run["identical"] else "DIFFERENT"
        rows.append((f"{run['killed_after']:.1f}s", run["state"], str(run["last_step_seen"]), same))
    table(*rows)
    identical = sum(run["identical"] for run in runs)
    benchmark.summarise(kills=len(runs), identical=identical)
    print(f"{identical} of {len(runs)} bit-identical")


if __name__ == "__main__":
    main()
