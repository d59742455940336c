"""Roles: which column is read and which is predicted, inferred from names and content and said aloud.

A guess that could be wrong without anybody noticing is not made: then an error asks for `text=` or `label=`.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftwork.choice import InputError, suggest
from graftwork.finding import DataError, Kind, number
from graftwork.formats import ROW, Reading
from graftwork.picture import digest, is_picture

TEXT_NAMES = (
    *("text", "sentence", "content", "review", "utterance", "document", "query", "question", "message", "comment"),
    *("body", "tweet", "post", "abstract", "description", "input", "sequence", "source", "title", "headline"),
)
LABEL_NAMES = (
    *("label", "labels", "intent", "category", "categories", "class", "target", "emotion", "emotions", "sentiment"),
    *(
        "topic",
        "topics",
        "tag",
        "tags",
        "y",
        "output",
        "answer",
        "polarity",
        "is_duplicate",
        "score",
        "rating",
        "stars",
    ),
)
PAIR_NAMES = (
    *(
        (f"{stem}{one}", f"{stem}{other}")
        for stem in (*TEXT_NAMES, "sent", "phrase", "q")
        for one, other in (("1", "2"), ("_1", "_2"), ("_a", "_b"), ("a", "b"))
    ),
    ("premise", "hypothesis"),
    ("anchor", "positive"),
    ("query", "positive"),
)
"""Two columns that are read together: a pair of texts."""
ANCHOR_NAMES = ("anchor", *TEXT_NAMES, "premise")
NEARER_NAMES = (("positive", "negative"), ("pos", "neg"), ("chosen", "rejected"))
"""Beside an anchor, the column that is to be nearer to it and the column that is not: triplets of texts."""
ORDER = ("second", "first")
"""The classes of triplets: which of the two texts after the anchor is nearer to it. In data it is always the first."""
LIKENESS_NAMES = ("similarity", "similarity_score", "relatedness_score", "relatedness", "paraphrase", "duplicate")
"""Labels of pairs, looked for before the others."""
SIMILAR = ("1", "true", "yes", "similar", "duplicate", "paraphrase", "same", "equivalent", "entailment", "positive")
"""Names of the class of two that means similar."""
WORDS_NAMES = ("tokens", "words")
TAGS_NAMES = ("tags", "ner_tags", "labels", "label", "pos_tags", "chunk_tags")
TASKS = ("classification", "tagging", "similarity")
SAMPLE = 2_000
"""Rows looked at, evenly spaced, where names do not tell."""

MISSING_COLUMN = Kind("missing-column", "error", "The column asked for is not there.")
SAME_COLUMN = Kind("same-column", "error", "The same column is asked for as text and as label.")
ONE_COLUMN = Kind("one-column", "error", "There is only one column, so there is nothing to predict.")
NO_TEXT_COLUMN = Kind("no-text-column", "error", "No column, or more than one, could be the text.")
NO_LABEL_COLUMN = Kind("no-label-column", "error", "No column, or more than one, could be the label.")
NOT_TEXT = Kind("not-text", "error", "The column asked for holds no text: objects, images, nested lists.")
MISSING_HEADER = Kind("missing-header", "error", "The first line looks like data, not like column names.")
COLUMNS_DIFFER = Kind("columns-differ", "error", "A split has other columns than train.")
DIFFERENT_KEYS = Kind("different-keys", "error", "JSON lines lack the field that is the text or the label.")
MIXED_TYPES = Kind("mixed-types", "error", "The label is a number in some rows and a text in others.")
GUESSED_COLUMN = Kind("guessed-column", "warning", "A column's role was guessed from its content, not its name.")
NOT_A_PAIR = Kind(
    "not-a-pair", "error", "Similarity is asked for, but it is not clear which two or three columns are the texts."
)
PAIR_CLASSES = Kind("pair-classes", "error", "Pairs of texts have labels that are neither numbers nor two classes.")
WHICH_IS_SIMILAR = Kind("which-is-similar", "error", "It is not clear which of two classes of pairs means similar.")
LISTS_AS_TEXT = Kind("lists-as-text", "error", "Lists are written as text, so words and labels cannot be told apart.")


@dataclass(frozen=True)
class Columns:
    """The source's names of the column that is read and the column that is predicted."""

    text: str
    """Of a pair both, of a triplet all three, with commas: `question1,question2`."""
    label: str
    """Empty for triplets, whose order says what is right."""


