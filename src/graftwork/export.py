"""export: a fitted model as a folder for deployment, there only if it answers as the run's model does.

So it is built beside its place, and its own predict.py is asked about the user's validation rows before anything can be
taken for finished.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from graftwork.choice import InputError, suggest
from graftwork.disk import atomic_folder
from graftwork.gate import LEAST_AGREEMENT, Gate, Saved, Standalone, gated, kept
from graftwork.graph import require_onnx, write_onnx, write_program
from graftwork.modalities import reads_pictures
from graftwork.model import TransferModel
from graftwork.quantization import Compared, Dynamic, Kept, Quantization, Static, Weights, quantized, scheme_of
from graftwork.run import Run, as_json
from graftwork.shapes import bytes_of
from graftwork.task import Task

Format = Literal["onnx", "torch-export", "safetensors"]

ROWS = 500
"""Validation rows that are compared, drawn evenly; all where there are fewer."""
ASKED = 200
"""Train rows on which layers that cannot bear fewer bits are found."""
BEST: tuple[Quantization | None, ...] = (None, Dynamic(), Static(), Weights(), Weights(bits=4))
"""What `best` measures, fp32 first."""

_SCRIPTS = Path(__file__).parent / "standalone"
_REPORT = "gate.json"
_WHOLE = "whole.onnx"
_WEIGHTS = (".onnx", ".pt2", ".safetensors")
_SUFFIX = {"dynamic": "-int8", "static": "-static", "weights": "-weights"}
_MARGIN = 0.01
"""Train rows are answered more surely than others, so of these so many more must stay the same."""
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
    scheme: str
    """`fp32`, or how bits were taken away: `dynamic`, `static=minmax`, `weights=8`."""
    mb: float
    """What the model takes on disk."""
    gate: Gate
    kept: Kept | None = None
    """Which layers stay in fp32; None where all do."""
    candidates: tuple[dict[str, Any], ...] = ()
    """What `best` chose from: `scheme`, `mb`, `p50` (milliseconds a text here), `agreement`, `faults`; else none."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def export(
    run: Run | str | Path,
    to: Format = "onnx",
    *,
    quantized: Any = False,
    shard: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Export:
    """Write a fitted model as a folder that needs little to run, and prove that it answers as the run does.

    `onnx` is a graph with its tokenizer, labels and a predict.py that needs onnxruntime, tokenizers and numpy alone;
    `torch-export` the same for torch in the place of onnxruntime; `safetensors` is what `transformers` and graftwork
    read.

    Args:
        run: a finished run, or its folder. Its data must still be where it was: the rows to compare are from there.
        to: `onnx`, `torch-export` or `safetensors`.
        quantized: how weights take fewer bits (`onnx` alone): `dynamic` (or True), `static`, `static=entropy`,
            `weights`, `weights=4`, or `best`: whichever answers quickest on this machine and passes the gate, fp32
            among them. Layers that cannot bear it stay in fp32.
        shard: the most that one file of weights may hold, such as `500MB` (`safetensors` alone).
        out: the folder; by default exports/RUN-FORMAT.
        force: whether an earlier export there may be replaced.
        on_event: is told what is done now.

    Raises:
        InputError: something given cannot be used, or this model cannot be written so.
        ExportFailed: what was built answers otherwise than the run's model; nothing is left of it.

    Example:
        export("runs/reviews-lora", "onnx", quantized="best").gate.agreement
    """
    run = run if isinstance(run, Run) else Run.open(run)
    schemes = _schemes(to, quantized, shard)
    run.require_fitted("export")
    if reads_pictures(run.path / "model"):
        raise InputError(
            f"Models of texts are exported, and {str(run.path)!r} reads pictures. What `transformers` reads of it lies "
            f"in '{run.path / 'model'}' already."
        )
    suffix = "" if schemes == (None,) else "-best" if len(schemes) > 1 else _SUFFIX[schemes[0].name]  # type: ignore[union-attr]
    folder = Path(out or Path("exports") / f"{run.path.resolve().name}-{to}{suffix}").expanduser()
    _refuse_place(folder, force=force)
    model = TransferModel.load(run.path / "model")
    script = _script(model.task) if to != "safetensors" else None
    with atomic_folder(folder) as beside, tempfile.TemporaryDirectory() as work:
        built = _Building(run, model, to, script, folder, beside, Path(work), shard, on_event)
        done = built.one(schemes[0]) if len(schemes) == 1 else built.best(schemes)
        (beside / "README.md").write_text(_card(done, run, built.model.task), encoding="utf-8")
        report = {"graftwork_export": 1, "run": run.name} | done.as_dict()
        (beside / _REPORT).write_text(as_json(report, indent=1), encoding="utf-8")
    return done


