"""Two streams of pairs in one training: whole batches replaced, or a share of every batch.

As in `batches`, nothing has a state: what micro-batch m holds follows from the seed and m, so both
streams go on exactly where a run stopped. The second stream has an order, crops, masks and captions
of its own; it starts again when it is exhausted, and an epoch is one of the first stream.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch.utils.data import Dataset

from pivot.data.batches import Batch, Batches
from pivot.data.choices import REPLAY
from pivot.errors import SettingsError
from pivot.settings.targets import ReplaySettings


def replay_seed(seed: int) -> int:
    """Seed of the second stream, so that its numbers are not those of the first."""
    return int(np.random.SeedSequence([seed, REPLAY]).generate_state(1)[0])


def shares(settings: ReplaySettings, batch_size: int) -> tuple[int, int]:
    """Clips of a batch that each stream gives: all or all, or so many of each in every batch."""
    if not settings.ratio:
        return batch_size, batch_size
    second = round(batch_size * settings.ratio)
    if not 0 < second < batch_size:
        raise SettingsError(
            f"--replay.ratio {settings.ratio} of --batch-size {batch_size} is {second} clips; each "
            "stream needs at least one"
        )
    return batch_size - second, second


class ReplayBatches(Dataset[Batch]):
    """Micro-batches by number, from `first` or `second`, or mixed of both.

    Both have the same sides and tables of partners. With a probability p, batch m is one of
    `second` if u < p for the m-th number u that is drawn, and that of `first` is dropped (CLAP
    curation); else every batch joins one of each.
    """

    def __init__(self, first: Batches, second: Batches, probability: float) -> None:
        self.first, self.second, self.probability = first, second, probability
        self._before = [0]  # batches replaced before each epoch

    @property
    def sounds(self) -> object:
        """Where the sounds of the first stream come from."""
        return self.first.sounds

    @property
    def per_epoch(self) -> int:
        """Micro-batches an epoch of the first stream."""
        return self.first.per_epoch

    def fingerprint(self) -> str:
        """Hash of what both streams are made of."""
        both = self.first.fingerprint() + self.second.fingerprint()
        return hashlib.sha256(both.encode()).hexdigest()

    def __getitem__(self, m: int) -> Batch:
        """Micro-batch m of the whole training, counted over epochs of the first stream."""
        return self.part(m, 0, 1)

    def part(self, m: int, rank: int, processes: int) -> Batch:
        """The part of micro-batch m that process `rank` has, in the order of the ranks."""
        if not self.probability:
            return self._mixed(m, rank, processes)
        number = self.replaced(m)
        if number is None:
            return self.first.part(m, rank, processes)
        return self.second.part(number, rank, processes)

    def replaced(self, m: int) -> int | None:
        """Number of the second stream's batch that stands at m, or None for the first's own."""
        epoch, number = divmod(m, self.per_epoch)
        while len(self._before) <= epoch:
            drawn = self._drawn(len(self._before) - 1)
            self._before.append(self._before[-1] + int(drawn.sum()))
        drawn = self._drawn(epoch)
        return self._before[epoch] + int(drawn[:number].sum()) if drawn[number] else None

    def _drawn(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.first.order.seed, REPLAY, epoch])
        return rng.random(self.per_epoch) < self.probability

    def _mixed(self, m: int, rank: int, processes: int) -> Batch:
        """Clips of the first stream, then those of the second."""
        epoch, positions = self.first.order(m)
        other_epoch, others = self.second.order(m)
        every = np.concatenate([positions, len(self.first.clips) + others])
        own = np.array_split(every, processes)[rank]
        of_first = own < len(self.first.clips)
        parts = [
            self.first.take(epoch, own[of_first]),
            self.second.take(other_epoch, own[~of_first] - len(self.first.clips)),
        ]
        rows = {side: torch.cat([part.rows[side] for part in parts]) for side in parts[0].rows}
        return Batch(torch.cat([part.fbank for part in parts]), rows)
