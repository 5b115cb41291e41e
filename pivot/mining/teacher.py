"""A teacher as its stores: captions, labels and sounds as vectors of one model alone.

A sentence's vector comes from a text store of the teacher, else from its text encoder: the model
folder of --model, or the CLIP that the store names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.benchmarks import read_labels, refuse_ids, unique_labels
from pivot.embeddings.embed import embed_texts
from pivot.embeddings.sources import is_shards
from pivot.embeddings.store import EmbeddingStore, UnitRows, is_store
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError, StoreError
from pivot.model import load
from pivot.runs import resolve_device
from pivot.settings import ClipSettings, MineCaptions
from video_prep.shards import ShardFolder


class Teacher:
    """The model behind a store, for the captions and labels that go with it."""

    def __init__(self, settings: MineCaptions, store: EmbeddingStore) -> None:
        self.settings, self.store = settings, store
        self.used: dict[str, EmbeddingStore] = {}  # the other stores that vectors came from
        self._encoder: Any = None

    def captions(self, texts: Sequence[str], path: str | None = None) -> NDArray[np.float32]:
        """Vectors (m, d) of captions with --prompt: from the store `path`, else embedded."""
        if path is None and self.store.manifest["what"] == "text":
            path = str(self.store.path)
        if path is None:
            return self._embedded(texts, self.settings.prompt)
        store = self._open(path, "captions")
        rows = store.rows_of_texts(texts, self.settings.prompt)
        return np.asarray(UnitRows(store.vectors)[rows])

    def labels(self) -> tuple[list[str], NDArray[np.float32]]:
        """The labels of --labels and their vectors (l, d) with --label-prompt."""
        path, prompt = self.settings.labels, self.settings.label_prompt
        if path is None:
            raise SettingsError(
                f"--rule {self.settings.rule} needs --labels, the downstream labels, and "
                "--label-threshold"
            )
        if not is_store(path):
            labels = read_names(path)
            return labels, self._embedded(labels, prompt)
        store = self._open(path, "labels").require(prompt=prompt)
        return list(store.texts or []), store.float32()[:, 0]

    def _open(self, path: str, what: str) -> EmbeddingStore:
        store = EmbeddingStore.open(path).require(what="text")
        if not self.store.same_model(store):
            raise StoreError(
                f"{store.path} and {self.store.path} were made by different models (text encoder "
                f"{store.manifest['weights_hash'][:12]}, not {text_hash(self.store)[:12]}); embed "
                f"the {what} with the model of {self.store.path}"
            )
        if store.dim != self.store.dim:
            raise StoreError(
                f"{store.path} has {store.dim} dimensions, {self.store.path} {self.store.dim}; "
                "embed both with one model"
            )
        check_rows(store)
        self.used[what] = store
        return store

    def _embedded(self, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        """Vectors (m, d) by the text encoder of --model, or the CLIP that the store names."""
        if self._encoder is None:
            self._encoder = self._load()
        return embed_texts(self._encoder, texts, prompt)

    def _load(self) -> Any:
        device, made_by = resolve_device(self.settings.device), self.store.manifest["clip"]
        if self.settings.model is not None:
            model: Any = load(self.settings.model, device)
            found = model.text_hash
        else:
            given = self.settings.clip
            if not given.model and not (made_by and _is_frozen(self.store)):
                raise SettingsError(
                    f"{self.store.path} has a text encoder of its own; name its model with --model,"
                    " or give a text store"
                )
            if not given.model:
                given = ClipSettings(**{name: made_by[name] for name in ClipSettings.model_fields})
            model = load_clip(given, device)
            found = model.weights_hash
        if found != text_hash(self.store):
            raise StoreError(
                f"{self.store.path} belongs to another text encoder (weights "
                f"{text_hash(self.store)[:12]}, not {found[:12]}); name the model that made it"
            )
        return model


def read_names(path: str) -> list[str]:
    """Labels of a label file or of shards, each once, "_" and "/" as spaces ("cafe/restaurant")."""
    if not is_shards(path):
        labels = read_labels(path)
    else:
        labels = [label for facts in ShardFolder(path).all_facts() for label in facts["labels"]]
        refuse_ids(labels, path)
        if not labels:
            raise DataError(f"the clips of {path} have no labels; name a label file")
    return unique_labels(label.replace("/", " ") for label in labels)


def text_hash(store: EmbeddingStore) -> str:
    """Hash of the text encoder that belongs to a store."""
    manifest = store.manifest
    if manifest["what"] == "text":
        return str(manifest["weights_hash"])
    if manifest.get("model"):
        return str(manifest["model"]["text_hash"])
    return str((manifest["clip"] or {}).get("weights_hash", "unknown"))


def _is_frozen(store: EmbeddingStore) -> bool:
    return text_hash(store) == str((store.manifest["clip"] or {}).get("weights_hash"))


def store_facts(store: EmbeddingStore) -> dict[str, Any]:
    """What a pairs file notes of a store."""
    keys = ("what", "count", "dim", "weights_hash", "vectors_sha256", "prompt", "data")
    return {"path": str(store.path)} | {key: store.manifest[key] for key in keys}


def check_ids(store: EmbeddingStore) -> None:
    """Raise StoreError where an id stands twice: its pairs could not be told apart."""
    if len(set(store.ids)) == len(store.ids):
        return
    name, times = Counter(store.ids).most_common(1)[0]
    raise StoreError(f"{store.path} has the id {name} {times} times; embed data with unlike ids")


def check_rows(store: EmbeddingStore, rows: NDArray[np.int64] | None = None) -> None:
    """Raise DataError for a vector that is not finite or has no length, by its id."""
    numbers = np.arange(len(store)) if rows is None else rows
    for start in range(0, len(numbers), 4096):
        part = numbers[start : start + 4096]
        block = np.asarray(store.vectors[part], np.float32)
        length = np.linalg.norm(block, axis=2)
        bad = ~((length > 0) & np.isfinite(length)).all(axis=1)
        if bad.any():
            name = store.ids[part[int(np.flatnonzero(bad)[0])]]
            raise DataError(
                f"{store.path}: the vector of {name} ({int(bad.sum())} such in this block) is "
                "not a number or has no length; embed it again"
            )
