"""Data: labelled splits, what each column means, the class names, and a fingerprint.

Data is immutable. Two runs that saw the same examples in the same splits have the same fingerprint, whatever the
file format was; nothing is ever removed unless `drop` asks for it, and each removal is counted.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftwork import splitting
from graftwork.choice import InputError, suggest
from graftwork.finding import DataError, Finding, Kind, number
from graftwork.formats import RAGGED_LINE, Reading
from graftwork.reading import read
from graftwork.roles import Columns, Roles, infer
from graftwork.spool import spool

__all__ = ["Columns", "Data", "DataError", "Finding", "Split"]

SPLITS = ("train", "validation", "test", "target")
DROPS = ("ragged", "empty", "conflicts", "duplicates", "overlap")
SCORE_STRATA = 10
"""Scores are cut and sampled in so many groups of like height."""
DRAWS = 20
"""So many texts of other rows are drawn for a pair without a label, until one differs from both."""
PAIR = " | "
"""What stands between the texts of a pair or triplet where they are written as one."""
_OF_NO_ROW = 0
"""Stands for a row number where a text is from no row of the source."""
FORMAT = 1
"""Of the folders `Data.save` writes."""

NO_TRAIN = Kind("no-train", "error", "There is no train split to learn from.")
NOTHING_LEFT = Kind("nothing-left", "error", "The removals asked for leave a split without rows.")
TOO_FEW_ROWS = Kind("too-few-rows", "error", "There are too few rows to cut a validation or test split from.")


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of one split: `inputs` and `labels` by position, `rows` by number in the source file."""

    table: pa.Table
    """Columns `input` (text, or list of words), `label` (text, or list of names or tags) and `row`; where inputs are
    files of pictures, also `digest`, which says what they show and is empty where one cannot be read."""

    def __len__(self) -> int:
        return self.table.num_rows

    def inputs(self, indices: Iterable[int] | None = None) -> list[Any]:
        """The texts (tagging: lists of words; pairs, triplets: lists of texts) at `indices`, in that order; or all."""
        return _cells(self.table["input"], indices)

    def labels(self, indices: Iterable[int] | None = None) -> list[Any]:
        """The class name of each row (multi-label: a list of names; tagging: IOB2 tags); "" or [] where unlabelled."""
        return _cells(self.table["label"], indices)

    @cached_property
    def rows(self) -> np.ndarray:
        """The 1-based row numbers in the source file, the header not counted: (rows,) int64."""
        return self.table["row"].to_numpy()

    def batches(self, size: int) -> Iterator[tuple[list[Any], list[Any]]]:
        """(inputs, labels) of `size` rows at a time, in order, without holding the others in memory."""
        for start in range(0, len(self), size):
            part = self.table.slice(start, size)
            yield part["input"].to_pylist(), part["label"].to_pylist()

    @property
    def compares(self) -> bool:
        """Whether each row is several texts: a pair or a triplet."""
        read, asked = (pa.types.is_list(self.table.schema.field(name).type) for name in ("input", "label"))
        return read and not asked

    @property
    def pictures(self) -> bool:
        """Whether each input is the file of a picture."""
        return "digest" in self.table.column_names

    @property
    def shown(self) -> pa.ChunkedArray:
        """The column that says what is there to be read: the inputs, or what their files hold."""
        return self.table["digest" if self.pictures else "input"]

    @property
    def content(self) -> pa.ChunkedArray:
        """What makes two rows the same: the text, the words, the picture, or both texts of a pair in either order."""
        column = self.shown
        if not self.compares or (len(column) and len(column[0]) != 2):
            return column
        one, other = pc.list_element(column, 0), pc.list_element(column, 1)
        both = pc.min_element_wise(one, other), pc.max_element_wise(one, other)
        return pc.binary_join_element_wise(*both, PAIR)

    @cached_property
    def keys(self) -> np.ndarray:
        """A 64-bit hash of each normalised text: (rows,) uint64."""
        return splitting.keys(self.content)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How often each label (multi-label: name; tagging: tag) occurs, by name; "" counts the unlabelled rows."""
        found = pc.value_counts(_flat(self.table["label"]))
        return dict(sorted((item["values"].as_py(), item["counts"].as_py()) for item in found))

    def has(self, label: str) -> np.ndarray:
        """Which rows carry `label` (multi-label: among others; tagging: on some word): (rows,) bool."""
        column = self.table["label"]
        if not pa.types.is_list(column.type):
            return pc.equal(column, label).to_numpy()
        joined = pc.binary_join(column, "\x1f")
        return pc.match_substring_regex(joined, f"(^|\x1f){re.escape(label)}(\x1f|$)").to_numpy()

    def where(self, mask: np.ndarray) -> Split:
        """The rows that `mask` keeps, in order."""
        return self if mask.all() else Split(spool(_filtered(self.table, mask), self.table.schema))


def _cells(column: pa.ChunkedArray, indices: Iterable[int] | None) -> list[Any]:
    return (column if indices is None else column.take(pa.array(indices, pa.int64()))).to_pylist()


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column) if pa.types.is_list(column.type) else column


def _filtered(table: pa.Table, mask: np.ndarray) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in table.to_batches():
        yield batch.filter(pa.array(mask[start : start + batch.num_rows]))
        start += batch.num_rows


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled splits. `Data.load` reads and cuts them; `data["train"]` is a `Split`.

    Example:
        >>> rows = [{"text": f"The {thing} is {what}", "label": what} for what in ("good", "bad")
        ...         for thing in ("food", "room", "view", "staff", "lift", "bed", "pool", "desk")]
        >>> data = Data.load({"train": rows}, validation=0.25)
        >>> len(data["train"]), len(data["validation"]), data.labels
        (12, 4, ('bad', 'good'))
    """

    splits: Mapping[str, Split]
    task: Literal["classification", "tagging", "similarity"]
    multi_label: bool
    labels: tuple[str, ...]
    """The class names of train and validation, sorted; tagging: "O" first, then the tags, sorted. Similarity: what is
    different and what is similar, as class names, or as the lowest and the highest score of train; of triplets
    "second" and "first"."""
    columns: Columns
    said: tuple[str, ...]
    """What was inferred, as sentences."""
    findings: tuple[Finding, ...]
    """What was noticed while reading."""
    dropped: Mapping[str, int]
    """Removals asked for: name -> rows removed."""
    source: dict[str, Any]
    """The options with which `Data.load` gives the same again; JSON-able."""
    name: str
    groups: Mapping[str, np.ndarray] = field(repr=False, default_factory=dict)
    """Per split the group of near-identical texts each row is in, where a cut needed them."""
    scored: bool = False
    """Similarity: whether each pair has a number, and not one of two classes."""

    @property
    def reads(self) -> Literal["text", "image"]:
        """What a row is: texts, or a picture; the `reads` of a modality."""
        return "image" if self["train"].pictures else "text"

    @property
    def texts(self) -> int:
        """How many texts a row is: two of pairs, three of triplets, else one."""
        return 3 if self.ordered else 2 if self.task == "similarity" else 1

    @property
    def comparison(self) -> Literal["scores", "classes", "triplets"] | None:
        """Similarity: what says which texts are alike; None for other tasks."""
        if self.task != "similarity":
            return None
        return "scores" if self.scored else "triplets" if self.ordered else "classes"

    @property
    def ordered(self) -> bool:
        """Similarity: whether rows are triplets, which have no label but their order."""
        return self.task == "similarity" and not self.columns.label

    def require_texts(self, verb: str) -> None:
        """Refuse pictures where words are worked on.

        Args:
            verb: what is asked for, as `graft augment`.

        Raises:
            InputError: these are pictures.
        """
        if self.reads != "text":
            raise InputError(
                f"{verb} works on texts, and {self.name!r} holds pictures. Of pictures there are graft check, fit, "
                "compare, advise and compress."
            )

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise InputError(f"The data has no split {split!r}. {suggest(split, self.splits)}")
        return self.splits[split]

    def __contains__(self, split: object) -> bool:
        return split in self.splits

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names and the content of every split; not over paths, formats or row numbers."""
        total = hashlib.sha256(json.dumps([self.task, self.multi_label, self.labels]).encode())
        for name in sorted(self.splits):
            table = self.splits[name].table
            total.update(f"{name} {table.num_rows} ".encode())
            total.update(_digest(self.splits[name].shown) + _digest(table["label"]))
        return total.hexdigest()

    @classmethod
    def load(
        cls,
        source: Any,
        *,
        text: str | None = None,
        label: str | None = None,
        task: str | None = None,
        multi_label: bool | None = None,
        positive: str | None = None,
        validation: float | str | os.PathLike[str] = 0.1,
        test: float | str | os.PathLike[str] | None = None,
        target: Any = None,
        drop: Iterable[str] = (),
        seed: int = 0,
        limit: int | None = None,
        shots: int | None = None,
        class_names: bool = False,
    ) -> Data:
        """Read `source`, give each column its role, and cut the splits that are missing.

        Args:
            source: A .csv, .tsv, .jsonl, .json, .parquet or .arrow file (the text ones also as .gz); a folder with
                train.csv, validation.csv, test.csv (or other formats); a folder of pictures, as SPLIT/CLASS/... or
                CLASS/...; a `save_to_disk` folder of `datasets`; a folder
                written by `save`; `owner/name` on the hub; `pydocs`; a DataFrame; or a dict of split -> rows.
            text: The column that is read, texts or the paths of pictures (from the file's own folder); or those that
                are to be compared, with commas: two, or an anchor, a text
                that is nearer to it and one that is not. Inferred and said aloud when not given.
            label: The column that is predicted; likewise.
            task: "classification", "tagging" or "similarity"; inferred when not given.
            multi_label: Whether a row may have several labels (a list, or names joined by |); inferred when not given.
            positive: Of two classes of pairs, the one that means similar; inferred when not given.
            validation: The share of train that becomes validation where none is given, in [0, 0.5]; or a file.
            test: The same for test. By default 0.1 of a lone file, and nothing where the source has named splits.
            target: A source of unlabelled texts of the domain to adapt to, or a .txt file with a text a line; becomes
                the split "target".
            drop: Removals asked for, among "ragged" (lines that do not fit the header), "empty" (no text or no
                label), "conflicts" (train texts with several labels), "duplicates" (of a text and label in train) and
                "overlap" (train texts that stand in validation or test).
            seed: Of the cuts.
            limit: At most this many train rows are kept, drawn at random, stratified.
            shots: At most this many train rows of each class are kept, drawn at random; fewer shots are a part of more.
            class_names: Whether the name of each class, as words, is one more text of it in train.

        Raises:
            DataError: The source cannot be used; `findings` says why, with places.
            InputError: An option is out of its range, or nothing of the source's name is there.
        """
        if isinstance(source, Data) or _is_saved(source):
            made = source if isinstance(source, Data) else cls.open(source)
            made = made if shots is None else made.few(shots)
            return made.with_class_names() if class_names else made
        drop = _known_drops(drop)
        for name, share in (("validation", validation), ("test", test)):
            if isinstance(share, (int, float)) and not 0 <= share <= 0.5:
                raise InputError(f"{name} must be a share in [0, 0.5] or a file; got {share!r}. Default: 0.1.")
        if limit is not None and limit < 1:
            raise InputError(f"limit must be a number of train rows from 1 on; got {limit!r}.")
        reading, cut_test = _gather(source, validation, test)
        unlabelled = _read_unlabelled(target) if target is not None else None
        if "train" not in reading.tables:
            message = f"{reading.name} has only {', '.join(reading.tables)}."
            raise DataError([NO_TRAIN(message, fix="Add a file named train, or give one file as the source.")])

        roles = infer(reading, text=text, label=label, task=task, multi_label=multi_label, positive=positive)
        findings, dropped = _ragged(reading, drop)
        splits = {
            name: Split(spool(roles.rows(reading.tables[name], reading.homes.get(name))))
            for name in SPLITS
            if name in reading.tables
        }
        said = list(roles.said)
        if unlabelled is not None:
            splits["target"] = Split(spool(roles.unlabelled(unlabelled)))
        splits = _drop(splits, drop, dropped)

        wanted = {"test": cut_test, "validation": validation if isinstance(validation, (int, float)) else 0}
        wanted = {name: share for name, share in wanted.items() if share and name not in splits}
        splits, groups = _cut(splits, wanted, seed, said, roles.scored)
        if limit is not None and limit < len(splits["train"]):
            said.append(f"Only {limit:,} of {number(len(splits['train']), 'train row')} are used (limit).")
            dropped["limit"] = len(splits["train"]) - limit
            kept = _sample(splits["train"], limit, seed, roles.scored)
            splits["train"] = splits["train"].where(kept)
            groups = {name: group[kept] if name == "train" else group for name, group in groups.items()}
        if roles.ordered and len(roles.texts) == 2:
            splits = {name: _with_others(split, (seed, SPLITS.index(name))) for name, split in splits.items()}

        whole = cls(
            splits=MappingProxyType({name: splits[name] for name in SPLITS if name in splits}),
            task=roles.task,
            multi_label=roles.multi_label,
            labels=_class_names(splits, roles),
            columns=roles.columns,
            said=tuple(said),
            findings=tuple(findings),
            dropped=MappingProxyType(dropped),
            source={
                "source": _spelled(source),
                "text": roles.columns.text,
                "label": roles.columns.label,
                "task": roles.task,
                "multi_label": roles.multi_label,
                "positive": roles.classes[-1] if roles.classes and not roles.ordered else None,
                "validation": _spelled(validation),
                "test": _spelled(test),
                "target": _spelled(target),
                "drop": list(drop),
                "seed": seed,
                "limit": limit,
                "shots": None,
                "class_names": False,
            },
            name=reading.name,
            groups=groups,
            scored=roles.scored,
        )
        whole = whole if shots is None else whole.few(shots)
        return whole.with_class_names() if class_names else whole

    @classmethod
    def of(cls, given: Any, **options: Any) -> Data:
        """What a verb was given: a mapping of `load`'s options with `source`, or a source to load with `options`."""
        if isinstance(given, dict) and "source" in given:
            return cls.load(**given)
        return cls.load(given, **options)

    def few(self, shots: int) -> Data:
        """This data with at most `shots` train rows of each class, drawn at random; fewer shots are a part of more.

        Raises:
            InputError: `shots` is below 1, or a row has no single class.
        """
        if shots < 1:
            raise InputError(f"shots must be a number of train rows a class from 1 on; got {shots!r}.")
        if self.task != "classification" or self.multi_label:
            raise InputError("shots counts rows of each class, so it needs one class a text. Give limit instead.")
        kept = self["train"].rows == _OF_NO_ROW  # the names of classes stay
        kept[~kept] = _few(self["train"].where(~kept), shots, self.source["seed"])
        said = f"Only {number(shots, 'train row')} a class are used (shots): {kept.sum():,} in all."
        return replace(
            self,
            splits=MappingProxyType({**self.splits, "train": self["train"].where(kept)}),
            said=(*self.said, said),
            dropped=MappingProxyType({**self.dropped, "shots": int((~kept).sum())}),
            source={**self.source, "shots": shots},
            groups={name: group[kept] if name == "train" else group for name, group in self.groups.items()},
        )

    def with_class_names(self) -> Data:
        """This data with one more train text a class: its name, read as words.

        `card_arrival` says what the class is about as well as a customer does, which counts where labels are few.

        Raises:
            InputError: the names are no words, or a row is not of classes.
        """
        if self.task != "classification":
            raise InputError(f"class_names needs classes, and the task is {self.task!r}. Leave it out.")
        if self.reads != "text":
            raise InputError("class_names makes texts of the names of classes, and these are pictures. Leave it out.")
        if (self["train"].rows == _OF_NO_ROW).any():
            return self
        texts = [_as_words(name) for name in self.labels]
        if strange := [name for name, text in zip(self.labels, texts, strict=True) if not text]:
            raise InputError(
                f"The class name {strange[0]!r} says nothing in words. Name the classes, or leave class_names out."
            )
        train = self["train"].table
        column = pa.chunked_array([texts], train.schema.field("input").type)
        new = [(t, n) for t, n, near in zip(texts, self.labels, self.near_held_out(column), strict=True) if not near]
        labels = [[name] if self.multi_label else name for _, name in new]
        rows = {"input": [text for text, _ in new], "label": labels, "row": [_OF_NO_ROW] * len(new)}
        added = pa.table(rows, schema=train.schema)
        said = f"{number(len(new), 'class name')} of {len(self.labels)} are texts of train, too (class_names)."
        return replace(
            self,
            splits=MappingProxyType({**self.splits, "train": Split(pa.concat_tables([train, added]))}),
            said=(*self.said, said),
            source={**self.source, "class_names": True},
            groups={},
        )

    def near_held_out(self, texts: pa.ChunkedArray) -> np.ndarray:
        """Which of these texts are near-identical to one of validation or test, as the cuts understand it: (n,) bool.

        Such a text must not be learned from, wherever it comes from. `texts` is of the type of the column `shown`.
        """
        held = [self[name].shown for name in ("validation", "test") if name in self]
        groups = splitting.groups([*held, texts])
        count = len(groups) - len(texts)
        return np.isin(groups[count:], groups[:count])

    def some(self, train: int, validation: int) -> Data:
        """At most so many rows of train and validation, each class in proportion; no test split, and target as it is.

        For questions that a part of the data answers, and that must not see test. It does not load again from `source`.
        """
        splits = {
            name: split.where(_sample(split, size, self.source["seed"], self.scored)) if size < len(split) else split
            for name, size in (("train", train), ("validation", validation))
            if (split := self.splits.get(name)) is not None
        }
        splits |= {"target": self["target"]} if "target" in self else {}
        return replace(self, splits=MappingProxyType(splits), groups={})

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the splits as Arrow files, and data.json beside them; `Data.open` reads them back.

        Raises:
            InputError: `folder` holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not _is_saved(folder) and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty and holds no saved data. Give another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        for name, split in self.splits.items():
            with (
                pa.OSFile(str(folder / f"{name}.part"), "wb") as file,
                pa.ipc.new_file(file, split.table.schema) as out,
            ):
                out.write_table(split.table)
            os.replace(folder / f"{name}.part", folder / f"{name}.arrow")
        about = {
            "graftwork_data": FORMAT,
            "splits": list(self.splits),
            "task": self.task,
            "multi_label": self.multi_label,
            "scored": self.scored,
            "labels": self.labels,
            "columns": {"text": self.columns.text, "label": self.columns.label},
            "said": self.said,
            "findings": [finding.as_dict() for finding in self.findings],
            "dropped": dict(self.dropped),
            "source": self.source,
            "name": self.name,
            "fingerprint": self.fingerprint,
        }
        (folder / "data.part").write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(folder / "data.part", folder / "data.json")
        return folder

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Data:
        """What `save` wrote, memory-mapped.

        Raises:
            InputError: `folder` holds no saved data, or its content is not what was saved.
        """
        folder = Path(folder)
        if not _is_saved(folder):
            raise InputError(f"{folder} holds no saved data. Give a folder that Data.save wrote.")
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        tables = {name: pa.ipc.open_file(pa.memory_map(str(folder / f"{name}.arrow"))) for name in about["splits"]}
        data = cls(
            splits=MappingProxyType({name: Split(file.read_all()) for name, file in tables.items()}),
            task=about["task"],
            multi_label=about["multi_label"],
            labels=tuple(about["labels"]),
            columns=Columns(**about["columns"]),
            said=tuple(about["said"]),
            findings=tuple(Finding(**item | {"rows": tuple(item["rows"])}) for item in about["findings"]),
            dropped=MappingProxyType(about["dropped"]),
            # what reads it again is the folder; the shots it was reduced to, and the names it was given, are in it
            source={**about["source"], "source": str(folder.resolve()), "shots": None, "class_names": False},
            name=about["name"],
            scored=about.get("scored", False),
        )
        if data.fingerprint != about["fingerprint"]:
            raise InputError(f"{folder} was changed after it was saved: its fingerprint differs. Save the data again.")
        return data


def _is_saved(source: Any) -> bool:
    if not isinstance(source, (str, os.PathLike)):
        return False
    about = Path(source) / "data.json"
    return about.is_file() and '"graftwork_data"' in about.read_text(encoding="utf-8", errors="replace")[:100]


def _spelled(source: Any) -> Any:
    """A source as JSON can hold it: paths absolute, ids and shares as they are, a word for what lives in memory."""
    if source is None or isinstance(source, (int, float)):
        return source
    if isinstance(source, (str, os.PathLike)):
        return str(Path(source).expanduser().resolve()) if Path(source).expanduser().exists() else str(source)
    return f"<{type(source).__name__} in memory>"


def _known_drops(drop: Iterable[str]) -> tuple[str, ...]:
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    for name in drop:
        if name not in DROPS:
            raise InputError(f"Unknown removal {name!r}. {suggest(name, DROPS)}")
    return drop


def _read(source: Any) -> Reading:
    """`read`, and the embedded data set."""
    if isinstance(source, str) and source == "pydocs" and not Path(source).exists():
        from graftwork.pydocs import records

        reading = read({"train": records()})
        reading.name, reading.lone = "pydocs", True
        return reading
    if isinstance(source, str) and source.startswith("<") and source.endswith(" in memory>"):
        raise InputError(f"This data was {source}; it cannot be read again. Give it once more, or use Data.save first.")
    return read(source)


def _read_unlabelled(source: Any) -> Reading:
    """`_read`, and .txt files: a text a line, empty ones left out."""
    if isinstance(source, (str, os.PathLike)) and str(source).endswith(".txt") and Path(source).expanduser().is_file():
        try:
            lines = Path(source).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"'{source}' cannot be read as a text in UTF-8: {error}.") from None
        return read({"train": [{"text": line} for line in lines if line.strip()]})
    return _read(source)


