"""LAION-CLAP's four views of a sound: the whole, shrunk, and a window of front, middle and back.

They are made of the log-mel of the whole sound (`get_audio_features` with `fusion`). A sound is
longer when it has more frames than a view; one that is up to a hop longer than a window has not,
and all of it is its one view.

    total frames T, view frames F     T == F: the one log-mel four times, shares (1, 0, 0, 0)
                                      T > F:  shrunk, front, middle, back, shares (1, 1, 1, 1)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pivot.audio.crop import Rng
from pivot.errors import DataError

VIEWS = 4


def fusion_views(
    mel: Tensor, frames: int, rng: Rng | None = None, antialias: bool = False
) -> tuple[Tensor, Tensor]:
    """Log-mel (T, M) of a whole sound -> views (4, frames, M) and shares (4,): see above.

    rng draws the three windows, None takes the same ones every time. Raises DataError for fewer
    frames than those of a view: such a sound is filled up first.
    """
    total = len(mel)
    if total < frames:
        raise DataError(
            f"a log-mel of {total} frames is shorter than a view of {frames}; fill the sound first"
        )
    if total == frames:
        return mel.expand(VIEWS, -1, -1).clone(), mel.new_tensor([1.0, 0.0, 0.0, 0.0])
    windows = [mel[start : start + frames] for start in starts(total, frames, rng)]
    return torch.stack([shrunk(mel, frames, antialias), *windows]), mel.new_ones(VIEWS)


def starts(total: int, frames: int, rng: Rng | None = None) -> tuple[int, int, int]:
    """First frame of the front, middle and back window of `total` frames.

    All possible starts are cut into thirds (the first ones have one more where it does not come out
    even), and one is drawn of each, as LAION-CLAP draws from np.random; an empty third has start 0.
    rng None takes the middle one of each third, of two the first.
    """
    thirds = np.array_split(np.arange(total - frames + 1), 3)
    front, middle, back = (_start(third, rng) for third in thirds)
    return front, middle, back


def _start(third: np.ndarray, rng: Rng | None) -> int:
    choices = third if third.size else np.zeros(1, int)
    return int(choices[(len(choices) - 1) // 2] if rng is None else rng.choice(choices))


def shrunk(mel: Tensor, frames: int, antialias: bool = False) -> Tensor:
    """Log-mel (T, M) resized to (frames, M), bilinear.

    Without `antialias` only the frames next to a point count: torchvision's Resize before 0.17, as
    LAION-CLAP's released weights were trained. From 0.17 on Resize smooths first: `antialias`.
    """
    size = (frames, mel.shape[1])
    out: Tensor = interpolate(mel[None, None], size, mode="bilinear", antialias=antialias)[0, 0]
    return out
