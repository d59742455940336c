"""A network that rebuilds pictures, as graftwork trains it: a ViT and a light decoder as encoder and head of a model.

The decoder is MAE's own in `transformers`. It is there while pictures are learned from, and not saved: what stays is
the encoder, a plain ViT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTMAEConfig, ViTModel
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEDecoder

from graftwork.head import Head, HeadNetwork
from graftwork.modalities import Image
from graftwork.model import TransferModel
from graftwork.models import quiet
from graftwork.task import Task, Window

if TYPE_CHECKING:
    from graftwork.modality import Modality
    from graftwork.pretext import PicturePretext, Shown, Size

_HEAD_WIDTH = 32  # of each of the decoder's heads


class Rebuilding(Task, abstract=True):
    """What does the rest of the picture look like."""

    name: ClassVar[str] = "rebuilding"
    selection: ClassVar[str] = "explained"

    labels: tuple[str, ...] = ("pixels",)

    def windows(self, modality: Modality, inputs: Sequence[str], labels: Sequence[Any] | None) -> Iterator[Window]:
        """One window a picture, which is its own answer."""
        for i, (pixels, lost) in enumerate(modality.read(inputs)):
            yield Window(pixels, np.zeros((), dtype=np.int8), i, lost=lost)


class RebuildingNetwork(HeadNetwork):
    """The states of the patches that were seen to every patch's numbers."""

    reads_tokens: ClassVar[bool] = True

    def __init__(self, layers: int):
        super().__init__()
        self.layers = layers
        self.decoder: nn.Module = nn.Identity()

    def meet(self, model: TransferModel) -> None:
        """Make a decoder for the pictures and the width of the model's encoder."""
        self.decoder = decoder_for(model.encoder.config, self.layers)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Not to be called: what was seen must be said, see `rebuilt`."""
        raise NotImplementedError

    def rebuilt(self, states: Tensor, seen: Tensor) -> Tensor:
        """Every patch, (batch, patches, numbers).

        Args:
            states: of the picture as a whole and of each patch that was seen, (batch, 1 + seen, dim).
            seen: which those are, (batch, seen).
        """
        patches = int(self.decoder.get_buffer("decoder_pos_embed").shape[1]) - 1
        there = torch.arange(seen.shape[1], device=seen.device).expand_as(seen)
        places = torch.full((len(seen), patches), seen.shape[1], device=seen.device)  # what is hidden looks all alike
        return self.decoder(states, places.scatter_(1, seen, there)).logits


class RebuildingHead(Head, abstract=True):
    """A light decoder."""

    name: ClassVar[str] = "rebuilding"

    decoder_layers: int = 2
    """Its blocks."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `RebuildingNetwork`, which makes its decoder later."""
        return RebuildingNetwork(self.decoder_layers)


def decoder_for(config: Any, layers: int) -> nn.Module:
    """MAE's decoder of `layers` blocks for a ViT's `config`, half as wide, with random weights; positions are fixed."""
    width = max(_HEAD_WIDTH, config.hidden_size // 2)
    described = ViTMAEConfig(
        hidden_size=config.hidden_size, image_size=config.image_size, patch_size=config.patch_size,
        decoder_hidden_size=width, decoder_num_hidden_layers=layers, decoder_intermediate_size=4 * width,
        decoder_num_attention_heads=width // _HEAD_WIDTH,
    )  # fmt: skip
    described._attn_implementation = "sdpa"
    decoder = ViTMAEDecoder(described, (config.image_size // config.patch_size) ** 2)
    positions = decoder.decoder_pos_embed.detach()
    del decoder.decoder_pos_embed
    decoder.register_buffer("decoder_pos_embed", positions)  # no weights: they do not train
    return _begun(decoder)


@torch.no_grad()
def _begun(network: nn.Module) -> nn.Module:
    """The network with its products begun as MAE's are (He et al. 2022, appendix A.1), whatever the width."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
            nn.init.zeros_(module.bias) if module.bias is not None else None
    return network


def picture_model(folder: Path, pretext: PicturePretext) -> TransferModel:
    """The ViT of a folder with a fresh decoder, drawn from torch's generator.

    Args:
        folder: what `models.resolve` gave.
        pretext: says how deep the decoder is.

    Raises:
        InputError: it is no ViT of square pictures in colour.
    """
    return TransferModel.pretrained(folder, Rebuilding(), head=RebuildingHead(decoder_layers=pretext.decoder_layers))


def rebuilt(model: TransferModel, shown: Shown) -> Tensor:
    """What a model makes of what it is shown: every patch's numbers, (batch, patches, numbers), in fp32."""
    assert isinstance(model.head, RebuildingNetwork)
    with seeing(model.encoder, shown.seen):
        states = model.encoder(pixel_values=shown.pixels).last_hidden_state
    return model.head.rebuilt(states, shown.seen).float()


@contextmanager
def seeing(encoder: Any, seen: Tensor) -> Iterator[None]:
    """While open, the encoder's blocks get some patches alone, at their places, after the state of the whole.

    Args:
        encoder: a ViT.
        seen: which patches, (batch, seen).
    """

    def only(_module: nn.Module, _args: Any, states: Tensor) -> Tensor:
        places = (seen + 1)[..., None].expand(-1, -1, states.shape[2])
        return torch.cat([states[:, :1], states.gather(1, places)], dim=1)

    handle = encoder.embeddings.register_forward_hook(only)
    try:
        yield
    finally:
        handle.remove()


def start_from_nothing(size: Size, image_size: int, patch: int, folder: Path) -> None:
    """Write a ViT of random weights, drawn from torch's generator, with its preprocessing.

    Its positions, which are learned, begin as the fixed ones of MAE.

    Args:
        size: how large.
        image_size: pixels of each side.
        patch: pixels of each side of a patch.
        folder: where to.
    """
    config = ViTConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=4 * size.width, image_size=image_size, patch_size=patch,
    )  # fmt: skip
    network = ViTModel(config, add_pooling_layer=False)
    _begun(network)
    like = ViTMAEConfig(hidden_size=8, decoder_hidden_size=size.width, decoder_num_hidden_layers=0)
    with torch.no_grad():
        network.embeddings.position_embeddings.copy_(ViTMAEDecoder(like, (image_size // patch) ** 2).decoder_pos_embed)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        network.save_pretrained(folder)
    Image(image_size, patch).save(folder)


def save_encoder(model: TransferModel, folder: Path) -> None:
    """Write what `transformers` reads: the encoder and its preprocessing, without the decoder."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.encoder.save_pretrained(folder)  # type: ignore[operator]
    model.modality.save(folder)
