"""How things sound: one synthesis a kind, varied in pitch, pace, level and onset.

A voice is a function (rng, pitch, pace, seconds) -> wave, where `pitch` multiplies frequencies and
`pace` multiplies rates. The dozen-line table below is the whole orchestra.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pivot.world.synthesis import RATE, Wave, clock, noise, repeat, struck, swell, tone

Rng = np.random.Generator
Voice = Callable[[Rng, float, float, float], Wave]


def _strikes(hertz: float, ratios: tuple[float, ...], decay: float, every: float) -> Voice:
    """A body struck again and again."""

    def play(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
        return repeat(
            lambda: struck(hertz * pitch, min(seconds, 4 * decay), ratios, decay),
            seconds,
            every / pace,
            rng,
        )

    return play


def _calls(
    start: float, end: float, length: float, every: float, harmonics: tuple[float, ...]
) -> Voice:
    """A call that glides from one frequency to another, again and again."""

    def play(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
        glide = np.geomspace(start * pitch, end * pitch, len(clock(length)))
        call = tone(glide, length, harmonics) * swell(length, 0.02, length / 3)
        return repeat(lambda: call, seconds, every / pace, rng)

    return play


def _gusts(low: float, high: float, length: float, every: float) -> Voice:
    """Gusts of filtered noise."""

    def play(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
        def gust() -> Wave:
            wave = noise(rng, length / pace, low * pitch, min(high * pitch, 7900))
            return wave * swell(length / pace, length / pace / 3, length / pace / 2)

        return repeat(gust, seconds, every / pace, rng)

    return play


def _siren(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    sweep = np.sin(2 * np.pi * 1.1 * pace * clock(seconds) + rng.uniform(0, 6))
    return tone(750 * pitch * 2 ** (0.5 * sweep), seconds, (1, 0.3, 0.2))


def _drum(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    def beat() -> Wave:
        skin = struck(110 * pitch, 0.3, (1, 1.6, 2.3), 0.08)
        return skin + 0.5 * noise(rng, 0.3, 100, 900 * pitch) * np.exp(-clock(0.3) / 0.02)

    return repeat(beat, seconds, 0.3 / pace, rng)


def _kettle(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    rise = np.linspace(0.85, 1, len(clock(seconds)))
    whistle = tone(2300 * pitch * rise, seconds, (1, 0.15))
    return (0.8 * whistle + 0.3 * noise(rng, seconds, 3000, 6500)) * swell(seconds, 0.3, 0.1)


def _clock(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    def tick() -> Wave:
        return noise(rng, 0.03, 1800 * pitch, 4500 * pitch) * np.exp(-clock(0.03) / 0.006)

    return repeat(tick, seconds, 0.25 / pace, rng)


def _gong(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    body = struck(150 * pitch, seconds, (1, 1.35, 1.8, 2.6, 3.3, 4.1), 1.2)
    return body * (1 + 0.3 * np.sin(2 * np.pi * 5 * clock(seconds)))


def _saw(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    stroke = np.abs(np.sin(np.pi * 2.5 * pace * clock(seconds)))
    rasp = np.sign(np.sin(2 * np.pi * 90 * pitch * clock(seconds))) * 0.5 + 0.5
    return noise(rng, seconds, 900 * pitch, 5000) * rasp * stroke


def _fan(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    blades = 1 + 0.8 * np.sin(2 * np.pi * 9 * pace * clock(seconds))
    hum = tone(120 * pitch, seconds, (1, 0.8, 0.5))
    return (0.6 * hum + 0.5 * noise(rng, seconds, 150 * pitch, 700 * pitch)) * blades / 1.8


def _phone(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    t = clock(seconds)
    switch = np.sin(2 * np.pi * 20 * t) > 0
    trill = tone(np.where(switch, 950, 1250) * pitch, seconds, (1, 0, 0.3))
    return trill * (np.sin(2 * np.pi * 1.6 * pace * t + 0.3) > -0.2)


def _piano(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    def note() -> Wave:
        step = rng.choice((0, 2, 4, 5, 7, 9, 12))
        return struck(330 * pitch * 2 ** (step / 12), 0.6, (1, 2, 3, 4), 0.35)

    return repeat(note, seconds, 0.28 / pace, rng)


def _bark(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    def bark() -> Wave:
        glide = np.linspace(520, 300, len(clock(0.16))) * pitch
        voice = tone(glide, 0.16, (1, 0.9, 0.8, 0.6, 0.4))
        return (voice + 0.5 * noise(rng, 0.16, 400, 2500)) * swell(0.16, 0.01, 0.1)

    return repeat(bark, seconds, 0.45 / pace, rng)


def _croak(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    pulses = np.sin(2 * np.pi * 38 * clock(0.3)) > 0.3
    croak = tone(260 * pitch, 0.3, (0.4, 1, 0.7, 0.5)) * pulses * swell(0.3, 0.04, 0.1)
    return repeat(lambda: croak, seconds, 0.55 / pace, rng)


def _bee(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    wander = np.sin(2 * np.pi * 2.3 * clock(seconds) + rng.uniform(0, 6))
    return tone(230 * pitch * (1 + 0.08 * wander), seconds, (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4))


def _car(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    rise = np.linspace(1, 1.5, len(clock(seconds)))
    engine = tone(55 * pitch * rise, seconds, (0.5, 1, 0.8, 0.9, 0.5, 0.4))
    return engine + 0.25 * noise(rng, seconds, 80, 400)


def _horn(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    length = 0.5 / pace
    chord = tone(330 * pitch, length, (1, 1, 1, 1)) + tone(415 * pitch, length, (1, 1, 1, 1))
    return repeat(lambda: chord / 2 * swell(length, 0.03, 0.06), seconds, 1.35 * length, rng)


def _robot(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    def beep() -> Wave:
        return np.sign(tone(rng.choice((700, 1000, 1500)) * pitch, 0.1)) * 0.7

    return repeat(beep, seconds, 0.17 / pace, rng)


def _cloud(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    def drop() -> Wave:
        low = rng.uniform(900, 2500) * pitch
        return noise(rng, 0.012, low, 1.5 * low) * rng.uniform(0.3, 1)

    return repeat(drop, seconds, 0.02 / pace, rng) + 0.1 * noise(rng, seconds, 1000, 5000)


def _ball(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    out, start, gap = np.zeros(len(clock(seconds))), 0.0, 0.5 / pace
    while start < seconds - 0.02 and gap > 0.03:
        bounce = struck(190 * pitch, 0.15, (1, 2.1), 0.05)[: len(out) - round(start * RATE)]
        out[round(start * RATE) :][: len(bounce)] += bounce * gap**0.3
        start, gap = start + gap, gap * 0.78
    return out


def _rocket(rng: Rng, pitch: float, pace: float, seconds: float) -> Wave:
    return noise(rng, seconds, 40, 500 * pitch) * swell(seconds, 0.5 * seconds, 0.1)


VOICES: dict[str, Voice] = {
    "bell": _strikes(900, (1, 2.4, 3.9, 5.4), 0.5, 0.6),
    "siren": _siren,
    "drum": _drum,
    "kettle": _kettle,
    "clock": _clock,
    "gong": _gong,
    "saw": _saw,
    "fan": _fan,
    "phone": _phone,
    "piano": _piano,
    "dog": _bark,
    "cat": _calls(900, 550, 0.5, 0.8, (1, 0.6, 0.3)),
    "bird": _calls(2400, 4200, 0.09, 0.2, (1, 0.1)),
    "frog": _croak,
    "cow": _calls(210, 140, 0.9, 1.0, (1, 0.8, 0.7, 0.4, 0.3)),
    "bee": _bee,
    "snake": _gusts(3500, 7500, 0.5, 0.6),
    "car": _car,
    "horn": _horn,
    "robot": _robot,
    "cloud": _cloud,
    "fountain": _gusts(300, 2200, 0.35, 0.4),
    "ball": _ball,
    "rocket": _rocket,
}

AIRS: dict[str, tuple[float, float, float]] = {  # low and high edge (Hz), gusts a second
    "field": (200, 700, 0.5),
    "sea": (100, 1500, 0.8),
    "street": (50, 250, 0.0),
    "night": (4200, 4800, 7.0),
    "room": (95, 125, 0.0),
    "desert": (1200, 3000, 0.4),
}


def sound_of(
    name: str, rng: Rng, *, pitch: float, pace: float, level: float, seconds: float
) -> Wave:
    """The sound of a thing, float64 (samples,), loudness `level` (root of its mean power)."""
    wave = VOICES[name](rng, pitch, pace, seconds) * swell(seconds, 0.005, 0.03)
    return wave * (level / (np.sqrt(np.mean(wave**2)) + 1e-9))


def air_of(place: str, rng: Rng, *, level: float, seconds: float) -> Wave:
    """The ambient noise of a place, float64 (samples,), at root mean power `level`."""
    low, high, gusts = AIRS[place]
    wave = noise(rng, seconds, low, high)
    if gusts:
        wave = wave * (1 + 0.7 * np.sin(2 * np.pi * gusts * clock(seconds) + rng.uniform(0, 6)))
    return wave * (level / (np.sqrt(np.mean(wave**2)) + 1e-9))
