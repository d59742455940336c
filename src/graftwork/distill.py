"""distill: a smaller student learns what a finished run answers, on the same rows, and is compared with it in pairs.

The student is a run like any other. Nothing here reads the test split: `graft evaluate` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.budget import Budget
from graftwork.choice import InputError, parse
from graftwork.evaluate import data_of, evidence_of_runs
from graftwork.fit import fit
from graftwork.hardware import Hardware
from graftwork.latency import latency
from graftwork.method import Method, recipe_of
from graftwork.methods.distillation import Distillation
from graftwork.model import TransferModel
from graftwork.run import Run, refuse_replacing
from graftwork.significance import difference
from graftwork.work import OnEvent

if TYPE_CHECKING:
    from graftwork.data import Data, Split


@dataclass(frozen=True)
class Compared:
    """A student beside its teacher, on the same validation rows."""

    of: str
    """The teacher's run."""
    metric: str
    teacher: float
    student: float
    difference: float
    """How much higher the student's score is."""
    difference_low: float
    """Lower end of its 95 % interval, paired by row."""
    difference_high: float
    """Upper end."""
    p: float
    """Probability of so large a difference by chance."""
    kept: float
    """The student's score as a share of the teacher's."""
    rows: int
    unlabelled: int
    """Texts that the teacher alone labelled."""
    parameters: tuple[int, int]
    """Of the teacher and of the student."""
    latency: tuple[dict[str, float], dict[str, float]]
    """Likewise, as `latency.latency` measures it."""

    @property
    def said(self) -> str:
        """In words."""
        points = f"{100 * self.difference:+.1f} points ({100 * self.difference_low:+.1f} to "
        points += f"{100 * self.difference_high:+.1f}, p {self.p:.2f})"
        times = self.latency[0]["ms_1_p50"] / self.latency[1]["ms_1_p50"]
        smaller = self.parameters[0] / self.parameters[1]
        return (
            f"The student keeps {self.kept:.1%} of its teacher: {self.metric} {self.student:.1%} against "
            f"{self.teacher:.1%} on {self.rows:,} validation rows, {points}. It has {smaller:.1f} times fewer weights "
            f"and answers one text {times:.1f} times as fast."
        )


def distill(
    run: Run | str | Path,
    *,
    student: str | int = "layers=3",
    unlabelled: Any = None,
    budget: str | Budget | None = None,
    fields: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
) -> Run:
    """Train a student on what a finished run answers, and give back the student's run.

    Args:
        run: the teacher, finished, or its folder. The student learns from the same rows, cut as they were.
        student: `"layers=3"`, or 3, for so many of the teacher's own blocks; or a model, as `fit` takes it.
        unlabelled: a file of further texts, which the teacher labels; they are added to train. Those that stand in
            validation or test are left out.
        budget: of training; by default what the method asks for.
        fields: of the method `distillation`, such as `weight`.
        seed: of everything random.
        out: the student's folder; by default that of the run with `-distilled`. With `unlabelled` the data is kept in
            the folder of that name with `-data`.
        force: whether a finished run there may be replaced.
        hardware: device, precision, threads.
        on_event: is told what happens.

    Returns:
        The new run; `happened["distilled"]` holds what `Compared` does, and `said`.

    Raises:
        InputError: the run is not finished, the student is none, or the data has changed.

    Example:
        small = distill("runs/reviews-full-fine-tuning", student="layers=3")
        small.happened["distilled"]["said"]
    """
    teacher = run if isinstance(run, Run) else Run.open(run)
    teacher.require_fitted("distill")
    path = Path(out) if out else Run.default_path(teacher.path.resolve().name, "distilled", teacher.path.parent)
    if path.resolve() == teacher.path.resolve():
        raise InputError("The student would take the place of its teacher. Choose another folder with --out.")
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        refuse_replacing(path, force=force)
    model, layers = _student(student, teacher)
    first = recipe_of(teacher.asked["method"])[0]
    described: dict[str, Any] = {"head": first.head.spec(), "pooling": first.pooling}
    described |= {"teachers": (str(teacher.path),), "layers": layers}
    data, texts = data_of(teacher), 0
    if unlabelled is not None:
        data, texts = _with_texts(data, teacher, unlabelled, path.with_name(f"{path.name}-data"))
        _tell(on_event, f"The teacher labelled {texts:,} further texts; they are in '{data.source['source']}'.")
    method = parse(Method, {Distillation.name: described | dict(fields or {})})
    made = fit(
        data, model=model, method=method, budget=budget, seed=seed,
        coverage=teacher.asked.get("coverage", 1.0), out=path, force=force, hardware=hardware, on_event=on_event,
    )  # fmt: skip
    found = _compared(teacher, made, data, texts, Hardware.of(hardware))
    made.update(happened={"distilled": asdict(found) | {"said": found.said}})
    return made


