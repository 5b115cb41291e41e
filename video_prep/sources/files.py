"""Clips that are whole media files: those of a folder, of a glob, or one."""

from __future__ import annotations

import glob as globs
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from video_prep.errors import UserError
from video_prep.sources.clip import AUDIO, VIDEO, Clip


def clips_of_folder(path: Path, suffixes: frozenset[str]) -> list[Clip]:
    """A clip for each file below `path` with one of the suffixes, in order of relative paths."""
    clips = clips_of_files(path, _media_below(path, suffixes))
    if not clips:
        raise UserError(_nothing_in(path, suffixes))
    return clips


def clips_of_glob(pattern: str) -> list[Clip]:
    """A clip for each file that matches `pattern`."""
    found = sorted(Path(name) for name in globs.glob(pattern, recursive=True))  # noqa: PTH207
    clips = clips_of_files(
        Path(*_fixed_parts(Path(pattern))), [file for file in found if file.is_file()]
    )
    if not clips:
        raise UserError(f"{pattern} matches no file; quote the pattern and check the folder")
    return clips


def clips_of_files(root: Path, files: Iterable[Path]) -> list[Clip]:
    """One whole-file clip each; ids are relative paths, with suffix where two would be equal."""
    names = [(file, PurePosixPath(readable(file.relative_to(root).as_posix()))) for file in files]
    count = Counter(str(name.with_suffix("")) for _, name in names)
    return [
        Clip(
            id=str(name) if count[str(name.with_suffix(""))] > 1 else str(name.with_suffix("")),
            path=file.absolute(),
            source=str(name),
        )
        for file, name in names
    ]


def files_below(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files) of `root` and every folder below; hidden ones are left out.

    Links to folders are followed once; no file is touched, so millions of them take seconds.
    """
    seen = set()
    for folder, names, files in os.walk(root, onerror=_say_unread, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield folder, [name for name in files if not name.startswith(".")]


def stem_of(name: str) -> str:
    """A file's name without its folders and its suffix."""
    return name.rpartition("/")[2].rpartition(".")[0]


def suffix_of(name: str) -> str:
    """Suffix of a file name in small letters, with its dot."""
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def _say_unread(error: OSError) -> None:
    print(
        f"{error.filename} cannot be listed ({error.strerror}): its files are left out",
        file=sys.stderr,
    )


def readable(name: str) -> str:
    """The name with bytes that are not UTF-8 shown as \\xNN, so that it can be written down."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _media_below(root: Path, suffixes: frozenset[str]) -> list[Path]:
    found = [
        Path(folder, name)
        for folder, names in files_below(root)
        for name in names
        if suffix_of(name) in suffixes
    ]
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _nothing_in(path: Path, suffixes: frozenset[str]) -> str:
    if suffixes == AUDIO and _media_below(path, VIDEO):
        return (
            f"{path} holds videos but no audio files; for their sound alone give a glob "
            f"such as '{path}/**/*.mp4'"
        )
    kind = "audio" if suffixes == AUDIO else "video"
    listed = ", ".join(sorted(suffixes)[:6])
    return f"{path} holds no {kind} file (looked for {listed} ... in it and below)"


def _fixed_parts(pattern: Path) -> list[str]:
    """The leading folders of a glob that hold no wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if any(mark in part for mark in "*?["):
            break
        parts.append(part)
    return parts
