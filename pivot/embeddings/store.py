"""Embedding store: a folder with ids, float16 unit vectors (memory-mapped) and a manifest.

    manifest.json   what, weights hash, CLIP, prompt, dimension, counts, fingerprint of the data
    ids.json        one id per item
    vectors.npy     float16 (items, rows, dimension); rows are the frames of a clip, else 1
    texts.json      the sentences of a text store
    failures.jsonl  inputs that could not be embedded, where there were any

A store says what made it, so that a stale or foreign one is refused by name. While it is written
it is a row of whole parts with no manifest, and the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.prompts import apply
from pivot.errors import StoreError

FORMAT = "pivot store 1"
MANIFEST, IDS, VECTORS, TEXTS = "manifest.json", "ids.json", "vectors.npy", "texts.json"
UNFINISHED, FAILURES = "unfinished.json", "failures.jsonl"
KINDS = {"image": "frames", "audio": "sounds", "text": "sentences"}


class EmbeddingStore:
    """A finished store, opened for reading."""

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        ids: list[str],
        vectors: NDArray[np.float16],
        texts: list[str] | None,
    ) -> None:
        self.path, self.manifest, self.ids, self.vectors, self.texts = (
            path, manifest, ids, vectors, texts,
        )  # fmt: skip
        self._numbers: dict[str, int] | None = None

    @classmethod
    def open(cls, path: str | Path) -> EmbeddingStore:
        """Open a store; raises StoreError for one that is missing, unfinished or damaged."""
        path = Path(path)
        manifest = read_manifest(path)
        ids, vectors = _json(path / IDS), _vectors(path / VECTORS)
        shape = tuple(manifest.get(key) for key in ("count", "rows", "dim"))
        if vectors.shape != shape or vectors.dtype != np.float16 or len(ids) != shape[0]:
            raise StoreError(
                f"{path} is damaged: {len(ids)} ids and vectors {vectors.shape} where its manifest "
                f"says {shape}; delete it and embed again"
            )
        texts = _json(path / TEXTS) if manifest.get("what") == "text" else None
        if texts is not None and len(texts) != len(ids):
            raise StoreError(f"{path} is damaged: {len(texts)} texts for {len(ids)} ids")
        return cls(path, manifest, ids, vectors, texts)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)

    @property
    def rows(self) -> int:
        """Vectors an item: frames of a clip, else 1."""
        return int(self.vectors.shape[1])

    @property
    def dim(self) -> int:
        """Dimension of a vector."""
        return int(self.vectors.shape[2])

    def float32(self) -> NDArray[np.float32]:
        """All vectors (items, rows, dim) in float32, at unit length again after float16."""
        return _unit(np.asarray(self.vectors, dtype=np.float32))

    def select(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (len(ids), rows, dim) of these items; an id that is not here is an error."""
        numbers = self._index()
        missing = [name for name in ids if name not in numbers]
        if missing:
            raise StoreError(
                f"{self.path} lacks {len(missing)} of {len(ids)} ids, the first {missing[0]}; "
                "embed the same data again"
            )
        chosen = self.vectors[[numbers[name] for name in ids]]
        return _unit(np.asarray(chosen, dtype=np.float32))

    def rows_of_texts(self, texts: Sequence[str], prompt: str = "") -> NDArray[np.int64]:
        """Rows (len(texts),) of a text store that hold these texts behind this prompt.

        What counts is the sentence that was embedded: a store of "rain" made with the prompt "the
        sound of" holds the text "the sound of rain" without a prompt too. Raises StoreError for a
        sentence that is not here.
        """
        self.require(what="text")
        rows: dict[str, int] = {}
        for i, text in enumerate(self.texts or []):
            rows.setdefault(apply(self.manifest["prompt"], text), i)
        wanted = [apply(prompt, text) for text in texts]
        missing = [sentence for sentence in wanted if sentence not in rows]
        if missing:
            raise StoreError(
                f"{self.path} lacks {len(missing)} of {len(texts)} sentences, the first "
                f'"{missing[0]}" (it was made with the prompt "{self.manifest["prompt"]}"); embed '
                "the captions of these pairs with the prompt in use"
            )
        return np.array([rows[sentence] for sentence in wanted], np.int64)

    def unit_rows(self) -> UnitRows:
        """First row of every item (items, dim), float32 of unit length, read when asked for."""
        return UnitRows(self.vectors)

    def _index(self) -> dict[str, int]:
        if self._numbers is None:
            self._numbers = {name: i for i, name in enumerate(self.ids)}
        return self._numbers

    def require(
        self,
        *,
        what: str | None = None,
        weights_hash: str | None = None,
        fingerprint: str | None = None,
        prompt: str | None = None,
    ) -> EmbeddingStore:
        """Refuse a store of another kind, encoder, data or prompt; return this one."""
        if what is not None and self.manifest["what"] != what:
            raise StoreError(
                f"{self.path} holds {KINDS.get(self.manifest['what'], 'other things')}, not "
                f"{KINDS[what]}; make one with pivot embed {what}"
            )
        if weights_hash is not None and self.manifest["weights_hash"] != weights_hash:
            raise StoreError(
                f"{self.path} was made by another encoder (weights "
                f"{self.manifest['weights_hash'][:12]}, not {weights_hash[:12]}); embed again"
            )
        if fingerprint is not None and self.manifest["data"]["fingerprint"] != fingerprint:
            raise StoreError(
                f"{self.path} is stale: {self.manifest['data']['path']} has changed since, or is "
                "not the data in use; embed again"
            )
        if prompt is not None and self.manifest["prompt"] != prompt:
            raise StoreError(
                f'{self.path} was made with the prompt "{self.manifest["prompt"]}", not "{prompt}"'
            )
        return self

    def same_model(self, other: EmbeddingStore) -> bool:
        """Whether one model made both stores, so that their vectors lie in one space.

        Sounds and sentences: each is what the model of the other makes. Two stores of one kind are
        of one model if the same encoder made them.
        """
        mine, theirs = self.manifest, other.manifest
        said_by_this = _hash_of(mine, theirs["what"]) == theirs["weights_hash"]
        return said_by_this or _hash_of(theirs, mine["what"]) == mine["weights_hash"]


