"""Audio encoder from the visual ViT of a CLIP: one-channel, overlapping patches of an FBANK.

The FBANK's rows are time and its columns mel bins; CLIP's vertical axis becomes time, nothing is
transposed. State-dict names are those of open_clip's image encoder, so weights map one to one.

An FBANK has one channel and CLIP's kernel W three. `runtime_mean` trains W and multiplies with its
mean over the channels, as VIP-ANT's code; `load_mean` trains the mean itself, as its paper reads.
Both start with the same features, but LARS makes a step as long as eta |w| of the tensor that it
trains: under runtime_mean the mean kernel moves |W| / (sqrt(3) |mean W|) times as far, 1 for three
equal channels, 1.73 for independent ones (tests/test_encoders.py).
Shapes: B sounds, T FBANK frames, M mel bins, N tokens (class token first), D width, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from pivot.encoders.blocks import AttentionPath, LayerNorm, Transformer
from pivot.encoders.vit_shape import (
    VisualFacts,
    VitShape,
    fill_at_random,
    patch_grid,
    resize_positions,
    slice_positions,
)
from pivot.encoders.weights import misfit
from pivot.errors import ModelError
from pivot.settings import AudioSettings, VitSettings

if TYPE_CHECKING:
    from pivot.encoders.clip import FrozenClip

INIT_PURPOSE = 3101  # names the generator of initial weights beside other users of the same seed


class AudioVit(nn.Module):
    """ViT over FBANK patches; `AudioVit.from_clip` builds it, `forward` gives raw features."""

    def __init__(self, shape: VitShape, settings: VitSettings, audio: AudioSettings) -> None:
        """Allocate an encoder without values; see `from_clip`."""
        super().__init__()
        self.shape, self.settings, self.audio = shape, settings, audio
        self.grid = self._grid(audio.num_frames, audio.num_mel_bins)
        self.patches: Literal["unfold", "conv"] = "unfold"  # conv: for the bench only
        channels = 3 if settings.kernel == "runtime_mean" else 1
        self.conv1 = nn.utils.skip_init(
            nn.Conv2d, channels, shape.width, shape.patch, settings.stride, bias=False
        )
        self.class_embedding = nn.Parameter(torch.empty(shape.width))
        cells = self.grid[0] * self.grid[1]
        self.positional_embedding = nn.Parameter(torch.empty(1 + cells, shape.width))
        norm = LayerNorm(shape.width, eps=shape.facts.eps)
        self.ln_pre: nn.Module = norm if shape.norm_before else nn.Identity()
        self.transformer = Transformer(
            shape.layers,
            width=shape.width,
            heads=shape.facts.heads,
            hidden=shape.hidden,
            quick=shape.facts.activation == "quick_gelu",
            layer_scale=shape.layer_scale,
            eps=shape.facts.eps,
        )
        self.ln_post = LayerNorm(shape.width, eps=shape.facts.eps)
        self.proj = nn.Parameter(torch.empty(shape.width, shape.dim))

    @property
    def dim(self) -> int:
        """Numbers of a feature vector."""
        return self.shape.dim

    def facts(self) -> dict[str, Any]:
        """What the weights do not tell, for a model's JSON; `from_weights` takes it."""
        return asdict(self.shape.facts)

    @classmethod
    def start(
        cls, clip: FrozenClip, settings: VitSettings, audio: AudioSettings, seed: int
    ) -> AudioVit:
        """Build the encoder that goes with `clip`, at the start of training."""
        weights, facts = clip.visual_state_dict(), clip.visual_facts()
        return cls.from_clip(weights, facts, settings, audio, seed)

    @classmethod
    def from_clip(
        cls,
        visual_state_dict: Mapping[str, Tensor],
        heads: int | VisualFacts,
        settings: VitSettings,
        audio: AudioSettings,
        seed: int,
    ) -> AudioVit:
        """Build the encoder that starts from CLIP's visual weights (or has only their shapes).

        `visual_state_dict` has open_clip's names without `visual.`: conv1.weight (D, 3, 32, 32),
        class_embedding (D), positional_embedding (1 + 7 * 7, D), ln_pre, transformer.resblocks.N,
        ln_post, proj (D, dim); here the sizes of ViT-B/32, D = 768, dim = 512, 12 heads. Its
        patch positions are resized to this encoder's grid. A plain number of heads means the
        other facts are OpenAI's; `FrozenClip.visual_facts` knows them for any CLIP. `seed`
        matters for what starts at random. ModelError for what is no plain ViT.
        """
        facts = heads if isinstance(heads, VisualFacts) else VisualFacts(heads)
        shape = VitShape.of(visual_state_dict, facts)
        vit = cls(shape, settings, audio)
        unlike = sorted(visual_state_dict.keys() ^ vit.state_dict().keys())
        if unlike:
            raise ModelError(
                f"this CLIP's image encoder is no plain ViT ({unlike[0]} and {len(unlike) - 1} "
                "more names differ); choose one such as ViT-B-32-quickgelu"
            )
        vit._start_at_random(seed)
        if settings.init == "clip":
            vit._start_from(visual_state_dict)
        return vit

    @classmethod
    def random(
        cls, shape: VitShape, settings: VitSettings, audio: AudioSettings, seed: int
    ) -> AudioVit:
        """Build an encoder of any size with random weights; no CLIP needed."""
        vit = cls(shape, settings, audio)
        vit._start_at_random(seed)
        return vit

    @classmethod
    def from_weights(
        cls,
        weights: Mapping[str, Tensor],
        facts: int | VisualFacts | dict[str, Any],
        settings: VitSettings,
        audio: AudioSettings,
    ) -> AudioVit:
        """Build a trained encoder from its own state dict, as `state_dict()` gave it.

        Names are open_clip's; conv1.weight is (D, 3 or 1, patch), as `settings.kernel` says, and
        positional_embedding (1 + time * mel cells, D) of the grid of `settings.stride` and
        `audio`. A plain number of heads means OpenAI's facts; `facts()` gives a dict of them.
        ModelError names the first weight that does not fit.
        """
        if isinstance(facts, dict):
            try:
                facts = TypeAdapter(VisualFacts).validate_python(facts)
            except ValidationError as error:
                raise ModelError(f"a ViT cannot have these facts: {facts}") from error
        facts = facts if isinstance(facts, VisualFacts) else VisualFacts(facts)
        vit = cls(VitShape.of(weights, facts), settings, audio)
        if wrong := misfit(vit, weights):
            raise ModelError(
                f"the weights do not fit the settings: {wrong}; take the settings the model was "
                "trained with"
            )
        vit.load_state_dict(dict(weights))
        return vit

    def forward(self, x: Tensor) -> Tensor:
        """FBANK (B, T, M) -> projected features (B, dim), not normalised.

        Fewer frames than `num_frames` use the first rows of the positions.
        """
        return self._pool(self.transformer(self.tokens(x))) @ self.proj

    def embed_tokens(self, x: Tensor) -> Tensor:
        """FBANK (B, T, M) -> its patches as features (B, time * mel cells, dim), not normalised."""
        return self.ln_post(self.transformer(self.tokens(x))[:, 1:]) @ self.proj

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """The patches and the norm before the blocks, the blocks, the norm and projection after."""
        # in a list, because `proj` is a parameter of this module and no module itself
        after = [self.ln_post, nn.ParameterList([self.proj])]
        return [self.conv1, self.ln_pre], list(self.transformer.resblocks), after

    def tokens(self, x: Tensor) -> Tensor:
        """FBANK (B, T, M) -> tokens (B, 1 + time * mel cells, D) that enter the blocks."""
        x = self._patches(x)
        first = self.class_embedding.expand(len(x), 1, -1).to(x.dtype)
        x = torch.cat([first, x], dim=1)
        return self.ln_pre(x + self.positional_embedding[: x.shape[1]])

    def resized(
        self, num_frames: int, positions: Literal["bilinear", "slice6"] | None = None
    ) -> AudioVit:
        """Return a copy for FBANK of `num_frames` frames; all weights but the positions are equal.

        Positions come from this encoder's own grid (1 + time * mel cells, D), so 18 s are resized
        from the trained grid and not from CLIP's. A grid of as many cells is copied and a longer
        one always bilinear; `positions` (default: the setting) says how a shorter one comes about:
        bilinear too, or slice6, the reference's rows of time from the seventh on. ModelError
        where the grid has too few rows for that.
        """
        audio = self.audio.model_copy(update={"num_frames": num_frames})
        vit = AudioVit(self.shape, self.settings, audio)
        weights = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        shorter = vit.grid[0] < self.grid[0]
        rule = (positions or self.settings.positions) if shorter else "bilinear"
        fit = slice_positions if rule == "slice6" else resize_positions
        weights["positional_embedding"] = fit(weights["positional_embedding"], self.grid, vit.grid)
        vit.load_state_dict(weights)
        return vit.to(self.proj.device).train(self.training)

    def use(self, *, patches: Literal["unfold", "conv"], attention: AttentionPath) -> AudioVit:
        """Force how patches and attention are computed; for benchmarks and tests."""
        self.patches = patches
        self.transformer.use(attention)
        return self

    def _grid(self, frames: int, mels: int) -> tuple[int, int]:
        """Cells along (time, mel)."""
        return patch_grid((frames, mels), self.shape.patch, self.settings.stride)

    def _patches(self, x: Tensor) -> Tensor:
        """FBANK (B, T, M) -> patch features (B, cells, D)."""
        frames, mels = self.audio.num_frames, self.audio.num_mel_bins
        if x.ndim != 3 or x.shape[2] != mels or x.shape[1] > frames:
            raise ModelError(
                f"the encoder takes FBANK of (batch, up to {frames} frames, {mels} mel bins), "
                f"not {tuple(x.shape)}; crop the sounds, or use resized() for longer ones"
            )
        self._grid(x.shape[1], mels)
        kernel = self.conv1.weight.mean(1)  # of 3 channels, or of the only one
        (tall, wide), (down, right) = self.shape.patch, self.settings.stride
        if self.patches == "conv":
            return F.conv2d(x[:, None], kernel[:, None], stride=(down, right)).flatten(2).mT
        windows = x.unfold(1, tall, down).unfold(2, wide, right)  # (B, time, mel, tall, wide)
        return F.linear(windows.reshape(len(x), -1, tall * wide), kernel.flatten(1))

    def _pool(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) -> (B, D)."""
        if self.shape.facts.pool == "tok":
            return self.ln_post(x[:, 0])  # each token is normalised alone: the order is free
        if self.shape.facts.norm_after_pool:
            return self.ln_post(x[:, 1:].mean(1))
        return self.ln_post(x)[:, 1:].mean(1)

    @torch.no_grad()
    def _start_at_random(self, seed: int) -> None:
        """VIP-ANT's random variant: torch's defaults, N(0, 1/D) for tokens and projection."""
        number = int(np.random.default_rng([seed, INIT_PURPOSE]).integers(2**62))
        generator = torch.Generator().manual_seed(number)
        for name, value in self.named_parameters():
            fill_at_random(name, value, self.shape, generator)

    @torch.no_grad()
    def _start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Copy CLIP's visual weights, fitted to this encoder's kernel and grid."""
        start = {name: value.detach().float().cpu() for name, value in weights.items()}
        if self.settings.kernel == "load_mean":
            start["conv1.weight"] = start["conv1.weight"].mean(1, keepdim=True)
        if self.settings.kernel == "load_sum":
            start["conv1.weight"] = start["conv1.weight"].sum(1, keepdim=True)
        if self.shape.grid is None:
            cells = len(start["positional_embedding"]) - 1
            raise ModelError(f"CLIP's {cells} positions are no square grid; its grid must be given")
        start["positional_embedding"] = resize_positions(
            start["positional_embedding"], self.shape.grid, self.grid
        )
        if self.settings.fresh_projection:
            start["proj"] = self.proj.clone()
        self.load_state_dict(start)
