"""A scene to a picture, to moving frames, and to its sound.

Each thing is drawn once and pasted per frame; things that sound shake a little while they do.
"""

from __future__ import annotations

import numpy as np

from pivot.world.looks import sprite
from pivot.world.scenes import SECONDS, Part, Scene
from pivot.world.sounds import air_of, sound_of
from pivot.world.synthesis import RATE
from pivot.world.things import COLOURS

SIDE = 128  # pixels
FPS = 8


def picture(scene: Scene, side: int = SIDE) -> np.ndarray:
    """One still picture, uint8 (side, side, 3)."""
    canvas = _background(scene, side)
    for part in scene.parts:
        _paste(canvas, _drawn(part, side), part, side, (0, 0))
    return _bytes(canvas)


def frames(scene: Scene, rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """The clip's frames, uint8 (frames, side, side, 3)."""
    background = _background(scene, side)
    drawn = [_drawn(part, side) for part in scene.parts]
    shakes = [_shake(part, rng) for part in scene.parts]
    film = []
    for n in range(round(SECONDS * FPS)):
        canvas = background.copy()
        for part, ink, shake in zip(scene.parts, drawn, shakes, strict=True):
            _paste(canvas, ink, part, side, shake[n])
        film.append(_bytes(canvas))
    return np.stack(film)


def sound(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The clip's sound, int16 (samples,) at 16 kHz."""
    mix = np.zeros(round(SECONDS * RATE))
    for part in scene.heard:
        wave = sound_of(
            part.thing.name,
            rng,
            pitch=part.pitch,
            pace=part.tempo,
            level=part.level,
            seconds=part.seconds,
        )
        start = round(part.onset * RATE)
        mix[start:][: len(wave)] += wave[: len(mix) - start]
    if scene.air:
        mix += air_of(scene.place.name, rng, level=scene.air, seconds=SECONDS)
    mix += 3e-4 * rng.standard_normal(len(mix))  # a microphone is never quite silent
    peak = np.abs(mix).max()
    return np.round(mix * (32767 * min(1.0, 0.95 / peak))).astype(np.int16)


def _background(scene: Scene, side: int) -> np.ndarray:
    """The place's pale tint, a little darker below the horizon; float32 (side, side, 3)."""
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = scene.place.tint
    canvas[round(0.62 * side) :] *= 0.93
    return canvas


def _drawn(part: Part, side: int) -> np.ndarray:
    """The sprite of a part, premultiplied RGBA."""
    return sprite(part.look, COLOURS[part.colour], round(part.radius * side))


def _shake(part: Part, rng: np.random.Generator) -> np.ndarray:
    """Offset in pixels (frames, 2) as (x, y): a shake of up to 3 while sounding, else nothing."""
    count = round(SECONDS * FPS)
    times = np.arange(count) / FPS
    active = (times >= part.onset) & (times < part.onset + part.seconds) & part.sounds
    return rng.integers(-3, 4, size=(count, 2)) * active[:, None]


def _paste(
    canvas: np.ndarray, ink: np.ndarray, part: Part, side: int, shift: tuple[int, int] | np.ndarray
) -> None:
    """Lay a sprite over the canvas, cut at its borders."""
    half = len(ink) // 2
    left = round(part.x * side) - half + int(shift[0])
    top = round(part.y * side) - half + int(shift[1])
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + 2 * half, side), min(top + 2 * half, side)
    piece = ink[y0 - top : y1 - top, x0 - left : x1 - left]
    canvas[y0:y1, x0:x1] *= 1 - piece[..., 3:]
    canvas[y0:y1, x0:x1] += piece[..., :3]


def _bytes(canvas: np.ndarray) -> np.ndarray:
    """Float picture to uint8, rounded."""
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