class _Building:
    """One export, being built beside its place."""

    def __init__(
        self,
        run: Run,
        model: TransferModel,
        to: Format,
        script: Path | None,
        folder: Path,
        beside: Path,
        work: Path,
        shard: str | None,
        on_event: Callable[[dict[str, Any]], None] | None,
    ):
        self.run, self.model, self.script, self.shard = run, model, script, shard
        self.to: Format = to
        self.folder, self.beside, self.work = folder, beside, work
        self.note: Callable[[str], None] = partial(_tell, on_event)
        self.inputs, self.labels = _rows(run)

    def one(self, scheme: Quantization | None) -> Export:
        """Built, and through the gate.

        Raises:
            ExportFailed: it is not the run's model.
        """
        done = self._asked(scheme)
        if done.gate.faults:
            raise ExportFailed(done.gate)
        return done

    def best(self, schemes: Sequence[Quantization | None]) -> Export:
        """The one that answers quickest here, of those that pass the gate.

        Raises:
            ExportFailed: none passes.
        """
        tried: list[Export] = []
        chosen: Export | None = None
        for scheme in schemes:
            done = self._asked(scheme, least=0.0)  # layers are looked for where one scheme is asked for
            tried.append(done)
            if scheme is None:
                shutil.copy(self.beside / "model.onnx", self.work / _WHOLE)
            if not done.gate.faults and (chosen is None or _ms(done) < _ms(chosen)):
                chosen = done
                shutil.copy(self.beside / "model.onnx", self.work / "best.onnx")
        if chosen is None:
            raise ExportFailed(tried[0].gate)
        shutil.move(self.work / "best.onnx", self.beside / "model.onnx")
        told = [
            {"scheme": t.scheme, "mb": t.mb, "p50": _ms(t), "agreement": t.gate.agreement, "faults": t.gate.faults}
            for t in tried
        ]
        return dataclasses.replace(chosen, candidates=tuple(told))

    def _asked(self, scheme: Quantization | None, *, least: float | None = None) -> Export:
        """Write it, and ask it and the run's model the same."""
        self.note(f"Writing {'model.onnx, with ' + scheme.sentence if scheme else f'it as {self.to}'}.")
        stayed = self._written(scheme, LEAST_AGREEMENT + _MARGIN if least is None else least)
        self.model = TransferModel.load(self.run.path / "model")  # an exporter may have touched the one it was given
        self.note(f"Asking it and the run's model about {len(self.inputs):,} validation rows.")
        written = partial(Saved if self.to == "safetensors" else Standalone, self.beside)
        gate = gated(self.model, written, self.inputs, self.labels, exact=scheme is None)
        size = sum(file.stat().st_size for file in self.beside.iterdir() if file.suffix in _WEIGHTS) / 1e6
        title = scheme.title if scheme else "fp32"
        return Export(self.folder, self.to, scheme is not None, title, round(size, 1), gate, stayed)

    def _written(self, scheme: Quantization | None, least: float) -> Kept | None:
        if self.script is None:
            self.model.save(self.beside, shard=self.shard)
            return None
        network = "model.pt2" if self.to == "torch-export" else "model.onnx"
        shrink = partial(self._shrunk, scheme, least) if scheme else None
        return _write_standalone(self.model, self.beside, self.script, network=network, shrink=shrink)

    def _shrunk(self, scheme: Quantization, least: float) -> Kept:
        """Write the graph once, and of it one with fewer bits that train rows bear."""
        whole = self.work / _WHOLE
        if not whole.exists():
            write_onnx(self.model, whole)
        model, train, expected = self._train
        ids = [w.ids for w in model.task.windows(model.modality, train, None)]

        def compared() -> Compared:
            try:
                return Compared(*kept(model, Standalone(self.beside), train, expected))
            except Exception:  # a file that cannot be asked is for the gate to tell of
                return Compared(0.0, np.inf)

        return quantized(scheme, whole, self.beside / "model.onnx", ids, compared, least=least, note=self.note)

    @cached_property
    def _train(self) -> tuple[TransferModel, list[Any], list[np.ndarray]]:
        """The run's model as no exporter has touched it, train rows, and its raw outputs of them."""
        model, rows = TransferModel.load(self.run.path / "model"), _rows(self.run, "train", ASKED)[0]
        return model, rows, [model.outputs([given])[0] for given in rows]