def _gather(source: Any, validation: Any, test: Any) -> tuple[Reading, float]:
    """The reading with split files given apart, and the share of test that is to be cut."""
    reading = _read(source)
    for name, apart in (("validation", validation), ("test", test)):
        if isinstance(apart, (str, os.PathLike)):
            other = _read(apart)
            reading.tables[name], reading.files[name] = other.tables["train"], other.files["train"]
            reading.findings += other.findings
            reading.ragged += other.ragged
            reading.lone = False
    if isinstance(test, (int, float)):
        return reading, test
    return reading, 0.1 if reading.lone and test is None else 0.0


def _ragged(reading: Reading, drop: tuple[str, ...]) -> tuple[list[Finding], dict[str, int]]:
    """The reading's findings when they let us go on; ragged lines only go when asked.

    Raises:
        DataError: there are errors.
    """
    findings, dropped = list(reading.findings), {}
    if "ragged" in drop:
        dropped["ragged"] = reading.ragged
        findings = [replace(f, severity="note", fix="") if f.code == RAGGED_LINE.code else f for f in findings]
    if any(finding.severity == "error" for finding in findings):
        raise DataError(findings)
    return findings, dropped


def _drop(splits: dict[str, Split], drop: tuple[str, ...], dropped: dict[str, int]) -> dict[str, Split]:
    """The splits without the rows that `drop` asks to remove; `dropped` gets the counts."""
    rules: dict[str, Callable[[dict[str, Split], str], np.ndarray]] = {
        "empty": _empty,
        "conflicts": _conflicts,
        "duplicates": _duplicates,
        "overlap": _overlap,
    }
    for name, rule in rules.items():
        if name in drop:
            masks = {split: rule(splits, split) for split in splits}
            dropped[name] = sum(int(mask.sum()) for mask in masks.values())
            splits = {split: rows.where(~masks[split]) for split, rows in splits.items()}
    gone = [name for name, split in splits.items() if not len(split)]
    if gone:
        message = f"Nothing is left of {', '.join(gone)} after dropping {', '.join(drop)}."
        raise DataError([NOTHING_LEFT(message, fix="Drop less, or repair the rows instead.")])
    return splits


