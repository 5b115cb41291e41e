"""Retrieval between sounds, captions and frames, and pivotability (VIP-ANT)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot import metrics
from pivot.embeddings.match import match
from pivot.errors import DataError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
BLOCK_SCORES = 2**23  # float64 scores held at once
RANKS = (1, 5, 10, 50)
NEAREST = (1, 2, 3, 5, 10)  # images a sound may pivot through
CAPTIONS_AN_IMAGE = 5


def retrieval(audio: Floats, text: Floats, clip_of_text: Sequence[int]) -> dict[str, Any]:
    """Retrieval between sounds (n, d) and captions (m, d), each of the clip that it describes.

    audio_to_text: each sound that has captions is a query, ranked by the best of its captions.
    text_to_audio: each caption is a query among all sounds. map10 is that of text_to_audio.
    """
    own = _captions_of(len(audio), len(text), clip_of_text)
    asked = [i for i, captions in enumerate(own) if captions]
    to_text = _directed(audio[asked], text, [own[i] for i in asked])
    to_audio = _directed(text, audio, [[int(clip)] for clip in clip_of_text])
    return {
        "audio_to_text": to_text,
        "text_to_audio": to_audio,
        "map10": to_audio["map10"],
        "clips": len(audio),
        "captions": len(text),
    }


def image_audio(
    image: Floats, audio: Floats, label_sets: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Retrieval between the frames and the sounds (n, d) of the same clips, row by row.

    With label sets also precision and recall of the nearest neighbour by identical set.
    """
    if image.shape != audio.shape:
        raise DataError(f"frames {image.shape} and sounds {audio.shape} are not of the same clips")
    partner = [[i] for i in range(len(audio))]
    found: dict[str, Any] = {
        "image_to_audio": _directed(image, audio, partner),
        "audio_to_image": _directed(audio, image, partner),
        "clips": len(audio),
    }
    if label_sets is not None:
        for name, queries, keys in (("image", image, audio), ("audio", audio, image)):
            nearest = match(queries, keys, k=1).index[:, 0]
            numbers = metrics.va_precision_recall(nearest, label_sets, label_sets)
            found[f"{name}_by_labels"] = numbers
    return found


def pivotability(
    audio: Floats, image: Floats, text: Floats, clip_of_text: Sequence[int]
) -> dict[str, float]:
    """Share of a sound's captions reached through its k nearest images, by k (VIP-ANT)."""
    own = _captions_of(len(audio), len(text), clip_of_text)
    gold = {i: captions for i, captions in enumerate(own) if captions}
    images = match(audio, image, k=max(NEAREST)).index
    captions = match(image, text, k=CAPTIONS_AN_IMAGE).index
    return {str(k): metrics.pivotability(images[:, :k], captions, gold) for k in NEAREST}


def _captions_of(clips: int, texts: int, clip_of_text: Sequence[int]) -> list[list[int]]:
    if len(clip_of_text) != texts or not texts:
        raise DataError(f"{texts} caption vectors for {len(clip_of_text)} captions")
    own: list[list[int]] = [[] for _ in range(clips)]
    for caption, clip in enumerate(clip_of_text):
        if not 0 <= clip < clips:
            raise DataError(f"caption {caption} belongs to clip {clip}, but there are {clips}")
        own[clip].append(caption)
    return own


def _directed(
    queries: Floats, keys: Floats, relevant: Sequence[Collection[int]]
) -> dict[str, float]:
    """Numbers of one direction. Scores are exact as those of match, so that ties are true ties."""
    step = max(1, BLOCK_SCORES // len(keys))
    exact = keys.astype(np.float64).T
    rows: list[Ints] = []
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores = (queries[part].astype(np.float64) @ exact).astype(np.float32)
        rows += metrics.relevant_ranks(scores, relevant[part])
    best = np.array([row[0] for row in rows])
    numbers = {f"r{k}": metrics.recall_at(best, k) for k in RANKS}
    return {
        **numbers,
        "medr": metrics.median_rank(best),
        "meanr": float(best.mean() + 1),
        "map10": metrics.map_at_10(rows),
        "queries": len(best),
    }
