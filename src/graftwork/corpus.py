"""Corpus: plain text to learn a language from, read as a stream, cut into windows that are full to the last piece.

A text file, a JSON-lines, CSV or Parquet file, each also as .gz, or a folder of such. Files whose name says validation
are kept for it; otherwise passages are, drawn by their content, so that equal ones never stand on both sides.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
import torch

from graftwork.choice import InputError
from graftwork.examples import Batch, Examples, building, cache_folder
from graftwork.splitting import repeats

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from graftwork.data import Data
    from graftwork.modalities.text import Text
    from graftwork.model import TransferModel
    from graftwork.task import Task

PASSAGE = 4000
"""Characters that are read at once: long documents are parted at the ends of paragraphs."""
HELD_OUT = 0.01
"""Of the passages, where no file is named for validation."""
_AT_ONCE = 2048  # passages
_ALPHABET = 1000  # characters; rarer ones are unknown
_BLOCK = 1 << 22  # characters of a text file
_TEXT, _LINES, _TABLES = (".txt", ".md", ".text"), (".jsonl", ".ndjson"), (".parquet", ".csv", ".tsv")
_COLUMNS = ("text", "content", "body", "document", "sentence")
_FORMAT = 1


@dataclass
class Corpus:
    """Files of plain text.

    Args:
        source: a file, or a folder whose files are all read.
        column: which one holds the text, in files that have columns; by default one named `text` or the like, or the
            only one.
        deduplicated: whether passages that nearly repeat an earlier one are left out.

    Raises:
        InputError: nothing is there that can be read.
    """

    source: Path | str
    column: str | None = None
    deduplicated: bool = False
    files: list[Path] = field(init=False)

    def __post_init__(self) -> None:
        path = Path(self.source).expanduser()
        if not path.exists():
            raise InputError(f"There is no corpus {str(path)!r}. Give a text file, or a folder of them.")
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        self.files = [p for p in found if _kind(p) and not p.name.lower().startswith(("readme", "licen", "."))]
        if not self.files:
            known = ", ".join((*_TEXT, *_LINES, *_TABLES))
            raise InputError(f"{str(path)!r} holds no text that can be read. Known: {known}, each also as .gz.")

    @property
    def name(self) -> str:
        """The file's or folder's, without its ending."""
        return Path(self.source).resolve().name.partition(".")[0]

    @property
    def validation_files(self) -> list[Path]:
        """Those named for validation, where there are others besides."""
        named = [p for p in self.files if re.search(r"(^|[^a-z])(valid|validation|dev|val)([^a-z]|$)", p.name.lower())]
        return named if len(named) < len(self.files) else []

    @property
    def fingerprint(self) -> str:
        """Names the content: (64,) hexadecimal."""
        read = [self.column, PASSAGE, *["deduplicated"] * self.deduplicated]
        digest = hashlib.sha256(json.dumps(read).encode())
        for file in self.files:
            with file.open("rb") as stream:
                digest.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
        return digest.hexdigest()

    @cached_property
    def repeated(self) -> np.ndarray:
        """Which passages nearly repeat an earlier one (MinHash, see `splitting`) and are left out: (passages,) bool."""
        if not self.deduplicated:
            return np.zeros(0, dtype=bool)
        texts = (text for text, _, _ in self._every())
        return repeats(iter(lambda: list(itertools.islice(texts, _AT_ONCE)), []))

    def passages(self, split: str) -> Iterator[tuple[str, bool]]:
        """The passages of `train`, `validation` or `all`, each with whether it ends its document."""
        for number, (text, ends, held) in enumerate(self._every()):
            left_out = self.deduplicated and self.repeated[number]
            if not left_out and (split == "all" or held == (split == "validation")):
                yield text, ends

    def _every(self) -> Iterator[tuple[str, bool, bool]]:
        """All passages: the text, whether it ends its document, whether it is for validation."""
        named = set(self.validation_files)
        for file in self.files:
            for document in _documents(file, self.column):
                parts = _parted(document)
                for number, part in enumerate(parts):
                    held = file in named if named else _held_out(part)
                    yield part, number == len(parts) - 1, held


def _held_out(passage: str) -> bool:
    """Whether a passage is for validation: the same for equal ones, wherever they stand."""
    digest = hashlib.blake2b(passage.encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < HELD_OUT


def _parted(document: str) -> list[str]:
    """A document in passages of about `PASSAGE` characters, cut where a paragraph, a line or a word ends."""
    parts, start = [], 0
    while len(document) - start > PASSAGE * 1.5:
        window = document[start : start + PASSAGE]
        at = next((cut for mark in ("\n\n", "\n", " ") if (cut := window.rfind(mark)) > PASSAGE // 2), PASSAGE)
        parts.append(window[:at])
        start += at
    parts.append(document[start:])
    return [stripped for part in parts if (stripped := part.strip())]


# --- files to documents ---


def _kind(path: Path) -> str | None:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in (*_TEXT, *_LINES, *_TABLES) else None


def _documents(file: Path, column: str | None) -> Iterator[str]:
    kind = _kind(file)
    try:
        if kind in _TEXT:
            with _opened(file) as stream:
                yield from _streamed(stream)
        elif kind in _LINES:
            with _opened(file) as stream:
                rows = (json.loads(line) for line in stream if line.strip())
                yield from (row if isinstance(row, str) else str(row[_column(file, row, column)]) for row in rows)
        else:
            yield from _tabled(file, str(kind), column)
    except UnicodeDecodeError as error:
        raise InputError(f"{str(file)!r} is not UTF-8 ({error.reason}). Convert it, or take it out.") from None
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(file)!r} cannot be read: {error}. Mend it, or take it out.") from None


def _opened(file: Path) -> TextIO:
    if file.name.endswith(".gz"):
        return io.TextIOWrapper(gzip.open(file), encoding="utf-8")
    return file.open(encoding="utf-8")


def _streamed(stream: TextIO) -> Iterator[str]:
    """A text file is one document; a very long one is read in parts, each cut where a paragraph ends."""
    kept = stream.read(_BLOCK)
    while block := stream.read(_BLOCK):
        if at := max(kept.rfind("\n\n"), 0) or kept.rfind("\n") + 1:
            yield kept[:at]
        kept = kept[at:] + block
    yield kept


def _tabled(file: Path, kind: str, column: str | None) -> Iterator[str]:
    import pyarrow.parquet as pq
    from pyarrow import csv

    if kind == ".parquet":
        table = pq.ParquetFile(file)
        name = _column(file, table.schema_arrow.names, column)
        for batch in table.iter_batches(batch_size=64, columns=[name]):
            yield from (str(text) for text in batch.column(0).to_pylist() if text)
        return
    options = csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True)
    for batch in csv.open_csv(file, parse_options=options):
        name = _column(file, batch.schema.names, column)
        yield from (str(text) for text in batch.column(name).to_pylist() if text)


def _column(file: Path, columns: Any, asked: str | None) -> str:
    names = list(columns)
    if asked:
        if asked not in names:
            raise InputError(f"{file.name} has no column {asked!r}, only {names}. Give one of them with --text.")
        return asked
    found = next((name for name in _COLUMNS if name in names), names[0] if len(names) == 1 else None)
    if found is None:
        raise InputError(f"Which of {names} in {file.name} holds the text? Say it with --text.")
    return found


# --- a tokenizer of one's own ---


def train_tokenizer(corpus: Corpus, tokenizer: Any, special: dict[str, str], size: int) -> Tokenizer:
    """Train an empty tokenizer on a corpus's train passages.

    Args:
        corpus: whose language it learns.
        tokenizer: as `Pretext.tokenizer` makes it.
        special: the special pieces by what they stand for.
        size: pieces; fewer where the corpus does not hold as many.
    """
    from tokenizers import models, pre_tokenizers, processors, trainers

    passages = (text for text, _ in corpus.passages("train"))
    names = list(special.values())
    if isinstance(tokenizer.model, models.BPE):
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )  # fmt: skip
        tokenizer.train_from_iterator(passages, trainer)
    else:
        pieces = _word_pieces(passages, tokenizer, names, size)
        tokenizer.model = models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=special["unknown"])
        tokenizer.add_special_tokens(names)
    if "start" in special:
        start, end = special["start"], special["end"]
        ids = [(name, tokenizer.token_to_id(name)) for name in (start, end)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}", pair=f"{start} $A {end} $B:1 {end}:1", special_tokens=ids
        )
    return tokenizer


def _word_pieces(passages: Iterator[str], tokenizer: Tokenizer, special: list[str], size: int) -> list[str]:
    """The pieces of a WordPiece vocabulary, in order: special ones, characters, and what merges, the earliest first.

    The trainer that `tokenizers` has for WordPiece gives another vocabulary each time; its BPE does not. So words are
    marked where they begin, merged by BPE, and the mark is turned into WordPiece's, which is where words go on.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    mark = pre_tokenizers.Metaspace(prepend_scheme="always")
    merging = Tokenizer(models.BPE())
    merging.normalizer = tokenizer.normalizer
    merging.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, mark])
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=_ALPHABET, show_progress=False)
    merging.train_from_iterator(passages, trainer)
    found = sorted(merging.get_vocab().items(), key=lambda each: each[1])
    characters = [piece for piece, _ in found if len(piece) == 1 and piece != mark.replacement]
    merged = [piece[1:] if piece.startswith(mark.replacement) else f"##{piece}" for piece, _ in found if len(piece) > 1]
    every = [*special, *characters, *(f"##{character}" for character in characters), *merged]
    return list(dict.fromkeys(every))[:size]


