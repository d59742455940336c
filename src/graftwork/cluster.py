"""The runs of a race on the workers of a Ray cluster, where one machine is too few.

A worker is sent the request and the rows, fits in a folder of its own, and sends the run's folder back; so workers need
no common disk, only the same graftwork and the models at the same places. What a lost worker was fitting is fitted
anew by another, and runs that came back stay.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.choice import InputError
from graftwork.fit import Request, start
from graftwork.run import plain_cause

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.finding import Finding

TIMES = 5
"""That a run is begun again elsewhere after its worker was lost."""


@dataclass(frozen=True)
class Job:
    """A run that is to be fitted somewhere."""

    request: Request
    data: Data
    place: Path
    """Where its folder shall be."""


def require_ray() -> None:
    """Refuse where the extra is not installed.

    Raises:
        InputError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("The engine ray needs Ray: pip install 'graftwork[ray]'.")


def fitted(jobs: Sequence[Job], findings: Sequence[Finding]) -> Iterator[tuple[int, str | None]]:
    """Fit every job on the cluster of `$RAY_ADDRESS`, or on one of this machine; gives each as soon as it is there.

    Args:
        jobs: runs with steps. Each takes as many CPUs as its `hardware.threads` says, or one; a GPU where there is one.
        findings: of the data, for the runs to hold.

    Yields:
        The job's number, and what went wrong, or None. The folder of a run that went well is at its place.
    """
    import ray  # pyright: ignore[reportMissingImports]  too large for the test extra

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        gpus = min(1, ray.cluster_resources().get("GPU", 0))
        rows = {id(job.data): ray.put(job.data) for job in jobs}  # once, however many runs read them
        waiting: dict[Any, int] = {}
        for number, job in enumerate(jobs):
            needs = {"num_cpus": job.request.hardware.threads or 1, "num_gpus": gpus, "max_retries": TIMES}
            task = ray.remote(_fitted_there).options(**needs)
            waiting[task.remote(job.request.model_dump(mode="json"), rows[id(job.data)], list(findings))] = number
        while waiting:
            done, _ = ray.wait(list(waiting))
            number = waiting.pop(done[0])
            try:
                _unpack(ray.get(done[0]), jobs[number].place)
                yield number, None
            except ray.exceptions.RayTaskError as error:
                yield number, plain_cause(error.cause if isinstance(error.cause, Exception) else error)
            except ray.exceptions.RayError:
                yield number, f"Its worker was lost {TIMES + 1} times."
    finally:
        ray.shutdown()


def _fitted_there(asked: dict[str, Any], data: Data, findings: list[Finding]) -> bytes:
    """On a worker: the folder of the finished run, packed."""
    request = Request.build(**asked)
    threads = request.hardware.model_copy(update={"threads": request.hardware.threads or 1})
    request = request.model_copy(update={"hardware": threads})
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "run"
        start(request, data, path, findings)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(path, arcname="run")
        return packed.getvalue()


def _unpack(packed: bytes, place: Path) -> None:
    """Put a run's folder where it belongs, whole or not at all."""
    beside = Path(tempfile.mkdtemp(dir=place.parent, prefix=".arriving-"))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(beside, filter="data")
        shutil.rmtree(place, ignore_errors=True)
        (beside / "run").rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
