"""Joins a list of YouTube segments with a folder of downloaded files by their names."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources.audioset_dl import clips_of_folder, is_extracted
from video_prep.sources.clip import AUDIO, VIDEO, Clip
from video_prep.sources.faults import MISSING, report, two_files
from video_prep.sources.files import files_below, readable, stem_of, suffix_of
from video_prep.sources.segments import Segment, refuse_same

# of a file: None for a whole video, () where its name does not say which segment of it was cut,
# else the start, or start and end, in seconds or milliseconds
_Cut = tuple[float, ...] | None

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ENDINGS = tuple(
    re.compile(f"(.+){ending}")
    for ending in (f"_{_NUMBER.pattern}", f"_{_NUMBER.pattern}[_-]{_NUMBER.pattern}")
)


def join(
    path: Path,
    segments: Iterable[Segment],
    media: Path,
    suffixes: frozenset[str],
    *,
    already_cut: bool = False,
    exact_end: bool = True,
) -> list[Clip]:
    """A clip for every segment of the list `path`, with its file below `media` or its fault.

    Known names, in any sub-folder: ID.mp4 is the whole video and is cut by start and end, or taken
    whole with `already_cut`; ID_30.mp4, ID_000030.mp4 (VGGSound), ID_30000_40000.flac and
    ID_30.000_40.000.mkv (AudioSet) hold one segment, and are taken whole for that one alone; so is
    YID.wav (PANNs, AudioCaps), which is cut before it gets that name. The end in a name counts
    where `exact_end` says that the list has ends of its own. A file with one of `suffixes` goes
    before a video that merely has sound, and so does what audioset-dl cut.

    Raises UserError where not one segment has a file; single ones become rows with a reason.
    """
    listed = list(segments)
    ids = _ids(path, listed)
    if not listed:
        raise UserError(f"{path} lists no clips; it has no row but comments and a header")
    if not media.is_dir():
        raise UserError(f"--media {media} is not a folder; give the one with the downloaded files")
    media = media.absolute()
    count = Counter(segment.youtube_id for segment in listed)
    if is_extracted(media):
        cut = {clip.id: clip for clip in clips_of_folder(media)}
        clips = [
            _with_frames(segment, name, cut.get(segment.youtube_id), media, count)
            for segment, name in zip(listed, ids, strict=True)
        ]
    else:
        downloads = _Downloads(media, suffixes, count, already_cut, exact_end)
        clips = [downloads.clip(segment, name) for segment, name in zip(listed, ids, strict=True)]
        downloads.say()
    report(path, clips, media, lambda: _hint(listed, media, suffixes))
    return clips


def _ids(path: Path, segments: list[Segment]) -> list[str]:
    """The clips' ids: the list's own, else the YouTube id, with the start where two share it."""
    count = Counter(segment.youtube_id for segment in segments if not segment.id)
    first: dict[str, int] = {}
    for segment in segments:
        name = segment.id or segment.youtube_id
        if not segment.id and count[name] > 1 and segment.start is not None:
            name = f"{name}_{segment.start:g}"
        refuse_same(path, first, name, segment.line)
    return list(first)


def _owner(stem: str, wanted: Container[str]) -> str | None:
    """The wanted id that a file name without suffix is made of, or None."""
    for name in (stem, stem[1:]) if stem[:1] == "Y" else (stem,):
        if name in wanted:
            return name
        for ending in _ENDINGS:
            match = ending.fullmatch(name)
            if match and match[1] in wanted:
                return match[1]
    return None


def _cut(name: str, youtube_id: str) -> _Cut:
    """What a file's name says of the segment that it holds."""
    before, _, after = stem_of(name).partition(youtube_id)
    if after:
        return tuple(float(number) for number in _NUMBER.findall(after))
    return () if before else None


