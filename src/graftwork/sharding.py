"""A model in pieces: files of a bounded size, layers that wait on disk, weights spread over processes, in training too.

Each changes where weights lie and not what is computed, so answers are the same.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn

from graftwork.choice import InputError
from graftwork.hardware import World
from graftwork.layers import stacks
from graftwork.models import load_network

LARGEST_FILE = 5 * 10**9
"""Bytes that one file of weights holds where nothing else is asked for."""
_INDEX = ".safetensors.index.json"


# --- files of a bounded size ---


def write_shards(
    weights: Mapping[str, Tensor],
    folder: Path,
    name: str,
    *,
    largest: int,
    write: Callable[[Mapping[str, Tensor], Path], None],
) -> None:
    """Write weights as NAME.safetensors or, where they take more, as numbered files with an index, as hubs keep them.

    Args:
        weights: by name.
        folder: where.
        name: of the file, without its ending.
        largest: bytes of a file.
        write: writes one.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    split = split_torch_state_dict_into_shards(
        dict(weights), filename_pattern=name + "{suffix}.safetensors", max_shard_size=largest
    )
    for file, names in split.filename_to_tensors.items():
        write({each: weights[each] for each in names}, folder / file)
    if split.is_sharded:
        told = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{name}{_INDEX}").write_text(json.dumps(told, indent=1), encoding="utf-8")


def shards(folder: Path, name: str) -> list[Path]:
    """The files that hold the weights of that name, in order; none where there are none."""
    return sorted([*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}-*-of-*.safetensors")])


def read_shards(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights of every file of that name."""
    return {key: value for file in shards(folder, name) for key, value in load_file(file).items()}


def remove_shards(folder: Path, *names: str) -> None:
    """Take away what an earlier save has left there."""
    for name in names:
        for file in [*shards(folder, name), folder / f"{name}{_INDEX}"]:
            file.unlink(missing_ok=True)


# --- layers that wait on disk ---


def load_offloaded(folder: Path, memory: int) -> tuple[nn.Module, dict[str, Any]]:
    """The bare encoder in fp32 with at most `memory` bytes of its weights in memory, and what its loading said.

    What does not fit stays in its file, and is read, layer by layer, whenever it is computed. A GPU that torch sees
    takes layers first.

    Args:
        folder: of a model.
        memory: bytes of main memory for weights.

    Raises:
        InputError: what `load_network` raises, or its largest layer alone takes more.
    """
    from transformers import AutoModel

    room: dict[int | str, int] = {i: int(0.9 * torch.cuda.mem_get_info(i)[0]) for i in range(torch.cuda.device_count())}
    beside = tempfile.mkdtemp(prefix="graftwork-offload-")  # for what its file holds in other bits
    encoder, said = load_network(
        AutoModel, folder, device_map="auto", max_memory=room | {"cpu": memory}, offload_folder=beside
    )
    weakref.finalize(encoder, shutil.rmtree, beside, ignore_errors=True)
    return encoder, said


# --- weights spread over processes ---


def spread(model: nn.Module, encoder: nn.Module, device: torch.device) -> None:
    """Leave each process its share of every weight; a block's are gathered when it is computed, and go again (FSDP2).

    Every process must then ask the same, as often. `accelerate` would not do: on a CPU its FSDP is DDP.

    Args:
        model: whole, the same in every process.
        encoder: the part of it that is a stack of blocks.
        device: of this process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    World(device)  # the processes meet
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for _, blocks in stacks(encoder):
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)
    fully_shard(model, mesh=mesh)


@contextmanager
def spread_blocks(encoder: nn.Module, world: World) -> Iterator[None]:
    """While open, each process holds its share of every block: of its weights, and so of all that is made of them.

    A block's weights are gathered when it is computed, there and back; its gradients are added up over the processes,
    and each keeps its share (FSDP2). What lies around the blocks is whole in every process. Afterwards the blocks are
    whole again, unless something was raised.

    Args:
        encoder: the same in every process.
        world: of them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(encoder.parameters()).device.type, (world.size,))
    whole = [(blocks, place, block) for _, blocks in stacks(encoder) for place, block in enumerate(blocks)]
    for blocks, place, block in whole:
        part = fully_shard(copy.deepcopy(block), mesh=mesh, reshard_after_forward=True)
        part.set_gradient_divide_factor(1.0)  # each process holds its part of the loss, already weighted
        part.set_force_sum_reduction_for_comms(True)  # a plain sum: gloo knows no other
        blocks[place] = part  # type: ignore[assignment]
        for parameter in block.parameters():
            parameter.data = parameter.data.new_empty(0)
    yield
    for blocks, place, block in whole:
        part = dict(blocks[place].named_parameters())
        for name, parameter in block.named_parameters():
            parameter.data = gathered(part[name].detach())
        for buffer, other in zip(block.buffers(), blocks[place].buffers(), strict=True):
            buffer.copy_(other)
        blocks[place] = block


def is_share(tensor: Tensor) -> bool:
    """Whether it is this process's share of a tensor (a `DTensor`, whose module is slow to import)."""
    return hasattr(tensor, "full_tensor")


def own(tensor: Any) -> Tensor:
    """What this process holds of it."""
    return tensor.to_local() if is_share(tensor) else tensor


def gathered(tensor: Any) -> Tensor:
    """The whole of it; of a share every process must ask for the whole."""
    return tensor.full_tensor() if is_share(tensor) else tensor


def parted(tensor: Tensor, like: Any) -> Tensor:
    """A whole tensor on the device of `like`, or, where that is a share, such a share of it."""
    tensor = tensor.to(like.device)
    if not is_share(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements)


def processes() -> int:
    """How many processes `torchrun` started; 1 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this process tells what all have found."""
    return os.environ.get("RANK", "0") == "0"


def refuse_memory_with_processes(memory: str | None) -> None:
    """A model waits on disk or is spread over processes.

    Raises:
        InputError: both are asked for.
    """
    if memory and processes() > 1:
        raise InputError("Either --memory, for one process, or torchrun, which spreads a model over several. Not both.")
