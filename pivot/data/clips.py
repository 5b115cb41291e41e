"""Prepared clips as a map-style dataset for your own training: frames and sound, by number.

    dataset = ClipDataset("shards", frame="random", transform=crop)
    sampler = ClipSampler(dataset)
    for epoch in range(sampler.epoch, 10):
        sampler.set_epoch(epoch)
        for number, batch in enumerate(DataLoader(dataset, 64, sampler=sampler), 1):
            state = sampler.state_dict(64 * number)  # to go on from here, exactly

Order and frames are those of Pivot's own training with the same seed, and like there they are pure
functions of (seed, epoch, clip): workers, ranks and interruptions change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
import torch.distributed
from torch.utils.data import Dataset, Sampler

from pivot.data.choices import FrameChoice, permutation
from pivot.data.stream import open_with_sound
from pivot.errors import DataError, SettingsError
from video_prep.shards import SOUND, ShardFolder

Item = dict[str, Any]
Index = int | tuple[int, int]
Frame = int | Literal["random", "middle", "all"]
RULES = ("random", "middle", "all")


class ClipDataset(Dataset[Any]):
    """Clips of shards, local or behind a URL: item i is {"id", "frame", "sound", "rate"}.

    `frame` is read alone of all frames of the clip: a number, the "middle" one, or one drawn at
    "random", anew every epoch; it is uint8 (height, width, 3). "all" gives a list of all, None
    none. `sound` is int16 (channels, samples), `rate` its Hz; `sound=False` leaves out both, and
    counts clips without sound too. Clips differ in size and length, so `transform`, which takes an
    item and returns what the loader is to stack, has to make them equal.

    An index is a clip, or (epoch, clip) as ClipSampler gives it; a clip alone is of epoch 0.
    Nothing is ever replaced: what cannot be read or decoded is an error that names the clip.
    """

    def __init__(
        self,
        shards: ShardFolder | str | Path,
        frame: Frame | None = "random",
        *,
        sound: bool = True,
        seed: int = 0,
        transform: Callable[[Item], Any] | None = None,
    ) -> None:
        if not isinstance(shards, ShardFolder):
            shards = open_with_sound(shards) if sound else ShardFolder(shards)
        if sound and not shards.all_have_sound:
            raise DataError(
                f"{shards.path} holds {len(shards.ids_without_sound)} clips without sound; open it "
                "with ShardFolder(..., sound=True), or take ClipDataset(..., sound=False)"
            )
        _check_frame(frame, shards)
        self.shards, self.frame, self.sound = shards, frame, sound
        self.seed, self.transform = seed, transform

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: Index) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[Index]) -> list[Any]:
        """Items of a batch, read together: behind a URL that takes the time of one."""
        pairs = [index if isinstance(index, tuple) else (0, index) for index in indices]
        clips = [(int(i), self._frames(epoch, i)) for epoch, i in pairs]
        sound = [SOUND] if self.sound else []
        wanted = [(i, member) for i, frames in clips for member in frames + sound]
        data = iter(self.shards.read(wanted))
        items = [self._item(i, frames, data) for i, frames in clips]
        return items if self.transform is None else [self.transform(item) for item in items]

    def _frames(self, epoch: int, i: int) -> list[int]:
        """The frames that are wanted of clip i."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.shards.path} has {len(self)} clips, no clip number {i}")
        count = self.shards.num_frames
        if self.frame is None:
            return []
        if isinstance(self.frame, int):
            return [self.frame]
        rule: Literal["random", "middle", "mean"] = "mean" if self.frame == "all" else self.frame
        rows = FrameChoice(rule, len(self), count, self.seed)(epoch, np.array([i]))[0]
        return [row % count for row in rows.tolist()]

    def _item(self, i: int, frames: list[int], data: Iterator[bytes]) -> Item:
        item: Item = {"id": self.shards.ids[i]}
        pictures = [self._picture(i, k, next(data)) for k in frames]
        if frames:
            item["frame"] = pictures if self.frame == "all" else pictures[0]
        if self.sound:
            item["sound"], item["rate"] = self.shards.decode_sound(i, next(data))
        return item

    def _picture(self, i: int, k: int, data: bytes) -> np.ndarray:
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError as error:
            raise DataError(
                f"frame {k} of clip {self.shards.ids[i]!r} in {self.shards.path} is damaged "
                f"({error}); prepare the clips again"
            ) from error


def _check_frame(frame: Any, shards: ShardFolder) -> None:
    count = shards.num_frames
    if frame is None:
        return
    if not count:
        raise DataError(f"{shards.path} holds sounds without frames; take frame=None")
    known = frame in range(count) if isinstance(frame, int) else frame in RULES
    if not known:
        raise SettingsError(
            f"frame {frame!r} is none of 0 to {count - 1} (the frames in {shards.path}), "
            f"{', '.join(RULES)} and None"
        )


class ClipSampler(Sampler[tuple[int, int]]):
    """Indices (epoch, clip) of a ClipDataset: every epoch a new order, split over ranks.

    Of w ranks, rank r takes every w-th clip of the order from the r-th on, so each clip comes
    exactly once an epoch; the first n % w ranks have one clip more than the others. `even` leaves
    the last n % w clips of the order out (others every epoch), for a training that waits for all
    ranks at every step. Rank and world size are those of torch.distributed where it is running.

    The first iteration is of epoch 0, or goes on where a loaded state was; each further one is of
    the next epoch, or of the one that `set_epoch` names.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        even: bool = False,
    ) -> None:
        running = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if running else 0
        if world_size is None:
            world_size = torch.distributed.get_world_size() if running else 1
        if not 0 <= rank < world_size:
            raise SettingsError(f"rank {rank} is not between 0 and {world_size - 1}")
        self.rank, self.world_size = rank, world_size
        self.clips, self.seed = len(dataset), dataset.seed
        self.data = dataset.shards.fingerprint
        self.last = self.clips - self.clips % world_size if even else self.clips
        if self.last == 0:
            raise DataError(f"{self.clips} clips are fewer than {world_size} ranks")
        self.epoch, self.done = 0, 0  # where the iteration begins: clips before it, of all ranks
        self._begun = False

    def __len__(self) -> int:
        """Clips of this rank in the iteration that is running, or else in the first to come."""
        return len(range(self.done + self.rank, self.last, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self._begun:
            self.epoch, self.done = self.epoch + 1, 0
        self._begun = True
        order = permutation(self.seed, self.epoch, self.clips)[: self.last]
        mine = order[self.done + self.rank :: self.world_size]
        return ((epoch, int(i)) for epoch in [self.epoch] for i in mine)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be of this epoch: from its beginning, or from the loaded state."""
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0
        self._begun = False

    def state_dict(self, taken: int) -> dict[str, Any]:
        """State after the first `taken` clips of this iteration have come out of the loader.

        Count them yourself, in batches of full size: the workers of a loader have asked the sampler
        for more. All ranks are taken to be as far, so the state holds for any world size.
        """
        epoch, done = self.epoch, self.done + taken * self.world_size
        if done >= self.last:
            epoch, done = epoch + 1, 0
        return {
            "epoch": epoch,
            "done": done,
            "clips": self.clips,
            "seed": self.seed,
            "fingerprint": self.data,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on where the state was taken, with what was not yet taken."""
        for name, own in (("fingerprint", self.data), ("clips", self.clips), ("seed", self.seed)):
            if state[name] != own:
                raise DataError(
                    f"the state is of other data: its {name} is {state[name]!r}, here {own!r}; "
                    "resume with the same shards, sound and seed"
                )
        self.epoch, self.done, self._begun = state["epoch"], state["done"], False
