"""Mining in rounds: captions by a mix of the image pivot and audio-text similarity.

A first model is tuned on pivot pairs; it then helps to choose the next pairs, and so on. The mixed
score of frame f, sound a and caption c is (1 - w) cos(f, c) + w cos(a, c). It is the dot product of
joined vectors (sqrt(1 - w) f, sqrt(w) a) and (sqrt(1 - w) c, sqrt(w) c'), so one match finds the
best exactly; w = 0 is the pivot alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pivot.embeddings.store import EmbeddingStore
from pivot.errors import DataError

Vectors = NDArray[np.float32]


class FramesWithSounds:
    """Frames of clips joined to their sounds, (n, F, d + d'), read when asked for."""

    ndim = 3

    def __init__(
        self,
        images: EmbeddingStore,
        sounds: EmbeddingStore,
        mix: float,
        clips: NDArray[np.int64] | None = None,
    ) -> None:
        """`mix` is w; raises DataError where a clip (of `clips`, or any) has no sound in store."""
        self.images, self.sounds, self.mix = images, sounds, mix
        numbers = {name: i for i, name in enumerate(sounds.ids)}
        self.sound = np.array([numbers.get(name, -1) for name in images.ids], np.int64)
        used = self.sound if clips is None else self.sound[clips]
        if (used < 0).any():
            first = np.flatnonzero(used < 0)[0]
            name = images.ids[first if clips is None else clips[first]]
            raise DataError(
                f"{sounds.path} lacks {(used < 0).sum():,} of {len(used):,} clips of "
                f"{images.path}, the first {name}; embed the sounds of the same clips, or list "
                "those that have one with --ids"
            )
        self.shape: tuple[int, ...] = (len(images), images.rows, images.dim + sounds.dim)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.images)

    def __getitem__(self, clips: NDArray[np.int64]) -> Vectors:
        """Joined vectors of some clips."""
        frames = _unit(self.images.vectors[clips])
        sounds = _unit(self.sounds.vectors[self.sound[clips]])
        repeated = np.broadcast_to(sounds, (*frames.shape[:2], self.sounds.dim))
        return joined(frames, repeated, self.mix)


def joined(first: Vectors, second: Vectors, mix: float) -> Vectors:
    """Unit vectors (..., d) and (..., d') as unit vectors (..., d + d') of weights 1 - mix, mix."""
    return np.concatenate([math.sqrt(1 - mix) * first, math.sqrt(mix) * second], axis=-1)


def _unit(vectors: NDArray[np.float16]) -> Vectors:
    whole = np.asarray(vectors, np.float32)
    return whole / np.linalg.norm(whole, axis=-1, keepdims=True)
