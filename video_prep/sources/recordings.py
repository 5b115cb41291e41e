"""Which recording a clip is cut from: its Freesound or YouTube id, out of names, links, tables."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from video_prep.errors import UserError
from video_prep.sources.clip import AUDIO, VIDEO
from video_prep.sources.files import stem_of, suffix_of

KINDS = ("freesound", "youtube")

_FREESOUND_LINK = re.compile(r"/people/[^/]+/sounds/(\d+)|freesound\.org/(?:s|apiv2/sounds)/(\d+)")
_YOUTUBE_LINK = re.compile(r"(?:[?&]v=|youtu\.be/|/embed/|/shorts/)([A-Za-z0-9_-]{11})(?![\w-])")
_FREESOUND_NAMES = (
    re.compile(r"[1-5]-(\d+)-[A-Z](?:-\d+)?"),  # ESC-50: fold-source-take-target
    re.compile(r"(\d+)-\d-\d+-\d+"),  # UrbanSound8K: source-class-occurrence-slice
    re.compile(r"(\d+)__[^_].*?__.+"),  # as Freesound names what it hands out: id__user__title
)
# 64 bits in base64: the last of 11 letters holds four bits and is one of 16. Before it Y (PANNs,
# AudioSet), behind it the start, or start and end, of the segment.
_YOUTUBE_NAME = re.compile(
    r"Y?([A-Za-z0-9_-]{10}[AEIMQUYcgkosw048])(?:_\d+(?:\.\d+)?(?:[_-]\d+(?:\.\d+)?)?)?"
)


def freesound_id(value: object) -> str | None:
    """The id in a cell or a link: "100032", 100032, "https://freesound.org/people/A/sounds/100032".

    None for anything else, such as Clotho's "Not found".
    """
    text = "" if isinstance(value, bool) or value is None else str(value).strip()
    if text.isascii() and text.isdigit():
        return text.lstrip("0") or None
    found = _FREESOUND_LINK.search(text)
    return (found[1] or found[2]).lstrip("0") or None if found else None


def youtube_id(value: object) -> str | None:
    """The id in a cell or a link: "7fmOlUlwoNg", "https://youtu.be/7fmOlUlwoNg"; else None."""
    text = value.strip() if isinstance(value, str) else ""
    found = _YOUTUBE_LINK.search(text)
    if found:
        return found[1]
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else None


def id_in_name(name: str) -> tuple[str, str] | None:
    """(kind, id) that the name of a clip or file tells by its form; None where it tells none.

    A word of eleven letters may look like a YouTube id: ask all names of a data set before you
    believe one.
    """
    stem = stem_of(name) if suffix_of(name) in AUDIO | VIDEO else name.rpartition("/")[2]
    for pattern in _FREESOUND_NAMES:
        if found := pattern.fullmatch(stem):
            return "freesound", found[1].lstrip("0")
    found = _YOUTUBE_NAME.fullmatch(stem)
    return ("youtube", found[1]) if found else None


def clotho_sounds(table: Path) -> dict[str, str]:
    """File name -> Freesound id, of clotho_metadata_X.csv beside clotho_captions_X.csv.

    Empty where there is no such file; sounds that Freesound no longer has are left out.
    """
    path = table.with_name(table.name.replace("clotho_captions_", "clotho_metadata_"))
    if path == table or not path.is_file():
        return {}
    return {name: sound for name, sound in clotho_metadata(path).items() if sound}


def clotho_metadata(path: Path) -> dict[str, str | None]:
    """File name -> Freesound id or None, of clotho_metadata_X.csv as it is published.

    That is in Latin-1, the test split with ; between the cells. Raises UserError where a column is
    missing.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    head = text.partition("\n")[0]
    comma = ";" if head.count(";") > head.count(",") else ","
    rows = csv.DictReader(text.splitlines(), delimiter=comma)
    if not {"file_name", "sound_id"} <= set(rows.fieldnames or ()):
        raise UserError(f"{path} lacks the column file_name or sound_id; put Clotho's file there")
    return {(row["file_name"] or "").strip(): freesound_id(row["sound_id"]) for row in rows}
