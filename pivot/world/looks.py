"""How things look: each a few polygons, ovals and lines in one saturated colour.

A shape is (kind, fill, numbers): coordinates run from -1 to 1 in both axes, y down. Fills are the
thing's own colour (`body`), nearly black (`dark`) or nearly white (`pale`). Drawn three times too
large and averaged down, so that edges are smooth and no bytes depend on an anti-aliasing library.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Shape = tuple[str, str, tuple[float, ...]]
OVERSAMPLE = 3
OUTLINE = 2  # pixels
INK = (20, 20, 25)  # of the outline


def _shapes(*rows: str) -> tuple[Shape, ...]:
    """Read rows such as 'oval body -1 -1 1 1' (line: its width comes first)."""
    split = [row.split() for row in rows]
    return tuple((row[0], row[1], tuple(float(x) for x in row[2:])) for row in split)


LOOKS = {
    # things that sound
    "bell": _shapes(
        "poly body -.3 -.9 .3 -.9 .55 -.2 .95 .55 -.95 .55 -.55 -.2", "oval dark -.25 .5 .25 1"
    ),
    "siren": _shapes(
        "poly body -.5 .4 -.4 -.5 .4 -.5 .5 .4", "poly dark -.9 .4 .9 .4 .9 .9 -.9 .9",
        "line body .14 -.9 -.9 -.6 -.5", "line body .14 0 -1 0 -.6", "line body .14 .9 -.9 .6 -.5",
    ),
    "drum": _shapes(
        "poly body -.9 -.3 .9 -.3 .75 .9 -.75 .9", "oval pale -.9 -.6 .9 .05",
        "line dark .12 -.9 -1 -.1 -.3", "line dark .12 .9 -1 .1 -.3",
    ),
    "kettle": _shapes(
        "oval body -.65 -.3 .65 .95", "poly body .4 .2 1 -.4 1 -.1 .55 .6",
        "line dark .16 -.6 -.1 -.5 -.85 .5 -.85 .6 -.1",
    ),
    "clock": _shapes(
        "oval body -.9 -.9 .9 .9", "oval pale -.65 -.65 .65 .65",
        "line dark .16 0 0 0 -.55", "line dark .16 0 0 .4 .2",
    ),
    "gong": _shapes(
        "line dark .16 -.95 1 -.95 -.9 .95 -.9 .95 1", "oval body -.7 -.65 .7 .75",
        "oval dark -.22 -.17 .22 .27",
    ),
    "saw": _shapes(
        "poly body -1 -.2 .4 -.4 .4 .3 -1 .3", "poly dark .4 -.5 1 -.5 1 .5 .4 .5",
        "poly body -1 .3 -.8 .7 -.6 .3 -.4 .7 -.2 .3 0 .7 .2 .3",
    ),
    "fan": _shapes(
        "oval body -.3 -1 .3 0", "oval body -.95 -.15 0 .45", "oval body 0 -.15 .95 .45",
        "oval dark -.2 -.2 .2 .2", "line dark .16 0 .2 0 1",
    ),
    "phone": _shapes(
        "poly dark -.55 -1 .55 -1 .55 1 -.55 1", "poly body -.4 -.8 .4 -.8 .4 .55 -.4 .55",
        "oval pale -.13 .65 .13 .9",
    ),
    "piano": _shapes(
        "poly body -1 -.7 1 -.7 1 .1 -1 .1", "poly pale -1 .1 1 .1 1 .6 -1 .6",
        "line dark .14 -.6 .1 -.6 .45", "line dark .14 -.2 .1 -.2 .45",
        "line dark .14 .2 .1 .2 .45", "line dark .14 .6 .1 .6 .45",
    ),
    "dog": _shapes(
        "poly body -.9 -.1 .5 -.1 .5 .5 -.9 .5", "oval body .2 -.8 .9 0",
        "poly dark .2 -.9 .45 -.5 .2 -.1", "line body .2 -.7 .4 -.7 1", "line body .2 .3 .4 .3 1",
        "line body .14 -.85 0 -1 -.6",
    ),
    "cat": _shapes(
        "oval body -.7 -.45 .7 .9", "poly body -.7 .1 -.75 -1 -.1 -.4",
        "poly body .7 .1 .75 -1 .1 -.4", "oval pale -.4 -.05 -.1 .3", "oval pale .1 -.05 .4 .3",
    ),
    "bird": _shapes(
        "oval body -.6 -.3 .6 .5", "oval body .2 -.75 .8 -.15", "poly dark .75 -.6 1 -.4 .75 -.25",
        "poly dark -.3 -.1 .3 .1 -.4 .8", "poly body -.5 0 -1 -.4 -1 .2",
    ),
    "frog": _shapes(
        "oval body -.95 -.2 .95 .8", "oval body -.75 -.7 -.2 0", "oval body .2 -.7 .75 0",
        "oval pale -.6 -.55 -.35 -.3", "oval pale .35 -.55 .6 -.3", "line dark .12 -.5 .4 .5 .4",
    ),
    "cow": _shapes(
        "poly body -1 -.4 .6 -.4 .6 .4 -1 .4", "oval pale -.7 -.3 -.2 .2", "oval pale 0 -.1 .4 .3",
        "poly body .5 -.7 1 -.7 1 0 .5 0", "line dark .12 .55 -.7 .45 -1",
        "line dark .12 .95 -.7 1 -1", "line body .22 -.8 .4 -.8 1", "line body .22 .4 .4 .4 1",
    ),
    "bee": _shapes(
        "oval pale -.5 -.9 .05 .1", "oval pale .05 -.9 .6 .1", "oval body -.9 -.3 .9 .6",
        "line dark .2 -.35 -.25 -.35 .55", "line dark .2 .1 -.3 .1 .6", "line dark .2 .5 -.2 .5 .5",
    ),
    "snake": _shapes(
        "line body .32 -.9 .7 -.5 .2 0 .7 .4 .2", "line body .32 .4 .2 .4 -.5",
        "oval body .1 -.95 .75 -.4", "line dark .1 .7 -.65 1 -.7",
    ),
    "car": _shapes(
        "poly body -1 -.05 1 -.05 1 .5 -1 .5", "poly body -.6 -.05 -.35 -.6 .4 -.6 .65 -.05",
        "oval dark -.75 .25 -.2 .8", "oval dark .2 .25 .75 .8",
        "poly pale -.35 -.1 -.2 -.45 .2 -.45 .35 -.1",
    ),
    "horn": _shapes(
        "poly body -.9 -.12 .2 -.12 .9 -.8 .9 .8 .2 .12 -.9 .12",
        "line dark .16 -.5 .1 -.3 .6 .1 .3"
    ),
    "robot": _shapes(
        "poly body -.55 -.7 .55 -.7 .55 .1 -.55 .1", "poly dark -.7 .2 .7 .2 .7 1 -.7 1",
        "oval pale -.4 -.5 -.1 -.2", "oval pale .1 -.5 .4 -.2", "line dark .1 0 -.7 0 -1",
    ),
    "cloud": _shapes(
        "oval body -.95 -.5 -.1 .2", "oval body -.5 -.9 .4 .2", "oval body .05 -.55 .95 .2",
        "line dark .12 -.5 .35 -.65 .9", "line dark .12 .05 .35 -.1 .9",
        "line dark .12 .6 .35 .45 .9",
    ),
    "fountain": _shapes(
        "poly dark -.9 .5 .9 .5 .6 1 -.6 1", "line body .2 0 .5 0 -.6",
        "line body .16 0 -.6 -.5 -.9 -.7 -.1", "line body .16 0 -.6 .5 -.9 .7 -.1",
    ),
    "ball": _shapes(
        "oval body -.8 -.8 .8 .8", "line pale .16 -.8 0 .8 0", "line pale .16 0 -.8 0 .8"
    ),
    "rocket": _shapes(
        "poly body 0 -1 .4 -.4 .4 .5 -.4 .5 -.4 -.4", "poly dark -.4 .1 -.8 .7 -.4 .5",
        "poly dark .4 .1 .8 .7 .4 .5", "poly pale -.25 .5 .25 .5 0 1", "oval pale -.18 -.35 .18 0",
    ),
    # looks that two things share
    "dome": _shapes(
        "oval body -.8 -.8 .8 .9", "poly dark -1 .4 1 .4 1 .95 -1 .95",
    ),
    "can": _shapes("poly body -.6 -.7 .6 -.7 .6 .8 -.6 .8", "oval dark -.6 -.95 .6 -.45"),
    "disk": _shapes("oval body -.9 -.9 .9 .9"),
    "wheel": _shapes(
        "oval body -.95 -.95 .95 .95", "oval pale -.6 -.6 .6 .6", "line body .2 -.8 0 .8 0",
        "line body .2 0 -.8 0 .8",
    ),
    "slab": _shapes(
        "poly dark -.95 -.5 .95 -.5 .95 .7 -.95 .7",
        "poly body -.95 -.5 .95 -.5 .95 0 -.95 0",
    ),
    "basket": _shapes(
        "poly body -.95 0 .95 0 .65 .9 -.65 .9", "line dark .14 -.8 0 -.5 -.8 .5 -.8 .8 0",
    ),
    # silent things
    "tree": _shapes("poly dark -.15 .2 .15 .2 .15 1 -.15 1", "poly body 0 -1 .8 .4 -.8 .4"),
    "house": _shapes(
        "poly dark -.95 -.1 0 -1 .95 -.1", "poly body -.7 -.1 .7 -.1 .7 .9 -.7 .9",
        "poly pale -.2 .3 .2 .3 .2 .9 -.2 .9",
    ),
    "box": _shapes(
        "poly body -.8 -.4 .8 -.4 .8 .8 -.8 .8", "poly dark -.8 -.4 -.4 -.8 1 -.8 .8 -.4",
        "line pale .16 0 -.4 0 .8",
    ),
    "star": _shapes(
        "poly body 0 -1 .24 -.3 .95 -.3 .38 .12 .6 .85 0 .4 -.6 .85 -.38 .12 -.95 -.3 -.24 -.3"
    ),
    "flower": _shapes(
        "line dark .14 0 0 0 1", "oval body -.35 -1 .35 -.4", "oval body -.85 -.7 -.15 -.1",
        "oval body .15 -.7 .85 -.1", "oval body -.6 -.3 0 .25", "oval body 0 -.3 .6 .25",
        "oval pale -.25 -.6 .25 -.1",
    ),
    "kite": _shapes(
        "poly body 0 -1 .7 -.3 0 .5 -.7 -.3", "line dark .1 0 -1 0 .5",
        "line dark .1 0 .5 .3 .7 0 1"
    ),
    "cup": _shapes(
        "poly body -.7 -.6 .4 -.6 .3 .8 -.6 .8", "line body .16 .35 -.3 .85 -.2 .75 .4 .3 .4"
    ),
    "cactus": _shapes(
        "line body .36 0 -1 0 1", "line body .26 0 .3 -.7 .3 -.7 -.4",
        "line body .26 0 0 .7 0 .7 -.6"
    ),
    "ladder": _shapes(
        "line body .16 -.45 -1 -.45 1", "line body .16 .45 -1 .45 1",
        "line dark .14 -.45 -.6 .45 -.6",
        "line dark .14 -.45 -.2 .45 -.2", "line dark .14 -.45 .2 .45 .2",
        "line dark .14 -.45 .6 .45 .6",
    ),
    "mushroom": _shapes(
        "poly pale -.25 0 .25 0 .35 .95 -.35 .95",
        "poly body -.95 .1 -.6 -.65 0 -.9 .6 -.65 .95 .1",
        "oval pale -.4 -.5 -.1 -.2", "oval pale .15 -.45 .45 -.15",
    ),
}  # fmt: skip


def _tone(colour: tuple[int, int, int], fill: str) -> tuple[int, int, int, int]:
    """RGBA of a fill: the colour itself, nearly black, or nearly white."""
    if fill == "dark":
        colour = (colour[0] // 4, colour[1] // 4, colour[2] // 4)
    elif fill == "pale":
        colour = (200 + colour[0] // 5, 200 + colour[1] // 5, 200 + colour[2] // 5)
    return (*colour, 255)


def sprite(look: str, colour: tuple[int, int, int], radius: int) -> np.ndarray:
    """Draw a look with a dark outline: premultiplied RGBA float32 (side, side, 4), alpha 0..1.

    The outline is the same whatever the colour: shapes are then learnt once, not once a colour.
    """
    half = radius * OVERSAMPLE
    # Every pixel carries the colour, also where alpha is 0, so averaging down has no dark fringe.
    image = Image.new("RGBA", (2 * half, 2 * half), (*colour, 0))
    draw = ImageDraw.Draw(image)
    for kind, fill, numbers in LOOKS[look]:
        _draw(draw, kind, _tone(colour, fill), numbers, half)
    small = ImageOps.expand(image.reduce(OVERSAMPLE), OUTLINE, (*colour, 0))
    pixels = np.asarray(small, np.float32)
    inside = pixels[..., 3:] / 255
    wide = small.getchannel("A").filter(ImageFilter.MaxFilter(2 * OUTLINE + 1))
    alpha = np.asarray(wide, np.float32)[..., None] / 255
    ink = pixels[..., :3] * inside + np.array(INK, np.float32) * (alpha - inside)
    return np.concatenate([ink, alpha], axis=-1)


def _draw(
    draw: ImageDraw.ImageDraw,
    kind: str,
    ink: tuple[int, int, int, int],
    numbers: tuple[float, ...],
    half: int,
) -> None:
    """Put one shape on the canvas whose middle is (half, half)."""
    width, points = (numbers[0], numbers[1:]) if kind == "line" else (0.0, numbers)
    pixels = [round(half + x * half) for x in points]
    if kind == "oval":
        draw.ellipse(pixels, fill=ink)
    elif kind == "poly":
        draw.polygon(pixels, fill=ink)
    else:
        draw.line(pixels, fill=ink, width=round(width * half), joint="curve")
