"""Hardware is what results must not depend on; what cannot be had is told before anything runs."""

from __future__ import annotations

import sys

import pytest
import torch

from graftwork.choice import InputError
from graftwork.hardware import Hardware, World, autocast, is_out_of_memory, keep_freed_memory


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_told_with_what_is():
    with pytest.raises(InputError, match=r"Device 'cuda:3' is not to be had .*Here: cpu"):
        Hardware(device="cuda:3").torch_device()


def test_a_device_that_does_not_exist_is_told():
    with pytest.raises(InputError, match="Device 'gpu' is not to be had"):
        Hardware(device="gpu").torch_device()


def test_a_stated_precision_is_taken_and_auto_is_measured_once(monkeypatch):
    assert Hardware(precision="bf16").chosen_precision() == "bf16"
    measured = Hardware(device="cpu").chosen_precision()
    assert measured in ("fp32", "bf16")
    monkeypatch.setattr(torch, "randn", lambda *_, **__: pytest.fail("measured again"))
    assert Hardware(device="cpu").chosen_precision() == measured


def test_measuring_the_machine_draws_nothing_from_the_global_generator():
    from graftwork.hardware import faster_precision

    torch.manual_seed(0)
    before = torch.get_rng_state()
    faster_precision.__wrapped__("cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_run_in_the_chosen_precision(precision, dtype):
    a = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (a @ a).dtype == dtype


@pytest.mark.parametrize("value", [{"max_tokens": 0}, {"threads": 0}, {"precision": "fp8"}, {"gpus": 2}])
def test_what_hardware_cannot_be_is_refused(value):
    with pytest.raises(ValueError, match=next(iter(value))):
        Hardware(**value)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_freed_is_there_for_the_next_step():
    import resource

    def faults() -> int:
        """Of a step that takes 80 MB in buffers of 4 and gives them back."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        buffers = [torch.ones(2**20) for _ in range(20)]
        del buffers
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_freed_memory()
    faults()
    assert min(faults() for _ in range(5)) < 200  # 80 MB are 20,480 pages


def test_one_process_leads_and_exchanges_nothing():
    world = World(torch.device("cpu"))
    tensor = torch.ones(3)
    world.add_up([tensor])
    world.wait()
    assert (world.size, world.leads, world.agree(True), world.agree(False)) == (1, True, True, False)
    assert tensor.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: tried"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, verdict):
    assert is_out_of_memory(error) is verdict
