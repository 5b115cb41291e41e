"""Weights to vectors: frames, sounds and sentences into arrays or into a store (`pivot embed`).

A store's bytes are those of one process however many parts it is made in (`--part K/N`), killed or
not, on one kind of machine in float32: batches hold the same inputs always, so every matrix product
is the same. Another kind of machine, thread count or batch size changes last bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pivot.data.prompts import apply_all, refuse_long_texts
from pivot.data.stream import pictures
from pivot.embeddings.fbank import run as run_fbank
from pivot.embeddings.parts import Part, progress, tell_failed, tell_left
from pivot.embeddings.sources import ShardSounds, Sounds, open_sounds, read_sentences, through
from pivot.embeddings.writer import StoreWriter
from pivot.encoders.clip import FrozenClip, load_clip
from pivot.errors import DataError, SettingsError
from pivot.model import Pivot, load
from pivot.runs import resolve_device
from pivot.settings import AudioSettings, ClipSettings, Embed
from video_prep.shards import ShardFolder

Vectors = NDArray[np.float32]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """Vectors (n, ..., d) of the next `taken` inputs; `places` are those that have one."""

    vectors: Vectors
    taken: int
    places: list[int]
    failures: list[dict[str, str]] = field(default_factory=list)


class EncodesText(Protocol):
    """A frozen CLIP, or a model: with a text encoder of its own that one is used."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> unit vectors (n, d)."""
        ...


# ---- arrays ---------------------------------------------------------------------------------


def embed_images(shards: ShardFolder, clip: FrozenClip, batch_size: int = 64) -> Vectors:
    """All frames of all clips (n, frames, d), unit length."""
    with _bar(len(shards), "clips") as bar:
        return _gathered(_images(shards, clip, batch_size, range(len(shards))), bar)


def embed_frame(shards: ShardFolder, clip: FrozenClip, frame: int, batch_size: int = 64) -> Vectors:
    """One frame of every clip (n, d), unit length."""
    parts = []
    with _bar(len(shards), "frames") as bar:
        for part in _parts(range(len(shards)), batch_size):
            found = pictures(shards, [(i, frame) for i in part])
            parts.append(_array(clip.encode_image(found)))
            bar.update(len(part))
    return np.concatenate(parts)


def embed_texts(
    model: EncodesText, texts: Sequence[str], prompt: str = "", batch_size: int = 64
) -> Vectors:
    """Sentences (n, d) with the prompt around them, unit length."""
    with _bar(len(texts), "sentences") as bar:
        return _gathered(_texts(texts, model, prompt, batch_size), bar)[:, 0]


def embed_audio(model: Pivot, shards: ShardFolder, batch_size: int = 64) -> Vectors:
    """All sounds of shards (n, d), unit length; a sound that cannot be used is an error."""
    found, failures = embed_sounds(model, ShardSounds(shards), batch_size)
    if failures:
        raise DataError(f"{failures[0]['id']} in {shards.path}: {failures[0]['error']}")
    return found


def embed_sounds(
    model: Pivot, sounds: Sounds, batch_size: int = 64
) -> tuple[Vectors, list[dict[str, str]]]:
    """Sounds (n, d) and failures {id, error}; the ids of the rest keep their order."""
    vectors, failures = [np.empty((0, model.dim), np.float32)], []
    with _bar(len(sounds.ids), "sounds") as bar:
        for batch in _sounds(sounds, model, batch_size, range(len(sounds.ids))):
            vectors.append(batch.vectors[:, 0])
            failures += batch.failures
            bar.update(batch.taken)
    return np.concatenate(vectors), failures


def _gathered(batches: Iterator[Batch], bar: tqdm[Any]) -> Vectors:
    parts = []
    for batch in batches:
        parts.append(batch.vectors)
        bar.update(batch.taken)
    if not parts:
        raise DataError("there is nothing to embed")
    return np.concatenate(parts)


# ---- batches --------------------------------------------------------------------------------


