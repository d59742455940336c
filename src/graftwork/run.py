"""Run: what was asked, what happened, what it cost; one folder on disk.

Everything that writes into a run folder does it here, because one promise covers all of it: whoever opens the folder,
at any moment, also after a power cut, finds whole files and a state that is true. So a file is written beside its
place, flushed to the disk and renamed (`disk`); and "running" is believed only while the process that said so lives.

    run.json             asked, happened, cost, environment, metrics, findings, data
    state                {"state": "running", "cause": null, ...}
    metrics.jsonl        one event a line: steps and evaluations
    predictions.parquet  one row for each predicted example
    model/  checkpoint/  the fitted model; where to go on from (removed when done)
    report.html  log.txt the page for people; tracebacks and notes
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import re
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from graftwork.choice import InputError, suggest
from graftwork.disk import DiskFullError, atomic_path, atomic_write, plain_disk_errors
from graftwork.machine import born, environment

if TYPE_CHECKING:
    import pyarrow

State = Literal["queued", "running", "interrupted", "failed", "done"]
Dicts = list[dict[str, Any]]

FORMAT = 1
OURS = ("run.json", "state", "metrics.jsonl", "predictions.parquet", "model", "checkpoint", "report.html", "log.txt")
OURS += ("compression.html",)
PREDICTION_COLUMNS = ("split", "row", "input", "label", "prediction", "confidence", "unsure", "probabilities")
# A process on another machine cannot be seen from here; it logs far more often than this.
SILENT_SECONDS = 600

logger = logging.getLogger(__name__)


class Run:
    """One run folder: made by `Run.create`, found again by `Run.open`. Properties are read from the disk when asked."""

    def __init__(self, path: Path):
        self.path = path

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.path.resolve() == self.path.resolve()

    def __hash__(self) -> int:
        return hash(self.path.resolve())

    # Making and finding

    @classmethod
    def create(cls, path: str | os.PathLike[str], asked: Mapping[str, Any], *, force: bool = False) -> Run:
        """A new run folder in state "queued".

        An old run in its place is replaced when nothing is lost by it (it has neither a model nor a checkpoint) or with
        `force`; only once the new folder is whole, and files in it that graftwork did not write are kept.

        Raises:
            InputError: the path is a file, a folder with something else in it, a run that is at work, a finished run or
                an interrupted one (without `force`), or a place that cannot be written to.
        """
        path = Path(path).expanduser()
        try:
            if not path.exists() or (path.is_dir() and not any(path.iterdir())):
                path.mkdir(parents=True, exist_ok=True)
                return cls(path)._set_up(asked)
            refuse_replacing(path, force=force)
            fresh = cls(Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent)))
            try:
                fresh.path.chmod(path.stat().st_mode & 0o777)
                fresh._set_up(asked, name=path.name)
                _swap(path, fresh.path)
            except BaseException:
                shutil.rmtree(fresh.path, ignore_errors=True)
                raise
        except (PermissionError, NotADirectoryError) as error:
            told = f"Cannot write a run to '{path}': {error.strerror}."
            raise InputError(f"{told} Choose another folder with --out.") from error
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """The run in a folder that is there.

        Raises:
            InputError: there is no such folder, it is not a run, or a newer graftwork wrote it.
        """
        path = Path(path).expanduser()
        if not path.is_dir():
            beside = [run.path.name for run in cls.list(path.parent)]
            raise InputError(f"There is no run folder '{path}'. {suggest(path.name, beside)}")
        if not is_run(path):
            raise InputError(
                f"'{path}' is not a run: it has no readable run.json. `graft runs` lists the runs there are."
            )
        run = cls(path)
        written = run._read().get("format")
        if written != FORMAT:
            raise InputError(
                f"'{path}' has run format {written}, and this graftwork reads {FORMAT}: use the one that wrote it."
            )
        return run

    @staticmethod
    def default_path(data_name: str, method_name: str, root: str | os.PathLike[str] = "runs") -> Path:
        """The first free one of runs/<data>-<method>, runs/<data>-<method>-2, ..."""
        stem = Path(root) / re.sub(r"[^\w.]+", "-", f"{data_name}-{method_name}").strip("-._").lower()
        numbered = (stem.with_name(f"{stem.name}-{number}") for number in itertools.count(2))
        return next(path for path in itertools.chain([stem], numbered) if not path.exists())

    def _set_up(self, asked: Mapping[str, Any], name: str | None = None) -> Run:
        whole = {"format": FORMAT, "name": name or self.path.resolve().name, "created": _now(), "asked": dict(asked)}
        whole |= {"happened": {}, "cost": {}, "metrics": {}, "findings": [], "data": {}, "environment": environment()}
        try:
            self.set_state("queued")
            self._write(whole)  # last, because it makes the folder a run
        except BaseException:
            (self.path / "state").unlink(missing_ok=True)
            raise
        return self

    # State

    @property
    def state(self) -> State:
        """What is true now: a run that says "running" while its process is gone reads as "interrupted"."""
        return self._state()[0]

    @property
    def cause(self) -> str | None:
        """Why the run failed or was interrupted, in plain words; None when there is nothing to say."""
        return self._state()[1]

    def require_unfinished(self) -> None:
        """Refuse to resume what is finished.

        Raises:
            InputError: the run is done.
        """
        if self.state == "done":
            raise InputError(f"Run {str(self.path)!r} is finished: there is nothing to resume.")

    def require_fitted(self, verb: str) -> None:
        """Refuse what only a finished run with an answer to a task can do.

        Args:
            verb: what it is to do, as `evaluate`.

        Raises:
            InputError: the run is not finished, or is a base.
        """
        if self.state != "done":
            raise InputError(
                f"Run {str(self.path)!r} is {self.state}: there is nothing to {verb} yet. Finish it first."
            )
        self.require_task()

    def require_task(self) -> None:
        """Refuse a base, which `pretrain` makes of plain text or pictures.

        Raises:
            InputError: it is one.
        """
        if self.is_base:
            raise InputError(
                f"{str(self.path)!r} is a base, which answers no task yet. Fit one: graft fit DATA --model {self.path}"
            )

    @property
    def is_base(self) -> bool:
        """Whether it was asked to learn from plain text or pictures, and not from labels."""
        return "corpus" in self.asked

    def set_state(self, state: State, cause: str | None = None) -> None:
        """Write the state, atomically; "running" is tied to the calling process.

        Raises:
            InputError: another living process is at work on this run.
        """
        assert state in get_args(State), state
        owner = {"pid": os.getpid(), "born": born(os.getpid()), "host": socket.gethostname()}
        if state == "running" and self.state == "running":
            said = self._said()
            if (said.get("pid"), said.get("host")) != (owner["pid"], owner["host"]):
                who = f"Process {said.get('pid')} on {said.get('host')}"
                raise InputError(f"{who} is at work on '{self.path}'. Wait for it, or stop it first.")
        atomic_write(self.path / "state", as_json({"state": state, "cause": cause, "since": _now()} | owner).encode())

    @contextmanager
    def working(self) -> Iterator[Run]:
        """Keeps the state true around a piece of work: running inside; failed or interrupted when an error leaves it.

        The traceback goes to log.txt, and the error leaves with the run attached as `error.run`. The work itself says
        "done".

        Raises:
            DiskFullError: the disk is full.
        """
        self.set_state("running")
        try:
            with plain_disk_errors(self.path):
                yield self
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit)) or type(error).__name__ == "Interrupted"
            error.run = self  # type: ignore[attr-defined]
            try:
                if not stopped:
                    self.note("".join(traceback.format_exception(error)))
                self.set_state(
                    "interrupted" if stopped else "failed", str(error) or None if stopped else plain_cause(error)
                )
            except OSError as full:
                logger.warning("The state of '%s' could not be written: %s", self.path, full)
            raise

    def _said(self) -> dict[str, Any]:
        try:
            return json.loads((self.path / "state").read_bytes())
        except (OSError, ValueError):
            return {}

    def _state(self) -> tuple[State, str | None]:
        said = self._said()
        state = said.get("state")
        if state is None or state not in get_args(State):
            return "interrupted", "The state file is missing or unreadable."
        if state == "running" and not self._owner_lives(said):
            return (
                "interrupted",
                f"Process {said.get('pid')} ended without saying why (killed, out of memory, or a power cut).",
            )
        return state, said.get("cause")

    def _owner_lives(self, said: Mapping[str, Any]) -> bool:
        if said.get("host") in (None, socket.gethostname()):
            return said.get("born") is not None and born(said["pid"]) == said["born"]
        written = [file.stat().st_mtime for file in self.path.iterdir()]
        return time.time() - max(written) < SILENT_SECONDS

    # run.json

    @property
    def name(self) -> str:
        """The folder's name when the run was made."""
        return self._read()["name"]

    @property
    def created(self) -> str:
        """When the run was made: ISO 8601, UTC."""
        return self._read()["created"]

    @property
    def asked(self) -> dict[str, Any]:
        """model, data, method, task, budget, seed, coverage, hardware."""
        return self._read()["asked"]

    @property
    def happened(self) -> dict[str, Any]:
        """steps, epochs, best_step, why it stopped, precision, stages, what was inferred and dropped."""
        return self._read()["happened"]

    @property
    def cost(self) -> dict[str, Any]:
        """seconds, examples_per_second, peak_memory_mb, trained_parameters, total_parameters, model_mb."""
        return self._read()["cost"]

    @property
    def environment(self) -> dict[str, Any]:
        """What `environment()` saw when the run was made."""
        return self._read()["environment"]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of each split that was evaluated."""
        return self._read()["metrics"]

    @property
    def findings(self) -> Dicts:
        """What the data doctor said before the fit."""
        return self._read()["findings"]

    @property
    def data(self) -> dict[str, Any]:
        """fingerprint, rows of each split, labels, task, multi_label, texts a row."""
        return self._read()["data"]

    def as_dict(self) -> dict[str, Any]:
        """Everything in run.json, with the folder's path and true state."""
        state, cause = self._state()
        return {"path": str(self.path), "state": state, "cause": cause} | self._read()

    def update(self, **sections: Any) -> None:
        """Merge into run.json: a mapping's keys join those of its section (one level deep); anything else replaces it.

        Example:
            >>> import tempfile
            >>> run = Run.create(tempfile.mkdtemp(), asked={})
            >>> run.update(metrics={"validation": {"accuracy": 0.9}})
            >>> run.update(metrics={"test": {"accuracy": 0.8}})
            >>> sorted(run.metrics)
            ['test', 'validation']
        """
        whole = self._read()
        for name, section in sections.items():
            old = whole.get(name)
            if isinstance(section, Mapping) and isinstance(old, Mapping):
                section = {**old, **section}
            whole[name] = section
        self._write(whole)

    def _read(self) -> dict[str, Any]:
        return json.loads((self.path / "run.json").read_bytes())

    def _write(self, whole: Mapping[str, Any]) -> None:
        atomic_write(self.path / "run.json", (as_json(whole, indent=1) + "\n").encode())

    # metrics.jsonl and log.txt

    def log(self, **event: Any) -> None:
        """Append one event to metrics.jsonl."""
        self._append("metrics.jsonl", as_json(event) + "\n")

    def events(self) -> Dicts:
        """The events of metrics.jsonl in order; a line cut off by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        events = []
        for line in path.read_bytes().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                logger.debug("metrics.jsonl of %s has a broken line", self.path)
        return events

    def truncate_log(self, step: int, stage: int = 0) -> None:
        """Drop the events after `step` of `stage`: they are about to happen again."""
        kept = [event for event in self.events() if (event.get("stage", 0), event.get("step", 0)) <= (stage, step)]
        atomic_write(self.path / "metrics.jsonl", "".join(as_json(event) + "\n" for event in kept).encode())

    def note(self, text: str) -> None:
        """Append text, with the time, to log.txt."""
        self._append("log.txt", f"{_now()} {text.rstrip()}\n")

    def _append(self, name: str, text: str) -> None:
        with plain_disk_errors(self.path / name), (self.path / name).open("ab") as file:
            file.write(text.encode())

    # predictions.parquet

    def write_predictions(self, split: str, table: pyarrow.Table) -> None:
        """Put the table's rows in the place of that split's rows; its `split` column is filled in.

        Raises:
            ValueError: the table lacks a column of PREDICTION_COLUMNS.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = table.drop_columns([name for name in table.column_names if name == "split"])
        table = table.append_column("split", pa.repeat(split, len(table)))
        if missing := set(PREDICTION_COLUMNS) - set(table.column_names):
            raise ValueError(f"Predictions lack the columns {sorted(missing)}; they have {table.column_names}.")
        others = self._read_predictions("!=", split)
        whole = pa.concat_tables([others, table.select(PREDICTION_COLUMNS).cast(_schema())])
        with atomic_path(self.path / "predictions.parquet") as beside:
            pq.write_table(whole, beside, compression="zstd")

    def predictions(self, split: str | None = None) -> pyarrow.Table:
        """The predictions of one split, or of all; no rows when nothing was predicted yet."""
        return self._read_predictions("==", split)

    def _read_predictions(self, comparison: str, split: str | None) -> pyarrow.Table:
        import pyarrow.parquet as pq

        path = self.path / "predictions.parquet"
        if not path.exists():
            return _schema().empty_table()
        return pq.read_table(path, filters=None if split is None else [("split", comparison, split)], schema=_schema())

    # Last, because below it `list` no longer means the builtin.
    @classmethod
    def list(cls, root: str | os.PathLike[str] = "runs") -> list[Run]:
        """The runs directly inside `root` (or `root` itself, when it is one), oldest first."""
        root = Path(root).expanduser()
        if is_run(root):
            return [cls(root)]
        folders = [folder for folder in root.glob("*") if not folder.name.startswith(".") and is_run(folder)]
        return sorted(
            (cls(folder) for folder in folders), key=lambda run: (run._read().get("created", ""), run.path.name)
        )


