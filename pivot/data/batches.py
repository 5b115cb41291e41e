"""Batches of training: which clips, windows, masks and partners, as pure functions of the seed.

Nothing here has a state to save: micro-batch m of a training is the same whether the run came from
the start or from a checkpoint, in one process or in several, so a resumed run is exact.

Legend: n training clips, B clips of a micro-batch, T frames, M mel bins, R partners of a clip: 1,
or all its frames, whose mean or each of which it should meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pivot.data.captions import find_clips
from pivot.data.choices import (
    CROP,
    BatchOrder,
    CaptionChoice,
    Choice,
    ClipChoice,
    FrameChoice,
    FrameRule,
    Ints,
    mask_batch,
)
from pivot.data.pairs import Pairs
from pivot.data.stream import SoundItems
from pivot.errors import DataError
from pivot.settings import MaskSettings


class Batch(NamedTuple):
    """One micro-batch: encoder inputs (B, T, M), and rows (B, R) of each side's table of partners.

    Inputs of several windows or of fusion are (B, views, T + 1, M), see audio.views. The sides are
    `image` (frames) and `text` (captions); `clip` are the clips' own numbers.
    """

    fbank: Tensor
    rows: dict[str, Tensor]


class Batches(Dataset[Batch]):
    """Micro-batches by number: inputs, cropped and masked for the epoch, and the partners' rows.

    `clips` are the numbers of the training clips in the shards, where one that stands there twice
    counts twice. Masks and windows belong to (seed, epoch, clip), so they do not depend on who else
    is in the batch.
    """

    def __init__(
        self,
        sounds: SoundItems,
        clips: Sequence[int],
        order: BatchOrder,
        choices: Mapping[str, Choice],
        mask: MaskSettings,
    ) -> None:
        self.sounds, self.clips, self.order = sounds, list(clips), order
        self.choices = dict(choices)
        self.mask = mask if mask.time or mask.freq else None
        self._crop_keys = _crop_keys(self.clips)

    @property
    def per_epoch(self) -> int:
        """Micro-batches an epoch."""
        return self.order.per_epoch

    def fingerprint(self) -> str:
        """Hash of what the batches are made of: the shards, the clips, and who may be partners."""
        digest = hashlib.sha256(self.sounds.shards.fingerprint.encode())
        values = [value for choice in self.choices.values() for value in vars(choice).values()]
        for value in (np.array(self.clips), *self.choices, *values):
            digest.update(
                value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            )
        return digest.hexdigest()

    def __getitem__(self, m: int) -> Batch:
        """Micro-batch m of the whole training, counted over epochs."""
        return self.part(m, 0, 1)

    def part(self, m: int, rank: int, processes: int) -> Batch:
        """The part of micro-batch m that process `rank` has, in the order of the ranks.

        Parts differ by one clip at most; one of a short batch may be empty.
        """
        epoch, positions = self.order(m)
        return self.take(epoch, np.array_split(positions, processes)[rank])

    def take(self, epoch: int, positions: Ints) -> Batch:
        """The clips at `positions` (B,), as they are in an epoch."""
        rows = {side: choice(epoch, positions) for side, choice in self.choices.items()}
        return Batch(
            self._fbank(epoch, positions),
            {side: torch.from_numpy(found) for side, found in rows.items()},
        )

    def _fbank(self, epoch: int, positions: Ints) -> Tensor:
        seed, front_end = self.order.seed, self.sounds.front_end
        if not len(positions):
            return torch.empty(0, *front_end.shape)
        keys = [[seed, CROP, epoch, *self._crop_keys[p]] for p in positions]
        crops = [np.random.default_rng(key) for key in keys]
        fbank = torch.stack(self.sounds.fbanks([self.clips[p] for p in positions], crops))
        if self.mask is not None:  # in place: the stack is a copy
            own_mean = front_end.settings.kind != "fbank"
            mask_batch(
                fbank, self.mask, seed, epoch, positions, self.order.clips, own_mean=own_mean
            )
        return fbank


def _crop_keys(clips: Sequence[int]) -> list[list[int]]:
    """What a window is drawn by: the clip's number; and which time it is, from the second on."""
    times: dict[int, int] = {}
    keys = []
    for clip in clips:
        time = times.get(clip, 0)
        times[clip] = time + 1
        keys.append([clip, time] if time else [clip])
    return keys


