"""What a run computes on. Nothing here changes results beyond rounding; what changes results is in the method.

Precision is chosen by measuring this machine: bf16 products are 3 times as fast as fp32 ones on a CPU with
avx512_bf16, and slower than fp32 on one without.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import statistics
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import distributed

from graftwork.choice import InputError, first_line, wording


class Hardware(BaseModel):
    """Device, precision and how batches are split to fit. A run file may differ in these and must agree in results."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the matrix products; weights and optimizer stay fp32. `auto` measures both and takes the faster."""
    max_tokens: int = Field(default=8192, ge=1)
    """Tokens computed at once, padding included; larger batches are split and their gradients added up."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; by default torch's own choice."""
    checkpoint_seconds: float = Field(default=60, ge=0)
    """Seconds between checkpoints of a run."""
    sharded: bool = False
    """Whether the processes that `torchrun` started share the weights of the blocks, their gradients and what the
    optimizer remembers of them (FSDP2), or each holds them all."""

    @classmethod
    def of(cls, given: Hardware | dict[str, Any] | None) -> Hardware:
        """The settings themselves, or made of plain values; by default those that suit this machine.

        Raises:
            InputError: an unknown setting, or a value that is not allowed.
        """
        if isinstance(given, Hardware):
            return given
        try:
            return cls(**(given or {}))
        except ValidationError as error:
            raise InputError(f"The hardware cannot be used: {wording(error)}.") from None

    def torch_device(self) -> torch.device:
        """The device, checked.

        Raises:
            InputError: torch does not see it.
        """
        if self.device == "auto":
            if torch.cuda.is_available():
                return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            seen = f"cpu{', cuda' * torch.cuda.is_available()}{', mps' * torch.backends.mps.is_available()}"
            raise InputError(f"Device {self.device!r} is not to be had ({first_line(error)}). Here: {seen}.") from None
        return device

    def chosen_precision(self) -> Literal["fp32", "bf16"]:
        """`precision`, with `auto` decided by measurement."""
        return faster_precision(self.torch_device().type) if self.precision == "auto" else self.precision


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Where matrix products run in `precision`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


@cache
def faster_precision(device: str) -> Literal["fp32", "bf16"]:
    """The precision whose matrix products are faster here, by more than the measurement's noise."""
    # large enough that a GPU is busy with the product, and not with being told of it
    rows, inner, columns = (512, 384, 1536) if device == "cpu" else (4096, 4096, 4096)
    a, b = torch.ones(rows, inner, device=device), torch.ones(inner, columns, device=device)
    halves = a.bfloat16(), b.bfloat16()
    times: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(12):  # interleaved, so that a busy moment hits both
        for name, (left, right) in (("fp32", (a, b)), ("bf16", halves)):
            times[name].append(_seconds_of_product(left, right))
    return "bf16" if statistics.median(times["bf16"]) * 1.3 < statistics.median(times["fp32"]) else "fp32"


@cache
def peak_flops(device: str, precision: str) -> float:
    """Operations a second of large matrix products here, at the best of several times: no network can do more."""
    size = 1024 if device == "cpu" else 8192
    a = torch.ones(size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    return 2 * size**3 / min(_seconds_of_product(a, a) for _ in range(6))


def _seconds_of_product(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.matmul(left, right)
    if left.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


class World:
    """The processes that share a run: one, or as many as `torchrun` started."""

    def __init__(self, device: torch.device):
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over processes, in one exchange.

        One flat exchange after the last micro-batch, not DDP's hooks: what trains may change between epochs, and
        processes may hold different numbers of micro-batches.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, flag: bool) -> bool:
        """Whether any process says yes."""
        if self.size == 1:
            return flag
        vote = torch.tensor([float(flag)])
        if distributed.get_backend() == "nccl":
            vote = vote.cuda()
        distributed.all_reduce(vote)
        return bool(vote.item() > 0)


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, on Linux, until it ends: training asks for the same again.

    By glibc's defaults each step gives its activations back to the system and touches new pages in the next one:
    12,000 page faults a step of a BERT of 6 blocks of 256, for 1,024 tokens. Where the user has set one of its limits
    in the environment, that stands.
    """
    asked = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if sys.platform != "linux" or any(name in os.environ for name in asked):
        return
    trim, mmap, largest = -1, -3, 32 * 2**20  # of malloc.h; no more than that is taken for what is mapped
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(mmap, largest)
        library.mallopt(trim, 2**31 - 1)


def reset_peak_memory() -> None:
    """Let `peak_memory_mb` count from now, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the process's own high-water mark


def peak_memory_mb() -> float | None:
    """The most memory held since `reset_peak_memory`: of the device where it has its own, else of the process.

    Where the system cannot reset it, since the process began; None where the system does not tell.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    with contextlib.suppress(OSError):
        told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return round(int(told.group(1)) * 1024 / 1e6, 1) if told else None
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
    return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
