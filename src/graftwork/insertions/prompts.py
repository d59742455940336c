"""Vectors that the encoder reads beside the text: a prompt before its words, or a prefix before what each head sees.

Both are shared by all texts, and neither has a say in what is handed on: the states are those of the text's positions.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork import layers
from graftwork.choice import InputError
from graftwork.insertion import NAME, Insertion, hang

_ATTENTION = "graftwork-prefix"
_ASIDE = 4.0
"""How much lower than a word a fresh prefix scores. On validation of BANKING77 (all-MiniLM-L6-v2, 8 texts a class, 10
vectors) a probe reads 83.1 % without a prefix; with one that scores lower by 0, 2, 4 or 8: 79.9, 82.6, 83.1, 82.6 %."""


# --- before the words ---


class PromptVectors(nn.Module):
    """Vectors that stand where the embeddings of words stand, before those of the text.

    Each has the position of the first word, so that the text keeps its own positions and all of them.

    Args:
        vectors: (length, dim).
    """

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.length = len(vectors)
        self.vectors = nn.Parameter(vectors.detach().clone())

    def before_encoder(
        self, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The encoder's arguments: embeddings instead of ids, longer by the prompt, as are mask and positions."""
        kwargs = dict(kwargs)
        ids = kwargs.pop("input_ids", None)
        words = kwargs["inputs_embeds"] if ids is None else encoder.get_input_embeddings()(ids)  # (batch, length, dim)
        positions = kwargs.get("position_ids")
        if positions is None:
            positions = first_position(encoder) + torch.arange(words.shape[1], device=words.device)[None]
        prompt = self.vectors.to(words.dtype).expand(words.shape[0], -1, -1)  # len() would fix the batch in a graph
        return args, kwargs | {
            "inputs_embeds": torch.cat([prompt, words], dim=1),
            "attention_mask": F.pad(kwargs["attention_mask"], (self.length, 0), value=1),
            "position_ids": torch.cat([positions[:, :1].expand(-1, self.length), positions], dim=1),
        }

    def after_encoder(self, _encoder: nn.Module, _args: Any, output: Any) -> Any:
        """The encoder's output, of the text's positions alone."""
        output["last_hidden_state"] = output["last_hidden_state"][:, self.length :]
        if output.get("hidden_states") is not None:
            output["hidden_states"] = tuple(states[:, self.length :] for states in output["hidden_states"])
        return output


class Prompt(Insertion):
    """Vectors before the embeddings of the text's words."""

    paper: ClassVar[str] = "Lester et al. 2021, section 2"
    lengthens: ClassVar[bool] = True

    length: int = Field(default=10, ge=1)
    """How many."""

    def into(self, encoder: nn.Module) -> None:
        """Hang them on the first block, which is what reads them; they start as the vocabulary's first pieces.

        Raises:
            InputError: the encoder does not take embeddings and their positions instead of ids.
        """
        takes = inspect.signature(type(encoder).forward).parameters
        if not {"inputs_embeds", "attention_mask", "position_ids"} <= takes.keys() or not layers.stacks(encoder):
            raise InputError(
                f"A {type(encoder).__name__} takes no embeddings with positions of their own, so it cannot read a "
                "prompt. Choose another method, such as 'lora'."
            )
        table: Tensor = encoder.get_input_embeddings().weight  # type: ignore[operator]
        part = PromptVectors(table[torch.arange(self.length, device=table.device) % len(table)])
        hang(layers.stacks(encoder)[0][1][0], part)
        encoder.register_forward_pre_hook(part.before_encoder, with_kwargs=True)
        encoder.register_forward_hook(part.after_encoder)


