"""Batches of training: which clips, windows, masks and partners, as pure functions of the seed.

Nothing here has a state to save: micro-batch m of a training is the same whether the run came from
the start or from a checkpoint, in one process or with workers, so a resumed run is exact. Every
random number comes from a generator keyed by (seed, what it is for, epoch) and is that of its clip.

Legend: n training clips, B clips of a micro-batch, T FBANK frames, M mel bins, R partners of a clip
whose mean it should meet (1, or all frames of a clip).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pivot.audio.mask import draw
from pivot.data.pairs import Pairs
from pivot.data.stream import SoundItems
from pivot.errors import DataError
from pivot.settings import MaskSettings

Ints = NDArray[np.int64]

# What a generator is for; keeps the numbers of one purpose apart from those of another.
ORDER, CROP, MASK, FRAME, CAPTION = 4101, 4102, 4103, 4104, 4105


class Batch(NamedTuple):
    """One micro-batch: FBANK (B, T, M) and the rows (B, R) of the partners' table."""

    fbank: Tensor
    rows: Tensor


class BatchOrder:
    """Which of n clips make micro-batch m: every epoch a new permutation, cut into batches.

    The last batch of an epoch is short and kept, as in VIP-ANT, if it has at least two clips; one
    clip alone has no negatives, so it sits out that epoch.
    """

    def __init__(self, clips: int, batch_size: int, seed: int) -> None:
        if clips < batch_size:
            raise DataError(
                f"{clips} clips are fewer than --batch-size {batch_size}; lower it, or add clips"
            )
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.per_epoch = clips // batch_size + (clips % batch_size > 1)

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
    """Frames of clips as partners; row = position of the clip x frames a clip + frame."""

    rule: Literal["random", "middle", "mean"]
    clips: int
    frames: int
    seed: int

    def __call__(self, epoch: int, positions: Ints) -> Ints:
        """One random or the middle frame, R = 1, or all of them."""
        first = positions[:, None] * self.frames
        if self.rule == "mean":
            return first + np.arange(self.frames)
        if self.rule == "middle":  # the second of four: the reference's index ceil(n / 2) - 1
            return first + (self.frames + 1) // 2 - 1
        drawn = _uniform(self.seed, FRAME, epoch, self.clips)[positions, None]
        return first + (drawn * self.frames).astype(np.int64)


@dataclass(frozen=True)
class CaptionChoice:
    """A caption of each clip, drawn uniformly and anew every epoch; row = its unique text."""

    starts: Ints  # (n + 1,) where the captions of each clip begin in `rows`
    rows: Ints  # rows of the text table, clip after clip
    seed: int

    def __call__(self, epoch: int, positions: Ints) -> Ints:
        """R = 1 caption a clip."""
        drawn = _uniform(self.seed, CAPTION, epoch, len(self.starts) - 1)[positions]
        first, count = self.starts[positions], np.diff(self.starts)[positions]
        return self.rows[first + (drawn * count).astype(np.int64)][:, None]


class Batches(Dataset[Batch]):
    """Micro-batches by number: FBANK, cropped and masked for the epoch, and the partners' rows.

    `clips` are the numbers of the training clips in the shards. Masks and windows belong to
    (seed, epoch, clip), so they do not depend on who else is in the batch.
    """

    def __init__(
        self,
        sounds: SoundItems,
        clips: Sequence[int],
        order: BatchOrder,
        choice: Choice,
        mask: MaskSettings,
    ) -> None:
        self.sounds, self.clips, self.order, self.choice = sounds, list(clips), order, choice
        self.mask = mask if mask.time or mask.freq else None

    @property
    def per_epoch(self) -> int:
        """Micro-batches an epoch."""
        return self.order.per_epoch

    def fingerprint(self) -> str:
        """Hash of what the batches are made of: the shards, the clips, and who may be partners."""
        digest = hashlib.sha256(self.sounds.shards.fingerprint.encode())
        for value in (np.array(self.clips), *vars(self.choice).values()):
            digest.update(
                value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            )
        return digest.hexdigest()

    def __getitem__(self, m: int) -> Batch:
        """Micro-batch m of the whole training, counted over epochs."""
        epoch, positions = self.order(m)
        clips = [self.clips[p] for p in positions]
        crops = [np.random.default_rng([self.order.seed, CROP, epoch, clip]) for clip in clips]
        fbank = torch.stack(self.sounds.fbanks(clips, crops))
        if self.mask is not None:
            self._mask(fbank, epoch, positions, self.mask)
        return Batch(fbank, torch.from_numpy(self.choice(epoch, positions)))

    def _mask(self, fbank: Tensor, epoch: int, positions: Ints, settings: MaskSettings) -> None:
        """Mask in place: the stack is a copy, and one generator an epoch draws for all clips."""
        drawn = _uniform(self.order.seed, MASK, epoch, (self.order.clips, 4))[positions]
        frames, mels = fbank.shape[1:]
        for rows, numbers in zip(fbank, drawn.tolist(), strict=True):
            masks = draw(frames, mels, settings, iter(numbers).__next__)
            rows[:, masks.freq_start : masks.freq_stop] = 0
            rows[masks.time_start : masks.time_stop] = 0


