"""Runs, choices, models and predictions as rows: the same for a person's table and a program's JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from graftwork.choice import Choice, InputError
from graftwork.disk import atomic_path
from graftwork.run import Run, as_json

COLUMNS = ("text", "label", "confidence", "unsure")


def run_row(run: Run) -> dict[str, Any]:
    """What a list of runs says about one; metrics without their tables."""
    parts = run.as_dict()
    asked, scores = parts["asked"], parts["metrics"]
    data = asked.get("data")
    return {
        "run": str(run.path),
        "state": parts["state"],
        "cause": parts["cause"],
        "model": asked.get("model"),
        "method": _stages(asked.get("method")),
        "data": data.get("source") if isinstance(data, Mapping) else data,
        "created": parts["created"],
        "seconds": parts["cost"].get("seconds"),
        "metrics": {split: _numbers(values) for split, values in scores.items()},
    }


def choice_row(choice: type[Choice]) -> dict[str, Any]:
    """Name, first sentence, paper and fields of a choice."""
    fields = [vars(field) for field in choice.fields()]
    return {"name": choice.name, "sentence": _first_paragraph(choice), "paper": choice.paper, "fields": fields}


def schedule_rows(points: int = 61) -> list[dict[str, Any]]:
    """Each schedule's factor of the peak rate over the budget, with a warm-up of a tenth where it has none of its own.

    A plateau is drawn as if validation stood still from the middle on.
    """
    from graftwork.choice import lookup, names
    from graftwork.schedule import Schedule, rate_factor

    rows = []
    for name in names(Schedule):
        schedule = lookup(Schedule, name)()
        along = [i / (points - 1) for i in range(points)]
        still = [int(max(0.0, share - 0.4) // 0.15) if schedule.bears else 0 for share in along]
        factors = [rate_factor(schedule, 0.1, share, times) for share, times in zip(along, still, strict=True)]
        rows.append({"name": name, "factors": [round(factor, 4) for factor in factors]})
    return rows


def model_row(name: str) -> dict[str, Any]:
    """What a model's own files say about it.

    Raises:
        InputError: there is no such model.
    """
    from graftwork.models import EMBEDDED, resolve

    folder = resolve(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {
        "name": name,
        "sentence": EMBEDDED[name].sentence if name in EMBEDDED else "",
        "folder": str(folder),
        "type": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "width": config.get("hidden_size"),
        "vocabulary": config.get("vocab_size"),
        "positions": config.get("max_position_embeddings"),
        "mb": round(weights / 1e6, 1),
    }


def write_predictions(out: Path | IO[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A prediction a row: CSV, or JSON lines (with all probabilities) where the file's name ends so.

    Raises:
        InputError: the name ends neither way, or the place cannot be written to.
    """
    if not isinstance(out, Path):
        _write_csv(out, rows)
        return
    if out.suffix not in (".csv", ".jsonl"):
        raise InputError(f"--out '{out}' must end in .csv or .jsonl.")
    try:
        with atomic_path(out) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            if out.suffix == ".csv":
                _write_csv(file, rows)
            else:
                file.writelines(as_json(row) + "\n" for row in rows)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(f"Cannot write '{out}': {error.strerror}.") from error


def _write_csv(file: IO[str], rows: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        label = (
            row["label"] if isinstance(row["label"], str) else ("|" if row["probabilities"] else " ").join(row["label"])
        )
        sure = "" if row["confidence"] is None else f"{row['confidence']:.4f}"
        writer.writerow((row["text"], label, sure, str(row["unsure"]).lower()))


def _stages(method: Any) -> str:
    parts = method if isinstance(method, list) else [method]
    return " + ".join(_title(part) if isinstance(part, Mapping) else str(part) for part in parts)


def _title(stage: Mapping[str, Any]) -> str:
    """A stage as it is typed: `lora@mlp:l2-sp`."""
    name, fields = next(iter(stage.items()))
    head = next(iter(fields.get("head", {"linear": None})))
    added = "".join(f":{next(iter(modifier))}" for modifier in fields.get("modifiers", []))
    return name + (f"@{head}" if head != "linear" else "") + added


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, (int, float))}


def _first_paragraph(choice: type[Choice]) -> str:
    import inspect

    return " ".join((inspect.getdoc(choice) or "").split("\n\n")[0].split())