@dataclass(frozen=True)
class Roles:
    """What each column is for, and how a source table becomes rows of (input, label, row)."""

    columns: Columns
    texts: tuple[str, ...]
    """The columns that are read: one, two that make a pair, or three that make a triplet."""
    task: Literal["classification", "tagging", "similarity"]
    multi_label: bool
    said: list[str] = field(default_factory=list)
    whole_numbers: bool = False
    """All labels are numbers, some written as 1.0: they are read as 1."""
    scored: bool = False
    """Similarity: whether each pair has a number, or one of two classes."""
    classes: tuple[str, ...] = ()
    """Of pairs that have no numbers: the class that means different, then the one that means similar; of triplets
    `ORDER`."""
    pictures: bool = False
    """Whether what is read are files of pictures."""

    @property
    def ordered(self) -> bool:
        """Whether rows are triplets, or pairs that become triplets."""
        return self.classes == ORDER and not self.columns.label

    def rows(self, table: pa.Table, home: Path | None = None) -> Iterator[pa.RecordBatch]:
        """The table as batches of `input`, `label`, `row`; a missing label column leaves every row unlabelled.

        Of pictures, whose paths are meant from `home`, also `digest`, which is empty where one cannot be read.
        """
        for batch in table.to_batches():
            label = batch.column(self.columns.label) if self.columns.label in batch.schema.names else None
            label = pa.array([ORDER[-1]] * batch.num_rows) if self.ordered else label
            yield self._batch([batch.column(name) for name in self.texts], label, batch.column(ROW), home)

    def unlabelled(self, reading: Reading) -> Iterator[pa.RecordBatch]:
        """The train rows of another source, without labels; its text column has the same name or is inferred."""
        name = next(iter(reading.tables))
        table = reading.tables[name]
        columns = list(self.texts)
        missing = [column for column in columns if column not in table.column_names]
        if missing and self.task == "similarity":
            message = f"{reading.files[name]} has no column {missing[0]!r}, which is compared with the others."
            raise DataError(
                [MISSING_COLUMN(message, where=reading.files[name], fix=suggest(missing[0], _names(table)))]
            )
        if missing:
            columns = [_text_column(reading, table, set())]
        for batch in table.to_batches():
            yield self._batch(
                [batch.column(column) for column in columns], None, batch.column(ROW), reading.homes.get(name)
            )

    def _batch(self, texts: list[pa.Array], label: pa.Array | None, row: pa.Array, home: Path | None) -> pa.RecordBatch:
        lists = self.task == "tagging" or self.multi_label
        kind = pa.list_(pa.string()) if lists else pa.string()
        if label is None:
            label = pa.array([[] if lists else ""] * len(row), kind)
        if self.task == "tagging":
            text, label = _as_lists(texts[0], None), _as_lists(label, None)
        elif self.task == "similarity":
            text, label = _side_by_side(texts), self._names(label)
        else:
            text = _filled(texts[0])
            label = _as_lists(label, "|") if self.multi_label else self._names(label)
        if self.pictures:
            files = [str((home or Path()) / cell) if cell else "" for cell in text.to_pylist()]
            digests = pa.array([digest(file) for file in files], pa.string())
            return pa.record_batch(
                [pa.array(files, pa.string()), label, row, digests], names=["input", "label", "row", "digest"]
            )
        return pa.record_batch([text, label, row], names=["input", "label", "row"])

    def _names(self, label: pa.Array) -> pa.Array:
        label = _filled(label)
        return pc.replace_substring_regex(label, r"^\s*(-?\d+)\.0+\s*$", r"\1") if self.whole_numbers else label