def _ms(done: Export) -> float:
    """Milliseconds a text; without end where it cannot be asked."""
    return done.gate.latency.get("exported", {"p50": np.inf})["p50"]


def _tell(on_event: Callable[[dict[str, Any]], None] | None, message: str) -> None:
    if on_event:
        on_event({"event": "note", "message": message})


# --- what is refused, and the rows ---


def _schemes(to: str, quantized: Any, shard: str | None) -> tuple[Quantization | None, ...]:
    """What is to be built, of which the best is kept; None is fp32.

    Raises:
        InputError: an unknown format or scheme, or two that do not go together.
    """
    if to not in get_args(Format):
        raise InputError(f"Unknown format {to!r}. {suggest(to, get_args(Format))}")
    if quantized and to != "onnx":
        raise InputError("Only an ONNX file can be quantized. Leave --quantized out, or choose --to onnx.")
    if shard and to != "safetensors":
        raise InputError(f"Only safetensors are cut into shards, and this is {to}. Leave --shard out.")
    if shard:
        bytes_of(shard)
    if to == "onnx":
        require_onnx()
    if quantized == "best":
        return BEST
    return (scheme_of(quantized) if quantized else None,)


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


def _rows(run: Run, of: str = "validation", most: int | None = None) -> tuple[list[Any], list[Any]]:
    """Rows of the run's data, drawn evenly, and their labels."""
    from graftwork.data import Data

    split = Data.load(**run.asked["data"])[of]
    drawn = np.unique(np.linspace(0, len(split) - 1, min(most or ROWS, len(split))).round().astype(int)).tolist()
    return split.inputs(drawn), split.labels(drawn)


# --- what is written ---


def _write_standalone(
    model: TransferModel,
    folder: Path,
    script: Path,
    *,
    network: str = "model.onnx",
    shrink: Callable[[], Kept] | None = None,
) -> Kept | None:
    """What a predict.py needs, and at last the network, by `shrink` where bits are to be taken away."""
    text = script.read_text(encoding="utf-8")
    (folder / "predict.py").write_bytes((text if network == "model.onnx" else _for_torch(text)).encode())
    (folder / "labels.json").write_text(as_json(_labels(model), indent=1), encoding="utf-8")
    model.text.tokenizer.save(str(folder / "tokenizer.json"))
    if shrink:
        return shrink()
    (write_onnx if network == "model.onnx" else write_program)(model, folder / network)
    return None


def _for_torch(text: str) -> str:
    """A predict.py that asks a program of torch.export in the place of onnxruntime's session."""
    for onnx, torch in _TORCH.items():
        assert onnx in text, onnx
        text = text.replace(onnx, torch)
    return text