def first_position(encoder: nn.Module) -> int:
    """The number of a text's first position: 0, but where a row of the table of positions is kept for padding."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name and module.padding_idx is not None:
            return module.padding_idx + 1  # as RoBERTa counts
    return 0


# --- before what each head sees ---


class PrefixVectors(nn.Module):
    """Keys and values that every head of one attention layer sees before those of the text.

    Args:
        config: the encoder's, which says how attention is computed.

    Attributes:
        keys: (heads, length, dim), once a text has been heard.
        values: (heads, length, dim).
        listening: whether the text that comes next is to be heard.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.listening = False
        self.register_parameter("keys", None)
        self.register_parameter("values", None)

    def hear(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> None:
        """Become what the heads see of a text, but stand aside: what is always there would else drown a short text.

        Keys move against the mean query of their head, until it scores them lower by `_ASIDE`.

        Args:
            query: (1, heads, length, dim).
            key: (1, heads, length, dim); there may be fewer heads, each for several of the queries'.
            value: as `key`.
            scaling: what a product of query and key is multiplied by.
        """
        heads, _, dim = key[0].shape
        usual = query[0].mean(dim=1).view(heads, -1, dim).mean(dim=1, keepdim=True)  # (heads, 1, dim)
        aside = _ASIDE / scaling * usual / usual.square().sum(dim=2, keepdim=True)
        self.keys, self.values = (
            nn.Parameter((key[0] - aside).contiguous()),
            nn.Parameter(value[0].clone().contiguous()),
        )

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, heads, length, dim) each, to the same with those of the prefix before them."""
        batch = key.shape[0]  # len() would fix it in an exported graph
        return (
            torch.cat([self.keys.to(key.dtype).expand(batch, -1, -1, -1), key], dim=2),
            torch.cat([self.values.to(value.dtype).expand(batch, -1, -1, -1), value], dim=2),
        )


class Prefix(Insertion):
    """Keys and values before those of the text, in every attention of the encoder."""

    paper: ClassVar[str] = "Li & Liang 2021, section 4"

    length: int = Field(default=10, ge=1)
    """How many a head."""

    def into(self, encoder: nn.Module) -> None:
        """Hang them on each attention layer; they start near what its heads see of the vocabulary's first pieces.

        A layer with a prefix computes attention through `_attend`, and has a config of its own that says so; the
        encoder's own config stays, and so does what others read from it and write into it.

        Raises:
            InputError: the encoder computes attention in a way of its own.
        """
        from transformers import AttentionInterface

        AttentionInterface.register(_ATTENTION, _attend)
        # what transformers' attention functions read of the layer that calls them
        attending: list[Any] = [m for m in encoder.modules() if hasattr(m, "is_causal") and hasattr(m, "config")]
        parts = []
        for layer in attending:
            parts.append(PrefixVectors(layer.config))
            hang(layer, parts[-1])
            layer.config = copy.copy(layer.config)
            layer.config._attn_implementation = _ATTENTION
        listen(encoder, torch.arange(self.length) % len(encoder.get_input_embeddings().weight), parts)  # type: ignore[operator]
        if not parts or any(part.keys is None for part in parts):
            raise InputError(
                f"A {type(encoder).__name__} computes attention in a way of its own and cannot be given a prefix. "
                "Choose another method, such as 'lora'."
            )


@torch.no_grad()
def listen(encoder: nn.Module, ids: Tensor, prefixes: list[PrefixVectors]) -> None:
    """Let prefixes `hear` a text of pieces `ids`, (length,)."""
    for prefix in prefixes:
        prefix.listening = True
    try:
        ids = ids[None].to(next(encoder.parameters()).device)
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for prefix in prefixes:
            prefix.listening = False


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention as the encoder's config has it, over the prefixes of `module` and then over the text.

    Args:
        module: the attention layer that they hang on.
        query: (batch, heads, length, dim).
        key: (batch, heads, length, dim).
        value: (batch, heads, length, dim).
        attention_mask: (batch, heads or 1, length or 1, length), added to the scores, or true where one may look.
        scaling: what a product of query and key is multiplied by.
        more: as transformers gives it.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    length = query.shape[2]
    parts = [part for part in getattr(module, NAME).values() if isinstance(part, PrefixVectors)]
    if attention_mask is None and module.is_causal:
        attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=query.device).tril()
    for part in reversed(parts):
        if part.listening:
            part.hear(query, key, value, scaling)
        else:
            key, value = part(key, value)
    if attention_mask is not None:  # everything looks at the prefixes
        attention_mask = F.pad(attention_mask, (key.shape[2] - length, 0), value=attention_mask.dtype == torch.bool)
    compute = AttentionInterface().get_interface(parts[0].config._attn_implementation, sdpa_attention_forward)
    return compute(module, query, key, value, attention_mask, scaling=scaling, **more | {"is_causal": False})