def va_batches(
    sounds: SoundItems,
    frames: Literal["random", "middle", "mean"],
    batch_size: int,
    mask: MaskSettings,
    seed: int,
) -> Batches:
    """Batches of every clip of the shards with frames of its own as partners."""
    shards = sounds.shards
    if not shards.num_frames:
        raise DataError(
            f"{shards.path} holds sounds without frames; prepare videos with pivot prepare-frames"
        )
    order = _order(sounds, len(shards), batch_size, seed)
    choice = FrameChoice(frames, len(shards), shards.num_frames, seed)
    return Batches(sounds, range(len(shards)), order, choice, mask)


def at_batches(
    sounds: SoundItems, pairs: Pairs, batch_size: int, mask: MaskSettings, seed: int
) -> tuple[Batches, list[str]]:
    """Batches of the clips that the pairs name, and the unique captions their rows speak of."""
    table = PairTable.of(sounds, pairs)
    return table.batches(sounds, batch_size, mask, seed), table.texts


@dataclass(frozen=True)
class PairTable:
    """Pairs as numbers: clips in shard order, and for each its captions among unique texts."""

    clips: list[int]
    choice_rows: list[list[int]]
    texts: list[str]

    @classmethod
    def of(cls, sounds: SoundItems, pairs: Pairs, texts: dict[str, int] | None = None) -> PairTable:
        """Look up ids; one that is not in the shards is an error, nothing is dropped.

        `texts` numbers captions that have been embedded already; a new one is added to it.
        """
        shards = sounds.shards
        numbers = {clip_id: i for i, clip_id in enumerate(shards.ids)}
        unknown = list(dict.fromkeys(i for i in pairs.audio_ids if i not in numbers))
        if unknown:
            raise DataError(
                f"the pairs name {len(unknown)} clips that are not in {shards.path}, the first "
                f"{unknown[0]!r}; take the shards they were made from, or remove those pairs"
            )
        texts = {} if texts is None else texts
        captions: dict[int, list[int]] = {}
        for audio_id, caption in zip(pairs.audio_ids, pairs.captions, strict=True):
            row = texts.setdefault(caption, len(texts))
            captions.setdefault(numbers[audio_id], []).append(row)
        clips = sorted(captions)
        return cls(clips, [captions[clip] for clip in clips], list(texts))

    def batches(
        self, sounds: SoundItems, batch_size: int, mask: MaskSettings, seed: int
    ) -> Batches:
        """Batches over these pairs."""
        starts = np.cumsum([0, *map(len, self.choice_rows)], dtype=np.int64)
        rows = np.concatenate([np.asarray(rows, np.int64) for rows in self.choice_rows])
        order = _order(sounds, len(self.clips), batch_size, seed)
        return Batches(sounds, self.clips, order, CaptionChoice(starts, rows, seed), mask)


def _order(sounds: SoundItems, clips: int, batch_size: int, seed: int) -> BatchOrder:
    try:
        return BatchOrder(clips, batch_size, seed)
    except DataError as error:
        raise DataError(f"{sounds.shards.path}: {error}") from None


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> Ints:
    """Order (n,) of n clips in an epoch; not to be written into."""
    return np.random.default_rng([seed, ORDER, epoch]).permutation(n)


@lru_cache(maxsize=4)
def _uniform(
    seed: int, purpose: int, epoch: int, shape: int | tuple[int, int]
) -> NDArray[np.float64]:
    return np.random.default_rng([seed, purpose, epoch]).random(shape)