def _labels(model: TransferModel) -> dict[str, Any]:
    """How texts are read and outputs are answered: all that a predict.py has to be told."""
    modality, template, mask = model.text, model.text.template, model.text.mask_token or ""
    told = {"task": model.task.name} | model.task.model_dump(mode="json") | dataclasses.asdict(model.decision)
    told |= {"max_length": modality.max_length, "closing": modality.closing, "pad_id": modality.pad_id}
    told |= {"before": template.before(mask) if template else "", "after": template.after(mask) if template else ""}
    return told | {"offsets": list(model.decision.offsets) or [0.0], "stand_in": modality.stand_in}


def _card(done: Export, run: Run, task: Task) -> str:
    gate, kind = done.gate, "ONNX" if done.to == "onnx" else done.to
    scheme = scheme_of(done.scheme) if done.quantized else None
    told = f", {scheme.sentence}" if scheme else ""
    both = ("model", "exported")
    scores = [
        f"{split} {task.selection} {run.metrics[split][task.selection]:.4f} on {run.metrics[split]['n']:,} rows"
        for split in ("validation", "test")
        if split in run.metrics
    ]
    names = ", ".join(f"`{name}`" for name in task.labels[:_SHOWN])
    rest = f" and {len(task.labels) - _SHOWN} more" * (len(task.labels) > _SHOWN)
    return f"""# {run.name}

A {task.name} model, exported by graftwork from the run `{run.name}`: {kind}{told}, {done.mb} MB.

{_USE[done.to].format(given='"one text" "the other"' if task.name == "similarity" else '"a text"')}\
{_COMPANY * (scheme is not None and scheme.company)}{_kept(done)}
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
{_candidates(done)}"""


def _kept(done: Export) -> str:
    if not done.kept or not done.kept.groups:
        return ""
    return (
        f"\nFewer bits hurt in {', '.join(done.kept.groups)}, more than in other layers: these stay in fp32, "
        f"{done.kept.mb} MB of weights.\n"
    )


def _candidates(done: Export) -> str:
    if not done.candidates:
        return ""
    lines = [
        f"| {each['scheme']} | {each['mb']} | {each['p50']:.1f} | {each['agreement']:.1%} | "
        f"{' '.join(each['faults']) or 'passes'} |"
        for each in done.candidates
    ]
    head = "| | MB | ms a text, median | same labels | gate |\n| --- | ---: | ---: | ---: | --- |"
    return "\n".join(["\nThe quickest here that passes was taken:\n", head, *lines, ""])


def _recipe(run: Run) -> str:
    return ", then ".join(next(iter(stage["method"])) for stage in run.happened.get("stages", []))


_TORCH = {
    "Needs onnxruntime, tokenizers, numpy": "Needs torch, tokenizers, numpy",
    "import onnxruntime\nfrom tokenizers": "import torch\nfrom tokenizers",
    """    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
""": """    return network
""",
    "@cache\ndef opened(threads)": """class Session:
    def __init__(self, file):
        self.network = torch.export.load(file).module()

    @torch.no_grad()
    def run(self, _, given):
        return [self.network(*(torch.from_numpy(each) for each in given.values())).numpy()]


network = Session(folder / "model.pt2")


def opened(_)""",
    '"""The network, on so many threads; 0 is one a core."""': '"""The network, on as many threads as torch takes."""',
    "from functools import cache\n": "",
}
"""What a predict.py of torch says in the place of onnxruntime's lines."""
_USE = {
    "torch-export": """```sh
pip install torch tokenizers numpy
python predict.py {given}
```

`predict.py` cuts a text by `tokenizer.json`, runs `model.pt2` (pooling and head are inside) and answers as
`labels.json` says: the labels and calibrated probabilities of `graft predict`. torch opens pickles that a .pt2 asks it
to open, so load none that you do not trust.
""",
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
