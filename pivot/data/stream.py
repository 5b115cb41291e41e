"""FBANK and frames of the clips in shards, by number; sounds that need no crop stay in memory."""

from __future__ import annotations

import io
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from pivot.audio.frontend import FrontEnd
from pivot.errors import DataError
from video_prep.shards import ShardFolder


def picture(shards: ShardFolder, i: int, k: int) -> Image.Image:
    """Frame k of clip i as an RGB picture."""
    try:
        return Image.open(io.BytesIO(shards.frame(i, k))).convert("RGB")
    except OSError as error:
        raise DataError(
            f"frame {k} of clip {shards.ids[i]!r} in {shards.path} is damaged ({error}); "
            "prepare the clips again"
        ) from error


class SoundItems:
    """Encoder inputs of the clips of one folder of shards.

    The cache keeps what came first and never drops it: an epoch reads every clip once, so dropping
    the oldest would make every read a miss. `cache_mb` holds for each process by itself. Safe in
    threads; a copy in another process starts with an empty cache.
    """

    def __init__(self, shards: ShardFolder, front_end: FrontEnd, cache_mb: float = 0) -> None:
        self.shards = shards
        self.front_end = front_end
        self.cache_bytes = int(cache_mb * 2**20)
        self._kept: dict[int, Tensor] = {}
        self._used = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.shards)

    def fbank(self, i: int, rng: np.random.Generator | None = None) -> Tensor:
        """Encoder input (num_frames, mel bins) of clip i, float32; not to be written into.

        rng draws the window of a long sound and is not used for others; None takes the middle.
        """
        kept = self._kept.get(i)
        if kept is not None:
            return kept
        wave, rate = self.shards.sound(i)
        try:
            rows = self.front_end(wave, rate, rng)
        except DataError as error:
            raise DataError(f"clip {self.shards.ids[i]!r} in {self.shards.path}: {error}") from None
        if not self.front_end.needs_crop(wave.shape[1], rate):
            self._keep(i, rows)
        return rows

    def frame(self, i: int, k: int) -> Image.Image:
        """Frame k of clip i as an RGB picture."""
        return picture(self.shards, i, k)

    def _keep(self, i: int, rows: Tensor) -> None:
        size = rows.numel() * rows.element_size()
        with self._lock:
            if i not in self._kept and self._used + size <= self.cache_bytes:
                self._kept[i] = rows
                self._used += size

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}, "_used": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())
