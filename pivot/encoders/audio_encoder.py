"""What every audio encoder but the ViT of CLIP shares: windows, tokens, weights, seeds.

Shapes: B sounds, V windows, T frames, M mel bins, N tokens of a window, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from pivot.audio.views import heard, masked_mean, unpack
from pivot.encoders.weights import misfit
from pivot.errors import ModelError
from pivot.settings import Settings

INIT_PURPOSE = 3103  # names the generator of initial weights beside other users of the same seed


class AudioEncoder(nn.Module):
    """Log-mel -> features. A subclass has a body, and gives the tokens of one window.

    It calls `super().__init__(settings, audio)`, sets `dim` and `grid`, and builds its modules from
    its settings alone; names of weights are its library's, and `KIND` is its row of the table.
    """

    KIND: ClassVar[str]
    dim: int  # numbers of a feature vector
    grid: tuple[int, ...]  # tokens of a window: along time, or (time, mel)

    def __init__(self, settings: Any, audio: Any) -> None:
        super().__init__()
        self.settings, self.audio = settings, audio

    @classmethod
    def start(cls, clip: Any, settings: Any, audio: Any, seed: int) -> Self:
        """Encoder with random weights, which depend on the seed alone; `clip` is not used."""
        number = int(np.random.default_rng([seed, INIT_PURPOSE]).integers(2**62))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            return cls(settings, audio)

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, Tensor], facts: dict[str, Any], settings: Any, audio: Any
    ) -> Self:
        """Trained encoder from its own state dict; ModelError names a weight that does not fit."""
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and replaced
            encoder = cls(settings, audio)
        if wrong := misfit(encoder, weights):
            raise ModelError(
                f"the weights do not fit the {cls.KIND} encoder: {wrong}; take the settings the "
                "model was trained with"
            )
        encoder.load_state_dict(dict(weights))
        return encoder

    def facts(self) -> dict[str, Any]:
        """What weights and settings do not tell, for a model's JSON: nothing."""
        return {}

    def window_tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) of one window each, log-mel (B, T, M)."""
        raise NotImplementedError

    def window_features(self, x: Tensor) -> Tensor:
        """Features (B, D) of one window each, log-mel (B, T, M): the mean of its tokens."""
        return self.window_tokens(x).mean(1)

    def embed_tokens(self, x: Tensor) -> Tensor:
        """Encoder input (B, T, M), or (B, V, T + 1, M) -> tokens (B, N or V * N, D)."""
        self._check(x)
        if x.ndim == 3:
            return self.window_tokens(x)
        views, _ = unpack(x)
        tokens = self.window_tokens(views.flatten(0, 1))  # (B * V, N, D)
        return tokens.reshape(len(x), -1, tokens.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Encoder input (B, T, M), or (B, V, T + 1, M) of several windows -> features (B, D).

        Several windows: the mean of their tokens as far as the sound goes.
        """
        self._check(x)
        if x.ndim == 3:
            return self.window_features(x)
        tokens, (_, shares) = self.embed_tokens(x), unpack(x)
        return masked_mean(tokens, heard(shares, tokens.shape[1] // shares.shape[1]))

    def resized(self, num_frames: int) -> Self:
        """Copy for windows of `num_frames` frames, with the same weights."""
        audio = self.audio.model_copy(update={"num_frames": num_frames})
        copy = type(self).from_weights(self.state_dict(), self.facts(), self.settings, audio)
        return copy.to(next(self.parameters()).device).train(self.training)

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """Modules that come before the blocks, the blocks from first to last, modules after them.

        `train-classifier --last-layers` counts blocks.
        """
        raise NotImplementedError

    def _check(self, x: Tensor) -> None:
        """ModelError for an input of another shape than the front end gives."""
        audio: Settings = self.audio
        mels, most = audio.num_mel_bins, audio.num_frames  # type: ignore[attr-defined]
        frames = x.shape[-2] - (x.ndim == 4)
        if x.ndim not in (3, 4) or x.shape[-1] != mels or not 0 < frames <= most:
            raise ModelError(
                f"the {self.KIND} encoder takes log-mel of (batch, up to {most} frames, {mels} mel "
                f"bins), or of several windows (batch, windows, frames + 1, mel bins), not "
                f"{tuple(x.shape)}; use the model's front end"
            )
