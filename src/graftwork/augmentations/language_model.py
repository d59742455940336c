"""Language models from a folder: loaded whole or refused with a reason, and drawn from.

Everything of `transformers` that the kinds on this shelf need is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from graftwork.choice import InputError, first_line
from graftwork.modalities.text import Text
from graftwork.models import load_language_model, load_network, resolve

if TYPE_CHECKING:
    from graftwork.hardware import Hardware


@dataclass(frozen=True)
class LanguageModel:
    """A network with its language-model head, in eval mode, and its tokenizer."""

    folder: Path
    network: Any
    tokenizer: Any
    max_length: int
    """Tokens it reads at most."""

    @classmethod
    def load(cls, folder: str, kind: str, hardware: Hardware, *, asked_by: str) -> LanguageModel:
        """The model of a folder.

        Args:
            folder: as `models.resolve` takes it.
            kind: `masked`, `sequence-to-sequence` or `causal`.
            hardware: where it runs.
            asked_by: the field that named it, for messages.

        Raises:
            InputError: no folder was named, nothing is there, or the model there is not of this kind.
        """
        if not folder:
            raise InputError(f"Give the folder of a {kind} language model: {asked_by}=FOLDER.")
        path = resolve(folder)
        network = load_language_model(path, kind, remedy=f"Give {asked_by} a model that was saved with its head.")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"The tokenizer in {str(path)!r} cannot be loaded: {first_line(error)}") from None
        tokenizer.padding_side = "left" if kind == "causal" else "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        positions = getattr(network.config, "max_position_embeddings", None) or 512
        return cls(path, network.to(hardware.torch_device()), tokenizer, min(tokenizer.model_max_length, positions))

    @torch.inference_mode()
    def write(
        self,
        texts: Sequence[str],
        luck: Sequence[np.random.Generator],
        *,
        room: Sequence[int] | np.ndarray,
        top_k: int,
        temperature: float,
    ) -> list[str]:
        """What the model writes after each text (causal), or for it, drawn token by token.

        Args:
            texts: prompts or sources; none longer than the model reads.
            luck: a generator a text.
            room: new tokens at most, a text.
            top_k: the most probable tokens that are drawn from.
            temperature: logits are divided by this first.
        """
        tokenizer, network = self.tokenizer, self.network
        inputs = tokenizer(list(texts), padding=True, return_tensors="pt", return_token_type_ids=False)
        drawn = LogitsProcessorList([Draw(luck, top_k=top_k, temperature=temperature)])
        written = network.generate(
            **inputs.to(network.device), logits_processor=drawn, max_new_tokens=int(max(room)), do_sample=False,
            num_beams=1, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        # after a prompt stands what is new; a decoder of its own begins with one token that only starts it
        new = written[:, 1 if network.config.is_encoder_decoder else inputs["input_ids"].shape[1] :]
        return [tokenizer.decode(row[:most], skip_special_tokens=True) for row, most in zip(new, room, strict=True)]

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text, special ones included: (n,) int64."""
        return np.array([len(ids) for ids in self.tokenizer(list(texts))["input_ids"]], dtype=np.int64)


class Draw(LogitsProcessor):
    """Turns greedy decoding into draws, each row from its own generator.

    The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954; Maddison et al. 2014, section 2).
    So what is written for a text does not depend on the batch it stands in, and no global state is touched.
    """

    def __init__(self, luck: Sequence[np.random.Generator], *, top_k: int, temperature: float):
        self.luck, self.top_k, self.temperature = luck, top_k, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (batch, vocabulary) to 0 for the token drawn, and -inf for all others."""
        best, ids = scores.float().topk(min(self.top_k, scores.shape[-1]))  # (batch, k)
        noise = np.stack([own.gumbel(size=best.shape[1]) for own in self.luck])
        drawn = (best / self.temperature + torch.from_numpy(noise).to(best)).argmax(dim=1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter_(1, ids.gather(1, drawn), 0.0)


def word_embeddings(folder: str, asked_by: str) -> tuple[Tokenizer, np.ndarray]:
    """A model's tokenizer and its table of input embeddings: (vocabulary, dim).

    Raises:
        InputError: nothing is there, or it cannot be read.
    """
    path = resolve(folder)
    network, _ = load_network(transformers.AutoModel, path, how=f" for {asked_by}")
    return Text.from_folder(path).tokenizer, network.get_input_embeddings().weight.detach().float().numpy()
