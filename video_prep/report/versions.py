"""Which tools made something: their versions, as they are recorded beside what they made."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import version

from video_prep.recipe import Recipe

_ALWAYS = ("av", "numpy", "pillow", "simplejpeg", "soundfile", "soxr")


def versions(recipe: Recipe) -> dict[str, str]:
    """Versions of what decodes and encodes by this recipe."""
    import av

    names = _ALWAYS if recipe.decoder == "pyav" else (*_ALWAYS, recipe.decoder)
    found = {name: version(name) for name in names}
    found |= {"ffmpeg": av.ffmpeg_version_info, "python": sys.version.split()[0]}
    return dict(sorted(found.items()))


def merged(several: Iterable[dict[str, str]]) -> dict[str, str]:
    """The versions that took part, by tool; where several machines did, all of a tool's."""
    found: dict[str, set[str]] = {}
    for one in several:
        for name, text in one.items():
            found.setdefault(name, set()).update(text.split(", "))
    return {name: ", ".join(sorted(texts)) for name, texts in sorted(found.items())}


def as_text(found: dict[str, str]) -> str:
    """Versions as one short text."""
    return "; ".join(f"{name} {text}" for name, text in found.items())


def from_text(text: str) -> dict[str, str]:
    """Versions from their text."""
    return {name: rest for name, _, rest in (part.partition(" ") for part in text.split("; "))}