def _filled(array: pa.Array) -> pa.Array:
    return array.fill_null("") if array.null_count else array


def _side_by_side(texts: list[pa.Array]) -> pa.Array:
    """Columns of text as one column of lists."""
    cells = zip(*(_filled(each).to_pylist() for each in texts), strict=True)
    return pa.array(list(map(list, cells)), pa.list_(pa.string()))


def _as_lists(array: pa.Array, separator: str | None) -> pa.Array:
    """Lists of text: as they are, or cut at `separator` (at white space without); nothing gives the empty list."""
    if not pa.types.is_list(array.type):
        array = pc.utf8_trim_whitespace(_filled(array))
        parts = (
            pc.split_pattern_regex(array, rf"\s*{re.escape(separator)}\s*")
            if separator
            else pc.utf8_split_whitespace(array)
        )
        array = pc.if_else(pc.equal(array, ""), pa.scalar([], pa.list_(pa.string())), parts)
    if array.null_count:
        array = pc.if_else(array.is_null(), pa.scalar([], pa.list_(pa.string())), array)
    if array.flatten().null_count:
        array = pa.array([[cell or "" for cell in cells] for cells in array.to_pylist()], pa.list_(pa.string()))
    return array.cast(pa.list_(pa.field("item", pa.string())))


def infer(
    reading: Reading,
    *,
    text: str | None,
    label: str | None,
    task: str | None,
    multi_label: bool | None,
    positive: str | None = None,
) -> Roles:
    """The roles of the columns of train, checked against the other splits.

    Raises:
        DataError: a column asked for is missing, or none can be chosen with confidence.
        InputError: `task` is unknown, or `positive` is given where there are no pairs of two classes.
    """
    if task not in (None, *TASKS):
        raise InputError(f"Unknown task {task!r}. {suggest(str(task), TASKS)}")
    table = reading.tables["train"]
    text, label = (name.strip() if name else None for name in (text, label))
    asked = _asked_texts(table, text)
    for role, name in (*(("text", name) for name in asked), ("label", label)):
        if name is not None:
            _must_have(reading, table, name, role)
    if label in asked:
        raise DataError([SAME_COLUMN(f"Column {label!r} is asked for as text and as label.", fix="Give two columns.")])
    compared = _compared(reading, table, asked, label, task)
    if len(compared) == 2:
        return _roles_of_pairs(reading, table, compared, label, positive, guessed=not asked)
    if len(compared) == 3:
        return _roles_of_triplets(reading, table, compared, label, positive)
    if positive is not None:
        raise InputError("positive names the class of pairs that means similar, and the data has no pairs of texts.")
    given = text is not None or label is not None
    if not given:
        _look_for_header(reading, table)
    if len(_names(table)) == 1:
        message = f"{reading.files['train']} has only the column {_names(table)[0]!r}."
        raise DataError([ONE_COLUMN(message, fix="Give a file with a text and a label column.")])
    said = []
    text = text or next((name for name in _names(table) if name != label and _holds_pictures(table, name)), None)
    pictures = text is not None and _holds_pictures(table, text)
    if text is None:
        text = _text_column(reading, table, {label} if label else set(), task)
        said.append(f"Column {text!r} is the text.")
    elif pictures:
        said.append(f"Column {text!r} names files of pictures.")
    if label is None:
        label = _label_column(reading, table, (text,))
    chosen: Literal["classification", "tagging"]
    chosen = "tagging" if task == "tagging" or (task is None and _is_list(table, text)) else "classification"
    _check_shape(table, text, label, chosen)
    if pictures and chosen == "tagging":
        raise InputError("Pictures have no words to tag. Leave --task tagging out: they can be classified.")
    several, how = _multi_label(table, label) if multi_label is None else (multi_label, "as asked for")
    several = several and chosen == "classification"
    columns = Columns(text, label)
    _check_splits(reading, (text,), label)
    _check_json(reading, (text,), label)
    distinct = pc.unique(_flat(table[label])).drop_null()
    if chosen == "tagging":
        said.append(f"Column {label!r} holds the tags of each word: {number(len(distinct), 'distinct tag')}.")
    elif several:
        said.append(f"Column {label!r} holds several labels a row ({how}).")
    else:
        said.append(f"Column {label!r} is the label: {number(len(distinct), 'distinct value')}.")
    whole = chosen == "classification" and not several and _whole_numbers(distinct.to_pylist())
    if whole:
        said.append("The labels are whole numbers written with .0; they are read as 1, 2, ...")
    return Roles(columns, (text,), chosen, several, said, whole, pictures=pictures)


