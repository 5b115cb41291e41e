"""`pivot evaluate --gap`: where the means come from, and the measured vectors moved by them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.stream import open_with_sound
from pivot.embeddings.embed import embed_frame, embed_texts
from pivot.embeddings.sources import is_shards, middle_frame
from pivot.embeddings.store import EmbeddingStore, UnitRows, as_stored, is_store
from pivot.errors import DataError, SettingsError
from pivot.evaluation.clips import Clips
from pivot.evaluation.exam import Exam
from pivot.evaluation.gap import Rows, closing
from pivot.evaluation.windows import embed_measured
from pivot.model import Pivot
from pivot.settings import Evaluate
from video_prep.shards import ShardFolder

Floats = NDArray[np.float32]
# what is measured -> the modality of --gap-from that moves it
MODALITIES = {
    "audio": "audio",
    "image": "image",
    "captions": "text",
    "labels": "text",
    "labels_without_prompt": "text",
}
MADE_WITH = {"audio": "sounds", "image": "frames", "text": "texts"}
MEASURED = "the clips measured, without their labels"
NAMES = "the label names in words, each once"


@dataclass(frozen=True)
class Source:
    """Rows (n, d) that a mean is taken of, and what they are, for results.json."""

    rows: Rows
    about: dict[str, Any]


def close_gap(
    settings: Evaluate, model: Pivot, exam: Exam, audio: Floats
) -> tuple[Exam, Floats, dict[str, Any]]:
    """The exam and the sounds (n, d) with the gap closed, and the sources of the means.

    --gap-from has passed `check_sources`. Raises DataError where a modality has no rows to take a
    mean of, StoreError for a store of another model.
    """
    if settings.gap == "none":
        raise SettingsError("--gap none leaves everything where it is")
    own = _measured(exam, audio)
    given = _given(settings, model, set(map(MODALITIES.__getitem__, own)))
    sources = {
        name: given[MODALITIES[name]] if given else Source(rows, _about_measured(exam, name, rows))
        for name, rows in own.items()
    }
    close = closing(settings.gap, _distinct(sources, given), settings.gap_shrink)
    moved = {name: close(_key(name, given), rows) for name, rows in own.items()}
    facts: dict[str, Any] = {
        "how": settings.gap,
        "from": {name: source.about for name, source in sources.items()},
    }
    if settings.gap == "whiten":
        facts["shrink"] = settings.gap_shrink
    closed = replace(
        exam,
        words=moved.get("labels"),
        bare=moved.get("labels_without_prompt"),
        text=moved.get("captions"),
        images=moved.get("image"),
    )
    return closed, moved["audio"], facts


def _key(name: str, given: dict[str, Source]) -> str:
    return MODALITIES[name] if given else name


def _distinct(sources: dict[str, Source], given: dict[str, Source]) -> dict[str, Rows]:
    return {_key(name, given): source.rows for name, source in sources.items()}


def _measured(exam: Exam, audio: Floats) -> dict[str, Floats]:
    """What is measured and has to be moved."""
    found = {
        "audio": audio,
        "image": exam.images,
        "captions": exam.text,
        "labels": exam.words,
        "labels_without_prompt": exam.bare,
    }
    return {name: rows for name, rows in found.items() if rows is not None}


def _about_measured(exam: Exam, name: str, rows: Floats) -> dict[str, Any]:
    shards = exam.clips.shards
    if MODALITIES[name] == "text" and name != "captions":
        return {"source": NAMES, "rows": len(rows)}
    about = {"source": MEASURED, "path": shards.path, "fingerprint": shards.fingerprint}
    return about | {"rows": len(rows)}


# ---- --gap-from ------------------------------------------------------------------------------


def check_sources(settings: Evaluate, model: Pivot, clips: Clips) -> None:
    """Refuse what --gap-from names, before anything is embedded or written.

    Raises SettingsError for what is neither a store nor shards, for a modality named twice and for
    one that is measured and not named; StoreError for a store of another model.
    """
    offered: dict[str, str] = {}
    for path in settings.gap_from:
        for modality in _offered(path, model):
            if modality in offered:
                raise SettingsError(
                    f"--gap-from names {MADE_WITH[modality]} twice ({offered[modality]} and "
                    f"{path}); keep one"
                )
            offered[modality] = path
    needed = ["audio"]
    if model.clip is not None and clips.shards.num_frames:
        needed.append("image")
    if clips.captions or (clips.labelled and clips.wordless is None):
        needed.append("text")
    for modality in needed if offered else ():
        if modality not in offered:
            raise SettingsError(
                f"--gap-from names no {MADE_WITH[modality]}, which are measured here; add a store "
                f"of pivot embed {modality}, or shards that hold them"
            )


def _offered(path: str, model: Pivot) -> list[str]:
    """Modalities that a store or shards can give."""
    if is_store(path):
        return list(_of_store(path, model))
    if not is_shards(path):
        raise SettingsError(
            f"--gap-from {path} is neither a store of pivot embed nor a folder of shards"
        )
    shards = ShardFolder(path, sound=True)
    if not len(shards):
        raise DataError(f"--gap-from {path} holds no sound; name other shards")
    frames = ["image"] if shards.num_frames else []
    texts = ["text"] if any(facts["captions"] for facts in shards.all_facts()) else []
    return ["audio", *frames, *texts]


def _given(settings: Evaluate, model: Pivot, needed: set[str]) -> dict[str, Source]:
    """Modality -> its rows in what --gap-from names; nothing without --gap-from."""
    found: dict[str, Source] = {}
    for path in settings.gap_from:
        store = is_store(path)
        found |= _of_store(path, model) if store else _of_shards(settings, path, model, needed)
    return found


def _of_store(path: str, model: Pivot) -> dict[str, Source]:
    store = EmbeddingStore.open(path)
    what = store.manifest["what"]
    store.require(weights_hash=_hash(model, what))
    place = middle_frame(store.rows)
    rows = UnitRows(store.vectors[:, place : place + 1])
    about = {"source": f"store of {MADE_WITH[what]}", "path": str(path), "rows": len(rows)}
    about |= {"fingerprint": store.manifest["data"]["fingerprint"]}
    if what == "text":
        about["prompt"] = store.manifest["prompt"]
    return {what: Source(rows, about)}


def _hash(model: Pivot, what: str) -> str:
    if what == "image":
        return model.require_clip().weights_hash
    return model.audio_hash if what == "audio" else model.text_hash


def _of_shards(settings: Evaluate, path: str, model: Pivot, needed: set[str]) -> dict[str, Source]:
    """The sounds of shards, and what of their captions and middle frames is needed."""
    shards = open_with_sound(path)
    about = {"path": shards.path, "fingerprint": shards.fingerprint}
    found = {"audio": ("sounds", embed_measured(settings, model, shards))}
    texts = [text for facts in shards.all_facts() for text in facts["captions"]]
    if "text" in needed and texts:
        prompt, size = settings.caption_prompt, settings.batch_size
        found["text"] = ("captions", embed_texts(model, texts, prompt, size))
    if "image" in needed and shards.num_frames and model.clip is not None:
        middle = middle_frame(shards.num_frames)
        frames = embed_frame(shards, model.clip, middle, settings.batch_size)
        found["image"] = ("middle frames", as_stored(frames))
    return {
        what: Source(rows, {"source": f"{kind} of shards", **about, "rows": len(rows)})
        for what, (kind, rows) in found.items()
    }
