"""What PaSST and ATST-Frame share: a ViT of timm over log-mel, with positions that may be cut.

Shapes: B sounds, T frames, M mel bins, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.vit_shape import patch_grid
from pivot.errors import ModelError


class TimmVit(AudioEncoder):
    """timm's VisionTransformer on log-mel as an image (1, M, T), with positions of its own.

    The positions are a module in timm's `patch_drop` slot, which gets the tokens (B, N, D) before
    the blocks: there a shorter window can take the first ones.
    """

    TIME: ClassVar[tuple[str, int]]  # the weight that holds positions in time, and its axis of time

    def __init__(
        self,
        settings: Any,
        audio: Any,
        patch: tuple[int, int],
        stride: tuple[int, int],
        **body: Any,
    ) -> None:
        """Random weights; patch and stride are of (time, mel), `body` is for timm."""
        super().__init__(settings, audio)
        self.patch, self.stride, self.dim = patch, stride, settings.width
        if settings.width % settings.heads:
            raise ModelError(
                f"{settings.heads} heads do not divide the {self.KIND} encoder's width "
                f"{settings.width}; take another --encoder.heads"
            )
        self.cells = self._cells(audio.num_frames)
        self.body = VisionTransformer(
            img_size=(audio.num_mel_bins, audio.num_frames), patch_size=patch[::-1], in_chans=1,
            embed_dim=settings.width, depth=settings.depth, num_heads=settings.heads,
            num_classes=0, global_pool="", pos_embed="none", **body,
        )  # fmt: skip
        self.body.patch_embed.img_size = None  # timm would refuse windows of another length
        self.body.patch_embed.proj.stride = stride[::-1]  # timm's patches never overlap

    def tokens(self, x: Tensor) -> Tensor:
        """Log-mel (B, T, M) -> tokens (B, N, D) after the last norm, class tokens first."""
        self._cells(x.shape[1])
        return self.body.forward_features(x.mT[:, None])

    def resized(self, num_frames: int) -> Self:
        """Copy for windows of `num_frames` frames, with the first of the positions in time.

        ModelError where there are too few: longer sounds are seen through several windows.
        """
        audio = self.audio.model_copy(update={"num_frames": num_frames})
        (name, axis), weights = self.TIME, self.state_dict()
        columns, known = self._cells(num_frames)[0], weights[name].shape[axis]
        if columns > known:
            raise ModelError(
                f"the {self.KIND} encoder knows {known} positions in time, windows of {num_frames} "
                f"frames need {columns}; keep --audio.num-frames {self.audio.num_frames}, and take "
                "--audio.windows 2 or more for longer sounds"
            )
        weights[name] = weights[name].narrow(axis, 0, columns)
        copy = self.from_weights(weights, self.facts(), self.settings, audio)
        return copy.to(weights[name].device).train(self.training)

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """The patches and positions, the blocks, the norm after them."""
        body = self.body
        return [body.patch_embed, body.patch_drop], list(body.blocks), [body.norm]

    def _cells(self, frames: int) -> tuple[int, int]:
        """Patches of a window along (time, mel); ModelError where there are none."""
        return patch_grid((frames, self.audio.num_mel_bins), self.patch, self.stride)