# --- documents to windows ---


class Windows(Examples):
    """A split of a corpus as windows that all hold `length` pieces: nothing is padded."""

    def __init__(self, folder: Path, modality: Text, task: Task, corpus: Corpus):
        super().__init__(folder, modality, task, cast("Data", corpus))

    def batch(self, places: np.ndarray, remap: np.ndarray | None = None) -> Batch:
        """The windows at `places`: `input_ids` (batch, length) int64, without a mask."""
        length = int(self.lengths[0])
        ids = np.asarray(self.ids).reshape(-1, length)[places].astype(np.int64)
        return Batch({"input_ids": torch.from_numpy(ids)}, torch.zeros(len(places), dtype=torch.int64), places)


def windows(
    corpus: Corpus, split: str, model: TransferModel, length: int, told: Callable[[str], None] = lambda _: None
) -> Windows:
    """A split of `corpus` in windows of `length` pieces for `model`; done once, then found in the cache again.

    Documents follow one another, the piece that ends a text between them. What does not fill the last window is left
    out.

    Raises:
        InputError: there is too little text for a single window.
    """
    modality = model.text
    around = modality.tokenizer.encode("", add_special_tokens=True).ids
    between = around[-1] if around else modality.pad_id
    key = hashlib.sha256(
        json.dumps([_FORMAT, corpus.fingerprint, split, modality.digest, length, around, between]).encode()
    ).hexdigest()[:32]
    folder = cache_folder() / "corpora" / key
    if not (folder / "examples.json").is_file():
        told(f"Reading the {split} text ...")
        _build(corpus, split, modality.tokenizer, length, around, between, folder, key)
    return Windows(folder, modality, model.task, corpus)


