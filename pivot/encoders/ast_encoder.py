"""AST (transformers' ASTModel): a ViT over FBANK with a class and a distillation token.

Source: Gong et al., AST: Audio Spectrogram Transformer (2021, arXiv:2104.01778).
Shapes: B sounds, T FBANK frames, M mel bins, N patches, D width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import ASTConfig, ASTModel

from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.published import HEAD, depth_of, size_of, take_over
from pivot.encoders.vit_shape import patch_grid
from pivot.errors import ModelError
from pivot.settings.encoders import AstSettings
from pivot.settings.front_ends import AudioSettings

FAMILY = "AST"
FRAMES = 1024  # of the published encoders' windows
POSITIONS = "embeddings.position_embeddings"
PREFIX = "audio_spectrogram_transformer."  # before the encoder's names in a classifier's file
QKV = {"q": "query", "k": "key", "v": "value"}
# names in files, where they differ from those of the module
SPELT = (
    (r"\.attention\.([qkv])_proj\.", lambda m: f".attention.attention.{QKV[m[1]]}."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^layers\.", "encoder.layer."),
)


class Ast(AudioEncoder):
    """FBANK -> features (B, D): the mean of a window's class and distillation token."""

    KIND = "ast"

    def __init__(self, settings: AstSettings, audio: AudioSettings) -> None:
        """Random weights."""
        super().__init__(settings, audio)
        if settings.width % settings.heads:
            raise ModelError(
                f"{settings.heads} heads do not divide the ast encoder's width {settings.width}; "
                "take another --encoder.heads"
            )
        self.dim = settings.width
        self.grid = self._cells(audio.num_frames)
        config = ASTConfig(
            hidden_size=settings.width,
            intermediate_size=4 * settings.width,
            num_hidden_layers=settings.depth,
            num_attention_heads=settings.heads,
            patch_size=settings.patch,
            time_stride=settings.stride[0],
            frequency_stride=settings.stride[1],
            max_length=audio.num_frames,
            num_mel_bins=audio.num_mel_bins,
        )
        self.body = ASTModel(config)

    def window_tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) of the patches of windows (B, T, M), column of time by column."""
        patches = self._outputs(x).last_hidden_state[:, 2:]
        return patches.unflatten(1, (self.grid[1], -1)).transpose(1, 2).flatten(1, 2)

    def window_features(self, x: Tensor) -> Tensor:
        """Features (B, D) of windows (B, T, M)."""
        return self._outputs(x).pooler_output

    def resized(self, num_frames: int) -> Self:
        """Copy for windows of `num_frames` frames.

        Shorter ones have the first of the positions in time, for longer ones they are resized
        (bilinear, as AST's authors).
        """
        audio = self.audio.model_copy(update={"num_frames": num_frames})
        weights = self.state_dict()
        table = self._positions(self._cells(num_frames)[0]).detach()
        weights[f"body.{POSITIONS}"] = table
        copy = self.from_weights(weights, self.facts(), self.settings, audio)
        return copy.to(table.device).train(self.training)

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """The embeddings (patches, tokens, positions), the blocks, the norm after them."""
        return [self.body.embeddings], list(self.body.layers), [self.body.layernorm]

    def _outputs(self, x: Tensor) -> Any:
        """What transformers gives; a shorter window has the first of the positions in time."""
        columns = self._cells(x.shape[1])[0]
        if columns == self.grid[0]:
            return self.body(x)
        return functional_call(self.body, {POSITIONS: self._positions(columns)}, (x,))

    def _positions(self, columns: int) -> Tensor:
        """Positions (1, 2 + mel * columns, D), of frequency by frequency."""
        table = self.body.embeddings.position_embeddings
        grid = table[:, 2:].mT.unflatten(2, self.grid[::-1])  # (1, D, mel, time)
        if columns <= self.grid[0]:
            grid = grid[..., :columns]
        else:
            size = (self.grid[1], columns)
            grid = F.interpolate(grid, size=size, mode="bilinear", align_corners=False)
        return torch.cat([table[:, :2], grid.flatten(2).mT], dim=1)

    def _cells(self, frames: int) -> tuple[int, int]:
        """Patches of a window along (time, mel); ModelError where there are none."""
        patch = (self.settings.patch, self.settings.patch)
        return patch_grid((frames, self.audio.num_mel_bins), patch, self.settings.stride)


def published(
    weights: Mapping[str, Tensor],
) -> tuple[AstSettings, dict[str, Tensor], list[str]]:
    """Hugging Face's AST, with or without `audio_spectrogram_transformer.` -> our encoder.

    Gives settings, the encoder's state dict, names left over (the classifier). Names are those of
    its files, or of transformers' modules from 5.9 on. Of weights for 1024 frames; the step of the
    patches is read from the number of positions. ModelError (UnknownWeights) names the first weight
    that does not fit.
    """
    prefix = PREFIX if any(name.startswith(PREFIX) for name in weights) else ""
    width = size_of(FAMILY, weights, f"{prefix}embeddings.cls_token", (1, 1, None))[2]
    kernel = f"{prefix}embeddings.patch_embeddings.projection.weight"
    patch = size_of(FAMILY, weights, kernel, (width, 1, None, None))[2]
    cells = size_of(FAMILY, weights, prefix + POSITIONS, (1, None, width))[1] - 2
    audio = AudioSettings(num_frames=FRAMES)
    in_files = any(name.startswith(f"{prefix}encoder.layer.") for name in weights)

    def spell(name: str) -> str:
        name = name.removeprefix("body.")
        for module, file in SPELT if in_files else ():
            name = re.sub(module, file, name)
        return prefix + name

    def fits(step: int) -> bool:
        time, mel = patch_grid((FRAMES, audio.num_mel_bins), (patch, patch), (step, step))
        return time * mel == cells

    step = next(filter(fits, range(1, FRAMES)), AstSettings().stride[0])
    settings = AstSettings(
        width=width,
        depth=depth_of(weights, f"{prefix}{'encoder.layer' if in_files else 'layers'}."),
        heads=max(1, width // HEAD),
        patch=patch,
        stride=(step, step),
    )
    with torch.device("meta"):
        encoder = Ast(settings, audio)
    own, left = take_over(FAMILY, weights, encoder, spell, ("classifier.",))
    return settings, own, left