def _images(shards: ShardFolder, clip: FrozenClip, size: int, inputs: range) -> Iterator[Batch]:
    frames = _frames_of(shards)
    for part in _parts(inputs, max(1, size // frames)):
        found = pictures(shards, [(i, k) for i in part for k in range(frames)])
        vectors = _array(clip.encode_image(found)).reshape(len(part), frames, -1)
        yield Batch(vectors, len(part), list(range(len(part))))


def _texts(texts: Sequence[str], model: EncodesText, prompt: str, size: int) -> Iterator[Batch]:
    for part in _parts(texts, size):
        vectors = _array(model.encode_text(apply_all(prompt, part)))
        yield Batch(vectors[:, None], len(part), list(range(len(part))))


def _sounds(sounds: Sounds, model: Pivot, size: int, inputs: range) -> Iterator[Batch]:
    """Sounds in batches; one that cannot be read or used is a failure of its own."""
    for part in _parts(inputs, size):
        rows: list[Tensor] = []
        places: list[int] = []
        failures = []
        for i, found in through(sounds, part, model.front_end):
            if isinstance(found, DataError):
                failures.append({"id": sounds.ids[i], "error": str(found)})
            else:
                rows.append(found)
                places.append(i - part[0])
        vectors = np.empty((0, model.dim), np.float32)
        if rows:
            vectors = _array(model.encode_fbank(torch.stack(rows)))
        yield Batch(vectors[:, None], len(part), places, failures)


def _frames_of(shards: ShardFolder) -> int:
    """Frames a clip; shards of sounds alone are an error."""
    if not shards.num_frames:
        raise DataError(f"{shards.path} holds sounds only; image needs shards of prepare-frames")
    return shards.num_frames


def _array(vectors: Tensor) -> Vectors:
    found: Vectors = vectors.cpu().numpy()
    return found


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _bar(total: int, unit: str) -> tqdm[Any]:
    return tqdm(total=total, unit=f" {unit}", desc=f"embed {unit}", disable=None)


# ---- pivot embed ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """One run of `pivot embed`: what identifies it and how batches of `step` inputs are made."""

    source: FrozenClip | Pivot
    identity: dict[str, Any]
    ids: list[str]
    batches: Callable[[range], Iterator[Batch]]
    unit: str
    step: int
    texts: list[str] | None = None


def run(settings: Embed) -> int:
    """Embed frames, sounds or sentences into a store; say what was made and what failed."""
    part = Part.read(settings.part)
    if settings.what == "fbank":
        return run_fbank(settings, part)
    if settings.audio != AudioSettings():
        raise SettingsError(f"--audio is for pivot embed fbank, not {settings.what}")
    job = _JOBS[settings.what](settings)
    made = (settings.out, job.identity, job.ids, part, job.step, job.texts)
    writer = StoreWriter(*made, model=_hashes(job.source))
    with progress(writer, job.unit) as bar:
        for batch in job.batches(range(writer.next, writer.inputs.stop)):
            writer.add(batch.vectors, batch.taken, batch.places, batch.failures)
            bar.update(batch.taken)
    store = writer.finish()
    if store is None:
        tell_left(writer)
        return 0
    rows = f" x {store.rows} frames" if settings.what == "image" else ""
    print(f"{store.path}: {len(store)} {job.unit}{rows}, dimension {store.dim}")
    tell_failed(writer, store.manifest["failed"])
    return 0


def _image_job(settings: Embed) -> _Job:
    shards, size = ShardFolder(settings.data), settings.batch_size
    step = max(1, size // _frames_of(shards))
    source = _source(settings)
    clip = source.require_clip() if isinstance(source, Pivot) else source
    identity = _identity("image", source, clip.weights_hash, shards.num_frames, "")
    identity["data"] = {"path": str(shards.path), "fingerprint": shards.fingerprint}
    batches = partial(_images, shards, clip, size)
    return _Job(source, identity, shards.ids, batches, "clips", step)


def _audio_job(settings: Embed) -> _Job:
    if not settings.model:
        raise SettingsError("pivot embed audio needs --model, a run or model folder")
    sounds, size = open_sounds(settings.data), settings.batch_size
    model = load(settings.model, resolve_device(settings.device))
    identity = _identity("audio", model, model.audio_hash, 1, "")
    identity["data"] = {"path": sounds.path, "fingerprint": sounds.fingerprint()}
    batches = partial(_sounds, sounds, model, size)
    return _Job(model, identity, sounds.ids, batches, "sounds", size)


def _text_job(settings: Embed) -> _Job:
    skipped: list[str] = []
    sentences = read_sentences(settings.data, skipped)
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    texts, size, source = sentences.texts, settings.batch_size, _source(settings)
    weights_hash = source.text_hash if isinstance(source, Pivot) else source.weights_hash
    identity = _identity("text", source, weights_hash, 1, settings.prompt)
    identity["data"] = {"path": sentences.path, "fingerprint": sentences.fingerprint()}
    if not Path(settings.out).exists():  # a store that was begun holds texts that fit
        refuse_long_texts(source.tokenize, texts, settings.prompt)
    return _Job(
        source,
        identity,
        sentences.ids,
        lambda i: _texts(texts[i.start : i.stop], source, settings.prompt, size),
        "sentences",
        size,
        texts,
    )


_JOBS: dict[str, Callable[[Embed], _Job]] = {
    "image": _image_job,
    "audio": _audio_job,
    "text": _text_job,
}


def _identity(
    what: str, source: FrozenClip | Pivot, weights_hash: str, rows: int, prompt: str
) -> dict[str, Any]:
    """What decides the vectors of a store."""
    clip = source.clip if isinstance(source, Pivot) else source
    facts = {**clip.settings.model_dump(), "weights_hash": clip.weights_hash} if clip else None
    return {
        "what": what,
        "weights_hash": weights_hash,
        "clip": facts,
        "prompt": prompt,
        "dim": source.dim,
        "rows": rows,
    }


def _hashes(source: FrozenClip | Pivot) -> dict[str, str] | None:
    """Hashes of a model's two encoders, by which its stores are known as those of one model."""
    if not isinstance(source, Pivot):
        return None
    own = {} if source.knows_no_text else {"text_hash": source.text_hash}
    return {"audio_hash": source.audio_hash} | own


def _source(settings: Embed) -> FrozenClip | Pivot:
    """The model of --model, or the CLIP of --clip."""
    device = resolve_device(settings.device)
    if settings.model and settings.clip != ClipSettings():
        raise SettingsError("--model and --clip both name a CLIP; give one of them")
    if settings.model:
        return load(settings.model, device)
    if not settings.clip.model:
        raise SettingsError(f"pivot embed {settings.what} needs --clip.model or --model")
    return load_clip(settings.clip, device)
