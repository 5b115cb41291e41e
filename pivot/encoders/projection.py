"""Projections into the joint space of two encoders, and an audio encoder with one behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.encoders.weights import misfit
from pivot.errors import ModelError
from pivot.settings.parts import EncoderSettings, FrontEndSettings, ProjectionSettings

INIT_PURPOSE = 3102  # names the generator of initial weights beside other users of the same seed
ENCODER = "encoder."  # before the names of the encoder's own weights
SOUND, TEXT = 0, 1  # sides, so that the two projections of one seed start apart


class Projection(nn.Module):
    """Features (B, d_in) -> (B, d_out), not normalised.

    none: x, where d_in is d_out. linear: W x + b (SALSA). residual: with y = W x,
    LayerNorm(y + dropout(V gelu(y))), W and V without bias (Elizalde et al., CLAP, 2022,
    arXiv:2206.04769; W is d_out x d_in, V is d_out x d_out). mlp: V relu(W x + b) + c (Wu et al.,
    LAION-CLAP, 2023, arXiv:2211.06687).
    """

    def __init__(self, kind: str, d_in: int, d_out: int, dropout: float = 0.5) -> None:
        """Start with torch's weights for linear layers. ModelError for `none` between two sizes."""
        super().__init__()
        self.kind, self.dim = kind, d_out
        if kind == "none" and d_in != d_out:
            raise ModelError(
                f"features of {d_in} numbers do not fit a space of {d_out}; take a projection "
                "(text.projection.kind or project.kind linear, residual or mlp)"
            )
        if kind == "linear":
            self.linear = nn.Linear(d_in, d_out)
        if kind in ("residual", "mlp"):
            self.first = nn.Linear(d_in, d_out, bias=kind == "mlp")
            self.second = nn.Linear(d_out, d_out, bias=kind == "mlp")
        if kind == "residual":
            self.dropout = nn.Dropout(dropout)
            self.norm = nn.LayerNorm(d_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d_in) -> (B, d_out)."""
        if self.kind == "linear":
            return self.linear(x)
        if self.kind == "mlp":
            return self.second(self.first(x).relu())
        if self.kind == "residual":
            first = self.first(x)
            return self.norm(first + self.dropout(self.second(F.gelu(first))))
        return x


def build_projection(
    settings: ProjectionSettings, d_in: int, d_out: int, seed: int, side: int
) -> Projection:
    """Projection with weights that depend on (seed, side) alone; side: SOUND or TEXT."""
    number = int(np.random.default_rng([seed, INIT_PURPOSE, side]).integers(2**62))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        return Projection(settings.kind, d_in, d_out, settings.dropout)


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load a whole state dict; ModelError names the first tensor that `name` lacks or has else."""
    if wrong := misfit(module, weights):
        raise ModelError(
            f"the weights of {name} do not fit its settings: {wrong}; restore both files"
        )
    module.load_state_dict(dict(weights))


class ProjectedAudio(nn.Module):
    """An audio encoder of the table and a projection behind it; has the interface of an encoder."""

    def __init__(self, encoder: Any, projection: Projection, projected: ProjectionSettings) -> None:
        super().__init__()
        self.encoder, self.projection, self.projected = encoder, projection, projected

    @classmethod
    def of(cls, encoder: Any, settings: ProjectionSettings, seed: int) -> ProjectedAudio:
        """Put a new projection behind `encoder`; `settings.dim` None keeps its dimension."""
        dim = settings.dim or encoder.dim
        projection = build_projection(settings, encoder.dim, dim, seed, SOUND)
        return cls(encoder, projection, settings.model_copy(update={"dim": dim}))

    @classmethod
    def from_weights(
        cls,
        kind: Any,
        weights: Mapping[str, Tensor],
        facts: dict[str, Any],
        settings: EncoderSettings,
        audio: FrontEndSettings,
        projected: ProjectionSettings,
    ) -> ProjectedAudio:
        """Build a trained one from its own state dict; `kind` is the class of the encoder."""
        own = {n[len(ENCODER) :]: v for n, v in weights.items() if n.startswith(ENCODER)}
        encoder = kind.from_weights(own, facts, settings, audio)
        projection = Projection(
            projected.kind, encoder.dim, projected.dim or encoder.dim, projected.dropout
        )
        found = cls(encoder, projection, projected)
        load_weights(found, weights, "the audio encoder")
        return found

    @property
    def dim(self) -> int:
        """Numbers of a feature vector."""
        return self.projection.dim

    @property
    def grid(self) -> Any:
        """Grid of the encoder itself."""
        return self.encoder.grid

    @property
    def settings(self) -> Any:
        """Settings of the encoder itself."""
        return self.encoder.settings

    @property
    def audio(self) -> Any:
        """Settings of the front end that the encoder itself sees."""
        return self.encoder.audio

    def facts(self) -> dict[str, Any]:
        """What the encoder's weights do not tell about it."""
        found: dict[str, Any] = self.encoder.facts()
        return found

    def resized(self, num_frames: int) -> ProjectedAudio:
        """Return a copy for windows of `num_frames` frames; the projection is shared."""
        return ProjectedAudio(self.encoder.resized(num_frames), self.projection, self.projected)

    def embed_tokens(self, x: Tensor) -> Tensor:
        """Encoder input -> tokens (B, N, D) of the encoder itself, before the projection."""
        tokens: Tensor = self.encoder.embed_tokens(x)
        return tokens

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """Modules before the blocks, the blocks, modules after them; the last is the projection."""
        before, blocks, after = self.encoder.layers()
        return before, blocks, [*after, self.projection]

    def forward(self, x: Tensor) -> Tensor:
        """Encoder input (B, T, M), or (B, V, T + 1, M) of several windows, see audio.views.

        Gives features of the joint space (B, dim), not normalised.
        """
        return self.projection(self.encoder(x).float())


def encoder_of(audio: Any) -> Any:
    """An audio encoder, without the projection behind it where there is one."""
    return audio.encoder if isinstance(audio, ProjectedAudio) else audio
