"""A scene: who is where, who sounds when; drawn from a generator and from nothing else.

Draws come in streams: the clips of each split, the caption pools and CLIP's pictures each have
their own purpose number, so that no pool and no picture repeats the facts of a clip.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pivot.world.things import COLOURS, PLACES, SILENT, SOUNDING, THINGS, Place, Thing, held_out

SECONDS = 2.0  # length of every clip
SHARED_LOOKS = 0.5  # share of the things with a look in common that show it
HELD_OUT_STREAMS = ("test_single", "test_mixed", "test_pictures")


@dataclass(frozen=True)
class Crowd:
    """How many things stand beside those that sound."""

    others: tuple[float, float, float]  # chances of 0, 1, 2 more beside one that sounds
    beside_two: float  # chance of one more beside two that sound
    mute: float  # share of the additional things that could sound but do not


CLIPS = Crowd((0.1, 0.35, 0.55), 0.7, 0.15)
PICTURES = Crowd((0.35, 0.45, 0.2), 0.4, 0.1)  # CLIP's: things are learnt sooner with room


@dataclass(frozen=True)
class Part:
    """One thing in a scene. Centre and radius are shares of the picture's side."""

    thing: Thing
    look: str
    colour: str
    size: int  # 0 big, 1 plain, 2 small: index into SIZES and PITCHES
    x: float
    y: float
    radius: float
    sounds: bool
    pitch: float  # multiplies frequencies; about 0.6, 1 or 1.7 by size
    pace: int  # 0 slow, 1 plain, 2 quick: index into PACES
    tempo: float  # multiplies rates; about 0.6, 1 or 1.7 by pace
    level: float  # root mean power
    onset: float  # seconds
    seconds: float  # how long it sounds


@dataclass(frozen=True)
class Scene:
    """A place and what is in it; sounding parts come first, in order of onset."""

    place: Place
    parts: tuple[Part, ...]
    air: float  # level of the place's ambient noise; 0: none
    order: str  # of two sounds: "then" or "while"; "" for one

    @property
    def heard(self) -> tuple[Part, ...]:
        """The parts that sound."""
        return tuple(part for part in self.parts if part.sounds)


def generator(seed: int, stream: str, index: int = 0, purpose: str = "") -> np.random.Generator:
    """The generator named by a seed, a stream, an item of it and a purpose."""
    name = zlib.crc32(f"{stream}/{purpose}".encode())
    return np.random.default_rng([seed, name, index])


def draw_scene(rng: np.random.Generator, stream: str) -> Scene:
    """Draw a scene of a stream: `test_single` has one sound; held-out streams new combinations."""
    single = stream == "test_single"
    crowd = PICTURES if stream == "pictures" else CLIPS
    heard = 1 if single or rng.random() < 0.6 else 2
    others = _others(rng, crowd, heard)
    place = PLACES[rng.integers(len(PLACES))]
    things = _things(rng, heard, others, crowd.mute)
    order = "" if heard == 1 else str(rng.choice(("then", "while")))
    times = _times(rng, order)
    spots = _spots(rng, len(things))
    room = 1.0 if len(things) < 3 else 0.8
    parts = tuple(
        _part(rng, thing, place, spot, times[i] if i < heard else None, stream, room=room)
        for i, (thing, spot) in enumerate(zip(things, spots, strict=True))
    )
    air = float(rng.uniform(0.01, 0.03)) if rng.random() < 0.5 else 0.0
    return Scene(place, parts, air, order)


def draw_single(rng: np.random.Generator, stream: str, *, shared: float) -> Scene:
    """A scene with one thing of any kind and nothing else, for CLIP's examination."""
    thing = tuple(THINGS.values())[rng.integers(len(THINGS))]
    place = PLACES[rng.integers(len(PLACES))]
    spot = _spots(rng, 1)[0]
    part = _part(rng, thing, place, spot, None, stream, shared=shared)
    return Scene(place, (part,), 0.0, "")


def _others(rng: np.random.Generator, crowd: Crowd, heard: int) -> int:
    if heard == 1:
        return int(rng.choice(3, p=crowd.others))
    return int(rng.random() < crowd.beside_two)


def _things(rng: np.random.Generator, heard: int, others: int, share: float) -> list[Thing]:
    """Sounding things, then silent ones (a few of which could sound), all different."""
    sounding = [SOUNDING[i] for i in rng.permutation(len(SOUNDING))]
    silent = [SILENT[i] for i in rng.permutation(len(SILENT))]
    things, mute = sounding[:heard], sounding[heard:]
    for i in range(others):
        things.append(mute[i] if rng.random() < share else silent[i])
    return things


def _times(rng: np.random.Generator, order: str) -> list[tuple[float, float]]:
    """Onset and length of each sound, in seconds."""
    if order == "then":
        first = rng.uniform(0.8, 1.05)
        return [(rng.uniform(0, 0.1), first - 0.1), (first + 0.05, SECONDS - first - 0.05)]
    onsets = sorted(rng.uniform(0, 0.4, size=2 if order else 1))
    return [(onset, SECONDS - onset - rng.uniform(0, 0.3)) for onset in onsets]


def _spots(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Centres side by side, shuffled and jittered."""
    columns = (rng.permutation(count) + 0.5) / count
    jitter = 0.2 / count
    return [
        (float(x + rng.uniform(-jitter, jitter)), float(rng.uniform(0.4, 0.68))) for x in columns
    ]


def _part(
    rng: np.random.Generator,
    thing: Thing,
    place: Place,
    spot: tuple[float, float],
    time: tuple[float, float] | None,
    stream: str,
    *,
    room: float = 1.0,
    shared: float = SHARED_LOOKS,
) -> Part:
    """Draw everything about one thing; `time` is None for a silent one, `room` scales its size."""
    colours = [c for c in COLOURS if held_out(c, place.name) == (stream in HELD_OUT_STREAMS)]
    size, pace = (int(i) for i in rng.integers(3, size=2))
    look = thing.shared if thing.shared and rng.random() < shared else thing.name
    return Part(
        thing=thing,
        look=look,
        colour=str(rng.choice(colours)),
        size=size,
        x=spot[0],
        y=spot[1],
        radius=float((0.25, 0.19, 0.145)[size] * rng.uniform(0.92, 1.08)) * room,
        sounds=time is not None,
        pitch=float((0.6, 1.0, 1.65)[size] * rng.uniform(0.88, 1.14)),
        pace=pace,
        tempo=float((0.6, 1.0, 1.7)[pace] * rng.uniform(0.88, 1.14)),
        level=float(rng.uniform(0.05, 0.15)),
        onset=time[0] if time else 0.0,
        seconds=time[1] if time else 0.0,
    )
