"""Data sets as they were published: which split a list is, and how many clips that split has."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from video_prep.sources.clip import Clip


@dataclass(frozen=True)
class DataSet:
    """A data set, its split (None: it has none, or the list's name does not tell) and its size."""

    name: str
    split: str | None = None
    official: int | None = None  # clips that were published
    captions: int = 0  # of each clip

    def facts(self) -> dict[str, Any]:
        """What plan and manifest say of it."""
        return {key: value for key, value in asdict(self).items() if key != "captions"}


# (name, split) -> clips, captions a clip, words in the name of a list that tell the split
_OFFICIAL: dict[tuple[str, str | None], tuple[int, int, tuple[str, ...]]] = {
    # Piczak, ESC: Dataset for Environmental Sound Classification, 2015; 5 folds of 400
    ("ESC-50", None): (2000, 0, ()),
    # Salamon et al., A Dataset and Taxonomy for Urban Sound Research, 2014; 10 folds
    ("UrbanSound8K", None): (8732, 0, ()),
    # Drossos et al., Clotho, 2020; version 2.1, zenodo.org/records/4783391
    ("Clotho", "development"): (3839, 5, ("development", "dev", "train")),
    ("Clotho", "validation"): (1045, 5, ("validation", "val")),
    ("Clotho", "evaluation"): (1045, 5, ("evaluation", "eval", "test")),
    # Mesaros et al., 2017; zenodo.org/records/400515 and 1040168; the folder's name tells the split
    ("TUT Acoustic Scenes 2017", "development"): (4680, 0, ("development", "dev")),
    ("TUT Acoustic Scenes 2017", "evaluation"): (1620, 0, ("evaluation", "eval")),
    ("TUT Acoustic Scenes 2017", None): (6300, 0, ()),
    # Kim et al., AudioCaps, 2019; version 1, github.com/cdjkim/audiocaps
    ("AudioCaps", "train"): (49838, 1, ("train",)),
    ("AudioCaps", "val"): (495, 5, ("val", "validation")),
    ("AudioCaps", "test"): (975, 5, ("test", "eval")),
    # Fonseca et al., FSD50K, 2022; zenodo.org/records/4060432; 36,796 train and 4,170 val
    ("FSD50K", "development"): (40966, 0, ("dev", "development")),
    ("FSD50K", "evaluation"): (10231, 0, ("eval", "evaluation")),
    # Chen et al., VGGSound, 2020; github.com/hche11/VGGSound; 183,730 train and 15,446 test
    ("VGGSound", "test"): (15446, 0, ("test",)),
    ("VGGSound", None): (199176, 0, ()),
    # Martin-Morato and Mesaros, 2021; zenodo.org/records/5114771; two to five captions a file
    ("MACS", None): (3930, 2, ()),
    # Mei et al., WavCaps, 2024; the words are those of as_final.json and so on
    ("WavCaps", "AudioSet_SL"): (108317, 1, ("as",)),
    ("WavCaps", "BBC_Sound_Effects"): (31201, 1, ("bbc",)),
    ("WavCaps", "FreeSound"): (262300, 1, ("fsd",)),
    ("WavCaps", "SoundBible"): (1232, 1, ("sb",)),
    # Gemmeke et al., Audio Set, 2017; num_ytids in the first lines of the lists
    ("AudioSet", "unbalanced"): (2041789, 0, ("unbalanced",)),
    ("AudioSet", "balanced"): (22160, 0, ("balanced",)),
    ("AudioSet", "eval"): (20371, 0, ("eval",)),
}


def splits_of(name: str) -> list[str]:
    """Splits of a data set, in their order; none where it has none."""
    return [split for known, split in _OFFICIAL if known == name and split]


def data_set(name: str, path: Path) -> DataSet:
    """The data set `name` and the split that the list `path` is, by the words in its name.

    A list that is called meta.txt, or lies in evaluation_setup, is named after its folder; a folder
    is the whole data set.
    """
    words = re.split(r"[^a-z]+", _telling(path).lower())
    for (known, split), (clips, captions, telling) in _OFFICIAL.items():
        if known == name and (split is None or set(telling) & set(words)):
            return DataSet(name, split, clips, captions)
    return DataSet(name)


def _telling(path: Path) -> str:
    if path.is_dir():
        return ""
    if path.parent.name == "evaluation_setup":
        return path.parent.parent.name
    return path.parent.name if path.name == "meta.txt" else path.stem


def say_partial(path: Path, found: DataSet, clips: list[Clip]) -> None:
    """Say on stderr where a list has other clips, or fewer captions, than were published."""
    title = " ".join(filter(None, (found.name, found.split)))
    if found.official not in (None, len(clips)):
        print(f"{path} lists {len(clips):,} clips; {title} has {found.official:,}", file=sys.stderr)
    fewer = [clip for clip in clips if len(clip.captions) < found.captions]
    if fewer:
        print(
            f"{len(fewer):,} of {len(clips):,} clips of {path} have fewer than {found.captions} "
            f"captions (the first: {fewer[0].id})",
            file=sys.stderr,
        )
