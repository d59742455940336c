"""Fewer bits in an ONNX file: by which scheme, and which layers keep all of theirs because they cannot bear it.

A layer that hurts is found by asking, never by its name: each group of layers, a block's attention, its feed-forward
part, the embeddings, takes fewer bits alone, and those that move the outputs most are kept in fp32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import yaml

from graftwork.choice import Choice, InputError, lookup, parse
from graftwork.graph import INPUTS, hushed, quantize, weighted

CALIBRATED = 64
"""Train rows whose activations are looked at before their range is fixed."""
LARGEST_KEPT = 0.25
"""Share of the fp32 weights' bytes that may stay fp32 because fewer bits hurt there."""

_LONGEST = 64  # tokens of a row whose activations are kept for a histogram, all of them at once in memory

Ids = np.ndarray


class Quantization(Choice):
    """How the weights of an ONNX file take fewer bits, and whether activations do."""

    main: ClassVar[str] = ""
    """The field that `NAME=VALUE` sets."""
    company: ClassVar[bool] = False
    """Whether an answer depends on what else is in its batch."""

    @property
    def title(self) -> str:
        """As it is typed: `static=entropy`."""
        return f"{self.name}={getattr(self, self.main)}" if self.main else self.name

    @property
    def sentence(self) -> str:
        """What it does to weights, for a card."""
        raise NotImplementedError

    def write(self, whole: Path, to: Path, rows: Sequence[Ids], keep: Collection[str] = ()) -> None:
        """Write an ONNX file with fewer bits.

        Args:
            whole: of fp32.
            to: what is written.
            rows: token ids of train rows, (length,) each.
            keep: names of nodes whose weights stay as they are.
        """
        raise NotImplementedError


class Dynamic(Quantization):
    """Weights of 8 bits; activations are cut as they come, by the range that each has then."""

    paper: ClassVar[str] = "Jacob et al. 2018, section 2; one scale a channel: Krishnamoorthi 2018, section 2.2"
    company: ClassVar[bool] = True

    @property
    def sentence(self) -> str:
        """8 bits."""
        return "weights of 8 bits"

    def write(self, whole: Path, to: Path, rows: Sequence[Ids], keep: Collection[str] = ()) -> None:
        """By onnxruntime's dynamic quantisation."""
        quantize(whole, to, keep=keep)