def empty_inputs(split: Split) -> np.ndarray:
    """Which rows lack a text (it is white space, or without words), one of several, or a picture: (rows,) bool.

    A picture that cannot be read is none.
    """
    column = split.shown
    if split.compares:
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.list_flatten(column))), 0)
        return blank.to_numpy().reshape(len(column), -1).any(axis=1)
    if pa.types.is_list(column.type):
        return pc.equal(pc.list_value_length(column), 0).to_numpy()
    return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0).to_numpy()


def empty_labels(split: Split) -> np.ndarray:
    """Which rows have no label: (rows,) bool."""
    column = split.table["label"]
    if pa.types.is_list(column.type):
        return pc.equal(pc.list_value_length(column), 0).to_numpy()
    return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0).to_numpy()


def _empty(splits: dict[str, Split], name: str) -> np.ndarray:
    """No text; or no label where labels are needed. Multi-label rows may carry none, a whole test may be unlabelled."""
    split = splits[name]
    unlabelled = empty_labels(split)
    counts = name != "target" and not pa.types.is_list(split.table["label"].type) and not unlabelled.all()
    return empty_inputs(split) | unlabelled if counts else empty_inputs(split)


def label_keys(split: Split) -> np.ndarray:
    """A number for each row's label (or list of labels): equal labels, equal numbers within the split: (rows,)."""
    column = split.table["label"]
    if pa.types.is_list(column.type):
        column = pc.binary_join(column, "\x1f")
    return column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)


