"""Who is drawn in an epoch: the order of clips, the partner of each, and its masks.

All are pure functions of a seed. Every random number comes from a generator keyed by (seed, what it
is for, epoch) and is that of its clip, so it does not matter who else is in a batch.

Legend: n training clips, B clips of a micro-batch, R partners of a clip: 1, or all its frames,
whose mean or each of which it should meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pivot.audio.mask import draw, draw_torch
from pivot.audio.views import unpack
from pivot.errors import DataError
from pivot.settings import MaskSettings

Ints = NDArray[np.int64]
FrameRule: TypeAlias = Literal["random", "middle", "mean", "all"]

# What a generator is for; keeps the numbers of one purpose apart from those of another.
ORDER, CROP, MASK, FRAME, CAPTION, OTHER, REPLAY = 4101, 4102, 4103, 4104, 4105, 4106, 4107


class BatchOrder:
    """Which of n clips make micro-batch m: every epoch a new permutation, cut into batches.

    The last batch of an epoch is short and kept, as in VIP-ANT, if it has at least two clips; one
    clip alone has no negatives, so it sits out that epoch. Without `short` it is always left out.
    """

    def __init__(self, clips: int, batch_size: int, seed: int, short: bool = True) -> None:
        if clips < batch_size:
            raise DataError(
                f"{clips} clips are fewer than --batch-size {batch_size}; lower it, or add clips"
            )
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.per_epoch = clips // batch_size + (short and clips % batch_size > 1)

    def __call__(self, m: int) -> tuple[int, Ints]:
        """Epoch and positions (B,) of micro-batch m, counted from 0 over all epochs."""
        epoch, number = divmod(m, self.per_epoch)
        start = number * self.batch_size
        return epoch, permutation(self.seed, epoch, self.clips)[start : start + self.batch_size]


class Choice(Protocol):
    """Rows (B, R) of the partners' table for the clips at `positions` (B,) in an epoch."""

    def __call__(self, epoch: int, positions: Ints) -> Ints:
        """Choose."""


@dataclass(frozen=True)
class FrameChoice:
    """Frames of clips as partners; row = number of the clip x frames a clip + frame."""

    rule: FrameRule
    clips: int
    frames: int
    seed: int
    numbers: Ints | None = None  # (n,) of the clip at each position; None: 0 to n - 1

    def __call__(self, epoch: int, positions: Ints) -> Ints:
        """One random or the middle frame, R = 1, or all of them."""
        clips = positions if self.numbers is None else self.numbers[positions]
        first = clips[:, None] * self.frames
        if self.rule in ("mean", "all"):
            return first + np.arange(self.frames)
        if self.rule == "middle":  # the second of four: the reference's index ceil(n / 2) - 1
            return first + (self.frames + 1) // 2 - 1
        drawn = _uniform(self.seed, FRAME, epoch, self.clips)[positions, None]
        return first + (drawn * self.frames).astype(np.int64)


@dataclass(frozen=True)
class ClipChoice:
    """The clip itself: a number by which its recording and what teachers know of it are found."""

    numbers: Ints  # (n,) of the clip at each position

    def __call__(self, epoch: int, positions: Ints) -> Ints:
        """R = 1 number a clip, the same in every epoch."""
        return self.numbers[positions][:, None]


@dataclass(frozen=True)
class CaptionChoice:
    """A caption of each clip, drawn uniformly and anew every epoch; row = its unique text.

    With `other` it is a caption of another clip, which is drawn uniformly as well: VIP-ANT's
    control with random captions (RC), which its code draws again at every access.
    """

    starts: Ints  # (n + 1,) where the captions of each clip begin in `rows`
    rows: Ints  # rows of the text table, clip after clip
    seed: int
    other: bool = False

    def __call__(self, epoch: int, positions: Ints) -> Ints:
        """R = 1 caption a clip."""
        n = len(self.starts) - 1
        drawn = _uniform(self.seed, CAPTION, epoch, n)[positions]
        if self.other:
            steps = _uniform(self.seed, OTHER, epoch, n)[positions]
            positions = (positions + 1 + (steps * (n - 1)).astype(np.int64)) % n
        first, count = self.starts[positions], np.diff(self.starts)[positions]
        return self.rows[first + (drawn * count).astype(np.int64)][:, None]


def mask_batch(
    inputs: Tensor,
    settings: MaskSettings,
    seed: int,
    epoch: int,
    positions: Ints,
    n: int,
    *,
    own_mean: bool = False,
) -> None:
    """Mask encoder inputs in place, each clip by numbers of its own.

    inputs: (B, T, M), or (B, V, T + 1, M) of several views (audio.views), which all have the same
    masks; their row of shares has none. Masked values are 0, the mean of normalised FBANK; with
    `own_mean`, for log-mel, the mean of the clip's views that are there. positions (B,) are those
    of the clips among the n of the training; a clip has the same masks in whatever batch it is.
    plain: numpy's numbers, one generator an epoch; vip_ant: torch's, one generator a clip, each
    used as the reference uses its global one.
    """
    frames, mels = inputs.shape[-2] - (inputs.ndim == 4), inputs.shape[-1]
    if settings.rule == "vip_ant":
        found = [
            draw_torch(frames, mels, settings, _generator([seed, MASK, epoch, position]))
            for position in positions.tolist()
        ]
    else:
        numbers = _uniform(seed, MASK, epoch, (n, 4))[positions]
        found = [draw(frames, mels, settings, iter(row).__next__) for row in numbers.tolist()]
    for clip, masks in zip(inputs, found, strict=True):
        rows = clip if clip.ndim == 2 else unpack(clip)[0]
        value = float(_there(clip).mean()) if own_mean else 0.0
        rows[..., masks.freq_start : masks.freq_stop] = value
        rows[..., masks.time_start : masks.time_stop, :] = value


def _there(clip: Tensor) -> Tensor:
    """Log-mel of a clip's input, without the views of a packed one that are not there."""
    if clip.ndim == 2:
        return clip
    views, shares = unpack(clip)
    return views[shares > 0]


def _generator(key: list[int]) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> Ints:
    """Order (n,) of n clips in an epoch; not to be written into."""
    return np.random.default_rng([seed, ORDER, epoch]).permutation(n)


@lru_cache(maxsize=4)
def _uniform(
    seed: int, purpose: int, epoch: int, shape: int | tuple[int, int]
) -> NDArray[np.float64]:
    return np.random.default_rng([seed, purpose, epoch]).random(shape)
