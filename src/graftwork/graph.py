"""A TransferModel as one ONNX file, pooling and head inside: token ids go in, raw outputs come out.

What is exported is the very network that predicts, not a copy of its parts, so no head and no pooling can be left out.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
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
    ids = torch.ones(2, 3, dtype=torch.int64)  # neither 1 nor equal, so that no axis is taken for fixed
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])  # a tensor of its own: one that is given twice becomes one input
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    try:
        with _hushed(), torch.no_grad():
            program: Any = torch.onnx.export(
                network, (ids, mask), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(INPUTS), output_names=["outputs"], dynamic_shapes=dict.fromkeys(INPUTS, axes),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"This {type(model.encoder).__name__} cannot be written as ONNX ({first_line(error.__cause__ or error)}). "
            "Choose --to safetensors."
        ) from error
    for node in program.model.graph:
        node.metadata_props.clear()  # where in whose files each line of code stood
    with _hushed():
        program.save(file, external_data=False)


def quantize(file: Path, to: Path) -> None:
    """The same network with weights of 8 bits, those of the embeddings among them; activations are cut as they come.

    One scale a channel: on BANKING77 98 % of the answers of a probe stay, where one scale a matrix keeps 97 %. Weights
    use 7 of their bits, because processors without VNNI saturate at sums of two products of 8.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _hushed():
        quantize_dynamic(file, to, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


class _Named(nn.Module):
    """The model with its inputs one by one, as a graph names them."""

    def __init__(self, model: TransferModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, length) each, to (batch, classes) or (batch, length, tags)."""
        return self.model({"input_ids": input_ids, "attention_mask": attention_mask})


@contextmanager
def _hushed() -> Iterator[None]:
    """No advice to programmers: the exporters warn of their own insides and of packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