def conflicting(split: Split) -> np.ndarray:
    """Which rows have a text that also occurs with another label: (rows,) bool."""
    _, text = np.unique(split.keys, return_inverse=True)
    label = label_keys(split).astype(np.int64)
    low, high = np.full(text.max(initial=0) + 1, np.iinfo(np.int64).max), np.full(text.max(initial=0) + 1, -1)
    np.minimum.at(low, text, label)
    np.maximum.at(high, text, label)
    return (low != high)[text]


def repeated(split: Split) -> np.ndarray:
    """Which rows repeat an earlier row's text and label: (rows,) bool."""
    pair = np.stack([split.keys.view(np.int64), label_keys(split).astype(np.int64)], 1)
    _, first = np.unique(pair, axis=0, return_index=True)
    again = np.ones(len(pair), bool)
    again[first] = False
    return again


def _conflicts(splits: dict[str, Split], name: str) -> np.ndarray:
    return conflicting(splits[name]) if name == "train" else np.zeros(len(splits[name]), bool)


def _duplicates(splits: dict[str, Split], name: str) -> np.ndarray:
    return repeated(splits[name]) if name == "train" else np.zeros(len(splits[name]), bool)


def _overlap(splits: dict[str, Split], name: str) -> np.ndarray:
    others = [splits[other].keys for other in ("validation", "test") if other in splits]
    if name != "train" or not others:
        return np.zeros(len(splits[name]), bool)
    return np.isin(splits["train"].keys, np.concatenate(others))


