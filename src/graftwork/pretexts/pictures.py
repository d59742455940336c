"""Rebuild a picture: of which most is hidden, or of which every pixel is noisy."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from graftwork.pretext import PicturePretext, Shown, patches_of

_LEAST = 1e-6
"""Added to a patch's variance: of one colour it has none."""


class MaskedAutoencoder(PicturePretext):
    """See a quarter of a picture, rebuild the rest: the encoder never sees a hidden patch, and is the faster for it.

    What is hidden is drawn anew each time. The loss is that of hidden patches alone, each brought to mean 0 and
    deviation 1 by itself, so that its structure counts and not its brightness.
    """

    paper: ClassVar[str] = "MAE, He et al. 2022, section 3 and table 1d"

    share: float = Field(default=0.75, gt=0, lt=1)
    """Of the patches, that are hidden."""

    def seen(self, patches: int) -> int:
        """What is not hidden, rounded down; one at least."""
        return max(1, int(patches * (1 - self.share)))

    def shown(self, pixels: Tensor, patch: int) -> Shown:
        """A random part of the patches, the same number of each picture."""
        patches = patches_of(pixels, patch)
        luck = torch.rand(patches.shape[:2], device=pixels.device)
        seen = luck.argsort(dim=1)[:, : self.seen(patches.shape[1])]
        asked = torch.ones_like(luck, dtype=torch.bool).scatter_(1, seen, False)
        mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
        return Shown(pixels, seen, asked, (patches - mean) / (variance + _LEAST).sqrt())


class ImageDenoising(PicturePretext):
    """See a picture through Gaussian noise, rebuild it clean: every patch is seen, and every pixel counts."""

    paper: ClassVar[str] = (
        "denoising autoencoders, Vincent et al. 2008, section 2, and 2010, section 3; of a transformer's patches: Chen "
        "et al. 2024, Deconstructing Denoising Diffusion Models for Self-Supervised Learning"
    )

    noise: float = Field(default=0.5, gt=0)
    """Standard deviation of what is added to each number of a pixel; pixels lie in [-1, 1]."""

    def shown(self, pixels: Tensor, patch: int) -> Shown:
        """The noisy picture, whole."""
        answers = patches_of(pixels, patch)
        every = torch.arange(answers.shape[1], device=pixels.device).expand(answers.shape[:2])
        noisy = pixels + self.noise * torch.randn_like(pixels)
        return Shown(noisy, every, torch.ones_like(every, dtype=torch.bool), answers)
