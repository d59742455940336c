"""augment: more training texts out of those there are, written anew in such a way that their labels should still hold.

Only train grows. Every row that could not be made, repeats another or comes near validation or test is counted, a
finished run can be asked whether labels still hold, and the same seed gives the same rows.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

import graftwork.augmentations  # noqa: F401  puts every kind on its shelf
from graftwork import splitting
from graftwork.augmentation import Augmentation, Example, Rewrite
from graftwork.check import check
from graftwork.choice import InputError, lookup, names, parse
from graftwork.data import SPLITS, Data, Split
from graftwork.disk import atomic_folder
from graftwork.hardware import Hardware
from graftwork.model import TransferModel
from graftwork.roles import LABEL_NAMES, TAGS_NAMES, TEXT_NAMES, WORDS_NAMES
from graftwork.run import Run, as_json

OnEvent = Callable[[dict[str, Any]], None]

USUAL = {
    "classification": ("neighbour-synonyms", "word-insertion", "word-swap", "word-deletion"),
    "tagging": ("entity-replacement", "neighbour-synonyms"),
}
"""What is taken where no kinds are named: EDA's four; of tagged words those that read best."""
MARKER = "augmentation.json"
COLUMN = "augmented"
BATCH = 32


@dataclass(frozen=True)
class Made:
    """A row that was made, and from which."""

    kind: str
    row: int
    """The original's number in the source file."""
    original: Any
    augmented: Any
    """A text; tagging: a list of words."""
    label: Any
    flagged: bool | None = None
    """Whether the run asked gives it another label; None where no run was asked."""
    answer: Any = None
    """The label which that run gives."""


@dataclass
class Counts:
    """What became of the rows that a kind was asked for: `asked` is the sum of all others but `flagged`."""

    asked: int = 0
    made: int = 0
    unchanged: int = 0
    """The kind found nothing to change, or what it wrote reads as the original."""
    repeated: int = 0
    """It reads as another train text, or as one that was made before."""
    held_out: int = 0
    """It comes near a text of validation or test."""
    flagged: int = 0
    """The run asked gives it another label."""
    dropped: int = 0
    """It was flagged, and left out for that."""


@dataclass(frozen=True, eq=False)
class Augmented:
    """Data whose train split grew."""

    original: Data
    made: tuple[Made, ...]
    counts: Mapping[str, Counts]
    """By kind."""
    asked: dict[str, Any]
    """`kinds`, `copies`, `seed`, `rows`, `check_with`, `drop_flagged`."""
    seconds: float = 0.0
    out: Path | None = None
    """Where it was written."""

    @cached_property
    def data(self) -> Data:
        """Train with the made rows after its own, under the numbers of their originals; other splits as they were."""
        train = self.original["train"].table
        columns = {"input": "augmented", "label": "label", "row": "row"}
        made = pa.table(
            {name: pa.array([getattr(row, of) for row in self.made], train[name].type) for name, of in columns.items()}
        )
        grown = Split(pa.concat_tables([train, made.select(train.column_names)]))
        source = str(self.out.resolve()) if self.out else f"<{type(self).__name__} in memory>"
        return replace(
            self.original,
            splits=MappingProxyType({**self.original.splits, "train": grown}),
            source={"source": source, "task": self.original.task, "multi_label": self.original.multi_label},
            groups={},
        )

    def preview(self, count: int) -> list[dict[str, Any]]:
        """Some of the made rows at random, in their order: `kind`, `row`, `original`, `augmented`, `label`, ..."""
        shown = np.random.default_rng(self.asked["seed"]).permutation(len(self.made))[:count]
        return [asdict(self.made[i]) for i in sorted(shown)]

    def as_dict(self) -> dict[str, Any]:
        """What was asked and what came of it, as plain values."""
        return {
            "counts": {kind: asdict(counts) for kind, counts in self.counts.items()},
            "rows": {name: len(split) for name, split in self.data.splits.items()},
            "asked": self.asked,
            "seconds": self.seconds,
        }

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> Augmented:
        """Write a folder that `fit` reads: a .jsonl file a split, with a column that names the kind.

        The folder is there whole or not at all. With `force` it takes the place of one that was written here.

        Raises:
            InputError: there is something in that place, or it cannot be written to.
        """
        folder = Path(folder).expanduser()
        refuse(folder, force=force)
        with atomic_folder(folder) as beside:
            self._write(beside)
        return replace(self, out=folder)

    def _write(self, folder: Path) -> None:
        text, label = _columns(self.original)
        kinds = itertools.chain(itertools.repeat("", len(self.original["train"])), (row.kind for row in self.made))
        for name, split in self.data.splits.items():
            marks = kinds if name == "train" else itertools.repeat("")
            with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                for inputs, labels in split.batches(1024):
                    for given, answer, mark in zip(inputs, labels, marks, strict=False):
                        row = {text: given, label: answer, COLUMN: mark}
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        about = {"graftwork_augmentation": 1, "source": self.original.source, "fingerprint": self.original.fingerprint}
        (folder / MARKER).write_text(as_json(about | self.as_dict(), indent=1), encoding="utf-8")


