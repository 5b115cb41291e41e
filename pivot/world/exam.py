"""CLIP's examination: name the single thing in pictures it has never seen.

The pictures have colours in places that neither CLIP nor any training clip has met together.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pivot.encoders.clip import FrozenClip
from pivot.world.draw import picture
from pivot.world.scenes import draw_single, generator
from pivot.world.things import THINGS

PROMPT = "a photo of a {}"


def sheet(seed: int, count: int, *, shared: float = 0.0) -> tuple[list[Image.Image], list[str]]:
    """Held-out pictures of one thing each, and the things' names.

    `shared` is the share of things with a look in common that show it: with 0 every picture can
    be named, with more CLIP can only guess between two names.
    """
    scenes = [
        draw_single(generator(seed, "test_pictures", i), "test_pictures", shared=shared)
        for i in range(count)
    ]
    pictures = [Image.fromarray(picture(scene)) for scene in scenes]
    return pictures, [scene.parts[0].thing.name for scene in scenes]


def named_right(clip: FrozenClip, pictures: list[Image.Image], names: list[str]) -> float:
    """Share of the pictures whose nearest name, of all kinds, is their thing's."""
    kinds = list(THINGS)
    texts = clip.encode_text([PROMPT.format(kind) for kind in kinds])
    best = (clip.encode_image(pictures) @ texts.T).argmax(1).tolist()
    return float(np.mean([kinds[i] == name for i, name in zip(best, names, strict=True)]))
