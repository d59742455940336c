"""A 1,000,000-row CSV: peak memory and time of `check`, and of loading and tokenising it.

    python benchmarks/memory.py DATA_FOLDER

The rows are made from BANKING77: each is two of its texts, drawn at random, with the label of the first. Each
measurement is a process of its own, which reports the peak of its resident memory as the kernel counted it.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import Benchmark, table, workplace

LIMIT_MIB = 1536
ROWS = 1_000_000
JOBS = {
    "check": """
        from graftwork.check import check
        report = check(source)
        said = {"findings": sorted({f.code for f in report.findings}), "ok": report.ok}
    """,
    "tokenise": """
        from graftwork.data import Data
        from graftwork.examples import tokenised
        from graftwork.modalities.text import Text
        from graftwork.models import resolve
        from graftwork.tasks import Classification
        data = Data.load(source)
        task, modality = Classification(labels=data.labels), Text.from_folder(resolve("minilm"))
        said = {split: tokenised(data, split, task, modality).tokens for split in data.splits}
    """,
}
REPORT = """
import json, resource, sys, time
start, source = time.perf_counter(), sys.argv[1]
{job}
try:  # the peak since exec; ru_maxrss also counts the parent before it
    peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
print(json.dumps({{"peak_mib": peak, "seconds": time.perf_counter() - start, "said": said}}))
"""


def write_rows(file: Path, source: Path, rows: int) -> None:
    """The CSV, a row at a time."""
    with (source / "train.csv").open(newline="", encoding="utf-8") as opened:
        texts = [(row["text"], row["label"]) for row in csv.DictReader(opened)]
    draw = random.Random(0)
    with file.open("w", newline="", encoding="utf-8") as opened:
        out = csv.writer(opened)
        out.writerow(["text", "label"])
        for _ in range(rows):
            (first, label), (second, _other) = draw.choice(texts), draw.choice(texts)
            out.writerow([f"{first} {second}", label])


def measure(benchmark: Benchmark, job: str) -> dict[str, Any]:
    """One job in a process of its own."""
    import textwrap

    with workplace() as folder:
        file, rows = folder / "million.csv", 20_000 if benchmark.quick else ROWS
        write_rows(file, benchmark.source("banking77"), rows)
        code = REPORT.format(job=textwrap.dedent(JOBS[job]))
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], check=True, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        found = json.loads(done.stdout.splitlines()[-1])
        return {"rows": rows, "csv_mb": file.stat().st_size / 1e6, "limit_mib": LIMIT_MIB, **found}


def main() -> None:
    benchmark = Benchmark("memory", parts=list(JOBS))
    rows: list[tuple[str, ...]] = [("job", "rows", "peak, MiB", "at most", "seconds")]
    for job in benchmark.parts:
        found = benchmark.measured(job, measure, benchmark, job)
        peak, seconds = f"{found['peak_mib']:.0f}", f"{found['seconds']:.0f}"
        rows.append((job, f"{found['rows']:,}", peak, str(LIMIT_MIB), seconds))
    table(*rows)


if __name__ == "__main__":
    main()
