"""What is to be prepared: clips from a folder, a glob, a list of any known kind, or one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources import audioset_dl, fsd50k, labelled
from video_prep.sources.clip import AUDIO, VIDEO, Clip
from video_prep.sources.files import clips_of_files, clips_of_folder, clips_of_glob
from video_prep.sources.lists import clips_of_paths, segments_of_ids
from video_prep.sources.official import DataSet, data_set, say_partial
from video_prep.sources.ontology import LabelNames
from video_prep.sources.segments import (
    Segment,
    audiocaps,
    audioset,
    reader_of,
    vggsound,
    vggsound_names,
)
from video_prep.sources.youtube import join
from video_prep.storage.laion import is_tar_folder

__all__ = ["AUDIO", "VIDEO", "Clip", "Found", "find_clips", "read_clips"]

_LISTS = {".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json"}
_NAMES = {audioset: "AudioSet", audiocaps: "AudioCaps", vggsound: "VGGSound"}
_BESIDE = ("*_segments.csv", "train.csv", "val.csv", "test.csv")  # AudioSet's and AudioCaps's


@dataclass(frozen=True)
class Found:
    """Clips of a source in their order, and the published data set that they are of."""

    clips: list[Clip]
    dataset: DataSet | None = None


def read_clips(
    source: str,
    suffixes: frozenset[str] = VIDEO,
    *,
    media: str | None = None,
    already_cut: bool = False,
    ontology: str | None = None,
) -> list[Clip]:
    """Clips that `source` names, in order, as `find_clips` finds them."""
    return find_clips(
        source, suffixes, media=media, already_cut=already_cut, ontology=ontology
    ).clips


def find_clips(
    source: str,
    suffixes: frozenset[str] = VIDEO,
    *,
    media: str | None = None,
    already_cut: bool = False,
    ontology: str | None = None,
) -> Found:
    """Clips that `source` names, in order; `suffixes` are what counts in a folder.

    A list is known by its content: AudioSet's, AudioCaps's and VGGSound's own lists and rows with a
    `youtube_id` are joined with the files below `media`, which hold whole videos unless their names
    or `already_cut` say otherwise; rows with a `path` and audioset-dl's index name their files; the
    tables of ESC-50, UrbanSound8K, Clotho, TUT Acoustic Scenes 2017, FSD50K, MACS and WavCaps are
    joined by file name with the files below `media`, or below the data set's folder, which may
    itself be the source. Label ids become names by `ontology`, or by AudioSet's own files beside
    the list; FSD50K's labels are AudioSet's names with `ontology`.

    Raises UserError for a source that is missing, empty or wrong. A file that a list names and that
    does not exist is not an error here but a failed clip later; how many have none is said in one
    line on stderr.
    """
    path = Path(source)
    table = _table(path)
    if table is not None:
        return _clips_of_table(table, suffixes, media, already_cut, ontology)
    if path.is_file() and path.suffix.lower() in _LISTS:
        return _clips_of_list(path, suffixes, media, already_cut, ontology)
    why = f"is no list ({', '.join(sorted(_LISTS))})"
    _refuse(source, why, media=media, already_cut=already_cut, ontology=ontology)
    if path.is_dir():
        if audioset_dl.is_extracted(path):
            return Found(audioset_dl.clips_of_folder(path))
        _say_lists(path)
        try:
            return Found(clips_of_folder(path, suffixes))
        except UserError:
            if is_tar_folder(path):
                raise UserError(
                    f"{path} holds LAION's tars, which need no preparing; name the folder where "
                    "shards are asked for"
                ) from None
            raise
    if path.is_file():
        return Found(clips_of_files(path.parent, [path]))
    if any(mark in source for mark in "*?["):
        return Found(clips_of_glob(source))
    raise UserError(
        f"{source} does not exist; give a folder, a glob in quotes, or a CSV or JSON-lines list"
    )


def _table(path: Path) -> Path | None:
    """The table of ESC-50, FSD50K, WavCaps, ... that `path` is, or that its folder holds."""
    if path.is_dir():
        return None if audioset_dl.is_extracted(path) else labelled.table_in(path)
    is_table = path.is_file() and path.suffix.lower() in labelled.SUFFIXES
    return path if is_table and labelled.name_of(path) else None


def _refuse(
    source: str, why: str, *, media: str | None, already_cut: bool, ontology: str | None
) -> None:
    """Refuse the options of lists of YouTube videos for a source that is none."""
    given = {"--media": media, "--already-cut": already_cut, "--ontology": ontology}
    for option in (option for option, value in given.items() if value):
        raise UserError(f"{option} goes with a list of YouTube videos, and {source} {why}")


def _say_lists(folder: Path) -> None:
    """Say where the folder of files holds AudioSet's or AudioCaps's list, which is not read."""
    for path in sorted(path for name in _BESIDE for path in folder.glob(name)):
        try:
            reader = reader_of(path)
        except UserError:
            continue  # no text, so none of their lists
        if reader in _NAMES:
            print(
                f"{path} is {_NAMES[reader]}'s list, and is not read; for its labels or captions "
                f"prepare it with --media {folder}",
                file=sys.stderr,
            )


def _clips_of_table(
    path: Path, suffixes: frozenset[str], media: str | None, already_cut: bool, ontology: str | None
) -> Found:
    found = data_set(labelled.name_of(path) or "", path)
    why = f"is {found.name}'s table"
    names = LabelNames(path, ontology) if ontology and found.name == fsd50k.NAME else None
    other = None if names else ontology
    _refuse(str(path), why, media=None, already_cut=already_cut, ontology=other)
    folder = Path(media or labelled.folder_of(path))
    clips = labelled.clips_of_table(path, folder, suffixes, names)
    say_partial(path, found, clips)
    return Found(clips, found)


def _clips_of_list(
    path: Path, suffixes: frozenset[str], media: str | None, already_cut: bool, ontology: str | None
) -> Found:
    names = LabelNames(path, ontology)
    reader = reader_of(path)
    found = data_set(_NAMES[reader], path) if reader in _NAMES else None
    if reader is vggsound_names and path.stem == "test":  # test.csv; lists of others' own are many
        found = data_set(_NAMES[vggsound], path)
    if audioset_dl.is_index(path):
        clips = audioset_dl.clips_of_index(path, Path(media or path.parent), names)
        found = _indexed(path, clips)
    elif already_cut and media is None:
        raise UserError(f"--already-cut tells of the files in --media, and {path} is read without")
    elif media is not None:
        segments: Iterator[Segment] = (reader or segments_of_ids)(path, names)
        clips = join(
            path,
            segments,
            Path(media),
            suffixes,
            already_cut=already_cut,
            exact_end=reader in (None, audioset),
        )
    elif reader is not None:
        raise UserError(
            f"{path} lists YouTube videos; add --media with the folder that holds their files"
        )
    else:
        clips = clips_of_paths(path, names)
        if not clips:
            raise UserError(f"{path} lists no clips; give each a row with at least its path")
    names.finish()
    if found is not None:
        say_partial(path, found, clips)
    return Found(clips, found)


def _indexed(path: Path, clips: list[Clip]) -> DataSet | None:
    """The data set of audioset-dl's index, where its name tells the split."""
    found = data_set("AudioCaps" if all(clip.captions for clip in clips) else "AudioSet", path)
    return found if found.split else None
