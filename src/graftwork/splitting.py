"""Splitting: which rows go to which side of a cut, so that no text stands on both sides of it.

Texts that say the same thing (equal after normalising, or nearly: MinHash) form one group; a cut deals out whole
groups, stratified by class, from a seed. The same groups tell `check` about duplicates and overlaps.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

NEAR = 0.9
"""Two texts are near-identical from this Jaccard similarity of their character shingles on."""
SHINGLE = 5
"""Characters in a shingle."""
BINS, BANDS = 36, 6
"""One-permutation MinHash (Li, Owen & Zhang 2012): 36 bins read as 6 bands of 6. Two texts of similarity 0.9 share
a band with probability 1 - (1 - 0.9^6)^6 = 0.99, two of similarity 0.5 with 0.09; candidates are then compared."""
VERIFIED = 20_000
"""So many candidates are compared shingle by shingle; past them the share of equal bins decides (off by 0.05)."""
CHARACTERS_AT_ONCE = 2_000_000
_MIX = np.uint64(0x9E3779B97F4A7C15)


def normalise(text: str) -> str:
    """The text as it is compared: compatibility forms unified, case folded, white space as single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def texts(column: pa.ChunkedArray) -> Iterator[list[str]]:
    """The column's texts normalised, about `CHARACTERS_AT_ONCE` characters at a time; words are joined by spaces."""
    for chunk in column.chunks:
        mean = max(1, chunk.nbytes // max(1, len(chunk)))
        size = max(1, CHARACTERS_AT_ONCE // mean)
        for start in range(0, len(chunk), size):
            batch = chunk.slice(start, size).to_pylist()
            yield [normalise(" ".join(cell) if isinstance(cell, list) else cell or "") for cell in batch]


def keys(column: pa.ChunkedArray) -> np.ndarray:
    """A 64-bit hash of each normalised text: equal texts have equal keys: (rows,)."""
    import pandas as pd

    hash_array: Any = pd.util.hash_array  # pyright: ignore[reportAttributeAccessIssue]

    parts = [hash_array(np.array(batch, object), categorize=False) for batch in texts(column)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def groups(columns: Iterable[pa.ChunkedArray]) -> np.ndarray:
    """A group number for each row of all columns, one after another: equal for (nearly) equal texts: (rows,).

    Example:
        >>> column = pa.chunked_array([["Where is my card?", "where is  MY card?", "Hello there"]])
        >>> groups([column]).tolist()
        [0, 0, 2]
    """
    columns = list(columns)
    exact = np.concatenate([keys(column) for column in columns]) if columns else np.zeros(0, np.uint64)
    _, first, same = np.unique(exact, return_index=True, return_inverse=True)
    is_first = np.zeros(len(exact), bool)
    is_first[first] = True
    owner = first[same]  # (rows,) the first row with this very text
    rows = np.flatnonzero(is_first)  # (distinct,) in the order of the rows
    leader = _near_leaders(columns, is_first)  # (distinct,) positions in `rows`
    return rows[leader[np.searchsorted(rows, owner)]]


def repeats(batches: Iterable[Sequence[str]]) -> np.ndarray:
    """Which texts nearly repeat an earlier one, of a stream of which only the MinHashes are kept: (texts,) bool.

    Args:
        batches: some texts at a time.

    Example:
        >>> repeats([["Where is my card?", "Hello there"], ["where is  MY card?"]]).tolist()
        [False, False, True]
    """
    parts = [_sign([normalise(text) for text in batch]) for batch in batches]
    signatures = np.concatenate(parts) if parts else np.zeros((0, BINS), np.uint32)
    pairs, likeness = _candidates(signatures)
    return _leaders(pairs[likeness >= NEAR], len(signatures)) != np.arange(len(signatures))


def _near_leaders(columns: list[pa.ChunkedArray], wanted: np.ndarray) -> np.ndarray:
    """For each wanted text the position of the first one that is near-identical to it, through chains too."""
    signatures = _signatures(columns, wanted)  # (distinct, BINS)
    pairs, likeness = _candidates(signatures)
    near = likeness >= NEAR
    text_at = _TextAt(columns, np.flatnonzero(wanted))
    for index, (left, right) in enumerate(pairs[:VERIFIED]):
        near[index] = jaccard(text_at[left], text_at[right]) >= NEAR
    return _leaders(pairs[near], len(signatures))


def _leaders(pairs: np.ndarray, count: int) -> np.ndarray:
    """For each of so many texts the first that `pairs`, (links, 2), link it to, through chains too: (count,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(count, count))
    _, component = connected_components(links, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component]


def _candidates(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that share a band, and the share of bins they agree in: (pairs, 2) and (pairs,).

    Of a bucket, each text is paired with the first and with its neighbour, so that a bucket of n costs 2n pairs.
    """
    width, count = BINS // BANDS, len(signatures)
    found = np.zeros(0, np.int64)
    for band in range(BANDS):
        code = np.zeros(count, np.uint64)
        for column in signatures[:, band * width : (band + 1) * width].T:
            code = (code ^ column) * _MIX
            code ^= code >> np.uint64(29)
        order = np.argsort(code, kind="stable")
        opens = np.r_[True, np.diff(code[order]) != 0][:count]
        inside = np.flatnonzero(~opens)
        lead = np.maximum.accumulate(np.where(opens, np.arange(count), 0))[inside]
        for other in (lead, inside - 1):
            found = np.union1d(found, order[other] * count + order[inside])  # order is stable: the left is the smaller
    pairs = np.stack([found // max(1, count), found % max(1, count)], 1)
    blocks = np.array_split(pairs, len(pairs) // 100_000 + 1)
    likeness = np.concatenate([(signatures[b[:, 0]] == signatures[b[:, 1]]).mean(1) for b in blocks])
    promising = likeness >= NEAR - 0.2
    return pairs[promising], likeness[promising]


def _signatures(columns: list[pa.ChunkedArray], wanted: np.ndarray) -> np.ndarray:
    """The MinHash of each wanted text: the least shingle hash in each of `BINS` bins: (distinct, BINS) uint32."""
    parts, start = [], 0
    for column in columns:
        for batch in texts(column):
            keep = wanted[start : start + len(batch)]
            start += len(batch)
            parts.append(_sign([text for text, kept in zip(batch, keep, strict=True) if kept]))
    return np.concatenate(parts) if parts else np.zeros((0, BINS), np.uint32)


def _sign(batch: list[str]) -> np.ndarray:
    none = np.uint32(0xFFFFFFFF)
    signature = np.full((len(batch), BINS), none, np.uint32)
    padded = [text + "\0" * (SHINGLE - len(text)) for text in batch]
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    points = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
    if not len(points):
        return signature
    rolled = np.zeros(len(points) - SHINGLE + 1, np.uint64)
    for offset in range(SHINGLE):
        rolled = rolled * np.uint64(1_000_003) + points[offset : offset + len(rolled)]
    rolled *= _MIX
    rolled ^= rolled >> np.uint64(32)
    rolled *= _MIX
    owner = np.repeat(np.arange(len(batch)), lengths)
    end = np.repeat(np.cumsum(lengths), lengths)
    whole = np.flatnonzero((np.arange(len(points)) + SHINGLE <= end)[: len(rolled)])
    hashes, owner = rolled[whole], owner[whole]
    slot = owner * BINS + ((hashes >> np.uint64(32)) % np.uint64(BINS)).astype(np.int64)
    np.minimum.at(signature.reshape(-1), slot, (hashes & np.uint64(0x7FFFFFFF)).astype(np.uint32))
    for _ in range(BINS):  # an empty bin borrows its right neighbour (Shrivastava & Li 2014)
        empty = signature == none
        if not empty.any():
            break
        signature = np.where(empty, np.roll(signature, -1, 1), signature)
    return signature


def jaccard(left: str, right: str) -> float:
    """The share of character shingles that two normalised texts have in common, in [0, 1]."""
    one, two = _shingles(left), _shingles(right)
    return len(one & two) / len(one | two)


def _shingles(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}


class _TextAt:
    """Normalised texts by position among `rows`, read one at a time from the columns."""

    def __init__(self, columns: list[pa.ChunkedArray], rows: np.ndarray):
        self.columns, self.rows = columns, rows
        self.chunks = [chunk for column in columns for chunk in column.chunks]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in self.chunks)])

    def __getitem__(self, position: np.int64) -> str:
        row = self.rows[position]
        chunk = int(np.searchsorted(self.starts, row, "right")) - 1
        cell = self.chunks[chunk][int(row - self.starts[chunk])].as_py()
        return normalise(" ".join(cell) if isinstance(cell, list) else cell or "")


def cut(strata: np.ndarray, group: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which rows leave for a new split of about `fraction` of each stratum; groups stay whole: (rows,) bool.

    A stratum gives its share rounded, at least one row from five rows on. A group belongs to the stratum of its first
    row; a group larger than the share stays behind.
    """
    _, start, member = np.unique(group, return_index=True, return_inverse=True)
    size = np.bincount(member)
    stratum = strata[start]
    rows_of = np.bincount(strata)
    share = np.maximum(np.rint(rows_of * fraction), rows_of >= 5)  # (strata,)
    luck = np.random.default_rng(seed).permutation(len(size))
    fits = size <= share[stratum]
    order = np.lexsort((luck, ~fits, stratum))
    taken = np.where(fits[order], size[order], 0).cumsum()
    opens = np.r_[True, stratum[order][1:] != stratum[order][:-1]] if len(order) else np.zeros(0, bool)
    before = np.where(opens, taken - np.where(fits[order], size[order], 0), 0)
    within = taken - np.maximum.accumulate(before)
    leaves = np.zeros(len(size), bool)
    leaves[order] = fits[order] & (within <= share[stratum[order]])
    return leaves[member]