class Static(Quantization):
    """Weights of 8 bits; activations are cut by ranges that were fixed before, on train rows."""

    paper: ClassVar[str] = "Krishnamoorthi 2018, section 3; entropy: Migacz 2017, 8-bit Inference with TensorRT"
    main: ClassVar[str] = "calibration"

    calibration: Literal["minmax", "entropy", "percentile"] = "minmax"
    """The range of an activation: all that was seen; what loses the least information; all but the outermost."""

    @property
    def sentence(self) -> str:
        """8 bits, and the ranges."""
        return f"weights of 8 bits, activations by ranges fixed on train rows ({self.calibration})"

    def write(self, whole: Path, to: Path, rows: Sequence[Ids], keep: Collection[str] = ()) -> None:
        """By onnxruntime's static quantisation, without its pre-processing, which dynamo's graphs are too much for."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        how = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}[self.calibration]
        reader: Any = _Reader(rows if self.calibration == "minmax" else _alike(rows))
        more: dict[str, Any] = {}
        if "calibration_cache_path" in inspect.signature(quantize_static).parameters:  # since onnxruntime 1.32
            more["calibration_cache_path"] = whole.with_suffix(f".{self.calibration}.json")  # whatever is kept
        with hushed():
            quantize_static(
                whole, to, reader, per_channel=True, reduce_range=True, calibrate_method=CalibrationMethod[how],
                quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                nodes_to_quantize=[n for names in weighted(whole).values() for n in names if n not in keep],
                op_types_to_quantize=["MatMul", "Gemm", "Gather"], **more,
            )  # fmt: skip


class Weights(Quantization):
    """Weights of 8 or 4 bits, each block of them on a scale of its own; activations stay as they are."""

    paper: ClassVar[str] = "Dettmers & Zettlemoyer 2023, The case for 4-bit precision, section 2 (blocks)"
    main: ClassVar[str] = "bits"

    bits: Literal[4, 8] = 8
    """Of a weight."""
    block: Literal[16, 32, 64, 128] = 32
    """Weights of a row that share a scale."""

    @property
    def sentence(self) -> str:
        """So many bits, in blocks."""
        return f"weights of {self.bits} bits, in blocks of {self.block}; activations as they were"

    def write(self, whole: Path, to: Path, rows: Sequence[Ids], keep: Collection[str] = ()) -> None:
        """By MatMulNBits; embeddings in 4 bits by GatherBlockQuantized, in 8, which that has not, a row on a scale."""
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        four = self.bits == 4
        config = DefaultWeightOnlyQuantConfig(
            block_size=self.block, is_symmetric=True, accuracy_level=4, bits=self.bits,
            op_types_to_quantize=("MatMul", "Gather") if four else ("MatMul",),
            quant_axes=(("MatMul", 0), ("Gather", 1)),
        )  # fmt: skip
        with hushed():
            worked: Any = MatMulNBitsQuantizer(str(whole), algo_config=config, nodes_to_exclude=list(keep))
            worked.process()
            half = to if four else to.with_suffix(".half.onnx")
            worked.model.save_model_to_file(str(half))
        if not four:
            tables = [n for names in weighted(half, kinds=("Gather",)).values() for n in names if n not in keep]
            quantize(half, to, only=tables)
            half.unlink()


def scheme_of(spec: Any) -> Quantization:
    """A scheme, from `dynamic`, `static=entropy`, `weights=4`, a mapping, or itself; True is `dynamic`.

    Raises:
        InputError: an unknown scheme or value.

    Example:
        >>> scheme_of("weights=4").title
        'weights=4'
    """
    if spec is True:
        return Dynamic()
    if not isinstance(spec, str):
        return parse(Quantization, spec)
    name, equals, value = (part.strip() for part in spec.partition("="))
    if not equals:
        return parse(Quantization, name)
    main = lookup(Quantization, name).main
    if not main:
        raise InputError(f"The scheme {name!r} takes no value; got {spec!r}.")
    return parse(Quantization, {name: {main: yaml.safe_load(value)}})


# --- which layers keep their bits ---


@dataclass(frozen=True)
class Compared:
    """An ONNX file beside the model, on train rows."""

    agreement: float
    """Share of the labels that are the same."""
    change: float
    """How far raw outputs moved, as a share of their size."""


@dataclass(frozen=True)
class Kept:
    """What came of giving a file fewer bits."""

    groups: tuple[str, ...]
    """Which layers keep fp32; none where all may take fewer bits."""
    mb: float
    """What these take, in 1,000,000 bytes."""
    agreement: float
    """Share of the labels that are the same on train rows."""
    changes: dict[str, float]
    """How far outputs move where this group alone takes fewer bits; empty where nobody had to ask."""


def quantized(
    scheme: Quantization,
    whole: Path,
    to: Path,
    rows: Sequence[Ids],
    compared: Callable[[], Compared],
    *,
    least: float,
    note: Callable[[str], None] = lambda _: None,
) -> Kept:
    """Write a file with fewer bits that agrees with the model, as far as kept layers can bring that about.

    Args:
        scheme: how.
        whole: of fp32.
        to: what is written.
        rows: token ids of train rows.
        compared: asks what was written about train rows.
        least: share of the labels that must stay the same.
        note: is told what is done now.

    Returns:
        What was kept; its agreement may still be below `least`.
    """
    rows = list(rows)[:CALIBRATED]
    scheme.write(whole, to, rows)
    found = compared()
    if found.agreement >= least or not np.isfinite(found.change):
        return Kept((), 0.0, found.agreement, {})
    groups, sizes = weighted(whole), weighted_bytes(whole)
    share = f"{found.agreement:.1%}"
    note(f"{scheme.title} keeps {share} of the labels of train rows. Asking {len(groups)} parts of the network.")
    changes: dict[str, float] = {}
    for name in groups:
        scheme.write(whole, to, rows, [node for each in groups if each != name for node in groups[each]])
        changes[name] = compared().change
    kept: list[str] = []
    for name in sorted(changes, key=changes.__getitem__, reverse=True):
        if found.agreement >= least or sum(sizes[each] for each in [*kept, name]) > LARGEST_KEPT * sum(sizes.values()):
            continue
        kept.append(name)
        scheme.write(whole, to, rows, [node for each in kept for node in groups[each]])
        found = compared()
        note(f"With {', '.join(kept)} in fp32: {found.agreement:.1%}.")
    if not kept:
        scheme.write(whole, to, rows)
    return Kept(tuple(kept), round(sum(sizes[each] for each in kept) / 1e6, 2), found.agreement, changes)


def weighted_bytes(whole: Path) -> dict[str, int]:
    """What the weights of each group of `weighted` take."""
    import onnx

    graph = onnx.load(whole).graph
    sizes = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    taken = {node.name: max((sizes.get(name, 0) for name in node.input), default=0) for node in graph.node}
    return {group: sum(taken[node] for node in nodes) for group, nodes in weighted(whole).items()}


# --- what activations are looked at ---


class _Reader:
    """Rows one at a time, as onnxruntime asks for them."""

    def __init__(self, rows: Sequence[Ids]):
        self.rows: Iterator[Ids] = iter(rows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next, or None."""
        row = next(self.rows, None)
        if row is None:
            return None
        ids = np.asarray(row, dtype=np.int64)[None]
        return dict(zip(INPUTS, (ids, np.ones_like(ids)), strict=True))


def _alike(rows: Sequence[Ids]) -> list[Ids]:
    """Rows cut to one length, because onnxruntime's histograms are of tensors of one shape; their last ids stay."""
    length = min(int(np.percentile([len(row) for row in rows], 25)), _LONGEST)
    return [np.concatenate([row[: length - 1], row[-1:]]) for row in rows if len(row) >= length]
