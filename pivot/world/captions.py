"""Captions by grammar in two manners: what one sees and what one hears.

Free captions, which know no scene, are written by a language model: see `train_writer.py`.
"""

from __future__ import annotations

import numpy as np

from pivot.world.scenes import Part, Scene, draw_scene, generator
from pivot.world.things import PACES, PITCHES, PLACES, SIZES, THINGS, Thing

Rng = np.random.Generator


def _a(words: str) -> str:
    """Words with their article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _either(rng: Rng, *choices: str) -> str:
    """One of the choices, evenly."""
    return choices[int(rng.integers(len(choices)))]


# ---- what one sees ------------------------------------------------------------------------


def _sight(rng: Rng, part: Part) -> str:
    """'a small red bell', size and colour each often left out."""
    words = [part.thing.name]
    if rng.random() < 0.5:
        words.insert(0, part.colour)
    if part.size != 1 and rng.random() < 0.5:
        words.insert(0, SIZES[part.size])
    return _a(" ".join(words))


def seen(rng: Rng, scene: Scene) -> str:
    """One caption of what a picture of the scene shows."""
    parts = [scene.parts[i] for i in rng.permutation(len(scene.parts))]
    keep = max(1, sum(rng.random(len(parts)) < 0.85))
    what = f" {_either(rng, 'and', 'next to')} ".join(_sight(rng, p) for p in parts[:keep])
    opening = _either(rng, "", "", "a photo of ", "a picture of ", "there is ")
    where = f" {scene.place.phrase}" if rng.random() < 0.5 else ""
    return f"{opening}{what}{where}"


# ---- what one hears -----------------------------------------------------------------------


def _noun(rng: Rng, thing: Thing, size: int) -> str:
    """'a low bell', 'a big bell', 'a bell'."""
    if size == 1 or rng.random() < 0.35:
        return _a(thing.name)
    return _a(f"{_either(rng, SIZES[size], PITCHES[size])} {thing.name}")


def _pace(rng: Rng, thing: Thing, pace: int) -> str:
    """' slowly', ' quickly' or nothing."""
    if pace == 1 or not thing.paced or rng.random() < 0.4:
        return ""
    return f" {PACES[pace]}"


def _rings(rng: Rng, part: Part) -> str:
    """'a low bell rings slowly'."""
    noun, pace = _noun(rng, part.thing, part.size), _pace(rng, part.thing, part.pace)
    return f"{noun} {part.thing.verb}{pace}"


def _ringing(rng: Rng, part: Part) -> str:
    """'a low bell ringing slowly'."""
    noun, pace = _noun(rng, part.thing, part.size), _pace(rng, part.thing, part.pace)
    return f"{noun} {part.thing.doing}{pace}"


def heard(rng: Rng, scene: Scene) -> str:
    """One caption of what the scene sounds like; the place only where its air can be heard."""
    where = f" {scene.place.phrase}" if scene.air and rng.random() < 0.5 else ""
    first, *rest = scene.heard
    if not rest:
        return _alone(rng, first) + where
    second = rest[0]
    if scene.order == "while":
        swap = rng.random() < 0.5
        first, second = (second, first) if swap else (first, second)
        link = _either(rng, "while", "as", "and")
        return f"{_rings(rng, first)} {link} {_rings(rng, second)}{where}"
    if rng.random() < 0.25:
        return f"{_rings(rng, second)} after {_rings(rng, first)}{where}"
    link = _either(rng, ", then", ", and then", " before")
    return f"{_rings(rng, first)}{link} {_rings(rng, second)}{where}"


def _alone(rng: Rng, part: Part) -> str:
    """A caption of one sound."""
    manner = rng.integers(4)
    if manner == 0:
        return f"the sound of {_ringing(rng, part)}"
    if manner == 1:
        return _ringing(rng, part)
    return _rings(rng, part)


# ---- what the web says of a picture (CLIP's training only) ----------------------------------


def web(rng: Rng, scene: Scene) -> str:
    """A caption as the web has them: mostly what is seen; some name what a thing would do.

    Whether a thing sounds, how high and how fast cannot be seen: such words are drawn at random,
    independently of the scene, so nothing here ties a picture to a fact of its sound.
    """
    talkers = [part for part in scene.parts if part.thing.verb]
    if not talkers or rng.random() < 0.6:
        return seen(rng, scene)
    part = talkers[int(rng.integers(len(talkers)))]
    if len(talkers) > 1 and rng.random() < 0.4:
        return _two(rng, talkers)
    size, pace = part.size, int(rng.integers(3))
    where = f" {scene.place.phrase}" if rng.random() < 0.3 else ""
    doing = f"{part.thing.doing}{_pace(rng, part.thing, pace)}"
    name = part.thing.name
    if rng.random() < 0.4:
        name = f"{_either(rng, SIZES[size], part.colour)} {name}".removeprefix("plain ")
    loose = _either(rng, PITCHES[0], PITCHES[2])
    manner = rng.integers(5)
    if manner == 0:
        return f"the sound of {_a(name)}{where}"
    if manner == 1:
        return f"{_a(part.thing.doing + ' ' + name)}{where}"
    if manner == 2:
        return f"{_a(name)} {doing}{where}"
    if manner == 3:
        return f"{_a(loose + ' ' + part.thing.name)} {doing}{where}"
    return f"{_a(name)} {part.thing.verb}{_pace(rng, part.thing, pace)}{where}"


def _two(rng: Rng, parts: list[Part]) -> str:
    """'a bell rings while a dog barks': two things of a picture, what joins them at random."""
    i, k = rng.permutation(len(parts))[:2]
    links = ("and", "while", "as", "then", "and then", "before", "after")
    said = [
        f"{_a(thing.name)} {thing.verb}{_pace(rng, thing, int(rng.integers(3)))}"
        for thing in (parts[i].thing, parts[k].thing)
    ]
    return f"{said[0]} {_either(rng, *links)} {said[1]}"


# ---- pools and vocabulary -------------------------------------------------------------------


def pool(seed: int, manner: str, count: int) -> list[str]:
    """`count` different captions of scenes drawn for nothing else: 'audio' or 'vision'."""
    made: dict[str, None] = {}
    tell = heard if manner == "audio" else seen
    for index in range(50 * count):
        rng = generator(seed, f"pool/{manner}", index)
        made[tell(rng, draw_scene(rng, "pool"))] = None
        if len(made) == count:
            break
    return list(made)


def words() -> list[str]:
    """Every word a caption can hold, sorted."""
    from pivot.world.things import COLOURS

    text = "a an the sound of photo picture there is and next to while as then before after"
    for thing in THINGS.values():
        text += f" {thing.name} {thing.verb} {thing.doing}"
    names = [*COLOURS, *SIZES, *PITCHES, *PACES, *(place.phrase for place in PLACES)]
    return sorted(set(f"{text} {' '.join(names)}".split()))