def _holds_pictures(table: pa.Table, name: str) -> bool:
    """Whether every cell of a column that is not empty ends as the file of a picture does."""
    cells = [] if _is_list(table, name) else [cell.strip() for cell in _sample(table, name)]
    return any(cells) and all(is_picture(cell) for cell in cells if cell)


# --- pairs and triplets of texts ---


def _asked_texts(table: pa.Table, text: str | None) -> tuple[str, ...]:
    """The columns that `text` names: none, one, or several with commas."""
    if text is None or text in table.column_names:
        return () if text is None else (text,)
    return tuple(name.strip() for name in text.split(","))


def _compared(
    reading: Reading, table: pa.Table, asked: tuple[str, ...], label: str | None, task: str | None
) -> tuple[str, ...]:
    """The two or three columns that are read together, asked for or known by name; none where one column is read.

    Raises:
        DataError: they are asked for, and there are none, or several columns for a task that reads one.
    """
    plain = {name.lower(): name for name in reversed(_names(table)) if not _is_list(table, name) and name != label}
    triplets = ((anchor, *nearer) for nearer in NEARER_NAMES for anchor in ANCHOR_NAMES)
    known = (tuple(plain[name] for name in each) for each in (*triplets, *PAIR_NAMES) if plain.keys() >= set(each))
    found = asked or next(known, ())
    if task in (None, "similarity") and len(found) in (2, 3) and len(set(found)) == len(found):
        return found
    if len(asked) > 1 or task == "similarity":
        given = f"--text names {', '.join(asked)}" if asked else f"there is {', '.join(_names(table))}"
        message = f"Similarity reads two or three columns of {reading.files['train']}; {given}."
        fix = "Say which with --text A,B or --text ANCHOR,POSITIVE,NEGATIVE."
        fix = fix if task in (None, "similarity") else f"A {task} task reads one column."
        raise DataError([NOT_A_PAIR(message, where=reading.files["train"], fix=fix)])
    return ()


def _roles_of_triplets(
    reading: Reading, table: pa.Table, texts: tuple[str, ...], label: str | None, positive: str | None
) -> Roles:
    """The roles of an anchor, a text that is nearer to it, and one that is not."""
    if label is not None:
        raise InputError(f"Triplets have no label: their order says what is nearer. Leave label={label!r} out.")
    anchor, nearer, farther = texts
    said = f"Triplets: a text of {nearer!r} is to be nearer to the one of {anchor!r} than that of {farther!r} is."
    return _roles_in_order(reading, table, texts, positive, said)


def _roles_in_order(
    reading: Reading, table: pa.Table, texts: tuple[str, ...], positive: str | None, said: str
) -> Roles:
    """The roles of texts whose order says what is right: an anchor, what is nearer to it, and perhaps what is not."""
    if positive is not None:
        raise InputError(f"positive names one of two classes, and there is no label. Leave positive={positive!r} out.")
    for name in texts:
        _check_shape(table, name, name, "similarity")
    _check_splits(reading, texts, None)
    _check_json(reading, texts, None)
    return Roles(Columns(",".join(texts), ""), texts, "similarity", False, [said], classes=ORDER)