def augment(
    data: Any,
    *,
    with_: Any = None,
    copies: int = 1,
    rows: int | None = None,
    seed: int = 0,
    check_with: Run | str | Path | None = None,
    drop_flagged: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
) -> Augmented:
    """Write train texts anew.

    Args:
        data: as `fit` takes it.
        with_: kinds of augmentation (names, mappings or objects); by default EDA's four for texts, and entity
            replacement and synonyms for tagged words.
        copies: how many times each kind rewrites each row.
        rows: at most this many train rows are rewritten, drawn at random; by default all.
        seed: of everything random. What is made of a row depends on nothing but the seed, the kind and the row.
        check_with: a finished run that is asked for the label of every made row; those it gives another are flagged.
        drop_flagged: whether these are left out.
        out: a folder to write to; by default nothing is written.
        force: whether a folder of an earlier call may be replaced.
        hardware: where networks run.
        on_event: is told how far it is.

    Raises:
        InputError: something given cannot be used, or no row could be made. Nothing has been written.

    Example:
        >>> rows = [{"text": f"The {thing} was {what} and old", "label": what} for what in ("good", "bad")
        ...         for thing in ("food", "room", "view", "staff", "lift", "bed", "pool", "desk")]
        >>> found = augment({"source": {"train": rows}, "validation": 0.25}, with_="word-deletion")
        >>> len(found.original["train"]), found.counts["word-deletion"].asked
        (12, 12)
    """
    began = time.perf_counter()
    if copies < 1 or (rows is not None and rows < 1) or seed < 0:
        raise InputError(f"copies and rows begin at 1, and seed at 0; got {copies!r}, {rows!r} and {seed!r}.")
    if drop_flagged and check_with is None:
        raise InputError("Rows are flagged by a finished run: give check_with=RUN, or leave drop_flagged out.")
    if out is not None:
        refuse(Path(out).expanduser(), force=force)
    loaded: Data = Data.of(data)
    loaded.require_texts("graft augment")
    _refuse_augmented(loaded)
    kinds, machine = _kinds(with_, loaded), Hardware.of(hardware)
    run = check_with if isinstance(check_with, Run) or check_with is None else Run.open(check_with)
    model = run and _model(run, loaded, machine)
    check(loaded, model=None).require()
    making = _Making(loaded["train"], kinds, copies, rows, seed, on_event or (lambda event: None))
    making.note(loaded.said)
    made = making.all(machine)
    made = _distinct(made, loaded["train"], making.counts)
    made = _apart(made, loaded, making.counts)
    if model:
        made = _checked(made, model, making.counts, drop=drop_flagged)
    for row in made:
        making.counts[row.kind].made += 1
    if not made:
        raise InputError(f"No row could be made: {_told(making.counts)}. Choose other kinds or fields.")
    asked = {
        "kinds": [kind.spec() for kind in kinds], "copies": copies, "rows": rows, "seed": seed,
        "check_with": run and str(run.path), "drop_flagged": drop_flagged,
    }  # fmt: skip
    found = Augmented(loaded, tuple(made), making.counts, asked, round(time.perf_counter() - began, 2))
    return found if out is None else found.save(out, force=force)


