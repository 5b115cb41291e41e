"""FBANK kept on disk in uint8, memory-mapped: training reads it instead of sound.

    manifest.json     audio settings, shards, the codes' step and zero, counts
    ids.json          one id per sound
    sounds.npy        int64 (sounds, 3): file of codes, first row in it, rows
    codes-NNNNN.u8    uint8 (rows, mel bins), the sounds of 1,024 inputs one after the other
    failures.jsonl    inputs without a usable sound, where there were any

It holds FBANK of whole sounds as `real_frames` computes it: before crop, normalising, padding and
masks. Code c stands for ZERO + c / 8 nats, from the floor of FBANK, which is exact, to 15.93; a
16-bit sound cannot reach that with the usual windows, and what does is clamped and counted. So a
value is at most 1/16 nat off, 0.036 in the mean square.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.audio.fbank import log_floor, require_fbank
from pivot.audio.frontend import FrontEnd
from pivot.audio.norms import differences, fingerprint, front_end
from pivot.errors import SettingsError, StoreError
from pivot.settings import AudioSettings
from video_prep.shards import ShardFolder

FORMAT = "pivot fbank 1"
MANIFEST, IDS, SOUNDS, UNFINISHED = "manifest.json", "ids.json", "sounds.npy", "unfinished.json"
STEP = 0.125  # nats between two codes
ZERO = log_floor()  # nats of code 0
TOP = ZERO + 255 * STEP  # nats of code 255

Codes = NDArray[np.uint8]


def to_codes(rows: NDArray[np.float32]) -> Codes:
    """FBANK in nats -> the nearest codes, clamped to 0..255."""
    codes = np.rint((rows - np.float32(ZERO)) * np.float32(1 / STEP))
    return np.clip(codes, 0, 255).astype(np.uint8)


def to_nats(codes: Codes) -> NDArray[np.float32]:
    """Codes -> FBANK in nats."""
    rows = np.multiply(codes, np.float32(STEP), dtype=np.float32)
    rows += np.float32(ZERO)
    return rows


def code_file(number: int) -> str:
    """Name of a file of codes."""
    return f"codes-{number:05d}.u8"


def deciding(settings: AudioSettings) -> dict[str, Any]:
    """The audio settings that decide what is kept."""
    return {**front_end(settings), "backend": settings.backend}


class FbankCache:
    """A finished cache, opened for reading; safe in threads and through pickle."""

    def __init__(
        self, path: Path, manifest: dict[str, Any], ids: list[str], sounds: NDArray[np.int64]
    ) -> None:
        self.path, self.manifest, self.ids, self.sounds = path, manifest, ids, sounds
        self.bins = int(manifest["bins"])
        self._maps: dict[int, Codes] = {}

    @classmethod
    def open(cls, path: str | Path) -> FbankCache:
        """Open a cache; raises StoreError for one that is missing, unfinished or damaged."""
        path = Path(path)
        manifest = _read_manifest(path)
        try:
            ids = json.loads((path / IDS).read_text("utf-8"))
            sounds = np.load(path / SOUNDS, allow_pickle=False)
            counts = (len(ids), sounds.shape, int(sounds[:, 2].sum()))
            whole = counts == (manifest["count"], (manifest["count"], 3), manifest["frames"])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise StoreError(f"{path} is missing a file or damaged ({error}); make it again") from (
                error
            )
        if not whole:
            raise StoreError(f"{path} is damaged: {counts} is not what its manifest says")
        cache = cls(path, manifest, ids, sounds)
        cache._check_sizes()
        return cache

    def _check_sizes(self) -> None:
        """A file that is too short would kill the process that reads beyond its end."""
        rows = np.bincount(self.sounds[:, 0], self.sounds[:, 2]).astype(np.int64)
        for number in np.flatnonzero(rows).tolist():
            file, size = self.path / code_file(number), int(rows[number]) * self.bins
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes, not {size}"
                raise StoreError(f"{file} {state}; delete {self.path} and make it again")

    def __len__(self) -> int:
        """Number of sounds."""
        return len(self.ids)

    @property
    def longest(self) -> int:
        """Frames of the longest sound."""
        return int(self.sounds[:, 2].max())

    def numbers(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Number of the sound of each id; -1 for one that is not here."""
        known = {name: n for n, name in enumerate(self.ids)}
        return np.array([known.get(name, -1) for name in ids], np.int64)

    def codes(self, n: int) -> Codes:
        """Codes (frames, mel bins) of sound n: a view of the file, not to be written into."""
        if not 0 <= n < len(self):
            raise IndexError(f"{self.path} has {len(self)} sounds, no number {n}")
        number, first, rows = self.sounds[n].tolist()
        codes = self._maps.get(number)
        if codes is None:
            file = np.memmap(self.path / code_file(number), np.uint8, "r")
            codes = self._maps[number] = file.view(np.ndarray).reshape(-1, self.bins)
        return codes[first : first + rows]

    def require(self, settings: AudioSettings, shards: ShardFolder) -> FbankCache:
        """Refuse a cache of another front end or of other shards; return this one."""
        same = self.manifest["definition"] == fingerprint(settings)
        if not same or self.manifest["audio"] != deciding(settings):
            raise StoreError(
                f"{self.path} was made with another front end "
                f"({differences(self.manifest['audio'], deciding(settings))}); use the same audio "
                "settings, or run pivot embed fbank again"
            )
        if self.manifest["data"]["fingerprint"] != shards.fingerprint:
            raise StoreError(
                f"{self.path} is stale or foreign: it was made of {self.manifest['data']['path']}, "
                f"and {shards.path} holds other clips now; run pivot embed fbank again"
            )
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def open_cache(path: str | None, front_end: FrontEnd, shards: ShardFolder) -> FbankCache | None:
    """The cache that `--fbank` names, if it fits; None for None."""
    if path is None:
        return None
    settings = require_fbank(front_end.settings, f"--fbank {path}")
    cache = FbankCache.open(path).require(settings, shards)
    if settings.crop == "vip_ant" and cache.longest > front_end.uncropped_frames():
        raise SettingsError(
            f"audio.crop vip_ant looks for a loud place in the samples of long sounds, and {path} "
            f"holds FBANK alone, of up to {cache.longest} frames; leave out --fbank, or set "
            "--audio.crop plain"
        )
    return cache


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise StoreError(f"FBANK cache {path} does not exist; make it with pivot embed fbank")
    if not (path / MANIFEST).is_file() and (path / UNFINISHED).is_file():
        raise StoreError(f"FBANK cache {path} is not finished; run the same pivot embed again")
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        known = manifest["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise StoreError(
            f"{path} is not an FBANK cache of this Pivot ({FORMAT}); make one with pivot embed "
            "fbank"
        )
    return dict(manifest)