def _strata(split: Split, scored: bool) -> np.ndarray:
    """The class each row is filed under; of several labels or tags the rarest, of scores the tenth: (rows,)."""
    column = split.table["label"].combine_chunks()
    if scored:
        scores = np.array([float(cell or "nan") for cell in column.to_pylist()])
        edges = np.nanquantile(scores, np.linspace(0, 1, SCORE_STRATA + 1)[1:-1])
        return np.searchsorted(edges, scores)  # what has no score stands above all edges
    if not pa.types.is_list(column.type):
        return column.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(flat, minlength=1)
    rank = np.argsort(np.argsort(counts, kind="stable"), kind="stable")  # 0 is the rarest
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    starts = np.cumsum(lengths) - lengths
    strata = np.full(len(column), len(counts), np.int64)
    if len(flat):
        some = lengths > 0
        strata[some] = np.minimum.reduceat(rank[flat], starts[some])
    return strata


def _cut(
    splits: dict[str, Split], wanted: dict[str, float], seed: int, said: list[str], scored: bool
) -> tuple[dict[str, Split], dict[str, np.ndarray]]:
    """The splits with the wanted ones cut from train, and each row's group of near-identical texts."""
    if not wanted:
        return splits, {}
    splits = dict(splits)
    every = splitting.groups(split.content for split in splits.values())
    ends = np.cumsum([len(split) for split in splits.values()])[:-1]
    groups = dict(zip(splits, np.split(every, ends), strict=True))
    whole = len(splits["train"])
    for name, share in wanted.items():
        train = splits["train"]
        leaves = splitting.cut(_strata(train, scored), groups["train"], share * whole / len(train), seed)
        if not leaves.any() or leaves.all():
            distinct = number(len(np.unique(groups["train"])), f"distinct {'picture' if train.pictures else 'text'}")
            message = (
                f"{number(len(train), 'row')} with {distinct} are too few to cut a {name} split of {share:.0%} from."
            )
            raise DataError([TOO_FEW_ROWS(message, fix=f"Add rows, give a {name} file, or cut none with {name}=0.")])
        splits[name], splits["train"] = train.where(leaves), train.where(~leaves)
        groups[name], groups["train"] = groups["train"][leaves], groups["train"][~leaves]
        alike = "equal pictures" if train.pictures else "near-identical texts"
        said.append(
            f"No {name} split was given: {len(splits[name]):,} of {number(whole, 'row')} were set aside "
            f"(stratified, seed {seed}, {alike} kept together)."
        )
    return splits, groups