def _roles_of_pairs(
    reading: Reading, table: pa.Table, pair: tuple[str, ...], label: str | None, positive: str | None, *, guessed: bool
) -> Roles:
    """The roles of pairs of texts that are scored, or of two classes."""
    one, other = pair
    if label is None and set(_names(table)) == set(pair):
        said = f"Pairs without labels: a text of {other!r} is to be nearer to its own one of {one!r} than"
        return _roles_in_order(reading, table, pair, positive, f"{said} another row's, drawn at random, is.")
    said = [f"Columns {one!r} and {other!r} are a pair of texts: how alike are they?"] * guessed
    label = label or _label_column(reading, table, pair)
    columns = Columns(f"{one},{other}", label)
    for name in pair:
        _check_shape(table, name, label, "similarity")
    _check_splits(reading, (one, other), label)
    _check_json(reading, (one, other), label)
    cells = sorted({cell.strip() for cell in pc.unique(_flat(table[label])).to_pylist() if cell} - {""})
    whole = _whole_numbers(cells)
    cells = sorted({re.sub(r"\.0+$", "", cell) for cell in cells}) if whole else cells
    numbers = all(map(is_number, cells))
    scored = len(cells) > 2 and numbers
    if _is_list(table, label) or (len(cells) > 2 and not scored):
        some = ", ".join(repr(cell) for cell in cells if not is_number(cell))
        message = f"Column {label!r} holds neither a number nor one of two classes: {some:.80}."
        fix = "Keep the rows of two classes, or read one column as classification: --text NAME."
        raise DataError([PAIR_CLASSES(message, where=reading.files["train"], fix=fix)])
    if scored:
        if positive is not None:
            raise InputError(f"positive names one of two classes, and column {label!r} holds scores. Leave it out.")
        low, high = min(map(float, cells)), max(map(float, cells))
        said.append(f"Column {label!r} is the score, from {low:g} to {high:g}: the more, the more alike.")
        return Roles(columns, pair, "similarity", False, said, whole, scored)
    positive = _positive(cells, positive, numbers, label)
    said.append(f"Column {label!r} is the label: {positive!r} means similar.")
    classes = tuple(sorted(cells, key=lambda cell: cell == positive))
    return Roles(columns, pair, "similarity", False, said, whole, classes=classes)


