"""Batches of a classifier's training: inputs and targets, as pure functions of the seed.

As in `data/batches.py`, nothing has a state: order, windows, masks and mixtures belong to
(seed, epoch, clip), or with balanced sampling, where a clip may come twice, to (seed, epoch, draw).
Legend: n training clips, B clips of a micro-batch, T frames, M mel bins, V views, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pivot.classification.labels import targets
from pivot.classification.mixup import Mix, MixRule, mixed, mixed_inputs, one_channel
from pivot.data.choices import CROP, Ints, mask_batch, permutation
from pivot.data.stream import SoundItems
from pivot.errors import DataError
from pivot.settings import MaskSettings
from video_prep.shards import SOUND

DRAW = 5103  # names the generator of balanced draws beside others of the same seed


class ClassBatch(NamedTuple):
    """One micro-batch: encoder inputs (B, T, M) or (B, V, T + 1, M), targets (B, C) in 0..1."""

    fbank: Tensor
    targets: Tensor


class ClassOrder:
    """Which of n clips make micro-batch m: each once an epoch, or drawn by `weights` (n,).

    Weighted draws are n an epoch, see `weighted_draws`. The last batch of an epoch is short and
    kept.
    """

    def __init__(
        self, clips: int, batch_size: int, seed: int, weights: ArrayLike | None = None
    ) -> None:
        if clips < batch_size:
            raise DataError(
                f"{clips} training clips are fewer than --batch-size {batch_size}; lower it, or "
                "add clips"
            )
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        self.per_epoch = -(-clips // batch_size)
        self._drawn: tuple[int, Ints] = (-1, np.empty(0, np.int64))  # the last epoch's

    def __call__(self, m: int) -> tuple[int, Ints, Ints]:
        """Epoch, positions (B,) and keys (B,) of micro-batch m, counted from 0 over all epochs.

        A key names the numbers that are drawn for an item: its position, or its draw.
        """
        epoch, number = divmod(m, self.per_epoch)
        start = number * self.batch_size
        stop = min(start + self.batch_size, self.clips)
        if self.weights is None:
            positions = permutation(self.seed, epoch, self.clips)[start:stop]
            return epoch, positions, positions
        if self._drawn[0] != epoch:
            self._drawn = epoch, weighted_draws(self.seed, epoch, self.weights)
        return epoch, self._drawn[1][start:stop], np.arange(start, stop)


def weighted_draws(seed: int, epoch: int, weights: ArrayLike) -> Ints:
    """Positions (n,) drawn with replacement, each with the chance weight / sum of the n weights.

    So does torch's WeightedRandomSampler, which the reference uses; the draws are of (seed, epoch).
    """
    chances = np.asarray(weights, np.float64)
    rng = np.random.default_rng([seed, DRAW, epoch])
    return rng.choice(len(chances), size=len(chances), replace=True, p=chances / chances.sum())


class ClassBatches(Dataset[ClassBatch]):
    """Micro-batches by number: FBANK, mixed, cropped and masked for the epoch, and targets.

    `clips` are the numbers of the n training clips in the shards, `classes` those of each, out of
    `number` classes.
    """

    def __init__(
        self,
        sounds: SoundItems,
        clips: Sequence[int],
        classes: Sequence[Sequence[int]],
        number: int,
        order: ClassOrder,
        mix: MixRule,
        mask: MaskSettings,
    ) -> None:
        self.sounds, self.clips = sounds, list(clips)
        self.classes, self.number = list(classes), number
        self.order, self.mix, self.mask = order, mix, mask

    @property
    def per_epoch(self) -> int:
        """Micro-batches an epoch."""
        return self.order.per_epoch

    def fingerprint(self) -> str:
        """Hash of what the batches are made of: the shards, the clips and their labels."""
        digest = hashlib.sha256(self.sounds.shards.fingerprint.encode())
        digest.update(np.array(self.clips, np.int64).tobytes())
        digest.update(repr((self.number, self.classes)).encode())
        return digest.hexdigest()

    def __getitem__(self, m: int) -> ClassBatch:
        """Micro-batch m of the whole training, counted over epochs."""
        return self.part(m, 0, 1)

    def part(self, m: int, rank: int, processes: int) -> ClassBatch:
        """The share of micro-batch m that one of several processes has; it may be empty."""
        epoch, positions, keys = self.order(m)
        places = np.array_split(np.arange(len(keys)), processes)[rank]
        if self.mix.share and self.mix.of == "spectrogram":
            return self._mirrored(epoch, positions, keys, places)
        positions, keys = positions[places], keys[places]
        return self._inputs(epoch, positions, keys, [self.mix(epoch, k) for k in keys.tolist()])

    def _inputs(
        self, epoch: int, positions: Ints, keys: Ints, mixes: list[Mix | None]
    ) -> ClassBatch:
        """Encoder inputs, each with its mixture of waveforms, and targets."""
        rngs = [np.random.default_rng([self.order.seed, CROP, epoch, k]) for k in keys.tolist()]
        rows = self._fbanks(positions.tolist(), mixes, rngs)
        fbank = torch.stack(rows) if rows else torch.empty(0, *self.sounds.front_end.shape)
        if self.mask.time or self.mask.freq:
            order, own_mean = self.order, self.sounds.front_end.settings.kind != "fbank"
            mask_batch(fbank, self.mask, order.seed, epoch, keys, order.clips, own_mean=own_mean)
        return ClassBatch(fbank, torch.from_numpy(self._targets(positions, mixes)))

    def _mirrored(self, epoch: int, positions: Ints, keys: Ints, places: Ints) -> ClassBatch:
        """The clips at `places` of a batch, masked, then mixed with those at the mirrored places.

        A process fetches the partners of its clips, too, so that a batch is the same in any number.
        """
        partners = len(keys) - 1 - places
        needed = np.union1d(places, partners)
        found = self._inputs(epoch, positions[needed], keys[needed], [None] * len(needed))
        own, other = (np.searchsorted(needed, rows) for rows in (places, partners))
        shares = self.mix.mirrored(epoch, keys[places])
        fbank = mixed_inputs(found.fbank[own], found.fbank[other], shares)
        weight = shares[:, None]
        targets = weight * found.targets[own] + (1 - weight) * found.targets[other]
        return ClassBatch(fbank, targets)

    def _targets(self, positions: Ints, mixes: list[Mix | None]) -> NDArray[np.float32]:
        rows = targets([self.classes[p] for p in positions.tolist()], self.number)
        for row, mix in zip(rows, mixes, strict=True):
            if mix is not None:
                row *= np.float32(mix.share)
                row[list(self.classes[mix.partner])] += np.float32(1 - mix.share)
        return rows

    def _fbanks(
        self,
        positions: list[int],
        mixes: list[Mix | None],
        rngs: list[np.random.Generator],
    ) -> list[Tensor]:
        """Encoder inputs in the order of `positions`; sounds to mix are fetched together."""
        alone = [i for i, mix in enumerate(mixes) if mix is None]
        found = self.sounds.fbanks(
            [self.clips[positions[i]] for i in alone], [rngs[i] for i in alone]
        )
        rows = dict(zip(alone, found, strict=True))
        pairs = [(i, mix) for i, mix in enumerate(mixes) if mix is not None]
        wanted = [p for i, mix in pairs for p in (positions[i], mix.partner)]
        data = iter(self.sounds.shards.read([(self.clips[p], SOUND) for p in wanted]))
        for i, mix in pairs:
            own, partner = self.clips[positions[i]], self.clips[mix.partner]
            rows[i] = self._mixture((own, next(data)), (partner, next(data)), mix.share, rngs[i])
        return [rows[i] for i in range(len(positions))]

    def _mixture(
        self,
        own: tuple[int, bytes],
        partner: tuple[int, bytes],
        share: float,
        rng: np.random.Generator,
    ) -> Tensor:
        """Encoder input of two sounds, each (clip, its bytes), mixed as waveforms."""
        shards, front_end = self.sounds.shards, self.sounds.front_end
        keep = front_end.settings.kind != "fbank"
        first, rate = one_channel(*shards.decode_sound(*own), front_end.settings)
        second, _ = one_channel(*shards.decode_sound(*partner), front_end.settings, rate)
        try:
            return front_end(mixed(first, second, share, keep), rate, rng)
        except DataError as error:
            raise DataError(f"clip {shards.ids[own[0]]!r} in {shards.path}: {error}") from None
