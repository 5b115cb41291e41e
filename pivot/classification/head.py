"""The classifier's head on an encoder's features, its losses, and what trains with it.

VIP-ANT's code has LayerNorm, a linear layer and a learnable scale on the raw feature, which is not
normalised to unit length; its paper speaks of a linear layer. LAION-CLAP's heads, on the same kind
of feature, are that layer or two with ReLU and dropout between (laion_clap, linear_probe).
Legend: B clips, D numbers of a feature (512 for ViT-B/32), C classes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.encoders.blocks import LayerNorm
from pivot.encoders.projection import ProjectedAudio, encoder_of
from pivot.errors import SettingsError
from pivot.model_folder import Audio
from pivot.settings import LossSettings
from pivot.training.loss import LogitScale

HEAD = 5101  # names the generator of a head's first weights beside others of the same seed
HIDDEN, DROPOUT = 1024, 0.1  # of the head mlp (LAION-CLAP)
Target = Literal["cross_entropy", "bce", "mse"]
Features = Literal["projected", "encoder"]


class Head(nn.Module):
    """Features (B, D) -> logits (B, C), in float32 also under autocast.

    `norm`: scale * linear(LayerNorm(x)), the scale learnt from `loss.scale_init` on (1/0.07), and
    no bias in the linear layer for `bce`, as the reference. `linear`: one linear layer with bias.
    `mlp`: linear(dropout(relu(first(x)))), 1024 wide. Parameters: norm.weight, norm.bias (D),
    first.weight (1024, D), first.bias (1024), linear.weight (C, D or 1024), linear.bias (C),
    scale.log_scale.
    """

    def __init__(
        self, kind: Literal["norm", "linear", "mlp"], dim: int, classes: int, target: Target,
        loss: LossSettings, seed: int, fold: int = 0,
    ) -> None:  # fmt: skip
        """Draw the first weights of a layer of D inputs as torch does, U(-1/sqrt(D), 1/sqrt(D)).

        They are those of (seed, fold).
        """
        super().__init__()
        self.kind = kind
        normed = kind == "norm"
        self.norm: nn.Module = LayerNorm(dim) if normed else nn.Identity()
        self.first: nn.Linear | None = None
        if kind == "mlp":
            self.first = nn.utils.skip_init(nn.Linear, dim, HIDDEN)
            self.dropout = nn.Dropout(DROPOUT)
        bias = not (normed and target == "bce")
        width = HIDDEN if kind == "mlp" else dim
        self.linear = nn.utils.skip_init(nn.Linear, width, classes, bias=bias)
        self.scale: LogitScale | None = None
        if normed:
            self.scale = LogitScale.of(loss)
        rng = np.random.default_rng([seed, HEAD, fold])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for layer in filter(None, (self.first, self.linear)):
            bound = layer.in_features**-0.5
            for values in layer.parameters():
                nn.init.uniform_(values, -bound, bound, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, scaled."""
        with torch.autocast(features.device.type, enabled=False):
            x = self.norm(features.float())
            if self.first is not None:
                x = self.dropout(F.relu(self.first(x)))
            logits = self.linear(x)
            return logits if self.scale is None else self.scale() * logits


def classification_loss(logits: Tensor, targets: Tensor, target: Target) -> Tensor:
    """Mean loss of logits (B, C) against targets (B, C): 0 and 1, or mixed between them.

    cross_entropy: -sum_c t_c log softmax(z)_c, a mean over clips. bce: the binary cross entropy of
    each label, and mse: (z_c - t_c)^2, means over clips and classes.
    """
    logits, targets = logits.float(), targets.float()
    if target == "cross_entropy":
        return F.cross_entropy(logits, targets)
    if target == "mse":
        return F.mse_loss(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def source_of(encoder: Audio, features: Features) -> Audio:
    """The module whose output the head sees: `encoder`, or without the projection behind it."""
    own: Audio = encoder_of(encoder) if features == "encoder" else encoder
    return own


def train_last(
    encoder: Audio, last_layers: int | Literal["all"], features: Features = "projected"
) -> list[nn.Module]:
    """Let only the last layers of `encoder` train; returns the modules that do.

    k > 0: the last k blocks, what comes after them, and a projection that the head sees; 0:
    nothing; all: everything that the head sees the end of. Frozen parameters get no gradient, and
    backward stops at the first block that trains. Raises SettingsError for more blocks than there
    are; `AudioEncoder.layers` says what a block is.
    """
    encoder.requires_grad_(False)
    source = source_of(encoder, features)
    if last_layers == "all":
        return [source.requires_grad_(True)]
    body = encoder_of(source)
    _, blocks, after = body.layers()
    if last_layers > len(blocks):
        raise SettingsError(
            f"--last-layers {last_layers} is more than the encoder's {len(blocks)} blocks; "
            f"take at most {len(blocks)}, or all (which trains what comes before them, too)"
        )
    if last_layers == 0:
        return []
    last = [*blocks[-last_layers:], *after]
    if isinstance(source, ProjectedAudio):
        last.append(source.projection)
    return [module.requires_grad_(True) for module in last]
