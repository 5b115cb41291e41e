"""Makes the clips of the benchmark: moving textures with grain, cuts and music-like sound."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_CUTS = (0.0, 0.368, 0.708)  # a scene begins at these shares of a clip
_RATE = 44100  # Hz, as most of the sounds on YouTube


@dataclass(frozen=True)
class Clip:
    """A clip to make: its size in pixels, most frames between keyframes, kbit/s of its video."""

    name: str
    width: int
    height: int
    gop: int
    kbits: int
    seconds: int = 10
    fps: int = 25


# bit rates as YouTube's H.264 at these sizes: about 0.8 and 2.1 MB a clip with its sound
CLIPS = (
    Clip("640x360, keyframe each 250", 640, 360, 250, 500),
    Clip("640x360, keyframe each 60", 640, 360, 60, 500),
    Clip("640x360, keyframe each 12", 640, 360, 12, 500),
    Clip("1280x720, keyframe each 250", 1280, 720, 250, 1550),
    Clip("1280x720, keyframe each 12", 1280, 720, 12, 1550),
)
SMALL = Clip("128x128, keyframe each 12", 128, 128, 12, 100, seconds=2, fps=8)


def write_clip(path: Path, clip: Clip) -> Path:
    """Write `clip` as MP4: H.264 with B-frames, AAC of 128 kbit/s in stereo."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=clip.fps, options={"preset": "fast", "bf": "3"})
        video.width, video.height, video.pix_fmt = clip.width, clip.height, "yuv420p"
        video.gop_size, video.bit_rate = clip.gop, 1000 * clip.kbits
        audio = file.add_stream("aac", rate=_RATE, layout="stereo")
        audio.bit_rate = 128_000
        scenes = _Scenes(clip)
        for number in range(clip.fps * clip.seconds):
            picture = av.VideoFrame.from_ndarray(scenes.picture(number), "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, clip.fps)
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound(clip.seconds, _RATE, 2), "fltp", "stereo")
        frame.sample_rate = _RATE
        file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    return path


class _Scenes:
    """Pictures of a clip by number, as planes of YUV 4:2:0 one below the other."""

    def __init__(self, clip: Clip) -> None:
        self._rng = np.random.default_rng([1, clip.width, clip.height])
        self._size = clip.height, clip.width
        self._cuts = [round(share * clip.fps * clip.seconds) for share in _CUTS]
        grain = self._rng.normal(0, 4, (clip.height + 64, clip.width + 64))
        self._grain = grain.clip(-16, 16).astype(np.int8).view(np.uint8)
        height = clip.height * 3 // 2
        self._layers = [
            [texture(self._rng, height, clip.width) for _ in range(2)] for _ in self._cuts
        ]

    def picture(self, number: int) -> np.ndarray:
        """uint8 (height * 3 / 2, width): a texture that drifts behind one that drifts faster."""
        height, width = self._size
        back, front = self._layers[sum(number >= cut for cut in self._cuts) - 1]
        planes = np.roll(back, 2 * number, axis=1)
        left = (5 * number) % (width // 2)
        box = np.s_[height // 4 : height * 3 // 4, left : left + width // 3]
        planes[box] = np.roll(front[:, box[1]], 3 * number, axis=0)[box[0]]
        planes[height:] = 96 + planes[height:] // 4  # colours are paler than light
        y, x = self._rng.integers(0, 64, 2)
        planes[:height] += self._grain[y : y + height, x : x + width]  # wraps, so it can darken
        return planes


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 (height, width), 32 to 219; detail falls off with frequency, as in photographs."""
    found = np.full((height, width), 128.0, np.float32)
    for step, strength in ((64, 30), (16, 18), (4, 9), (1, 4)):
        coarse = rng.normal(0, strength, (height // step + 2, width // step + 2))
        found += _enlarged(coarse.astype(np.float32), step, height, width)
    return found.clip(32, 219).astype(np.uint8)


def _enlarged(coarse: np.ndarray, step: int, height: int, width: int) -> np.ndarray:
    """Linear interpolation of a grid whose points lie `step` pixels apart."""
    for axis, size in enumerate((height, width)):
        at = np.arange(size) / step
        low = at.astype(int)
        share = (at - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        coarse = np.take(coarse, low, axis) * (1 - share) + np.take(coarse, low + 1, axis) * share
    return coarse


def sound(seconds: float, rate: int, channels: int, noise: float = 0.05) -> np.ndarray:
    """float32 (channels, samples): chords that change each half second, under `noise`."""
    rng = np.random.default_rng([2, rate, channels])
    t = np.arange(round(seconds * rate)) / rate
    notes: Any = 220 * 2 ** (rng.integers(0, 24, (3, round(seconds * 2) + 1)) / 12)
    phase = 2 * np.pi * np.cumsum(notes[:, (2 * t).astype(int)], axis=1) / rate
    chord = 0.1 * np.sin(phase).sum(axis=0)
    return (chord + rng.normal(0, noise, (channels, len(t)))).astype(np.float32)