class UnitRows:
    """(n, d) vectors that lie in float16 on disk, of unit length block by block: for `match`."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        self.vectors = vectors[:, 0]
        self.shape: tuple[int, ...] = self.vectors.shape
        self.nbytes = 4 * self.vectors.size  # once they are all in memory

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.vectors)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some of them, by slice or by index."""
        return _unit(np.asarray(self.vectors[rows], dtype=np.float32))


def _hash_of(manifest: dict[str, Any], what: str) -> str | None:
    """Hash of the encoder of `what` in the model that made a store; None: it does not say."""
    if what == manifest["what"]:
        return str(manifest["weights_hash"])
    clip = (manifest.get("clip") or {}).get("weights_hash")
    # a store without model is of a CLIP, or older than text encoders of a model's own
    model = manifest.get("model") or {"text_hash": clip}
    return clip if what == "image" else model.get(f"{what}_hash")


def as_stored(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors as they would come back from a store: rounded to float16, of unit length again."""
    return _unit(vectors.astype(np.float16).astype(np.float32))


def is_store(path: str | Path) -> bool:
    """Whether a folder is a store, finished or not."""
    path = Path(path)
    if (path / UNFINISHED).is_file():
        return True
    try:
        return bool(json.loads((path / MANIFEST).read_text("utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a finished store."""
    if not path.is_dir():
        raise StoreError(f"store {path} does not exist; make it with pivot embed")
    if not (path / MANIFEST).is_file():
        if (path / UNFINISHED).is_file():
            raise StoreError(f"store {path} is not finished; run the same pivot embed again")
        raise StoreError(f"{path} is not an embedding store; make one with pivot embed")
    manifest = _json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path} is not an embedding store of this Pivot ({FORMAT})")
    return manifest


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is missing or damaged; embed again") from error


def _vectors(path: Path) -> NDArray[np.float16]:
    try:
        vectors: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path} is truncated or missing; embed again") from error
    return vectors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
