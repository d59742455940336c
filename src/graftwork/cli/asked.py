"""From words on a command line to what the verbs take. Nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftwork.choice import Choice, InputError, lookup, suggest

DEFAULT_METHOD = "full-fine-tuning"
# What is taken for a file and not for a text to predict.
FILES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet", ".arrow", ".gz")


def known(**values: Any) -> dict[str, Any]:
    """The values that were given."""
    return {name: value for name, value in values.items() if value not in (None, [])}


def words(said: Sequence[str] | None) -> list[str]:
    """`["a,b", "c"]` as `["a", "b", "c"]`: options that may be repeated or hold commas."""
    return [word.strip() for item in said or () for word in item.split(",") if word.strip()]


def whole_numbers(option: str, said: Sequence[str] | None) -> list[int]:
    """`["8,16", "32"]` as `[8, 16, 32]`.

    Raises:
        InputError: one of them is no whole number.
    """
    try:
        return [int(word) for word in words(said)]
    except ValueError:
        raise InputError(f"{option} takes whole numbers with commas, such as 8,16,32; got {words(said)}.") from None


def measure(option: str, said: str | None, unit: str) -> float | None:
    """`20MB` or `20` as 20.0.

    Raises:
        InputError: it is no amount above 0 of this unit.
    """
    if said is None:
        return None
    plain = said.strip().lower().removesuffix(unit.lower()).strip()
    try:
        amount = float(plain)
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise InputError(f"{option} takes an amount above 0, such as 20{unit}; got {said!r}.")
    return amount


def recipes(said: Sequence[str] | None) -> list[Any]:
    """Methods that race: `["lora", "linear-probe+lora"]` as `["lora", ["linear-probe", "lora"]]`."""
    return [word.split("+") if "+" in word else word for word in words(said)]


def load_options(
    *, drop: Sequence[str] | None, validation: str | None = None, test: str | None = None, **others: Any
) -> dict[str, Any]:
    """The options of `Data.load` that were given."""
    return known(drop=words(drop), validation=_share_or_file(validation), test=_share_or_file(test), **others)


def request(
    source: str,
    *,
    data: Mapping[str, Any],
    methods: Sequence[str] | None,
    settings: Sequence[str] | None,
    hardware: Mapping[str, Any],
    **others: Any,
) -> dict[str, Any]:
    """The arguments of `fit`: those of the run file, if `source` is one, under what was typed.

    Raises:
        InputError: a word that is not understood.
    """
    is_run_file = source.lower().endswith((".yaml", ".yml"))
    asked: dict[str, Any] = _run_file(source) if is_run_file else {"data": source}
    asked |= known(**others)
    if isinstance(asked["data"], str):
        asked["data"] = {"source": asked["data"]}
    # Reading the data depends on the task, where it is not left to be inferred.
    asked["data"] = {**known(task=asked.get("task")), **asked["data"], **data}
    asked["hardware"] = {**asked.get("hardware", {}), **hardware}
    asked["method"] = words(methods) or asked.get("method") or DEFAULT_METHOD
    if settings:
        asked["method"] = with_settings(asked["method"], settings)
    return asked


def with_settings(
    method: Any, settings: Sequence[str], shelf: type[Choice] | None = None
) -> list[dict[str, dict[str, Any]]]:
    """The stages of `method` with each `field=value` in the one stage that has the field, or that `stage.field` names.

    `head.field`, or `stage.head.field`, is a field of the stage's head. What stands on another `shelf` than that of
    methods is set alike.

    Raises:
        InputError: not of that form, or no stage or several have the field.
    """
    import graftwork.methods  # noqa: F401  puts them on their shelf
    from graftwork.head import Head
    from graftwork.method import Method

    shelf = shelf or Method
    stages = [_with_fields(stage) for stage in (method if isinstance(method, list) else [method])]
    for setting in settings:
        place, equals, said = setting.partition("=")
        stage, _, field = place.strip().replace("-", "_").rpartition(".")
        if not equals or not field:
            raise InputError(
                f"--set {setting!r} is not understood. Write field=value, head.field=value, or stage.field=value in a "
                "recipe."
            )
        owner, _, part = stage.rpartition(".")
        if part != "head":
            name, fields = _stage_of(stages, stage.replace("_", "-"), field, shelf)
            fields[field] = _value(said, lookup(shelf, name), field)
            continue
        name, fields = _stage_of(stages, owner.replace("_", "-"), "head", shelf)
        head = fields.get("head", lookup(shelf, name).model_fields["head"].default.name)
        head, own = next(iter(head.items())) if isinstance(head, Mapping) else (head, {})
        fields["head"] = {head: {**(own or {}), field: _value(said, lookup(Head, head), field)}}
    return stages


def assigned(settings: Sequence[str] | None) -> dict[str, Any]:
    """`["lr=0.001", "objective.unit=word"]` as `{"lr": 0.001, "objective.unit": "word"}`.

    Raises:
        InputError: not of that form.
    """
    found: dict[str, Any] = {}
    for setting in settings or []:
        place, equals, said = setting.partition("=")
        if not equals or not place.strip():
            raise InputError(f"--set {setting!r} is not understood. Write field=value, such as lr=0.001.")
        found[place.strip().replace("-", "_")] = _read(said)
    return found


def _value(said: str, cls: type[Choice], field: str) -> Any:
    """What was typed for a field: itself where the field is a text, else read as YAML."""
    if field in cls.model_fields and cls.model_fields[field].annotation is str:
        return said
    return _read(said)


def _read(said: str) -> Any:
    """What was typed, read as YAML; itself where it is none."""
    import yaml

    try:
        return yaml.safe_load(said)
    except yaml.YAMLError:
        return said


def _with_fields(stage: Any) -> dict[str, dict[str, Any]]:
    from graftwork.method import unfolded

    if isinstance(stage, Mapping):
        return {name: dict(fields or {}) for name, fields in stage.items()}
    return unfolded(str(stage))


def _stage_of(
    stages: Sequence[dict[str, dict[str, Any]]], stage: str, field: str, shelf: type[Choice]
) -> tuple[str, dict[str, Any]]:
    """The stage that is meant: its name and its fields."""
    found = [(name, fields) for each in stages for name, fields in each.items()]
    if stage:
        meant = [each for each in found if each[0] == stage]
        if len(meant) != 1:
            problem = (
                f"No stage is called {stage!r}."
                if not meant
                else f"Several stages are called {stage!r}: use a run file."
            )
            raise InputError(f"{problem} {suggest(stage, [name for name, _ in found])}")
        return meant[0]
    if len(found) == 1:
        return found[0]
    meant = [(name, fields) for name, fields in found if field in lookup(shelf, name).model_fields]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        fields = dict.fromkeys(field for name, _ in found for field in lookup(shelf, name).model_fields)
        raise InputError(f"No stage has a field {field!r}. {suggest(field, fields)}")
    raise InputError(f"Several stages have a field {field!r}. Say which: --set {meant[0][0]}.{field}=...")


def inputs(said: str, *, column: str | None, usual_column: str | None, others: Sequence[str] = ()) -> list[str]:
    """The texts to predict: `said` itself, the lines of standard input (`-`), or the rows of a file.

    Args:
        said: a text, `-`, or a file (.txt has a text a line; others have columns).
        column: the column asked for.
        usual_column: the one the model was fitted on, taken where the file has it.
        others: more texts, which only models that compare read.

    Raises:
        InputError: no such file, the column to read is not clear, or there is a second text.
    """
    if others:
        raise InputError(f"This model reads one text at a time, and {others[0]!r} is a second. Give a file of texts.")
    given = _typed(said)
    return lines(said, column=column, usual_column=usual_column) if given is None else given


def compared(
    said: str, others: Sequence[str], count: int, *, columns: str | None = None, usual_columns: str | None = None
) -> list[list[str]]:
    """The pairs or triplets to compare: what was typed, lines with tabs between the texts, or columns of a file.

    Args:
        said: a text, `-`, or a file (.txt has a row a line; others have columns).
        others: the texts after it, where it is one.
        count: how many texts a row is: 2 or 3.
        columns: the columns asked for, with commas.
        usual_columns: those that the model was fitted on.

    Raises:
        InputError: no such file, or not so many texts.
    """
    kind, many = ("pairs", "two") if count == 2 else ("triplets", "three")
    given = None if others else _typed(said)
    if not others and given is None and Path(said).suffix != ".txt":
        names = [name.strip() for name in (columns or usual_columns or "").split(",")]
        if len(names) != count:
            wanted = "A,B" if count == 2 else "ANCHOR,FIRST,SECOND"
            raise InputError(
                f"A model of {kind} reads {many} columns; got {', '.join(names)}. Name them with --text {wanted}."
            )
        return [list(row) for row in zip(*(_column(Path(said), name) for name in names), strict=True)]
    found = [[said, *others]] if others else [line.split("\t") for line in (lines(said) if given is None else given)]
    if wrong := [row for row in found if len(row) != count]:
        after = "a second text" if count == 2 else "two more texts"
        raise InputError(
            f"A model of {kind} compares {many} texts; got {' | '.join(wrong[0])!r:.60}. Give {after} after it, tabs "
            f"between those of a line, or a file with {many} columns."
        )
    return found


def pictures(said: str, *, column: str | None, usual_column: str | None, others: Sequence[str] = ()) -> list[str]:
    """The files of pictures to predict: `said` itself, those in a folder, or the rows of a table, paths from its place.

    Args:
        said: a picture, a folder, or a table.
        column: the column asked for.
        usual_column: the one the model was fitted on, taken where the file has it.
        others: more pictures, as a shell makes of `*.jpg`.

    Raises:
        InputError: there is no such file, the folder has no pictures, or the column to read is not clear.
    """
    from graftwork.picture import is_picture
    from graftwork.picture_folder import pictures_in

    path = Path(said)
    if path.is_dir():
        if found := pictures_in(path):
            return [str(file) for file in found]
        raise InputError(f"There is no picture in {said!r}. Give a picture, a folder of them, or a table.")
    if is_picture(said) or others or not said.lower().endswith(FILES):
        return [said, *others]
    return [str(path.parent / file) for file in lines(said, column=column, usual_column=usual_column)]


def lines(said: str, *, column: str | None = None, usual_column: str | None = None) -> list[str]:
    """The texts of a file: its lines, or a column of a table.

    Args:
        said: the file.
        column: the column asked for.
        usual_column: taken where the file has it and none is asked for; one column alone needs no name.

    Raises:
        InputError: no such file, or the column to read is not clear.
    """
    path = Path(said)
    if not _is_file(path):
        raise InputError(f"There is no file {said!r}. Give a .txt file with a text a line, or a table.")
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8-sig").splitlines()
    return _column(path, column, usual_column)


def _typed(said: str) -> list[str] | None:
    """The lines of standard input (`-`), or a text as it was typed; None where it names a file."""
    import sys

    if said == "-":
        return sys.stdin.read().splitlines()
    if _is_file(Path(said)):
        return None
    if not said.lower().endswith(FILES) or any(character.isspace() for character in said):
        return [said]
    raise InputError(f"There is no file {said!r}. A text that ends like a file's name can be piped in: predict RUN -")


def _column(path: Path, column: str | None, usual_column: str | None = None) -> list[str]:
    from graftwork.reading import ROW, read

    reading = read(path)
    table = next(iter(reading.tables.values()))
    there = [name for name in table.column_names if name != ROW]
    name = column or (usual_column if usual_column in there or len(there) != 1 else there[0])
    if name not in there:
        raise InputError(
            f"'{path}' has no column {name!r}; name the one to read with --text. {suggest(str(name), there)}"
        )
    return [text if isinstance(text, str) else " ".join(text or []) for text in table[name].to_pylist()]


def _run_file(source: str) -> dict[str, Any]:
    from graftwork.fit import Request

    return Request.from_yaml(source).model_dump(exclude_unset=True)


def _share_or_file(said: str | None) -> float | str | None:
    try:
        return float(said) if said is not None else None
    except ValueError:
        return said


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text too long for a name
        return False
