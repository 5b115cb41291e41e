"""Settings of check-overlap: clips that two data sets share."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from pivot.settings.base import Settings


class CheckOverlap(Settings):
    """Find the clips that two data sets share, by Freesound id, YouTube id, equal sound, or name.

    A kind of id that one side lacks is said, and nothing to compare by is an error. Exit status 1
    where clips are shared.
    """

    # shards, a pairs file, a caption or id list, a data set's own table, or a folder of sounds;
    # freesound:FILE or youtube:FILE where the names of FILE are such ids
    a: Positional[Annotated[str, arg(metavar="A")]]
    b: Positional[Annotated[str, arg(metavar="B")]]
    # CSV of the shared clips of A: id, the id in B, by what (FILE.about.json has the counts)
    out: str | None = None
