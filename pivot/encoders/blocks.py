"""Transformer parts that the encoders share, fast on CPU for training and for inference.

Shapes: B items, N tokens, D width, H heads. Parameter names are torch's and open_clip's.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttentionPath = Literal["auto", "explicit", "fused"]


class LayerNorm(nn.LayerNorm):
    """LayerNorm computed in float32, also under autocast; returns float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class Scale(nn.Module):
    """Layer scale of some CLIPs: one learnt factor a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last axis."""
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention with the parameter names of torch's MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.path: AttentionPath = "auto"  # the bench forces one
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.utils.skip_init(nn.Linear, width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        batch, tokens, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self._explicit(q):
            weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1)).softmax(-1)
            mixed = torch.matmul(weights, v)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))

    def _explicit(self, q: Tensor) -> bool:
        """Training in bf16 on CPU: the fused kernel's backward pass loses there (by 1.1-1.4x).

        In float32, and at inference, the fused kernel wins on CPU too (`pivot bench train`).
        """
        if self.path != "auto":
            return self.path == "explicit"
        return q.device.type == "cpu" and q.requires_grad and q.dtype == torch.bfloat16


class Mlp(nn.Module):
    """Two linear layers with CLIP's activation between them."""

    def __init__(self, width: int, hidden: int, quick: bool) -> None:
        super().__init__()
        self.c_fc = nn.utils.skip_init(nn.Linear, width, hidden)
        self.c_proj = nn.utils.skip_init(nn.Linear, hidden, width)
        self.quick = quick

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = self.c_fc(x)
        # QuickGELU is x * sigmoid(1.702 x); as a SiLU it keeps one tensor for backward, not two
        x = F.silu(1.702 * x) / 1.702 if self.quick else F.gelu(x)
        return self.c_proj(x)


class Block(nn.Module):
    """Pre-norm transformer block; `quick` takes QuickGELU, else exact GELU."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, quick: bool, layer_scale: bool, eps: float
    ) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ln_2 = LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, quick)
        self.ls_1 = Scale(width) if layer_scale else nn.Identity()
        self.ls_2 = Scale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.ls_1(self.attn(self.ln_1(x)))
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    """The blocks, one after the other; `sizes` are those of Block."""

    def __init__(self, layers: int, **sizes: Any) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(**sizes) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        for block in self.resblocks:
            x = block(x)
        return x

    def use(self, attention: AttentionPath) -> None:
        """Force how attention is computed, in all blocks."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.path = attention
