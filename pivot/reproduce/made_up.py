"""Which made-up downloads a dry run needs, each at the place where the real one would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pivot.errors import DataError
from pivot.reproduce import made_sets
from pivot.settings import Settings

# Data sets by the names that the papers' tables give them: their folder, and who makes it
SETS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "AudioSet": ("audioset", made_sets.audioset),
    "AudioCaps": ("audiocaps", made_sets.audiocaps),
    "Clotho": ("clotho", made_sets.clotho),
    "ESC-50": ("ESC-50-master", made_sets.esc50),
    "UrbanSound8K": ("UrbanSound8K", made_sets.us8k),
    "TUT 2017": ("TUT2017", made_sets.tut17),
    "caption pools": ("pools", made_sets.pools),
    "CLAP's training list": ("clap", made_sets.clap),
    "joint list": ("joint", made_sets.joint),
    "LAION's tars": ("laion", made_sets.laion),
    "VGGSound": ("vggsound", made_sets.vggsound),
    "FSD50K": ("FSD50K", made_sets.fsd50k),
}


class MadeUp(Settings):
    """Where the made-up downloads go, and which there shall be: data sets, or models."""

    out: str
    parts: tuple[str, ...]


def run(settings: MadeUp) -> int:
    """Write the data sets, each into its folder of OUT; DataError for an unknown one."""
    for name in settings.parts:
        if name not in SETS:
            raise DataError(f"there is no made-up {name}; there are {', '.join(SETS)}")
        folder, make = SETS[name]
        make(Path(settings.out) / folder)
    return 0