def _build(
    corpus: Corpus, split: str, tokenizer: Tokenizer, length: int, around: Sequence[int], between: int, folder: Path,
    key: str,
) -> None:  # fmt: skip
    room = length - len(around)
    count, kept = 0, np.zeros(0, dtype=np.int32)
    with building(folder) as work:
        with (work / "ids.bin").open("wb") as file:
            for some in _encoded(corpus.passages(split), tokenizer, between):
                kept = np.concatenate([kept, some])
                whole = len(kept) // room
                block = np.empty((whole, length), dtype=np.int32)
                block[:, : len(around) // 2] = around[: len(around) // 2]
                block[:, len(around) // 2 : len(around) // 2 + room] = kept[: whole * room].reshape(whole, room)
                block[:, len(around) // 2 + room :] = around[len(around) // 2 :]
                file.write(block.tobytes())
                count, kept = count + whole, kept[whole * room :]
        if not count:
            raise InputError(
                f"The {split} text of {corpus.name!r} does not fill one window of {length} pieces. Give more text, or "
                "a smaller --length."
            )
        np.save(work / "lengths.npy", np.full(count, length, dtype=np.int32))
        np.save(work / "example.npy", np.arange(count, dtype=np.int32))
        np.save(work / "lost.npy", np.zeros(count, dtype=np.int32))
        (work / "targets.bin").write_bytes(np.zeros(count, dtype=np.int8).tobytes())
        described = {"key": key, "rows": count, "target_type": "int8", "target_shape": []}
        (work / "examples.json").write_text(json.dumps(described), encoding="utf-8")


def _encoded(passages: Iterator[tuple[str, bool]], tokenizer: Tokenizer, between: int) -> Iterator[np.ndarray]:
    """The ids of passages, one array for some of them at a time."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    while some := list(itertools.islice(passages, _AT_ONCE)):
        encodings = tokenizer.encode_batch_fast([text for text, _ in some], add_special_tokens=False)
        ids = [e.ids + [between] * ends for e, (_, ends) in zip(encodings, some, strict=True)]
        yield np.concatenate([np.array(each, dtype=np.int32) for each in ids])
