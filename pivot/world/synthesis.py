"""The bricks sounds are made of: tones, struck bodies, filtered noise, envelopes, repeats.

Waves are float64 (samples,) at RATE, about unit peak; randomness comes only from the generator
that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RATE = 16_000  # Hz

Wave = np.ndarray


def clock(seconds: float) -> Wave:
    """Times of the samples of a wave, in seconds."""
    return np.arange(round(seconds * RATE)) / RATE


def tone(hertz: Wave | float, seconds: float, harmonics: Sequence[float] = (1.0,)) -> Wave:
    """A tone whose frequency may glide; `harmonics` are the levels of 1, 2, 3... times it."""
    steps = np.broadcast_to(np.asarray(hertz, float), clock(seconds).shape)
    phase = 2 * np.pi * np.cumsum(steps) / RATE
    wave = sum(level * np.sin((k + 1) * phase) for k, level in enumerate(harmonics))
    return np.asarray(wave) / sum(harmonics)


def struck(hertz: float, seconds: float, ratios: Sequence[float], decay: float) -> Wave:
    """A struck body: partials at `ratios` of `hertz` that die away, higher ones sooner."""
    t = clock(seconds)
    partials = (np.sin(2 * np.pi * hertz * r * t) * np.exp(-t * r / decay) / r for r in ratios)
    return np.asarray(sum(partials)) / sum(1 / r for r in ratios)


def noise(rng: np.random.Generator, seconds: float, low: float, high: float) -> Wave:
    """Noise between two frequencies (soft edges, a third of an octave), about unit peak."""
    size = len(clock(seconds))
    hertz = np.fft.rfftfreq(size, 1 / RATE) + 1e-9
    octaves = np.maximum(np.log2(low / hertz), np.log2(hertz / high)).clip(0)
    spectrum = np.fft.rfft(rng.standard_normal(size)) * np.exp(-((3 * octaves) ** 2))
    wave = np.fft.irfft(spectrum, size)
    return wave / (3 * wave.std() + 1e-12)


def swell(seconds: float, attack: float, release: float) -> Wave:
    """An envelope that rises for `attack` seconds, holds, and falls for `release` seconds."""
    t = clock(seconds)
    return np.minimum(t / attack, (seconds - t) / release).clip(0, 1)


def repeat(one: Callable[[], Wave], seconds: float, every: float, rng: np.random.Generator) -> Wave:
    """Play `one()` about every `every` seconds (jittered by a tenth), overlaps added."""
    out = np.zeros(len(clock(seconds)))
    start = 0.0
    while start < seconds - 0.02:
        piece = one()[: len(out) - round(start * RATE)]
        out[round(start * RATE) :][: len(piece)] += piece
        start += every * rng.uniform(0.9, 1.1)
    return out
