"""Captions nearest to frames: the top k of each frame, and their union over a clip.

Letters: n clips of F frames in the store, f of them in use, k captions a frame, m captions, d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pivot.embeddings.match import match
from pivot.embeddings.sources import middle_frame
from pivot.errors import DataError
from pivot.mining.rounds import FramesWithSounds

CLIPS = 1024  # clips matched at a time
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Mined:
    """Flat columns: number of the clip, number of the caption, cosine; best first within a clip."""

    clip: Ints
    caption: Ints
    score: NDArray[np.float32]


@dataclass(frozen=True)
class FrameMatches:
    """The nearest captions of some clips' frames: clip (b,), frame (f,), caption, score (b, f, k).

    `clip` and `frame` count the store's clips and a clip's frames, from 0.
    """

    clip: Ints
    frame: Ints
    caption: Ints
    score: NDArray[np.float32]

    def united(self) -> Mined:
        """Each (clip, caption) once with its best score; by clip, falling score, rising caption."""
        clip = np.repeat(self.clip, self.caption[0].size)
        caption, score = self.caption.ravel(), self.score.ravel()
        order = np.lexsort((-score, caption, clip))
        clip, caption, score = clip[order], caption[order], score[order]
        first = np.ones(len(clip), dtype=bool)
        first[1:] = (clip[1:] != clip[:-1]) | (caption[1:] != caption[:-1])
        clip, caption, score = clip[first], caption[first], score[first]
        order = np.lexsort((caption, -score, clip))
        return Mined(clip[order], caption[order], score[order])


def mine(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    k: int,
    frames: Literal["all", "middle"] = "all",
    device: str = "cpu",
) -> Mined:
    """Captions texts (m, d) of clips images (n, F, d): the k nearest of each frame, united."""
    parts = [part.united() for part in mine_blocks(images, texts, k, frames, device)]
    return Mined(
        np.concatenate([part.clip for part in parts]),
        np.concatenate([part.caption for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def mine_blocks(
    images: NDArray[np.floating] | FramesWithSounds,
    texts: NDArray[np.floating],
    k: int,
    frames: Literal["all", "middle"] = "all",
    device: str = "cpu",
    clips: Ints | None = None,
) -> Iterator[FrameMatches]:
    """Frame by frame, some clips at a time, so that a memory-mapped store need not fit in memory.

    `clips` are the numbers of the clips in use, rising; by default all.
    """
    if images.ndim != 3 or not len(images):
        raise DataError(f"frame embeddings are {images.shape}; mining needs (clips, frames, d)")
    number = images.shape[1]
    frame = np.arange(number) if frames == "all" else np.array([middle_frame(number)])
    clips = np.arange(len(images)) if clips is None else clips
    for start in range(0, len(clips), CLIPS):
        part = clips[start : start + CLIPS]
        block = np.asarray(images[part], dtype=np.float32)[:, frame]
        block = block / np.linalg.norm(block, axis=2, keepdims=True)
        found = match(block.reshape(-1, block.shape[2]), texts, k=k, device=device)
        shape = (len(part), len(frame), -1)
        yield FrameMatches(part, frame, found.index.reshape(shape), found.score.reshape(shape))
