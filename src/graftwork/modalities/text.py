"""Text: a tokenizer, the longest input its model reads, and padding.

It stands on the `tokenizers` library alone, so that checking data and serving a model need no torch. Of the
tokenizer's own file only the vocabulary and rules are used: padding and truncation saved in it by somebody else
(the embedded MiniLM pads everything to 128) are switched off.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from graftwork.choice import InputError
from graftwork.intact import read_json
from graftwork.template import Template

if TYPE_CHECKING:
    import torch

Words = list[str]


class Text:
    """Strings, or lists of words, to token ids.

    Args:
        tokenizer: a fast tokenizer; its padding and truncation are switched off.
        max_length: tokens the model reads at most, special tokens included.
        pad_id: the id that fills a batch.
        mask_token: what stands for a hidden piece; None where the model knows none.

    Attributes:
        template: what stands around each text, as `within` says.
        place: of its mask, from the start of the ids, or, negative, from the end; without a mask that of the last.
    """

    reads: ClassVar[str] = "text"
    dtype: ClassVar[type[np.generic]] = np.int32

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, pad_id: int = 0, mask_token: str | None = None):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        self.mask_token = mask_token
        self.template: Template | None = None
        self.place = -1
        self.shape: tuple[int, ...] | None = None

    @classmethod
    def from_folder(cls, folder: Path | str) -> Text:
        """The tokenizer of a saved model.

        Raises:
            InputError: the folder has no tokenizer, or a damaged one.
        """
        folder = Path(folder)
        file = folder / "tokenizer.json"
        tokenizer = _whole(file) if file.is_file() else _converted(folder)
        config = read_json(folder / "config.json")
        settings = read_json(folder / "tokenizer_config.json")
        pad = settings.get("pad_token") or settings.get("eos_token") or "[PAD]"
        pad_id = tokenizer.token_to_id(pad["content"] if isinstance(pad, dict) else pad)
        return cls(
            tokenizer, max_length=_max_length(config, settings), pad_id=pad_id or config.get("pad_token_id") or 0,
            mask_token=_mask_token(tokenizer, settings),
        )  # fmt: skip

    def within(self, template: Template | None) -> Text:
        """This modality, but reading every text inside `template`; None for texts as they are.

        A causal model reads as far as the mask.

        Raises:
            InputError: it has a mask, and the model knows none and cannot read on to it; or it has none, and the
                tokenizer closes each text.
        """
        other = copy.copy(self)
        other.template, other.place = template, -1
        if template is None:
            return other
        read = other.encodings(["a"])[0]
        if self.mask_token is None and not read.special_tokens_mask[-1]:
            other.template = template = template.read_on
        if not template.masked:
            if read.special_tokens_mask[-1]:
                raise InputError(
                    f"The template {template.text!r} has no [MASK], and this model does not read on from a text's end. "
                    "Put [MASK] where the answer belongs."
                )
            return other
        if self.mask_token is None:
            raise InputError(
                f"The template {template.text!r} has a [MASK], which this model does not know. Let it end where the "
                "answer is to begin, as causal models read, or choose a masked language model."
            )
        at = read.ids.index(self.tokenizer.token_to_id(self.mask_token) or 0)
        other.place = at if template.masked_before else at - len(read.ids)
        return other

    @cached_property
    def _own_digest(self) -> str:
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    @property
    def digest(self) -> str:
        """Names the tokenizer and the template: two with equal digests give equal ids."""
        if self.template is None:
            return self._own_digest
        return hashlib.sha256(f"{self._own_digest} {self.template.text}".encode()).hexdigest()

    @property
    def special_count(self) -> int:
        """How many special tokens ([CLS], [SEP]) surround one text."""
        return self.tokenizer.num_special_tokens_to_add(is_pair=False)

    @property
    def unknown_id(self) -> int | None:
        """The id of pieces that the vocabulary lacks; None where the tokenizer knows every byte."""
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        return None if unknown is None else self.tokenizer.token_to_id(unknown)

    @property
    def stand_in(self) -> str:
        """What is read in the place of a word that the tokenizer drops."""
        unknown = self.unknown_id
        return (None if unknown is None else self.tokenizer.id_to_token(unknown)) or "?"

    def encodings(self, inputs: Sequence[str] | Sequence[Words]) -> list[Encoding]:
        """The tokenizer's own records, uncut. A list of words keeps which word each token came from."""
        words = len(inputs) > 0 and not isinstance(inputs[0], str)
        if self.template is not None:
            inputs = [self.template.around(str(given), self.mask_token or "") for given in inputs]
        return self.tokenizer.encode_batch(list(inputs), is_pretokenized=words)

    def lengths(self, inputs: Sequence[str] | Sequence[Words]) -> np.ndarray:
        """Tokens of each input before any cut, special ones included: (n,) int32."""
        return np.array([len(e.ids) for e in self.encodings(inputs)], dtype=np.int32)

    def tokens_of(self, inputs: Sequence[str] | Sequence[Words]) -> list[list[str]]:
        """The pieces of each input as text."""
        return [e.tokens for e in self.encodings(inputs)]

    def encode(self, inputs: Sequence[str] | Sequence[Words]) -> list[np.ndarray]:
        """Token ids of each input, cut at `max_length`: a list of (length,) int32."""
        return [self.cut(e) for e in self.encodings(inputs)]

    def read(self, inputs: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
        """Token ids of each text, cut at `max_length`, and how many the cut cost."""
        for encoding in self.encodings(inputs):
            ids = self.cut(encoding)
            yield ids, len(encoding.ids) - len(ids)

    def states(self, example: np.ndarray) -> int:
        """One a token."""
        return len(example)

    def cut(self, encoding: Encoding) -> np.ndarray:
        """At most `max_length` ids: the end of the text goes, what closes it stays; never none at all.

        Raises:
            InputError: a template alone is longer.
        """
        ids = encoding.ids or [self.pad_id]  # an empty text, where no special tokens surround it
        if len(ids) > self.max_length:
            tail = self.closing
            if tail >= self.max_length:
                raise InputError(f"The template leaves no room for a text in {self.max_length} tokens. Shorten it.")
            ids = [*ids[: self.max_length - tail], *ids[len(ids) - tail :]]
        return np.array(ids, dtype=np.int32)

    @property
    def closing(self) -> int:
        """How many tokens stand after the text: special ones, and those of a template."""
        encoding = self.encodings(["a"])[0]
        end = 1 + (len(self.template.before(self.mask_token or "")) if self.template else 0)
        begun = [i for i, (start, stop) in enumerate(encoding.offsets) if stop and start < end]
        return len(encoding.ids) - 1 - max(begun, default=len(encoding.ids) - 1)

    def collate(self, examples: Sequence[np.ndarray], *, pad_id: int | None = None) -> dict[str, torch.Tensor]:
        """Ids padded to the longest example: `input_ids` and `attention_mask`, each (batch, length) int64."""
        import torch

        longest = max(len(e) for e in examples)
        ids = np.full((len(examples), longest), self.pad_id if pad_id is None else pad_id, dtype=np.int64)
        mask = np.zeros((len(examples), longest), dtype=np.int64)
        for row, example in enumerate(examples):
            ids[row, : len(example)] = example
            mask[row, : len(example)] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def require_fit(self, config: Any) -> None:
        """Refuse a tokenizer that gives ids which the table of embeddings lacks.

        Raises:
            InputError: the two are not of one model.
        """
        pieces, rows = self.tokenizer.get_vocab_size(), getattr(config, "vocab_size", None)
        if rows is not None and pieces > rows:
            raise InputError(f"The tokenizer has {pieces:,} pieces, its network {rows:,}. They are not of one model.")

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and what plain `transformers` needs to read it."""
        self.tokenizer.save(str(folder / "tokenizer.json"))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.max_length,
            "pad_token": self.tokenizer.id_to_token(self.pad_id),
        } | ({"mask_token": self.mask_token} if self.mask_token else {})
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _whole(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"tokenizer.json in {str(file.parent)!r} is damaged ({error}). Copy it again.") from None


def _mask_token(tokenizer: Tokenizer, settings: dict[str, Any]) -> str | None:
    """As the settings name it, or one of the usual names, where the tokenizer keeps it whole."""
    said = settings.get("mask_token")
    usual = [said["content"] if isinstance(said, dict) else said, "[MASK]", "<mask>"]
    whole = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return next((name for name in usual if name in whole), None)


def _max_length(config: dict[str, Any], settings: dict[str, Any]) -> int:
    """The smaller of what the tokenizer and the position table allow."""
    stated = settings.get("model_max_length") or 512
    positions = config.get("max_position_embeddings") or config.get("n_positions") or stated
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):  # positions start after the padding id
        positions -= config.get("pad_token_id", 1) + 1
    return int(min(stated, positions))


def _converted(folder: Path) -> Tokenizer:
    """A folder with an older tokenizer format: transformers converts it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"Folder {str(folder)!r} has no tokenizer that can be read ({error}).") from None
    if tokenizer.get_vocab_size() <= 8:  # what transformers makes of a folder without one: special tokens alone
        raise InputError(f"Folder {str(folder)!r} has no tokenizer that can be read. Put its tokenizer.json there.")
    return tokenizer
