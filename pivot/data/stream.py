"""Encoder inputs and frames of the clips in shards, by number: from sound, or an FBANK cache."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pivot.audio.frontend import FrontEnd
from pivot.data.fbank_cache import FbankCache, to_nats
from pivot.errors import DataError
from video_prep.shards import SOUND, ShardFolder


def open_with_sound(path: str | Path) -> ShardFolder:
    """The clips of shards that have a sound; one line on stderr counts those that have none."""
    shards = ShardFolder(path, sound=True)
    if silent := shards.ids_without_sound:
        print(
            f"left out: {len(silent)} of {len(shards) + len(silent)} clips of {shards.path}, which "
            f"have no sound (flag no_audio), such as {silent[0]!r}",
            file=sys.stderr,
        )
    return shards


def picture(shards: ShardFolder, i: int, k: int) -> Image.Image:
    """Frame k of clip i as an RGB picture."""
    return _rgb(shards, i, k, shards.frame(i, k))


def pictures(shards: ShardFolder, wanted: Sequence[tuple[int, int]]) -> list[Image.Image]:
    """Frames, each (clip, number of the frame), as RGB pictures; they are fetched together."""
    found = zip(wanted, shards.read(wanted), strict=True)
    return [_rgb(shards, i, k, data) for (i, k), data in found]


def _rgb(shards: ShardFolder, i: int, k: int, data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise DataError(
            f"frame {k} of clip {shards.ids[i]!r} in {shards.path} is damaged ({error}); "
            "prepare the clips again"
        ) from error


class SoundItems:
    """Encoder inputs of the clips of one folder of shards.

    With `cache` they come from a cache on disk: values are rounded to 1/8 nat, and a sound longer
    than the encoder's window is cropped at whole FBANK frames instead of at samples.

    Memory keeps what came first and never drops it: an epoch reads every clip once, so dropping the
    oldest would make every read a miss. `cache_mb` holds for each process by itself. Safe in
    threads; a copy in another process starts with nothing kept.
    """

    def __init__(
        self,
        shards: ShardFolder,
        front_end: FrontEnd,
        cache_mb: float = 0,
        cache: FbankCache | None = None,
    ) -> None:
        self.shards, self.front_end, self.cache = shards, front_end, cache
        self.places = np.empty(0, np.int64) if cache is None else cache.numbers(shards.ids)
        self.cache_bytes = int(cache_mb * 2**20)
        self._memory: dict[int, Tensor] = {}
        self._used = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.shards)

    def fbank(self, i: int, rng: np.random.Generator | None = None) -> Tensor:
        """Encoder input of clip i, of the front end's `shape`, float32; not to be written into.

        rng draws what training draws, such as the window of a long sound; None takes the middle.
        """
        return self.fbanks([i], [rng])[0]

    def fbanks(
        self, clips: Sequence[int], rngs: Sequence[np.random.Generator | None]
    ) -> list[Tensor]:
        """Encoder inputs of several clips, each with its rng; their sounds are fetched together."""
        if self.cache is not None:
            pairs = zip(clips, rngs, strict=True)
            return [self._from_disk(self.cache, i, rng) for i, rng in pairs]
        found = [self._memory.get(i) for i in clips]
        wanted = [i for i, rows in zip(clips, found, strict=True) if rows is None]
        data = iter(self.shards.read([(i, SOUND) for i in wanted]))
        return [
            self._from_sound(i, next(data), rng) if rows is None else rows
            for i, rng, rows in zip(clips, rngs, found, strict=True)
        ]

    def _from_disk(self, cache: FbankCache, i: int, rng: np.random.Generator | None) -> Tensor:
        codes = cache.codes(int(self.places[i]))
        rows = to_nats(self.front_end.crop_frames(codes, rng))
        return self.front_end.filled(torch.from_numpy(rows))

    def _from_sound(self, i: int, data: bytes, rng: np.random.Generator | None) -> Tensor:
        wave, rate = self.shards.decode_sound(i, data)
        try:
            rows = self.front_end(wave, rate, rng)
        except DataError as error:
            raise DataError(f"clip {self.shards.ids[i]!r} in {self.shards.path}: {error}") from None
        if not self.front_end.needs_crop(wave.shape[1], rate):
            self._keep(i, rows)
        return rows

    def require(self, clips: Sequence[int]) -> None:
        """Refuse an FBANK cache that lacks the sound of any of these clips."""
        if self.cache is None:
            return
        missing = [self.shards.ids[i] for i in clips if self.places[i] < 0]
        if missing:
            raise DataError(
                f"{self.cache.path} lacks {len(missing)} of {len(clips)} sounds, the first "
                f"{missing[0]!r}; see failures.jsonl there, and leave out those clips or --fbank"
            )

    def frame(self, i: int, k: int) -> Image.Image:
        """Frame k of clip i as an RGB picture."""
        return picture(self.shards, i, k)

    def _keep(self, i: int, rows: Tensor) -> None:
        size = rows.numel() * rows.element_size()
        with self._lock:
            if i not in self._memory and self._used + size <= self.cache_bytes:
                self._memory[i] = rows
                self._used += size

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": {}, "_used": 0, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())
