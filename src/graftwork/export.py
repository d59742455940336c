"""export: a fitted model as a folder for deployment, there only if it answers as the run's model does.

So it is built beside its place, and its own predict.py is asked about the user's validation rows before anything can be
taken for finished.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from graftwork.choice import InputError, suggest
from graftwork.gate import Gate, Saved, Standalone, gated
from graftwork.graph import quantize, require_onnx, write_onnx
from graftwork.model import TransferModel
from graftwork.run import Run, as_json, atomic_folder
from graftwork.task import Task

Format = Literal["onnx", "safetensors"]

ROWS = 500
"""Validation rows that are compared, drawn evenly; all where there are fewer."""

_SCRIPTS = Path(__file__).parent / "standalone"
_REPORT = "gate.json"
_SHOWN = 20


class ExportFailed(Exception):  # noqa: N818  it says what happened
    """What was built does not answer as the run's model does, and was removed. `gate` is what was found."""

    def __init__(self, gate: Gate):
        super().__init__(f"What was built is not the run's model. {' '.join(gate.faults)} Nothing was written.")
        self.gate = gate


@dataclass(frozen=True)
class Export:
    """A folder that passed the gate."""

    path: Path
    to: Format
    quantized: bool
    mb: float
    """What the model takes on disk."""
    gate: Gate

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def export(
    run: Run | str | Path,
    to: Format = "onnx",
    *,
    quantized: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Export:
    """Write a fitted model as a folder that needs little to run, and prove that it answers as the run does.

    `onnx` is a graph with its tokenizer, labels and a predict.py that needs onnxruntime, tokenizers and numpy alone;
    `safetensors` is what `transformers` and graftwork read.

    Args:
        run: a finished run, or its folder. Its data must still be where it was: the rows to compare are from there.
        to: `onnx` or `safetensors`.
        quantized: whether weights take 8 bits (`onnx` alone): a quarter of the size, faster, and a few answers in a
            hundred differ.
        out: the folder; by default exports/RUN-FORMAT.
        force: whether an earlier export there may be replaced.
        on_event: is told what is done now.

    Raises:
        InputError: something given cannot be used, or this model cannot be written so.
        ExportFailed: what was built answers otherwise than the run's model; nothing is left of it.

    Example:
        export("runs/reviews-lora", "onnx", quantized=True).gate.agreement
    """
    run = run if isinstance(run, Run) else Run.open(run)
    _refuse_formats(to, quantized)
    run.require_fitted("export")
    folder = Path(out or Path("exports") / f"{run.path.resolve().name}-{to}{'-int8' * quantized}").expanduser()
    _refuse_place(folder, force=force)
    inputs, labels = _rows(run)
    model = TransferModel.load(run.path / "model")
    script = _script(model.task) if to == "onnx" else None
    with atomic_folder(folder) as beside:
        _tell(on_event, f"Writing {'model.onnx, with weights of 8 bits' if quantized else f'it as {to}'}.")
        if script:
            _write_standalone(model, beside, script, quantized=quantized)
        else:
            model.save(beside)
        model = TransferModel.load(run.path / "model")  # an exporter may have touched the one it was given
        _tell(on_event, f"Asking it and the run's model about {len(inputs):,} validation rows.")
        written = partial(Standalone if script else Saved, beside)
        gate = gated(model, written, inputs, labels, exact=not quantized)
        if gate.faults:
            raise ExportFailed(gate)
        size = sum(file.stat().st_size for file in beside.iterdir() if file.suffix in (".onnx", ".safetensors"))
        done = Export(folder, to, quantized, round(size / 1e6, 1), gate)
        (beside / "README.md").write_text(_card(done, run, model.task), encoding="utf-8")
        report = {"graftwork_export": 1, "run": run.name} | done.as_dict()
        (beside / _REPORT).write_text(as_json(report, indent=1), encoding="utf-8")
    return done


def _tell(on_event: Callable[[dict[str, Any]], None] | None, message: str) -> None:
    if on_event:
        on_event({"event": "note", "message": message})


# --- what is refused, and the rows ---


def _refuse_formats(to: str, quantized: bool) -> None:
    if to not in get_args(Format):
        raise InputError(f"Unknown format {to!r}. {suggest(to, get_args(Format))}")
    if quantized and to != "onnx":
        raise InputError("Only an ONNX file can be quantized. Leave --quantized out, or choose --to onnx.")
    if to == "onnx":
        require_onnx()


def _refuse_place(folder: Path, *, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / _REPORT).is_file():
        raise InputError(f"'{folder}' holds something that is no export, and is left alone. Choose another --out.")
    if not force:
        raise InputError(f"'{folder}' holds an export. Choose another folder with --out, or replace it with --force.")


def _script(task: Task) -> Path:
    known = sorted(file.stem for file in _SCRIPTS.glob("*.py"))
    if task.name not in known:
        raise InputError(
            f"There is no predict.py for {task.name} yet, only for {', '.join(known)}. Choose safetensors."
        )
    return _SCRIPTS / f"{task.name}.py"


def _rows(run: Run) -> tuple[list[Any], list[Any]]:
    """Validation rows of the run's data, drawn evenly, and their labels."""
    from graftwork.data import Data

    split = Data.load(**run.asked["data"])["validation"]
    drawn = np.unique(np.linspace(0, len(split) - 1, min(ROWS, len(split))).round().astype(int)).tolist()
    return split.inputs(drawn), split.labels(drawn)


# --- what is written ---


def _write_standalone(model: TransferModel, folder: Path, script: Path, *, quantized: bool) -> None:
    file = folder / "model.onnx"
    write_onnx(model, file)
    if quantized:
        whole = file.rename(folder / "whole.onnx")
        quantize(whole, file)
        whole.unlink()
    model.modality.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "labels.json").write_text(as_json(_labels(model), indent=1), encoding="utf-8")
    (folder / "predict.py").write_bytes(script.read_bytes())


