"""A TransferModel as one ONNX file, pooling and head inside: token ids go in, raw outputs come out.

What is exported is the very network that predicts, not a copy of its parts, so no head and no pooling can be left out.
"""

from __future__ import annotations

import ast
import importlib
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.choice import InputError, first_line
from graftwork.model import TransferModel

INPUTS = ("input_ids", "attention_mask")
OPSET = 20
"""The first that knows GELU; onnxruntime reads it since 1.17."""
_LARGEST_BYTES = 2**31 - 2**24
"""One file of protobuf holds 2 GiB, of which the graph itself takes a little."""


def require_onnx() -> None:
    """Refuse where the optional packages are missing.

    Raises:
        InputError: they are not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"Exporting to ONNX needs {name}. Run: pip install 'graftwork[export]'. Or choose --to safetensors."
            ) from None


def write_onnx(model: TransferModel, file: Path) -> None:
    """Write the network in fp32, with free axes for the batch and the length.

    By torch.export, torch's default since 2.9: the older exporter follows one example and is to be removed.

    Raises:
        InputError: the weights do not fit into one file, or the network does what ONNX has no words for.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > _LARGEST_BYTES:
        raise InputError(
            f"The model's weights take {size / 2**30:.1f} GiB, and one ONNX file holds 2. Choose --to safetensors."
        )
    network = _Named(model).eval()
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    try:
        with hushed(), torch.no_grad():
            program: Any = torch.onnx.export(
                network, _example(), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(INPUTS), output_names=["outputs"], dynamic_shapes=dict.fromkeys(INPUTS, axes),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"This {type(model.encoder).__name__} cannot be written as ONNX ({first_line(error.__cause__ or error)}). "
            "Choose --to safetensors."
        ) from error
    for node in program.model.graph:
        module = _scope(node.metadata_props)
        node.name = f"{module}/{node.name}" if module else node.name
        node.metadata_props.clear()  # where in whose files each line of code stood
    with hushed():
        program.save(file, external_data=False)


def write_program(model: TransferModel, file: Path) -> None:
    """Write the network as torch.export's program, with free axes for the batch and the length.

    Raises:
        InputError: the network does what torch.export cannot follow.
    """
    network = _Named(model).eval()
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with hushed(), torch.no_grad():
            program = torch.export.export(network, _example(), dynamic_shapes=dict.fromkeys(INPUTS, free))
            torch.export.save(program, file)
    except (RuntimeError, ValueError, TypeError) as error:  # dynamo's own are RuntimeErrors
        raise InputError(
            f"This {type(model.encoder).__name__} cannot be followed by torch.export ({first_line(error)}). "
            "Choose --to safetensors."
        ) from error


def _example() -> tuple[Tensor, Tensor]:
    """Ids and mask: neither of 1 nor equal axes, so that none is taken for fixed."""
    ids = torch.ones(2, 3, dtype=torch.int64)
    return ids, torch.tensor([[1, 1, 1], [1, 1, 0]])  # a tensor of its own: one that is given twice becomes one input


def _scope(properties: Mapping[str, str]) -> str:
    """The innermost module that a node was written for: `encoder.encoder.layer.0.attention.self.query`."""
    scopes = ast.literal_eval(properties.get("pkg.torch.onnx.name_scopes", "[]"))
    return scopes[-2].removeprefix("model.") if len(scopes) > 1 else ""


def weighted(file: Path, kinds: Collection[str] = ("MatMul", "Gemm", "Gather")) -> dict[str, list[str]]:
    """Names of the nodes that hold a matrix of weights, by the part of the network they are of, the lowest first.

    Args:
        file: what `write_onnx` wrote.
        kinds: of nodes.
    """
    import onnx

    graph = onnx.load(file).graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    found: dict[str, list[str]] = {}
    for node in graph.node:
        place = 0 if node.op_type == "Gather" else 1
        if node.op_type in kinds and len(node.input) > place and node.input[place] in matrices:
            found.setdefault(_part(node.name.rpartition("/")[0], node.op_type), []).append(node.name)
    return found


def _part(module: str, kind: str) -> str:
    """`embeddings`, `block 3, attention`, `block 3, feed-forward`, `head`, or what is left."""
    block = re.search(r"\.(\d+)\.", module)
    if block is None:
        return "embeddings" if kind == "Gather" else "head" if module.startswith("head") else "between"
    return f"block {block.group(1)}, {'attention' if 'att' in module[block.end() :] else 'feed-forward'}"


def quantize(file: Path, to: Path, *, keep: Collection[str] = (), only: Collection[str] | None = None) -> None:
    """The same network with weights of 8 bits, those of the embeddings among them; activations are cut as they come.

    `keep` are names of nodes that stay as they are, `only` those that do not.

    One scale a channel: on BANKING77 98 % of the answers of a probe stay, where one scale a matrix keeps 97 %. Weights
    use 7 of their bits, because processors without VNNI saturate at sums of two products of 8.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with hushed():
        quantize_dynamic(
            file, to, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True,
            nodes_to_exclude=[*keep, *(f"{name}_MatMul" for name in keep)],  # what a Gemm is called on the way
            nodes_to_quantize=None if only is None else list(only),
        )  # fmt: skip


class _Named(nn.Module):
    """The model with its inputs one by one, as a graph names them."""

    def __init__(self, model: TransferModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, length) each, to (batch, classes) or (batch, length, tags)."""
        return self.model({"input_ids": input_ids, "attention_mask": attention_mask})


@contextmanager
def hushed() -> Iterator[None]:
    """No advice to programmers: the exporters warn of their own insides and of packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
