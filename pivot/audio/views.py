"""Several log-mels of one sound as one tensor: windows of a long sound, or the views of fusion.

Below the frames of each view lies one more row, whose first number says which share of the view is
sound: 1 for a whole one, less where the sound ends in it, 0 for a view that is not there.
Shapes: B sounds, V views, T frames, M mel bins, N tokens of a view.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack(views: Tensor, shares: Tensor) -> Tensor:
    """Views (..., V, T, M) and their shares (..., V) -> encoder input (..., V, T + 1, M)."""
    row = views.new_zeros(*views.shape[:-2], 1, views.shape[-1])
    row[..., 0, 0] = shares.to(views)
    return torch.cat([views, row], dim=-2)


def unpack(x: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder input (..., V, T + 1, M) -> views (..., V, T, M) and their shares (..., V)."""
    return x[..., :-1, :], x[..., -1, 0]


def heard(shares: Tensor, tokens: int) -> Tensor:
    """Which of the tokens (B, V * N) are of sound, N = `tokens` a view: the first ceil(s * N) ones.

    s is the sum of a sound's shares (B, V), so tokens count as far as the sound goes (SALSA); one
    of no sound at all keeps its first token.
    """
    # a share is a quotient of whole samples in float32: what is a hair above a token is that token
    wanted = (shares.double().sum(-1, keepdim=True) * tokens - 1e-6).ceil().clamp_min(1)
    return torch.arange(shares.shape[-1] * tokens, device=shares.device) < wanted


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, D) of tokens (B, N, D) over those that `mask` (B, N) has."""
    weights = mask.to(tokens.dtype)
    return (tokens * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