def _labels(model: TransferModel) -> dict[str, Any]:
    """How texts are read and outputs are answered: all that a predict.py has to be told."""
    modality, template, mask = model.modality, model.modality.template, model.modality.mask_token or ""
    told = {"task": model.task.name} | model.task.model_dump(mode="json") | dataclasses.asdict(model.decision)
    told |= {"max_length": modality.max_length, "closing": modality.closing, "pad_id": modality.pad_id}
    told |= {"before": template.before(mask) if template else "", "after": template.after(mask) if template else ""}
    return told | {"offsets": list(model.decision.offsets) or [0.0], "stand_in": modality.stand_in}


def _card(done: Export, run: Run, task: Task) -> str:
    gate, kind = done.gate, "ONNX" if done.to == "onnx" else done.to
    both = ("model", "exported")
    scores = [
        f"{split} {task.selection} {run.metrics[split][task.selection]:.4f} on {run.metrics[split]['n']:,} rows"
        for split in ("validation", "test")
        if split in run.metrics
    ]
    names = ", ".join(f"`{name}`" for name in task.labels[:_SHOWN])
    rest = f" and {len(task.labels) - _SHOWN} more" * (len(task.labels) > _SHOWN)
    return f"""# {run.name}

A {task.name} model, exported by graftwork from the run `{run.name}`: {kind}{", weights of 8 bits" * done.quantized}, \
{done.mb} MB.

{_USE[done.to].format(given='"one text" "the other"' if task.name == "similarity" else '"a text"')}\
{_COMPANY * done.quantized}
- Fitted on: {run.asked.get("model")}, by {_recipe(run)}; data {str(run.data.get("fingerprint"))[:12]}.
- How good it is: {"; ".join(scores)}.
- Labels: {names}{rest}.

## The same model

{gate.rows:,} validation rows were answered by the run's model and by this folder, one at a time, on the same machine.

| | run | this folder |
| --- | ---: | ---: |
| same labels | | {gate.agreement:.1%} |
| largest difference of a probability | | {gate.largest_difference:.1g} |
| {gate.metric} | {" | ".join(f"{gate.score[of]:.4f}" for of in both)} |
| ms a text, median | {" | ".join(f"{gate.latency[of]['p50']:.1f}" for of in both)} |
| ms a text, 95 % | {" | ".join(f"{gate.latency[of]['p95']:.1f}" for of in both)} |
"""


def _recipe(run: Run) -> str:
    return ", then ".join(next(iter(stage["method"])) for stage in run.happened.get("stages", []))


_USE = {
    "onnx": """```sh
pip install onnxruntime tokenizers numpy
python predict.py {given}
```

`predict.py` cuts a text by `tokenizer.json`, runs `model.onnx` (pooling and head are inside) and answers as
`labels.json` says: the labels and calibrated probabilities of `graft predict`.
""",
    "safetensors": """```sh
graft predict FOLDER {given}
```

`transformers.AutoModel` reads the encoder; the head is in `head.safetensors`, and `graft.json` holds labels,
pooling and how outputs are answered.
""",
}
_COMPANY = """
Ask one text at a time, as `predict.py` does: activations of 8 bits share a scale in each batch, so that an answer would
depend on its company.
"""