def is_run(path: Path) -> bool:
    """Whether a folder is a run: its run.json is one of ours, and not some other program's."""
    try:
        content = json.loads((path / "run.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "asked", "happened", "metrics", "environment"} <= content.keys()


def refuse_replacing(path: Path, *, force: bool) -> None:
    """Refuse a place for a new run in which something would be lost.

    Raises:
        InputError: as `Run.create` does.
    """
    if not path.is_dir():
        raise InputError(f"'{path}' is a file. Choose another folder with --out.")
    if not is_run(path):
        raise InputError(
            f"'{path}' holds something that is not a run, and is left alone. Choose another folder with --out."
        )
    state = Run(path).state
    if state == "running":
        raise InputError(f"A run is at work in '{path}'. Choose another folder with --out, or stop it first.")
    if force:
        return
    if state == "done":
        raise InputError(f"'{path}' is a finished run. Choose another folder with --out, or replace it with --force.")
    if (path / "checkpoint").exists() or (path / "model").exists():
        raise InputError(
            f"'{path}' holds an {state} run. Go on with `graft resume {path}`, or replace it with --force."
        )


def _swap(old: Path, fresh: Path) -> None:
    """Put `fresh` in the place of the run `old`, keeping the files of `old` that are not ours."""
    aside = Path(tempfile.mkdtemp(prefix=f".{old.name}.old-", dir=old.parent))
    os.replace(old, aside)
    try:
        os.replace(fresh, old)
    except OSError:
        os.replace(aside, old)
        raise
    for stranger in aside.iterdir():
        if stranger.name not in OURS:
            shutil.move(stranger, old / stranger.name)
    shutil.rmtree(aside)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON: a number that is not finite becomes null, numpy numbers and paths become plain ones."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return _plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return str(value)


def plain_cause(error: BaseException) -> str:
    """One sentence for people on why a run failed."""
    said = " ".join(str(error).split())
    if isinstance(error, (InputError, DiskFullError)):
        return said
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "The memory did not suffice. Give a smaller --max-tokens, or a smaller model."
    return f"{said or 'An error without a message'} ({type(error).__name__})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text, number = pa.string(), pa.float32()
    types = (text, pa.int64(), text, text, text, number, pa.bool_(), pa.list_(number))
    return pa.schema(list(zip(PREDICTION_COLUMNS, types, strict=True)))
