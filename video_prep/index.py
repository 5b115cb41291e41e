"""What is to be prepared: clips from a folder, a glob, a list of any known kind, or one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources import audioset_dl
from video_prep.sources.clip import AUDIO, VIDEO, Clip
from video_prep.sources.files import clips_of_files, clips_of_folder, clips_of_glob
from video_prep.sources.lists import clips_of_paths, segments_of_ids
from video_prep.sources.ontology import LabelNames
from video_prep.sources.segments import Segment, audioset, reader_of
from video_prep.sources.youtube import join

__all__ = ["AUDIO", "VIDEO", "Clip", "read_clips"]

_LISTS = {".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json"}


def read_clips(
    source: str,
    suffixes: frozenset[str] = VIDEO,
    *,
    media: str | None = None,
    already_cut: bool = False,
    ontology: str | None = None,
) -> list[Clip]:
    """Clips that `source` names, in order; `suffixes` are what counts in a folder.

    A list is known by its content: AudioSet's, AudioCaps's and VGGSound's own lists and rows with a
    `youtube_id` are joined with the files below `media`, which hold whole videos unless their names
    or `already_cut` say otherwise; rows with a `path` and audioset-dl's index name their files.
    Label ids become names by `ontology`, or by AudioSet's own files beside the list.

    Raises UserError for a source that is missing, empty or wrong. A file that a list names and that
    does not exist is not an error here but a failed clip later; how many have none is said in one
    line on stderr.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in _LISTS:
        return _clips_of_list(path, suffixes, media, already_cut, ontology)
    for option, given in (
        ("--media", media),
        ("--already-cut", already_cut),
        ("--ontology", ontology),
    ):
        if given:
            raise UserError(
                f"{option} goes with a list of YouTube videos, and {source} is no list "
                f"({', '.join(sorted(_LISTS))})"
            )
    if path.is_dir():
        if audioset_dl.is_extracted(path):
            return audioset_dl.clips_of_folder(path)
        return clips_of_folder(path, suffixes)
    if path.is_file():
        return clips_of_files(path.parent, [path])
    if any(mark in source for mark in "*?["):
        return clips_of_glob(source)
    raise UserError(
        f"{source} does not exist; give a folder, a glob in quotes, or a CSV or JSON-lines list"
    )


def _clips_of_list(
    path: Path, suffixes: frozenset[str], media: str | None, already_cut: bool, ontology: str | None
) -> list[Clip]:
    names = LabelNames(path, ontology)
    reader = reader_of(path)
    if audioset_dl.is_index(path):
        clips = audioset_dl.clips_of_index(path, Path(media or path.parent), names)
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
    return clips
