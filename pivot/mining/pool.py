"""What pairs are made of: the clips of a store in use, and the pool of captions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.captions import Caption, find_clips, fold, read_captions
from pivot.data.ids import read_ids
from pivot.data.pairs import stream_pairs
from pivot.embeddings.store import EmbeddingStore, is_store
from pivot.errors import DataError
from pivot.mining.labels import label_captions
from pivot.mining.summary import some
from pivot.settings import MineCaptions


def chosen_clips(
    settings: MineCaptions, images: EmbeddingStore
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Numbers of the store's clips that --ids lists, or of all; and what is to be noted of it."""
    if settings.ids is None:
        return np.arange(len(images)), {}
    listed = list(dict.fromkeys(read_ids(settings.ids)))
    found = find_clips(listed, images.ids)
    missing = [name for name, i in zip(listed, found, strict=True) if i is None]
    if len(missing) == len(listed):
        raise DataError(
            f"no clip of --ids {settings.ids} (such as {listed[0]}) is in {images.path} (such as "
            f"{images.ids[0]}); take the list that belongs to this store"
        )
    if missing:
        print(
            f"left out: {len(missing)} of {len(listed)} ids of {settings.ids}, which are not in "
            f"{images.path}: {some(missing)}",
            file=sys.stderr,
        )
    clips = np.unique([i for i in found if i is not None]).astype(np.int64)
    return clips, {"ids": settings.ids, "listed": len(listed), "clips": len(clips)}


def caption_pool(settings: MineCaptions, skipped: list[str]) -> list[Caption]:
    """The pool, equal sentences once; for gold all captions, for labels the labels in words."""
    if settings.rule == "labels":
        return label_captions(settings.captions, settings.prompt, settings.joined)
    if is_store(settings.captions):
        store = EmbeddingStore.open(settings.captions).require(what="text")
        pairs = zip(store.ids, store.texts or [], strict=True)
        captions = [Caption(own, text) for own, text in pairs]
    elif settings.captions.endswith(".parquet"):
        captions = [Caption(p.caption_id, p.caption) for p in stream_pairs(settings.captions)]
    else:
        captions = read_captions(settings.captions, skipped)
    return captions if settings.rule == "gold" else fold(captions)
