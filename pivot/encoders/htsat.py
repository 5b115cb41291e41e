"""HTSAT: transformers' Swin body of ClapAudioModel, with LAION-CLAP's feature fusion around it.

The log-mel is folded into a square: its frames, stretched to four times the square's width, become
four bands of mel bins, one above the other. What transformers lacks of LAION's training is here:
every kind of fusion but AFF 2D, one longer sound alone in a batch, stripes, and branches left out
in both halves of a block. Weights have transformers' names (`audio_encoder.layers.0. ...`).
LAION marks a random short sound as longer in a batch without a longer one, so that the fusion
gets a gradient; here it gets one of zeros, and the sound stays what it is.
Shapes: B sounds, V views, T frames, M mel bins, S rows and columns of the square, N tokens,
D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import (
    ClapAudioModel,
    ClapAudioSelfAttention,
    ClapDropPath,
)

from pivot.audio.views import unpack
from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.htsat_fusion import PATCH, VIEWS, MelFusion, PatchEmbedding, with_stripes
from pivot.encoders.htsat_names import FAMILY, LEFT_OUT, MASK, settings_of, speller, split
from pivot.encoders.published import size_of, take_over
from pivot.errors import ModelError
from pivot.settings.encoders import HtsatSettings
from pivot.settings.front_ends import HtkDbSettings, SlaneyDbSettings


def published(
    weights: Mapping[str, Tensor],
) -> tuple[HtsatSettings, dict[str, Tensor], list[str]]:
    """A publisher's bare state dict -> settings, the encoder's own state dict, names left out.

    LAION's names (and Microsoft's of 2023), without `audio_branch.`, or transformers', of
    ClapAudioModel; sizes and the kind of fusion are read from names and shapes (of iAFF, the
    repository's). What an encoder has by its sizes alone may be absent: index tables, counts.
    Left out are the class heads, the extractors of LAION's own front end, and attention masks.
    ModelError names what is unknown, missing or of another shape.
    """
    spell = speller(weights)
    settings = settings_of(weights, spell)
    (mels,) = size_of(FAMILY, weights, spell("audio_encoder.batch_norm.weight"), (None,))
    views: Any = "one" if settings.fusion == "none" else "fusion"
    audio = HtkDbSettings(num_mel_bins=mels, num_frames=1, views=views)
    with torch.device("meta"):
        encoder = Htsat(settings, audio)
    known = {spell(name): value for name, value in _by_size(encoder).items()}
    masks = [name for name in weights if MASK.search(name)]
    theirs = split({n: w for n, w in weights.items() if n not in masks})
    index = {name: value for name, value in known.items() if value.ndim}
    state, left = take_over(FAMILY, known | theirs | index, encoder, spell, LEFT_OUT)
    return settings, state, [*left, *masks]


def _by_size(encoder: Htsat) -> dict[str, Tensor]:
    """What the sizes of an encoder tell of its state dict: position indices, and counts of 0."""
    found = {}
    for name, value in encoder.state_dict().items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(0)
        if name.endswith("relative_position_index"):
            side = round(value.shape[0] ** 0.5)
            attention = ClapAudioSelfAttention(ClapAudioConfig(window_size=side), 1, 1, side)
            found[name] = attention.relative_position_index
    return found


class Htsat(AudioEncoder):
    """Log-mel -> features (B, D): the mean over the tokens of the last map, normed.

    Tokens (B, N, D) are in order of time, those of the same time from low to high; `grid` is
    (time, mel), 32 and 2 for the published sizes.
    """

    KIND = "htsat"

    def __init__(
        self, settings: HtsatSettings, audio: HtkDbSettings | SlaneyDbSettings | Any
    ) -> None:
        """Random weights; ModelError for sizes that do not go together."""
        super().__init__(settings, audio)
        width, depths = settings.shape()
        _check_sizes(settings, audio)
        last = settings.spec_size // (PATCH * 2 ** (len(depths) - 1))  # rows of the last map
        self.bands = settings.spec_size // audio.num_mel_bins
        self.dim = width * 2 ** (len(depths) - 1)
        self.grid = (self.bands * last, last // self.bands)
        self.audio_encoder = _body(settings, audio.num_mel_bins)
        self.audio_encoder.patch_embed = PatchEmbedding(width, settings.fusion)
        self.mel_fusion = (
            MelFusion(audio.num_mel_bins, settings.fusion) if "_1d" in settings.fusion else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encoder input -> features (B, D).

        Without fusion (B, T, M), or (B, V, T + 1, M) of several windows. With it the four views
        (B, 4, T + 1, M), of which the last three have a share of sound where a sound is longer, or
        (B, T, M) of sounds that are not.
        """
        if self.settings.fusion == "none":
            return super().forward(x)
        return self.embed_tokens(x).mean(1)

    def embed_tokens(self, x: Tensor) -> Tensor:
        """Encoder input, as `forward` takes it -> tokens (B, N or V * N, D)."""
        self._check(x)
        if self.settings.fusion == "none" or x.ndim == 3:
            return super().embed_tokens(x)
        views, shares = unpack(x)
        return self.view_tokens(views, shares[:, 1] > 0)

    def window_tokens(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) of one window each, log-mel (B, T, M), none of them longer."""
        views = x[:, None].expand(-1, 1 if self.settings.fusion == "none" else VIEWS, -1, -1)
        return self.view_tokens(views, torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def view_tokens(self, views: Tensor, longer: Tensor) -> Tensor:
        """Tokens (B, N, D) of log-mels (B, 1 or V, T, M); `longer` (B,) bool says which to fuse."""
        body = self.audio_encoder
        x = body.batch_norm(views.transpose(1, 3)).transpose(1, 3)
        if self.mel_fusion is not None:
            x = self.mel_fusion(x, longer)
        if self.training and self.settings.stripes:
            x = with_stripes(x)
        tokens = body.patch_embed(body.reshape_mel2img(x), longer)
        for stage, resolution in zip(body.layers, body.input_resolutions, strict=True):
            tokens = stage(tokens, resolution)[0]
        return self._in_order_of_time(body.norm(tokens))

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """Modules before the blocks, the blocks with what shrinks the map after them, the norm."""
        body = self.audio_encoder
        before = [body.batch_norm, body.patch_embed]
        blocks = [nn.ModuleList([block]) for stage in body.layers for block in stage.blocks]
        end = -1
        for stage in body.layers:
            end += len(stage.blocks)
            if stage.downsample is not None:
                blocks[end].append(stage.downsample)
        return [*before, *([self.mel_fusion] if self.mel_fusion else [])], blocks, [body.norm]

    def _in_order_of_time(self, tokens: Tensor) -> Tensor:
        """Tokens row by row of the square -> band by band, each band column by column."""
        rows = tokens.unflatten(1, (self.bands, self.grid[1], -1))  # (B, bands, mel, columns, D)
        return rows.transpose(2, 3).flatten(1, 3)

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        if self.settings.fusion != "none" and x.ndim == 4 and x.shape[1] != VIEWS:
            raise ModelError(
                f"the htsat encoder with fusion {self.settings.fusion} takes {VIEWS} views of a "
                f"sound, not {x.shape[1]}; use a front end with audio.views fusion"
            )


def _body(settings: HtsatSettings, mels: int) -> Any:
    """transformers' ClapAudioEncoder without weights of anybody, as LAION trains it."""
    width, depths = settings.shape()
    config = ClapAudioConfig(
        window_size=settings.window,
        num_mel_bins=mels,
        spec_size=settings.spec_size,
        patch_size=PATCH,
        patch_stride=(PATCH, PATCH),
        hidden_size=width * 2 ** (len(depths) - 1),
        depths=depths,
        num_attention_heads=settings.heads,
        num_hidden_layers=len(depths),
        patch_embeds_hidden_size=width,
        drop_path_rate=settings.drop_path,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    body: Any = ClapAudioModel(config).audio_encoder
    for i, (stage, resolution) in enumerate(zip(body.layers, body.input_resolutions, strict=True)):
        for block in stage.blocks:
            if isinstance(block.drop_path, ClapDropPath):
                # transformers leaves out the attention's branch alone, LAION the other as well
                block.output.dropout = ClapDropPath(block.drop_path.drop_prob)
            window = min(resolution)
            if window < settings.window:  # transformers' own would not fit the map
                heads = settings.heads[i]
                block.attention.self = ClapAudioSelfAttention(config, width * 2**i, heads, window)
    return body


def _check_sizes(settings: HtsatSettings, audio: Any) -> None:
    """ModelError for sizes that do not go together."""
    width, depths = settings.shape()
    mels, frames, side = audio.num_mel_bins, audio.num_frames, settings.spec_size
    cell = PATCH * 2 ** (len(depths) - 1)  # mel bins of a token of the last map
    said = None
    if len(settings.heads) != len(depths):
        said = f"encoder.heads {settings.heads} needs one number for each of {len(depths)} stages"
    elif odd := [i for i, n in enumerate(settings.heads) if width * 2**i % n]:
        said = (
            f"encoder.heads: {settings.heads[odd[0]]} heads do not share {width * 2 ** odd[0]} "
            f"numbers of a token in stage {odd[0] + 1} evenly"
        )
    elif mels % cell:
        said = f"audio.num_mel_bins {mels} needs to be a multiple of {cell}"
    elif side % mels:
        said = f"encoder.spec_size {side} needs to be a multiple of audio.num_mel_bins {mels}"
    elif frames > side * (side // mels):
        said = (
            f"audio.num_frames {frames} does not fit a square of encoder.spec_size {side}; take at "
            f"most {side * (side // mels)} frames"
        )
    elif settings.fusion == "none" and getattr(audio, "views", "one") != "one":
        said = f"audio.views {audio.views} needs encoder.fusion, such as aff_2d"
    if said:
        raise ModelError(f"the htsat encoder cannot be built: {said}")
