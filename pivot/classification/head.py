"""The classifier's head on the projected feature, its losses, and what trains with it.

VIP-ANT's code has LayerNorm, a linear layer and a learnable scale on the raw feature, which is not
normalised to unit length; its paper speaks of a linear layer. Both are here.
Legend: B clips, D numbers of a feature (512 for ViT-B/32), C classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.encoders.blocks import LayerNorm
from pivot.encoders.projection import ProjectedAudio
from pivot.encoders.vit import AudioVit
from pivot.errors import SettingsError
from pivot.settings import LossSettings
from pivot.training.loss import LogitScale

HEAD = 5101  # names the generator of a head's first weights beside others of the same seed
Target = Literal["cross_entropy", "bce"]


class Head(nn.Module):
    """Features (B, D) -> logits (B, C), in float32 also under autocast.

    `norm`: scale * linear(LayerNorm(x)), the scale learnt from `loss.scale_init` on (1/0.07), and
    no bias in the linear layer for `bce`, as the reference. `linear`: one linear layer with bias.
    Parameters: norm.weight, norm.bias (D), linear.weight (C, D), linear.bias (C), scale.log_scale.
    """

    def __init__(
        self, kind: Literal["norm", "linear"], dim: int, classes: int, target: Target,
        loss: LossSettings, seed: int, fold: int = 0,
    ) -> None:  # fmt: skip
        """Draw the first weights as torch does, U(-1/sqrt(D), 1/sqrt(D)), from (seed, fold)."""
        super().__init__()
        self.kind = kind
        normed = kind == "norm"
        self.norm: nn.Module = LayerNorm(dim) if normed else nn.Identity()
        bias = not (normed and target == "bce")
        self.linear = nn.utils.skip_init(nn.Linear, dim, classes, bias=bias)
        self.scale: LogitScale | None = None
        if normed:
            self.scale = LogitScale(loss.scale_init, loss.scale_max, loss.learn_scale)
        rng = np.random.default_rng([seed, HEAD, fold])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for values in self.linear.parameters():
            nn.init.uniform_(values, -(dim**-0.5), dim**-0.5, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, scaled."""
        with torch.autocast(features.device.type, enabled=False):
            logits = self.linear(self.norm(features.float()))
            return logits if self.scale is None else self.scale() * logits


def classification_loss(logits: Tensor, targets: Tensor, target: Target) -> Tensor:
    """Mean loss of logits (B, C) against targets (B, C): 0 and 1, or mixed between them.

    cross_entropy: -sum_c t_c log softmax(z)_c, a mean over clips. bce: the binary cross entropy of
    each label, a mean over clips and classes.
    """
    logits, targets = logits.float(), targets.float()
    if target == "cross_entropy":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def train_last(
    encoder: AudioVit | ProjectedAudio, last_layers: int | Literal["all"]
) -> list[nn.Module]:
    """Let only the last layers of `encoder` train; returns the modules that are frozen.

    k > 0: the last k blocks, and after them `ln_post`, `proj` and a projection behind it; 0:
    nothing; all: everything, with the kernel, the class token, the positions and `ln_pre`. Frozen
    parameters get no gradient, and backward stops at the first block that trains. Raises
    SettingsError for more blocks than there are.
    """
    vit = encoder.encoder if isinstance(encoder, ProjectedAudio) else encoder
    blocks = list(vit.transformer.resblocks)
    if last_layers == "all":
        encoder.requires_grad_(True)
        return []
    if last_layers > len(blocks):
        raise SettingsError(
            f"--last-layers {last_layers} is more than the encoder's {len(blocks)} blocks; "
            f"take at most {len(blocks)}, or all (which trains the kernel and positions, too)"
        )
    encoder.requires_grad_(False)
    if last_layers == 0:
        return [encoder]
    last: list[nn.Module] = [*blocks[-last_layers:], vit.ln_post]
    if isinstance(encoder, ProjectedAudio):
        last.append(encoder.projection)
    for module in last:
        module.requires_grad_(True)
    vit.proj.requires_grad_(True)
    return [vit.conv1, vit.ln_pre, *blocks[:-last_layers]]