def va_batches(
    sounds: SoundItems,
    frames: FrameRule,
    batch_size: int,
    mask: MaskSettings,
    seed: int,
    clips: Sequence[int] | None = None,
    *,
    numbered: bool = False,
) -> Batches:
    """Batches of clips of the shards (default: every one), with frames of their own as partners.

    numbered: with the clips' numbers as well, which targets of their recordings need.
    """
    numbers = range(len(sounds.shards)) if clips is None else clips
    order = _order(sounds, len(numbers), batch_size, seed)
    choices: dict[str, Choice] = {"image": _frames(sounds, frames, numbers, seed)}
    if numbered:
        choices["clip"] = ClipChoice(np.array(numbers, np.int64))
    return Batches(sounds, numbers, order, choices, mask)


def _frames(sounds: SoundItems, rule: FrameRule, clips: Sequence[int], seed: int) -> FrameChoice:
    shards = sounds.shards
    if not shards.num_frames:
        raise DataError(
            f"{shards.path} holds sounds without frames; prepare videos with pivot prepare-frames"
        )
    return FrameChoice(rule, len(clips), shards.num_frames, seed, np.array(clips, np.int64))


def clips_of(sounds: SoundItems, ids: Sequence[str]) -> list[int]:
    """Numbers of the clips with these ids, in this order; one that is not there is an error.

    Clips of the shards that have no sound are left out.
    """
    shards = sounds.shards
    found = find_clips(ids, shards.ids)
    silent = find_clips(ids, shards.ids_without_sound)
    lost = [i for i, clip, quiet in zip(ids, found, silent, strict=True) if clip is quiet is None]
    if lost:
        raise DataError(
            f"--clips names {len(set(lost))} clips that are not in {shards.path}, the first "
            f"{lost[0]!r}; take the shards they were chosen from, or remove those ids"
        )
    return [clip for clip in found if clip is not None]


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
        numbers = find_clips(pairs.audio_ids, shards.ids)
        named = zip(pairs.audio_ids, numbers, strict=True)
        unknown = list(dict.fromkeys(clip for clip, number in named if number is None))
        if unknown:
            raise DataError(
                f"the pairs name {len(unknown)} clips that are not in {shards.path}, the first "
                f"{unknown[0]!r}; take the shards they were made from, or remove those pairs"
            )
        texts = {} if texts is None else texts
        captions: dict[int, list[int]] = {}
        for number, caption in zip(numbers, pairs.captions, strict=True):
            assert number is not None
            captions.setdefault(number, []).append(texts.setdefault(caption, len(texts)))
        clips = sorted(captions)
        return cls(clips, [captions[clip] for clip in clips], list(texts))

    def by_pair(self) -> PairTable:
        """The same pairs, each an item of its own: a clip stands here once for every caption."""
        pairs = zip(self.clips, self.choice_rows, strict=True)
        found = [(clip, [row]) for clip, rows in pairs for row in rows]
        return PairTable([clip for clip, _ in found], [row for _, row in found], self.texts)

    def batches(
        self,
        sounds: SoundItems,
        batch_size: int,
        mask: MaskSettings,
        seed: int,
        *,
        captions: Literal["own", "other", "none"] = "own",
        frames: FrameRule | None = None,
        numbered_from: int | None = None,
        short: bool = True,
    ) -> Batches:
        """Batches over these pairs: a caption of each clip, and with `frames` a frame as well.

        captions: of the clip itself, of another one drawn at every access (RC), or none.
        numbered_from: with the clips' numbers as well, those of the shards counted from this one.
        short: whether the last batch of an epoch may be a short one.
        """
        choices: dict[str, Choice] = {}
        if captions != "none":
            starts = np.cumsum([0, *map(len, self.choice_rows)], dtype=np.int64)
            rows = np.concatenate([np.asarray(rows, np.int64) for rows in self.choice_rows])
            choices["text"] = CaptionChoice(starts, rows, seed, captions == "other")
        if frames is not None:
            choices["image"] = _frames(sounds, frames, self.clips, seed)
        if numbered_from is not None:
            choices["clip"] = ClipChoice(np.array(self.clips, np.int64) + numbered_from)
        order = _order(sounds, len(self.clips), batch_size, seed, short)
        return Batches(sounds, self.clips, order, choices, mask)


def _order(
    sounds: SoundItems, clips: int, batch_size: int, seed: int, short: bool = True
) -> BatchOrder:
    try:
        return BatchOrder(clips, batch_size, seed, short)
    except DataError as error:
        raise DataError(f"{sounds.shards.path}: {error}") from None
