"""WavCaps as it is published: a JSON of clips with a caption each for every one of four sources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.sources.recordings import freesound_id, id_in_name
from video_prep.sources.table_row import Row

# Mei et al., WavCaps, 2024; huggingface.co/datasets/cvssp/WavCaps
NAME = "WavCaps"
SOURCES = ("AudioSet_SL", "BBC_Sound_Effects", "FreeSound", "SoundBible")
_HEAD = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"num_captions_per_audio"')
_LINKS = ("href", "download_link")
# lists of what other sets have, in folder `blacklist`: {"AudioSet": [...], "FreeSound": [...]}
_LISTS = {"audioset": "youtube", "audioset_sl": "youtube", "freesound": "freesound"}


def is_table(path: Path) -> bool:
    """Whether a file is one of WavCaps's lists; their first key tells, since they are long."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return _HEAD.match(file.read(256)) is not None
    except OSError:
        return False


def folder_of(path: Path) -> Path:
    """The data set's folder, where the list lies as it is published."""
    inner = path.parent.parent
    return inner.parent if inner.name == "json_files" else path.parent


def read(path: Path, source: str | None) -> Iterator[Row]:
    """Clips with their captions; `source` is the one of SOURCES that the list is of, if any.

    A clip of FreeSound has its Freesound id, one of AudioSet the YouTube id in its name. Raises
    UserError for what is no JSON, or an entry without its id or caption.
    """
    for number, entry in enumerate(_load(path), 1):
        where = f"{path} entry {number}"
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            raise UserError(f"{where} has no id; mend it, or download the list again")
        name = str(name).strip()
        texts = entry.get("caption")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: {name} has no caption; mend it, or download the list again")
        linked = (freesound_id(entry.get(key)) for key in _LINKS if "/" in str(entry.get(key)))
        sound = next(filter(None, linked), None)
        if sound is None and source == "FreeSound":
            sound = freesound_id(name.partition(".")[0])
        told = id_in_name(name)
        video = (
            told[1] if told and told[0] == "youtube" and source in (None, "AudioSet_SL") else None
        )
        captions = tuple(text.strip() for text in texts if text.strip())
        yield Row(number, name, captions=captions, freesound=sound, youtube=video)


def blacklist(value: Any) -> list[tuple[str, str]] | None:
    """(kind, name) of each clip in one of WavCaps's exclusion lists; None for any other JSON.

    The kind is freesound or youtube: what the list's own key says of its ids.
    """
    if not isinstance(value, dict) or not value:
        return None
    if any(not isinstance(names, list) for names in value.values()):
        return None
    kinds = [_LISTS.get(str(key).lower()) for key in value]
    if None in kinds:
        return None
    return [
        (str(kind), str(name).strip())
        for kind, names in zip(kinds, value.values(), strict=True)
        for name in names
    ]


def _load(path: Path) -> list[Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); download it again") from None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        raise UserError(f"{path} holds no list `data` of clips; download it again")
    return data