def _sample(split: Split, size: int, seed: int, scored: bool) -> np.ndarray:
    """`size` rows at random, each class in proportion: (rows,) bool."""
    chosen = splitting.cut(_strata(split, scored), np.arange(len(split)), size / len(split), seed)
    generator = np.random.default_rng(seed)
    surplus = int(chosen.sum()) - size
    chosen[generator.choice(np.flatnonzero(chosen == (surplus > 0)), abs(surplus), replace=False)] = surplus < 0
    return chosen


def _few(split: Split, shots: int, seed: int) -> np.ndarray:
    """`shots` rows of each class at random: (rows,) bool. The same seed draws each class in the same order."""
    order = np.random.default_rng(seed).permutation(len(split))
    _, of_class = np.unique(np.array(split.labels(), dtype=object)[order].astype(str), return_inverse=True)
    by_class = np.argsort(of_class, kind="stable")
    counts = np.bincount(of_class)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.zeros(len(split), dtype=bool)
    kept[order[by_class[place < shots]]] = True
    return kept


def _as_words(name: str) -> str:
    """A class name as it would be read aloud; "" where it holds no word.

    Example:
        >>> _as_words("Refund_not_showing-up"), _as_words("lostCard"), _as_words("3")
        ('Refund not showing up', 'lost Card', '')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name).strip()
    return words if re.search(r"[^\W\d]", words) else ""


def _with_others(split: Split, seed: tuple[int, ...]) -> Split:
    """Pairs as triplets: to each the second text of another row is added, drawn at random, other than its own two."""
    generator = np.random.default_rng(seed)
    rows = split.inputs()
    added = []
    for row in rows:
        drawn = (rows[i][1] for i in generator.integers(len(rows), size=DRAWS))
        added.append([*row, next((text for text in drawn if text not in row), row[1])])
    column = pa.array(added, pa.list_(pa.string()))
    return Split(split.table.set_column(split.table.schema.get_field_index("input"), "input", column))


def _class_names(splits: Mapping[str, Split], roles: Roles) -> tuple[str, ...]:
    if roles.scored:
        scores = [float(cell) for cell in splits["train"].counts if cell]
        return f"{min(scores):g}", f"{max(scores):g}"
    if roles.task == "similarity":
        return roles.classes
    names = {name for split in ("train", "validation") if split in splits for name in splits[split].counts} - {""}
    return ("O", *sorted(names - {"O"})) if roles.task == "tagging" else tuple(sorted(names))


def _digest(column: pa.ChunkedArray) -> bytes:
    """SHA-256 of a column of text or of lists of text, whatever its chunks: all lengths and all characters."""
    characters, lengths, counts = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    for chunk in column.chunks:
        if isinstance(chunk, pa.ListArray):
            counts.update(pc.list_value_length(chunk).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
            chunk = chunk.flatten()
        offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if len(chunk):
            lengths.update(np.diff(offsets).astype("<i8").tobytes())
            characters.update(memoryview(chunk.buffers()[2] or b"")[offsets[0] : offsets[-1]])
    return characters.digest() + lengths.digest() + counts.digest()