class _Downloads:
    """The files of a folder by the YouTube id in their names."""

    def __init__(
        self,
        media: Path,
        suffixes: frozenset[str],
        count: Counter[str],
        already_cut: bool,
        exact_end: bool,
    ) -> None:
        self._media, self._suffixes, self._count = media, suffixes, count
        self._already_cut, self._exact_end = already_cut, exact_end
        self._unsaid = 0  # clips whose file is cut, but does not say where
        self._whole = 0  # sound files that are cut by start and end: they seldom are whole videos
        self._extra, self._first_extra = 0, ""  # files of no listed clip
        self._found: dict[str, str] = {}  # names of an id, joined by NUL: there may be millions
        for name in _names(media, suffixes):
            owner = _owner(stem_of(name), count)
            if owner is None:
                self._extra += 1
                self._first_extra = min(name, self._first_extra or name)
            else:
                before = self._found.get(owner)
                self._found[owner] = name if before is None else f"{before}\0{name}"

    def clip(self, segment: Segment, name: str) -> Clip:
        """The clip of a segment: its file and bounds, or its fault."""
        found = self._found.get(segment.youtube_id)
        files = [] if found is None else found.split("\0")
        cuts = {file: _cut(file, segment.youtube_id) for file in files}
        own = [file for file, cut in cuts.items() if _fits(cut, segment, self._exact_end)]
        if len(own) > 1:
            own = [file for file in own if suffix_of(file) in self._suffixes] or own
        fault = self._fault(segment, cuts, own)
        if fault is not None:
            return _faulty(segment, name, self._media, fault)
        (file,) = own
        self._unsaid += cuts[file] == ()
        whole = cuts[file] is None and not self._already_cut
        self._whole += whole and bool(segment.start) and suffix_of(file) in AUDIO
        return Clip(
            id=name,
            path=self._media / file,
            start=segment.start if whole else None,
            end=segment.end if whole else None,
            labels=segment.labels,
            captions=segment.captions,
            source=readable(file),
            split=segment.split,
            youtube=_untold(segment, name),
        )

    def _fault(
        self, segment: Segment, cuts: dict[str, _Cut], own: list[str]
    ) -> tuple[str, str] | None:
        if not cuts:
            return MISSING, f"no file is named {segment.youtube_id}"
        if not own:
            other = readable(min(cuts))
            return MISSING, f"only other segments of {segment.youtube_id} are there, as {other}"
        if len(own) > 1:
            return two_files(segment.youtube_id, (readable(file) for file in own))
        cut = cuts[own[0]]
        if cut == () or (self._already_cut and cut is None):
            return _shared(segment, readable(own[0]), self._count)
        return None

    def say(self) -> None:
        """Say on stderr what was left out, and what was taken from names that do not say it."""
        if self._extra:
            print(
                f"files in {self._media} that no row names are left out: {self._extra:,} "
                f"(the first: {readable(self._first_extra)})",
                file=sys.stderr,
            )
        if self._whole:
            print(
                f"sound files named by their id alone are taken as of whole videos: "
                f"{self._whole:,}; add --already-cut where they hold the segment",
                file=sys.stderr,
            )
        if self._unsaid:
            print(
                f"files named Y and an id are taken as cut to their segment: {self._unsaid:,}",
                file=sys.stderr,
            )


def _fits(cut: _Cut, segment: Segment, exact_end: bool) -> bool:
    """True where the numbers in a file's name are the segment's, in seconds or milliseconds."""
    if not cut:
        return True
    bounds = (segment.start, segment.end) if exact_end else (segment.start,)
    return any(
        all(
            bound is not None
            and (abs(number - bound * scale) < 0.01 or number == int(bound * scale))
            for number, bound in zip(cut, bounds, strict=False)
        )
        for scale in (1, 1000)
    )


def _shared(segment: Segment, file: str, count: Counter[str]) -> tuple[str, str] | None:
    """Fault of a cut file that does not say which of several listed segments it holds."""
    listed = count[segment.youtube_id]
    if listed == 1:
        return None
    return "unclear_segment", (
        f"{file} is cut, but the list has {listed} segments of {segment.youtube_id}; put the start "
        f"into its name, as {segment.youtube_id}_{segment.start or 0:g}"
    )


def _with_frames(
    segment: Segment, name: str, cut: Clip | None, media: Path, count: Counter[str]
) -> Clip:
    """The clip of a segment whose frames and sound audioset-dl has cut."""
    if cut is None:
        text = f"no file is named {segment.youtube_id}.p0"
        return _faulty(segment, name, media, (MISSING, text))
    fault = cut.fault or _shared(segment, cut.source, count)
    if fault is not None:
        return _faulty(segment, name, media, fault)
    return Clip(
        name,
        cut.path,
        segment.start,
        segment.end,
        segment.labels,
        segment.captions,
        cut.source,
        cut.frames,
        split=segment.split,
        youtube=_untold(segment, name),
    )


def _untold(segment: Segment, name: str) -> str | None:
    """The YouTube id, where the clip's own id does not hold it."""
    return None if segment.youtube_id in name else segment.youtube_id


def _faulty(segment: Segment, name: str, media: Path, fault: tuple[str, str]) -> Clip:
    return Clip(
        id=name,
        path=media / f"{segment.youtube_id}.*",  # there is none such, and none is opened
        start=segment.start,
        end=segment.end,
        labels=segment.labels,
        captions=segment.captions,
        source=segment.youtube_id,
        fault=fault,
        split=segment.split,
        youtube=_untold(segment, name),
    )


def _names(media: Path, suffixes: frozenset[str]) -> Iterable[str]:
    """Names below `media` of the files that count: videos do for sound as well."""
    kinds = suffixes | VIDEO
    for folder, names in files_below(media):
        place = Path(folder).relative_to(media).as_posix()
        prefix = "" if place == "." else f"{place}/"
        yield from (prefix + name for name in names if suffix_of(name) in kinds)


def _hint(segments: list[Segment], media: Path, suffixes: frozenset[str]) -> str:
    """What was looked for, and what is there."""
    wanted = ", ".join(segment.youtube_id for segment in segments[:3])
    there = sorted(_names(media, suffixes))[:3]
    if not there:
        kind = "video" if suffixes <= VIDEO else "media"
        return f"it holds no {kind} file (wanted: {wanted}, ...)"
    names = ", ".join(readable(name) for name in there)
    return f"looked for files named {wanted}, ...; there are {names}, ..."