def _tell(on_event: OnEvent | None, message: str) -> None:
    if on_event:
        on_event({"event": "note", "message": message})


def _student(student: str | int, teacher: Run) -> tuple[str, int | None]:
    """The model to begin with, and how many of the teacher's blocks it is to have; None where it has its own."""
    match = re.fullmatch(r"\s*(?:layers\s*=\s*)?(\d+)\s*", str(student))
    if match:
        return teacher.asked["model"], int(match[1])
    if "=" in str(student):
        raise InputError(f"The student {student!r} is not understood. Write layers=3, or name a model.")
    return str(student), None


def _with_texts(data: Data, teacher: Run, unlabelled: Any, folder: Path) -> tuple[Data, int]:
    """The data with more train rows, labelled by the teacher, as it is kept in `folder`; and how many there are."""
    import pyarrow as pa

    from graftwork.data import Data, Split

    if data.task == "similarity":
        raise InputError("Pairs of texts are not labelled by a teacher. Leave --unlabelled out.")
    loaded = Data.load(**data.source | {"target": unlabelled})
    if "target" not in loaded:
        raise InputError(
            "The teacher's data is a saved folder, to which no texts can be added: leave --unlabelled out."
        )
    texts = loaded["target"]
    texts = texts.where(~np.isin(texts.keys, np.concatenate([_keys(data, "validation"), _keys(data, "test")])))
    inputs = texts.inputs()
    if not inputs:
        raise InputError(f"'{unlabelled}' holds no texts that are not in validation or test already.")
    labels = [answer.label for answer in TransferModel.load(teacher.path / "model").predict(inputs)]
    train = data["train"].table
    columns = {"input": inputs, "label": labels, "row": texts.rows, "digest": texts.shown.to_pylist()}
    more = pa.table({name: pa.array(columns[name], train.schema.field(name).type) for name in train.column_names})
    splits: dict[str, Split] = {**data.splits, "train": Split(pa.concat_tables([train, more]))}
    replace(data, splits=MappingProxyType(splits), groups={}).save(folder)
    return Data.open(folder), len(inputs)


def _keys(data: Data, split: str) -> np.ndarray:
    return data[split].keys if split in data else np.zeros(0, dtype=np.uint64)


def _compared(teacher: Run, student: Run, data: Data, texts: int, hardware: Hardware) -> Compared:
    models = [TransferModel.load(run.path / "model").to(hardware.torch_device()) for run in (teacher, student)]
    task, inputs = models[1].task, data["validation"].inputs()
    of, new = (evidence_of_runs(models[0].task, [run], "validation") for run in (teacher, student))
    gap, low, high, p = difference(new, of)
    before, after = float(of.scores[0]), float(new.scores[0])
    return Compared(
        of=str(teacher.path), metric=task.selection, teacher=before, student=after, difference=gap, difference_low=low,
        difference_high=high, p=p, kept=after / before if before else 0.0, rows=len(inputs), unlabelled=texts,
        parameters=tuple(sum(w.numel() for w in m.parameters()) for m in models),  # type: ignore[arg-type]
        latency=tuple(latency(model, inputs) for model in models),  # type: ignore[arg-type]
    )  # fmt: skip
