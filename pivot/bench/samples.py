"""Makes what the loader's benchmark reads: shards, CLIP embeddings and an FBANK cache."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from pivot.bench.clips import sound, texture
from pivot.data.fbank_cache import FbankCache
from pivot.embeddings.fbank import FbankWriter
from pivot.embeddings.store import EmbeddingStore
from pivot.embeddings.writer import StoreWriter
from pivot.settings import AudioSettings
from video_prep.decode import DecodedClip
from video_prep.files import write_json
from video_prep.recipe import Recipe
from video_prep.shards import FORMAT, ShardFolder, content_fingerprint, read_json
from video_prep.storage.members import members_of
from video_prep.storage.shard_writer import write_shard

FRAMES, SECONDS, RATE, DIM = 4, 10, 16000, 512
SHARD, KINDS = 100, 8  # clips a shard; different clips, which the others repeat


@dataclass(frozen=True)
class Samples:
    """The same clips in every layout."""

    flac: ShardFolder
    pcm16: ShardFolder
    clip: EmbeddingStore
    fbank: FbankCache


def make_samples(folder: Path, clips: int) -> Samples:
    """Make all layouts of so many clips below `folder`."""
    flac = write_shards(folder / "flac", clips, "flac")
    pcm16 = write_shards(folder / "pcm16", clips, "pcm16")
    return Samples(flac, pcm16, _embeddings(folder / "clip", flac), _fbank(folder / "fbank", flac))


def write_shards(folder: Path, clips: int, kind: Literal["flac", "pcm16"]) -> ShardFolder:
    """Made-up clips as prepare-frames stores them, with real sizes."""
    folder.mkdir()
    made = [_made_up(number) for number in range(min(KINDS, clips))]
    packed = [members_of(_facts("clip"), one, Recipe(sound=kind)) for one in made]
    entries = []
    for number, first in enumerate(range(0, clips, SHARD)):
        with write_shard(folder, number, "bench") as writer:
            for i in range(first, min(first + SHARD, clips)):
                name = f"clip{i:05d}"
                facts = {"json": json.dumps(_facts(name)).encode()}
                row = {"id": name, "key": name, "flags": []}
                writer.add(row, {**packed[i % len(packed)], **facts})
        name = f"shard-{number:05d}"
        entries.append({"name": name, "sha256": read_json(folder / f"{name}.json")["sha256"]})
    fingerprint = content_fingerprint([entry["sha256"] for entry in entries])
    manifest = {"format": FORMAT, "plan": "bench", "num_frames": FRAMES, "shards": entries}
    write_json(folder / "manifest.json", {**manifest, "fingerprint": fingerprint})
    return ShardFolder(folder)


def _facts(name: str) -> dict[str, Any]:
    facts = {"id": name, "source": f"{name}.mp4", "start": None, "end": None}
    return {**facts, "labels": [], "captions": []}


def _made_up(number: int) -> DecodedClip:
    """Four frames of about 30 kB, and a sound of about 210 kB as FLAC."""
    rng = np.random.default_rng([3, number])
    wave = (32767 * sound(SECONDS, RATE, 1, noise=0.01)).astype(np.int16)
    return DecodedClip([_jpeg(rng) for _ in range(FRAMES)], wave, RATE, {})


def _jpeg(rng: np.random.Generator) -> bytes:
    planes = np.stack([texture(rng, 256, 454) for _ in range(3)], axis=2)
    file = io.BytesIO()
    Image.fromarray(planes).save(file, "JPEG", quality=90)
    return file.getvalue()


def _embeddings(folder: Path, shards: ShardFolder) -> EmbeddingStore:
    """A store of unit vectors as `pivot embed image` writes it, without a CLIP."""
    shape = len(shards), FRAMES, DIM
    vectors = np.random.default_rng(4).standard_normal(shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    identity = {"what": "image", "weights_hash": "", "clip": None, "prompt": ""}
    data = {"path": str(shards.path), "fingerprint": shards.fingerprint}
    writer = StoreWriter(folder, {**identity, "dim": DIM, "rows": FRAMES, "data": data}, shards.ids)
    writer.add(vectors, len(shards))
    writer.finish()
    return EmbeddingStore.open(folder)


def _fbank(folder: Path, shards: ShardFolder) -> FbankCache:
    writer = FbankWriter(folder, shards, AudioSettings())
    while writer.next < writer.inputs.stop:
        writer.write_file()
    writer.join()
    return FbankCache.open(folder)
