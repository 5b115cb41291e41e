"""`pivot search`: sounds that a sentence describes; captions or sounds nearest to a sound."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.captions import read_captions
from pivot.data.prompts import apply
from pivot.embeddings.embed import embed_sounds, embed_texts
from pivot.embeddings.match import match
from pivot.embeddings.sources import open_sounds
from pivot.embeddings.store import EmbeddingStore, is_store
from pivot.errors import DataError, NothingUsableError, SettingsError
from pivot.evaluation.checkpoints import hashes_of
from pivot.model import Pivot, load
from pivot.runs import resolve_device, versions
from pivot.settings import Search
from video_prep.files import write_json

SENTENCES = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson"}
NAMED = 10  # failures that are named on the screen


@dataclass(frozen=True)
class Shelf:
    """What is searched: vectors (n, d) with a name each, and what could not be used."""

    vectors: NDArray[np.float32]
    names: list[str]
    unit: str
    failures: list[dict[str, str]] = field(default_factory=list)


def run(settings: Search) -> int:
    """Search and print rank, score and name; with --out also write them to a JSON file."""
    text = settings.text.strip()
    if text and settings.audio:
        raise SettingsError('give a text or --audio, not both; with --audio the text is ""')
    if not text and not settings.audio:
        raise SettingsError("the text is empty; write what the sound is like, or give --audio FILE")
    if settings.audio and settings.prompt:
        raise SettingsError("--prompt goes around a text; leave it out with --audio")
    model = load(settings.model, resolve_device(settings.device))
    query = _query(settings, model, text)
    shelf = _shelf(settings, model)
    found = match(query, shelf.vectors, k=settings.k)
    rows = [
        {"rank": rank, "score": round(float(score), 6), "name": shelf.names[index]}
        for rank, (index, score) in enumerate(zip(found.index[0], found.score[0], strict=True), 1)
    ]
    _print(rows, shelf, settings.k)
    if settings.out:
        write_json(settings.out, _record(settings, model, shelf, rows))
    return 0


def _query(settings: Search, model: Pivot, text: str) -> NDArray[np.float32]:
    """Vector (1, d) of the sentence or of the sound."""
    if not settings.audio:
        return embed_texts(model, [apply(settings.prompt, text)])
    if not Path(settings.audio).is_file():
        raise DataError(f"--audio {settings.audio} is not a file; name one sound file")
    vectors: NDArray[np.float32] = model.encode_audio([settings.audio]).cpu().numpy()
    return vectors


def _shelf(settings: Search, model: Pivot) -> Shelf:
    where = settings.where
    if is_store(where):
        return _stored(EmbeddingStore.open(where), settings, model)
    if settings.audio and Path(where).is_file() and Path(where).suffix.lower() in SENTENCES:
        skipped: list[str] = []
        texts = list(dict.fromkeys(caption.text for caption in read_captions(where, skipped)))
        failures = [{"id": line, "error": "empty"} for line in skipped]
        return Shelf(embed_texts(model, texts), texts, "captions", failures)
    sounds = open_sounds(where)
    vectors, failures = embed_sounds(model, sounds)
    if not len(vectors):
        raise NothingUsableError(
            f"none of {len(sounds.ids)} sounds in {where} could be used; the first, "
            f"{failures[0]['id']}: {failures[0]['error']}"
        )
    bad = {row["id"] for row in failures}
    pairs = zip(sounds.ids, sounds.names, strict=True)
    return Shelf(vectors, [name for own, name in pairs if own not in bad], "sounds", failures)


def _stored(store: EmbeddingStore, settings: Search, model: Pivot) -> Shelf:
    """A store of sounds of the same model; with --audio also one of its sentences."""
    if settings.audio and store.manifest["what"] == "text":
        store.require(weights_hash=model.text_hash)
        return Shelf(store.float32()[:, 0], store.texts or [], "captions")
    store.require(what="audio", weights_hash=model.audio_hash)
    return Shelf(store.float32()[:, 0], store.ids, "sounds")


def _print(rows: list[dict[str, Any]], shelf: Shelf, k: int) -> None:
    for row in rows:
        print(f"{row['rank']:>4}  {row['score']:.3f}  {row['name']}")
    if k > len(shelf.names):
        print(f"(all {len(shelf.names)} {shelf.unit}: there are fewer than {k})", file=sys.stderr)
    if shelf.failures:
        whole = len(shelf.names) + len(shelf.failures)
        print(f"{len(shelf.failures)} of {whole} {shelf.unit} could not be used:", file=sys.stderr)
        for failure in shelf.failures[:NAMED]:
            print(f"  {failure['id']}: {failure['error']}", file=sys.stderr)
        if len(shelf.failures) > NAMED:
            print("  ... (--out lists all)", file=sys.stderr)


def _record(
    settings: Search, model: Pivot, shelf: Shelf, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "command": "search",
        "results": rows,
        "searched": len(shelf.names),
        "failures": shelf.failures,
        "model": hashes_of(model),
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
    }