class _Making:
    """The rows that the kinds make, one after another, each with luck of its own."""

    def __init__(
        self, train: Split, kinds: Sequence[Augmentation], copies: int, rows: int | None, seed: int, tell: OnEvent
    ):
        self.train, self.kinds, self.copies, self.seed, self.tell = train, kinds, copies, seed, tell
        chosen = np.random.default_rng(seed).permutation(len(train))[:rows]
        self.places = np.sort(chosen)
        self.counts = {kind.name: Counts() for kind in kinds}

    def note(self, sentences: Sequence[str]) -> None:
        """Say what is worth knowing."""
        for sentence in sentences:
            self.tell({"event": "note", "message": sentence})

    def all(self, hardware: Hardware) -> list[Made]:
        """Everything that differs from its original."""
        found: list[Made] = []
        began = time.perf_counter()
        batches = np.split(self.places, range(BATCH, len(self.places), BATCH))
        # all of them first: one that cannot be built is known before hours of another
        ready = [(kind.name, kind.build(self.train, hardware)) for kind in self.kinds]
        parts = list(itertools.product(ready, range(self.copies), batches))
        for number, ((name, rewrite), copy, places) in enumerate(parts, 1):
            found += self._batch(name, rewrite, copy, places)
            done = number / len(parts)
            spent = time.perf_counter() - began
            self.tell({"event": "step", "fraction": done, "seconds_left": spent / done - spent})
        return found

    def _batch(self, kind: str, rewrite: Rewrite, copy: int, places: np.ndarray) -> Iterator[Made]:
        rows = self.train.rows[places].tolist()
        examples = list(map(Example, self.train.inputs(places), self.train.labels(places)))
        luck = [np.random.default_rng((self.seed, zlib.crc32(kind.encode()), copy, row)) for row in rows]
        self.counts[kind].asked += len(rows)
        for row, old, new in zip(rows, examples, rewrite(examples, luck), strict=True):
            if new is None or _read(new.input) == _read(old.input):
                self.counts[kind].unchanged += 1
            else:
                assert len(new.input) == len(new.label) if isinstance(old.input, list) else new.label == old.label
                yield Made(kind, row, old.input, new.input, new.label)


def _read(given: Any) -> str:
    """An input as texts are compared."""
    return splitting.normalise(given if isinstance(given, str) else " ".join(given))


# --- which rows stay ---


def _column(made: Sequence[Made], like: Split) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([row.augmented for row in made], like.table["input"].type)])


def _distinct(made: list[Made], train: Split, counts: Mapping[str, Counts]) -> list[Made]:
    """Those that read as no train text and as none before them."""
    keys = np.concatenate([train.keys, splitting.keys(_column(made, train))])
    _, first = np.unique(keys, return_index=True)
    kept = np.isin(np.arange(len(train), len(keys)), first)
    for row in itertools.compress(made, ~kept):
        counts[row.kind].repeated += 1
    return list(itertools.compress(made, kept))


def _apart(made: list[Made], data: Data, counts: Mapping[str, Counts]) -> list[Made]:
    """Those that are not nearly the same as a text of validation or test, as `check` and the cuts understand it."""
    near = data.near_held_out(_column(made, data["train"]))
    for row in itertools.compress(made, near):
        counts[row.kind].held_out += 1
    return list(itertools.compress(made, ~near))


def _checked(made: list[Made], model: TransferModel, counts: Mapping[str, Counts], *, drop: bool) -> list[Made]:
    """Each with the label that the model gives it; without those that it gives another, if they are to be dropped."""
    answers = [prediction.label for prediction in model.predict([row.augmented for row in made])]
    several = getattr(model.task, "multi_label", False)
    order: Callable[[Any], Any] = sorted if several else lambda label: label
    told = [
        replace(row, answer=answer, flagged=order(answer) != order(row.label))
        for row, answer in zip(made, answers, strict=True)
    ]
    for row in told:
        counts[row.kind].flagged += bool(row.flagged)
        counts[row.kind].dropped += bool(row.flagged and drop)
    return [row for row in told if not (row.flagged and drop)]


