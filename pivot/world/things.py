"""What the world holds: things that sound, things that are silent, colours, places, sizes.

Some kinds share a look in a share of the clips (a clock and a gong are then both a disk), so a
picture cannot always tell what sounds: the pivot through images is noisy, as real frames are.
Big things sound low and small things sound high, as real ones do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """A kind of thing: its name, its verb in two forms, and the look it shares with another."""

    name: str
    verb: str = ""  # "rings"; empty for silent things
    doing: str = ""  # "ringing"
    shared: str = ""  # name of the look it shares, in looks.LOOKS; empty: always its own
    paced: bool = True  # whether its sound repeats, so that "slowly" and "quickly" mean something


SOUNDING = (
    Thing("bell", "rings", "ringing", "dome"),
    Thing("siren", "wails", "wailing", "dome"),
    Thing("drum", "beats", "beating", "can"),
    Thing("kettle", "whistles", "whistling", "can", paced=False),
    Thing("clock", "ticks", "ticking", "disk"),
    Thing("gong", "booms", "booming", "disk", paced=False),
    Thing("saw", "rasps", "rasping", "wheel"),
    Thing("fan", "whirs", "whirring", "wheel"),
    Thing("phone", "trills", "trilling", "slab"),
    Thing("piano", "plays", "playing", "slab"),
    Thing("dog", "barks", "barking", "basket"),
    Thing("cat", "meows", "meowing", "basket"),
    Thing("bird", "chirps", "chirping"),
    Thing("frog", "croaks", "croaking"),
    Thing("cow", "moos", "mooing", paced=False),
    Thing("bee", "buzzes", "buzzing", paced=False),
    Thing("snake", "hisses", "hissing"),
    Thing("car", "hums", "humming", paced=False),
    Thing("horn", "blares", "blaring"),
    Thing("robot", "beeps", "beeping"),
    Thing("cloud", "patters", "pattering"),
    Thing("fountain", "splashes", "splashing"),
    Thing("ball", "bounces", "bouncing"),
    Thing("rocket", "roars", "roaring", paced=False),
)
SILENT = tuple(
    Thing(name) for name in "tree house box star flower kite cup cactus ladder mushroom".split()
)
THINGS = {thing.name: thing for thing in SOUNDING + SILENT}
LABELS = tuple(thing.name for thing in SOUNDING)  # the classes of zero-shot classification

COLOURS = {  # saturated, on pale backgrounds: learnt several times faster than dim ones
    "red": (215, 25, 30),
    "orange": (250, 130, 0),
    "yellow": (235, 205, 0),
    "green": (20, 150, 40),
    "cyan": (0, 185, 200),
    "blue": (30, 60, 220),
    "purple": (130, 30, 170),
    "pink": (250, 80, 170),
    "brown": (120, 70, 25),
    "black": (25, 25, 30),
}
SIZES = ("big", "plain", "small")  # in order of pitch
PITCHES = ("low", "plain", "high")
PACES = ("slowly", "plain", "quickly")


@dataclass(frozen=True)
class Place:
    """A place: how a caption says it, its pale tint (RGB) and the noise of its air."""

    name: str
    phrase: str
    tint: tuple[int, int, int]


PLACES = (
    Place("field", "in a field", (205, 240, 195)),
    Place("sea", "by the sea", (190, 225, 250)),
    Place("street", "in the street", (215, 215, 215)),
    Place("night", "at night", (205, 195, 240)),
    Place("room", "in a room", (255, 225, 225)),
    Place("desert", "in the desert", (250, 240, 190)),
)


def held_out(colour: str, place: str) -> bool:
    """Whether a colour is met in a place only in test clips (a fifth of the combinations).

    As the pair is never seen in training, neither is any colour x place x pitch made of it.
    """
    column = [spot.name for spot in PLACES].index(place)
    return (list(COLOURS).index(colour) + 2 * column) % 5 == 0