def is_number(cell: str) -> bool:
    """Whether a cell is a number as people write them: neither nan nor infinity."""
    return bool(re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", cell))


def _positive(cells: list[str], asked: str | None, numbers: bool, label: str) -> str:
    """Of at most two classes the one that means similar: asked for, known by name, or the larger number."""
    if asked is not None:
        if asked not in cells:
            raise InputError(f"No pair is of class {asked!r}, which is to mean similar. {suggest(asked, cells)}")
        return asked
    known = [cell for cell in cells if cell.casefold() in SIMILAR]
    if len(known) == 1 or len(cells) < 2:
        return (known or cells or [""])[0]
    if numbers:
        return max(cells, key=float)
    message = f"Of the classes {cells[0]!r} and {cells[1]!r} in column {label!r} either could mean similar."
    raise DataError([WHICH_IS_SIMILAR(message, fix=f"Say which: --positive {cells[0]}, for example.")])


def _names(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name != ROW]


def _is_list(table: pa.Table, name: str) -> bool:
    return pa.types.is_list(table.schema.field(name).type)


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_flatten(column) if pa.types.is_list(column.type) else column


def _must_have(reading: Reading, table: pa.Table, name: str, role: str) -> None:
    where = reading.files["train"]
    if name in reading.unusable:
        message = f"Column {name!r} of {where} holds {reading.unusable[name]}, which cannot be a {role}."
        raise DataError([NOT_TEXT(message, where=where, fix=f"Choose another column: --{role} NAME.")])
    if name not in table.column_names or name == ROW:
        message = f"{where} has no column {name!r} to be the {role}."
        raise DataError([MISSING_COLUMN(message, where=where, fix=suggest(name, _names(table)))])


def _sample(table: pa.Table, name: str) -> list[str]:
    """Up to `SAMPLE` cells of a column, evenly spaced, lists joined by spaces."""
    positions = np.unique(np.linspace(0, table.num_rows - 1, SAMPLE).astype(np.int64))
    cells = table[name].take(pa.array(positions)).to_pylist()
    return [" ".join(part or "" for part in cell) if isinstance(cell, list) else cell or "" for cell in cells]


def _look_for_header(reading: Reading, table: pa.Table) -> None:
    """A first line that is data: no name is known, and one is a sentence, a number, or a value of its column."""
    names = _names(table)
    known = {*TEXT_NAMES, *LABEL_NAMES, *WORDS_NAMES, *TAGS_NAMES}
    if any(name.lower() in known for name in names) or reading.kinds:
        return
    for name in names:
        cells = _sample(table, name)
        common = len(set(cells)) <= max(2, len(cells) // 3)
        number_among_numbers = bool(re.fullmatch(r"-?\d+(\.\d+)?", name))
        if len(name.split()) > 6 or number_among_numbers or (common and name in cells):
            file = reading.files["train"]
            message = f"The first line of {file} looks like data, not like column names: {names!r:.120}."
            fix = "Add a first line such as text,label."
            raise DataError([MISSING_HEADER(message, where=f"{file} line 1", fix=fix)])


def _text_column(reading: Reading, table: pa.Table, taken: set[str], task: str | None = None) -> str:
    """By name; else the column whose texts are by far the longest."""
    names = [name for name in _names(table) if name not in taken]
    lower = {name.lower(): name for name in reversed(names)}
    if task != "classification":
        for known in WORDS_NAMES:
            if known in lower and (_is_list(table, lower[known]) or task == "tagging"):
                return lower[known]
    for known in TEXT_NAMES:
        if known in lower:
            return lower[known]
    lengths = {name: float(np.mean([len(cell) for cell in _sample(table, name)])) for name in names}
    lengths = {name: length for name, length in lengths.items() if length >= 10}
    ranked = sorted((name for name in lengths if name.lower() not in LABEL_NAMES), key=lambda name: -lengths[name])
    if ranked and (len(ranked) == 1 or lengths[ranked[0]] > 2 * lengths[ranked[1]]):
        _say_guess(reading, ranked[0], "text", "its texts are by far the longest")
        return ranked[0]
    what = f"more than one that could be it ({', '.join(ranked[:4])})" if ranked else f"only {', '.join(names)}"
    message = f"No column of {reading.files['train']} is clearly the text: there is {what}."
    fix = "Say which: --text NAME." + " Those that are to be compared: --text A,B." * (len(ranked) > 1)
    raise DataError([NO_TEXT_COLUMN(message, where=reading.files["train"], fix=fix)])


def _say_guess(reading: Reading, name: str, role: str, why: str) -> None:
    message = f"Column {name!r} was taken as the {role} because {why}."
    reading.findings.append(
        GUESSED_COLUMN(message, where=reading.files["train"], fix=f"Make sure, with --{role} NAME.")
    )


def _label_column(reading: Reading, table: pa.Table, texts: tuple[str, ...]) -> str:
    """By name; else the one column whose values repeat."""
    names = [name for name in _names(table) if name not in texts]
    lower = {name.lower(): name for name in reversed(names)}
    usual = (*LIKENESS_NAMES, *LABEL_NAMES) if len(texts) == 2 else LABEL_NAMES
    for known in TAGS_NAMES if _is_list(table, texts[0]) else usual:
        if known in lower:
            return lower[known]
    alike = [name for name in names if re.search(r"label|intent|categor|class(?!ic)|emotion|sentiment", name.lower())]
    if len(alike) == 1:
        return alike[0]
    samples = {name: _sample(table, name) for name in names}
    repeating = [name for name, cells in samples.items() if 1 < len(set(cells)) <= max(2, len(cells) // 2)]
    if len(repeating) == 1:
        _say_guess(reading, repeating[0], "label", "it is the only one whose values repeat")
        return repeating[0]
    what = f"more than one that could be it ({', '.join(repeating[:4])})" if repeating else f"only {', '.join(names)}"
    message = f"No column of {reading.files['train']} is clearly the label: there is {what}."
    raise DataError([NO_LABEL_COLUMN(message, where=reading.files["train"], fix="Say which: --label NAME.")])


def _check_shape(table: pa.Table, text: str, label: str, task: str) -> None:
    if task != "tagging" and _is_list(table, text):
        message = f"Column {text!r} holds lists, so its task is tagging, not {task}."
        raise DataError([NOT_TEXT(message, fix="Join the words with spaces, or use --task tagging.")])
    if task == "tagging" and _is_list(table, text) and not _is_list(table, label):
        message = f"Column {text!r} holds lists of words, but {label!r} has one value a row."
        raise DataError([NOT_TEXT(message, fix="Tagging needs one tag a word: say which column with --label NAME.")])
    for name in (text, label):
        if not _is_list(table, name):
            cells = [cell.strip() for cell in _sample(table, name) if cell.strip()]
            if cells and all(re.fullmatch(r"\[\s*(['\"].*['\"])?\s*\]", cell, re.DOTALL) for cell in cells):
                message = f"Column {name!r} holds lists written as text, such as {cells[0]!r:.60}."
                fix = 'Write JSON Lines: {"tokens": ["a", "b"], "tags": ["O", "O"]}.'
                raise DataError([LISTS_AS_TEXT(message, fix=fix)])


def _multi_label(table: pa.Table, label: str) -> tuple[bool, str]:
    """Lists are; names joined by | are, where the parts recur: no more distinct parts than distinct cells."""
    if _is_list(table, label):
        return True, "lists"
    whole = pc.unique(table[label]).drop_null()
    parts = pc.unique(pc.list_flatten(pc.split_pattern_regex(whole, r"\s*\|\s*")))
    joined = pc.sum(pc.match_substring(whole, "|")).as_py() or 0
    return bool(joined) and len(set(parts.to_pylist()) - {""}) <= len(whole), "joined by |"


def _check_splits(reading: Reading, texts: tuple[str, ...], label: str | None) -> None:
    """Every split has what is read; all but test and target have the label column; all of train's kind."""
    train = reading.tables["train"]
    for split, table in reading.tables.items():
        needs = [(text, True) for text in texts]
        if label is not None:
            needs.append((label, split not in ("test", "target")))
        for name, needed in needs:
            where = reading.files[split]
            if name not in table.column_names:
                if needed:
                    message = f"{where} has no column {name!r}, which train has; it has {', '.join(_names(table))}."
                    raise DataError([COLUMNS_DIFFER(message, where=where, fix="Give every split the same columns.")])
            elif _is_list(table, name) != _is_list(train, name):
                message = f"Column {name!r} holds lists in one split and single values in another ({where})."
                raise DataError([COLUMNS_DIFFER(message, where=where, fix="Make it the same in every split.")])


def _check_json(reading: Reading, texts: tuple[str, ...], label: str | None) -> None:
    for name in (*texts, label) if label is not None else texts:
        places = reading.missing.get(name)
        if places:
            message = f"There is no field {name!r} in {number(len(places), 'row')}."
            fix = f"Give every row a {name!r}, or leave such rows out of the file."
            raise DataError([DIFFERENT_KEYS(message, where=", ".join(places[:5]), fix=fix)])
    kinds = reading.kinds.get(label or "", set())
    if len(kinds) > 1:
        message = f"The label {label!r} is a {' in some rows and a '.join(sorted(kinds))} in others."
        raise DataError([MIXED_TYPES(message, fix="Write all labels as text.")])


def _whole_numbers(distinct: list[str]) -> bool:
    cells = [cell.strip() for cell in distinct[:10_000] if cell.strip()]
    return any(c.endswith(".0") for c in cells) and all(re.fullmatch(r"-?\d+(\.0+)?", cell) for cell in cells)