def _told(counts: Mapping[str, Counts]) -> str:
    """Why nothing is left, in words."""
    why = {
        "unchanged": "left as they were", "repeated": "repeating other train texts",
        "held_out": "too near validation or test", "dropped": "flagged",
    }  # fmt: skip
    return "; ".join(
        f"of {each.asked:,} by {kind} "
        + ", ".join(f"{getattr(each, name):,} {said}" for name, said in why.items() if getattr(each, name))
        for kind, each in counts.items()
    )


# --- what is refused ---


def _kinds(asked: Any, data: Data) -> list[Augmentation]:
    """The kinds, each suited to the data.

    Raises:
        InputError: an unknown kind or field, one twice, or one that does not suit the task.
    """
    if data.task not in USUAL:
        raise InputError(f"There is no way to augment {data.task} data. Augment texts of classes, or tagged ones.")
    given = USUAL[data.task] if asked is None else asked
    kinds = [parse(Augmentation, each) for each in (given if isinstance(given, (list, tuple)) else [given])]
    if not kinds:
        raise InputError(f"Name a kind of augmentation. Known: {', '.join(names(Augmentation))}.")
    for kind in kinds:
        if sum(other.name == kind.name for other in kinds) > 1:
            raise InputError(f"Kind {kind.name!r} is given twice. Give each once, with copies for more rows.")
        if not _suits(type(kind), data):
            suited = [n for n in names(Augmentation) if _suits(lookup(Augmentation, n), data)]
            raise InputError(f"Kind {kind.name!r} does not suit {data.task}. These do: {', '.join(suited)}.")
    return kinds


def _suits(kind: type[Augmentation], data: Data) -> bool:
    return kind.for_words if data.task == "tagging" else kind.for_texts


def _model(run: Run, data: Data, hardware: Hardware) -> TransferModel:
    """The model of a run that answers the data's task.

    Raises:
        InputError: it has none, or it answers another task or other labels.
    """
    if not (run.path / "model" / "graft.json").is_file():
        raise InputError(f"Run {str(run.path)!r} is {run.state}: it has no model to check labels with yet.")
    model = TransferModel.load(run.path / "model").to(hardware.torch_device())
    kind = (model.task.name, getattr(model.task, "multi_label", False))
    unknown = sorted(set(data.labels) - set(model.task.labels))
    if kind != (data.task, data.multi_label) or unknown:
        what = f"knows no label {unknown[0]!r}" if unknown else f"answers another task ({model.task.name})"
        raise InputError(f"Run {str(run.path)!r} {what}. Check with a run that was fitted on this data.")
    return model


def _refuse_augmented(data: Data) -> None:
    """Rows that were made would be taken for originals."""
    source = Path(str(data.source["source"]))
    for folder in (source, source.parent):
        if (folder / MARKER).is_file():
            original = json.loads((folder / MARKER).read_text(encoding="utf-8"))["source"]["source"]
            raise InputError(f"{str(folder)!r} is augmented already. Give the data it was made from: {original}.")


def refuse(folder: Path, *, force: bool) -> None:
    """Refuse a place that holds anything but, with `force`, what was written here before.

    Raises:
        InputError: there is something else, or augmented data and no `force`.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    ours = {MARKER, *(f"{name}.jsonl" for name in SPLITS)}
    if not folder.is_dir() or not (folder / MARKER).is_file() or {path.name for path in folder.iterdir()} - ours:
        raise InputError(
            f"'{folder}' holds something that was not written by augment, and is left alone. Choose another place."
        )
    if not force:
        raise InputError(f"'{folder}' holds augmented data. Choose another folder with --out, or replace with --force.")


def _columns(data: Data) -> tuple[str, str]:
    """The names of the two columns to write: the source's own where `fit` knows them by name, else usual ones.

    Beside a column of kinds, a role could not be inferred from content again.
    """
    tagging = data.task == "tagging"
    roles = (
        (data.columns.text, WORDS_NAMES if tagging else TEXT_NAMES, "tokens" if tagging else "text"),
        (data.columns.label, TAGS_NAMES if tagging else LABEL_NAMES, "tags" if tagging else "label"),
    )
    text, label = (own if own.lower() in known else usual for own, known, usual in roles)
    return text, label
