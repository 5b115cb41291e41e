"""Hash of what is heard: rate, channels, samples and their MD5, equal for FLAC and WAV."""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from video_prep.decoding.sound import load_sound
from video_prep.decoding.waves import Channel, Rate
from video_prep.errors import ClipError
from video_prep.shards import SOUND, ShardFolder

HEAD = 42  # bytes of a FLAC file until the end of its first block, STREAMINFO (RFC 9639, 8.2)
CLIPS_A_READ = 256


class Form(NamedTuple):
    """How shards keep sound: a file is brought to it before it is compared with them."""

    rate: Rate = "native"  # Hz
    channel: Channel = "all"


def hash_of(wave: np.ndarray, rate: int) -> str:
    """RATE/CHANNELS/SAMPLES/MD5 of int16 (channels, samples), the MD5 that FLAC would note."""
    data = np.ascontiguousarray(wave.T, "<i2").tobytes()
    return f"{rate}/{len(wave)}/{wave.shape[1]}/{_md5(data)}"


def hash_in_flac(head: bytes) -> str | None:
    """`hash_of` as the first HEAD bytes of a FLAC tell it; None without an MD5, or not 16 bits."""
    if len(head) < HEAD or not head.startswith(b"fLaC"):
        return None
    numbers, digest = int.from_bytes(head[18:26], "big"), head[26:42]
    rate, channels = numbers >> 44, (numbers >> 41 & 7) + 1
    bits, samples = (numbers >> 36 & 31) + 1, numbers & (1 << 36) - 1
    if bits != 16 or not samples or not any(digest):
        return None
    return f"{rate}/{channels}/{samples}/{digest.hex()}"


def form_of(sound: str) -> str:
    """RATE/CHANNELS of a hash: sounds of other forms cannot be compared."""
    return sound[: sound.index("/", sound.index("/") + 1)]


def is_silence(sound: str) -> bool:
    """Whether a hash is that of zeros alone, which many recordings share and which tells none."""
    _, channels, samples, digest = sound.split("/")
    return digest == _md5_of_zeros(2 * int(channels) * int(samples))


def hashes_of_shards(shards: ShardFolder) -> list[str | None]:
    """Hash of each clip's sound, None without one. Of a FLAC only the head is read."""
    found: list[str | None] = [None] * len(shards)
    for start in range(0, len(shards), CLIPS_A_READ):
        part = range(start, min(start + CLIPS_A_READ, len(shards)))
        heard = [i for i in part if shards.has_sound(i)]
        heads = shards.read([(i, SOUND) for i in heard], HEAD)
        for i, head in zip(heard, heads, strict=True):
            found[i] = hash_in_flac(head) or hash_of(*shards.sound(i))
    return found


def hashes_of_files(paths: list[Path], form: Form) -> list[str | None]:
    """Hash of each file's sound in `form`; None where it has none, which stderr counts."""
    found: list[str | None] = []
    bad: list[ClipError] = []
    for path in paths:
        try:
            found.append(_hash_of_file(path, form))
        except ClipError as error:
            found.append(None)
            bad.append(error)
    if bad:
        print(
            f"{len(bad):,} of {len(paths):,} files hold no sound that can be read "
            f"(the first: {bad[0]})",
            file=sys.stderr,
        )
    return found


def _hash_of_file(path: Path, form: Form) -> str:
    if form == Form() and path.suffix.lower() == ".flac":
        with path.open("rb") as file:
            if told := hash_in_flac(file.read(HEAD)):
                return told
    sound = load_sound(path, channel=form.channel, sample_rate=form.rate, short=True)
    return hash_of(sound.wave, sound.rate)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@lru_cache(4096)
def _md5_of_zeros(count: int) -> str:
    return _md5(bytes(count))
