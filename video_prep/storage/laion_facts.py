"""What LAION's JSONs say of a clip: captions by a rule, tags as labels, ids of the recording."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from video_prep.sources.recordings import freesound_id, youtube_id

SelectText = Literal["none", "all", "augment_only"]
_FREESOUND = ("freesound_id", "sound_id", "sound_link", "src_file", "fsID", "download_url")
_YOUTUBE = ("youtube_id", "YTID", "youtube")
_FILE = ("filename", "file_name", "fname", "slice_file_name")


def select_text(facts: Mapping[str, Any], rule: SelectText = "none") -> list[str]:
    """Captions of one clip's JSON by LAION-CLAP's rule (src/laion_clap/training/data.py).

    none: `text`. all: `text_augment_all`, where it is there. augment_only: `text_augment_t5`,
    where it is there and the JSON has a `text_augment_all`, be that empty. Null is as if it were
    not there, and so is an empty list, on which LAION's code stops. One sentence is a list of one.
    Raises ValueError for what is neither a text nor a list of texts.
    """
    name = "text"
    if rule != "none" and "text_augment_all" in facts:
        augmented = "text_augment_all" if rule == "all" else "text_augment_t5"
        if facts.get(augmented) not in (None, []):
            name = augmented
    return _texts(facts, name)


def clip_facts(data: bytes, clip_id: str, member: str, rule: SelectText = "none") -> dict[str, Any]:
    """Facts of a clip as prepared shards keep them, out of its JSON.

    `freesound` and `youtube` where `original_data` tells the recording. Raises ValueError for what
    is no JSON object, or has captions or tags that are no texts.
    """
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    original = found.get("original_data")
    own = original if isinstance(original, dict) else {}
    names = (own[key] for key in _FILE if isinstance(own.get(key), str) and own[key])
    facts = {
        "id": clip_id,
        "source": next(names, member),
        "labels": _texts(found, "tag"),
        "captions": select_text(found, rule),
        "flags": [],
    }
    return facts | _recording(own)


def _texts(facts: Mapping[str, Any], name: str) -> list[str]:
    value = facts.get(name)
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} {value!r:.80} is neither a text nor a list of texts")
    return texts


def _recording(own: Mapping[str, Any]) -> dict[str, str]:
    """Ids of the recording: a column that is called so, Freesound's own, or FSD50K's fname."""
    told = [freesound_id(own.get(key)) for key in _FREESOUND]
    if "freesound.org/" in str(own.get("download_url")) or any(
        key.startswith("mids") for key in own
    ):
        told += [freesound_id(own.get(key)) for key in ("id", "fname")]
    sound = next(filter(None, told), None)
    video = next(filter(None, (youtube_id(own.get(key)) for key in _YOUTUBE)), None)
    return {kind: one for kind, one in (("freesound", sound), ("youtube", video)) if one}
