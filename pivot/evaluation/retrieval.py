"""Retrieval between sounds, captions and frames, and pivotability (VIP-ANT)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pivot import metrics
from pivot.embeddings.match import match
from pivot.errors import DataError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Compat = Literal["none", "vip_ant", "laion"]
BLOCK_SCORES = 2**23  # float64 scores held at once
RANKS = (1, 5, 10, 50)
NEAREST = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 50)  # images a sound may pivot through
CAPTIONS_AN_IMAGE = 5
PIVOTABLE = 0.6  # share of its captions from which on a clip is pivotable (VIP-ANT, appendix F)


def retrieval(
    audio: Floats, text: Floats, clip_of_text: Sequence[int], compat: Compat = "none"
) -> dict[str, Any]:
    """Retrieval between sounds (n, d) and captions (m, d), each of the clip that it describes.

    audio_to_text: each sound that has captions is a query, ranked by the best of its captions.
    text_to_audio: each caption is a query among all sounds. map10 is that of text_to_audio.
    Each direction: r1, r5, r10, r50 (share of queries whose best rank, from 0, is below k), medr
    (lower median + 1), meanr (mean + 1), map10, queries; audio_to_text also precision_at_1 and
    precision_at_5. Equal scores are ranked by index. With compat laion medr is `laion_median_rank`
    and map10 `laion_map_at_10`, which takes the captions of a sound in the order of `text`. Raises
    DataError for NaN and for captions of clips that are not there.
    """
    own = _captions_of(len(audio), len(text), clip_of_text)
    asked = [i for i, captions in enumerate(own) if captions]
    to_text = _ranks(audio[asked], text, [own[i] for i in asked])
    to_audio = _numbers(_ranks(text, audio, [[int(clip)] for clip in clip_of_text]), compat)
    counted = {f"precision_at_{k}": metrics.precision_at(to_text, k) for k in (1, 5)}
    return {
        "audio_to_text": _numbers(to_text, compat) | counted,
        "text_to_audio": to_audio,
        "map10": to_audio["map10"],
        "clips": len(audio),
        "captions": len(text),
    }


def label_ranks(audio: Floats, words: Floats, truth: Sequence[Sequence[int]]) -> dict[str, float]:
    """LAION-CLAP's zero-shot numbers: the rank of each sound's own label among labels (C, d).

    audio (n, d), truth: the one class of each clip, or none. {r1, r5, r10, r50, medr, meanr, map10,
    queries}.
    """
    asked = [i for i, classes in enumerate(truth) if classes]
    return _numbers(_ranks(audio[asked], words, [truth[i][:1] for i in asked]), "laion")


def image_audio(
    image: Floats, audio: Floats, label_sets: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Retrieval between the frames and the sounds (n, d) of the same clips, row by row.

    With label sets also precision and recall of the nearest neighbour by identical set, over the
    clips that have one: a set that is empty ("" or ()) says nothing, so that clip is neither asked
    nor a candidate there (`labelled` counts the others). A clip's partner is a candidate and right.
    """
    if image.shape != audio.shape:
        raise DataError(f"frames {image.shape} and sounds {audio.shape} are not of the same clips")
    partner = [[i] for i in range(len(audio))]
    found: dict[str, Any] = {
        "image_to_audio": _numbers(_ranks(image, audio, partner)),
        "audio_to_image": _numbers(_ranks(audio, image, partner)),
        "clips": len(audio),
    }
    if label_sets is None:
        return found
    if len(label_sets) != len(audio):
        raise DataError(f"{len(label_sets)} label sets for {len(audio)} clips")
    asked = [i for i, own in enumerate(label_sets) if own]
    if asked:
        sets = [label_sets[i] for i in asked]
        for name, queries, keys in (("image", image, audio), ("audio", audio, image)):
            nearest = match(queries[asked], keys[asked], k=1).index[:, 0]
            found[f"{name}_by_labels"] = metrics.va_precision_recall(nearest, sets, sets)
    return found | {"labelled": len(asked)}


def pivot_shares(
    audio: Floats, image: Floats, text: Floats, clip_of_text: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    """Share of each sound's captions reached through its k nearest images: k -> (clips,).

    audio, image (n, d), text (m, d): of each of the k images the five nearest captions count. Only
    clips that have captions. A k beyond n takes all images.
    """
    own = _captions_of(len(audio), len(text), clip_of_text)
    gold = {i: captions for i, captions in enumerate(own) if captions}
    images = match(audio, image, k=max(NEAREST)).index
    captions = match(image, text, k=CAPTIONS_AN_IMAGE).index
    return {k: metrics.pivot_shares(images[:, :k], captions, gold) for k in NEAREST}


def pivotability(
    audio: Floats, image: Floats, text: Floats, clip_of_text: Sequence[int]
) -> dict[str, float]:
    """Mean share of a sound's captions reached through its k nearest images, by k (VIP-ANT)."""
    shares = pivot_shares(audio, image, text, clip_of_text)
    return {str(k): float(own.mean()) for k, own in shares.items()}


def pivotable(shares: dict[int, NDArray[np.float64]]) -> dict[str, Any]:
    """How many clips are pivotable, by k, of what `pivot_shares` gives: three captions of five.

    {at_least, clips, count: {k: clips}, share: {k: 0..1}}
    """
    # 0.6 of five captions is three; the rest is for shares that do not end in binary.
    counts = {str(k): int((own >= PIVOTABLE - 1e-9).sum()) for k, own in shares.items()}
    clips = len(next(iter(shares.values())))
    share = {k: count / clips for k, count in counts.items()}
    return {"at_least": PIVOTABLE, "clips": clips, "count": counts, "share": share}


def _captions_of(clips: int, texts: int, clip_of_text: Sequence[int]) -> list[list[int]]:
    if len(clip_of_text) != texts or not texts:
        raise DataError(f"{texts} caption vectors for {len(clip_of_text)} captions")
    own: list[list[int]] = [[] for _ in range(clips)]
    for caption, clip in enumerate(clip_of_text):
        if not 0 <= clip < clips:
            raise DataError(f"caption {caption} belongs to clip {clip}, but there are {clips}")
        own[clip].append(caption)
    return own


def _ranks(queries: Floats, keys: Floats, relevant: Sequence[Collection[int]]) -> list[Ints]:
    """Ranks of what is relevant, in its order. Scores are exact as those of match, as are ties."""
    step = max(1, BLOCK_SCORES // len(keys))
    exact = keys.astype(np.float64).T
    rows: list[Ints] = []
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores = (queries[part].astype(np.float64) @ exact).astype(np.float32)
        rows += metrics.relevant_ranks(scores, relevant[part], as_given=True)
    return rows


def _numbers(rows: list[Ints], compat: Compat = "none") -> dict[str, float]:
    """Numbers of one direction."""
    best = np.array([row.min() for row in rows])
    laion = compat == "laion"
    return {
        **{f"r{k}": metrics.recall_at(best, k) for k in RANKS},
        "medr": metrics.laion_median_rank(best) if laion else metrics.median_rank(best),
        "meanr": float(best.mean() + 1),
        "map10": metrics.laion_map_at_10(rows) if laion else metrics.map_at_10(rows),
        "queries": len(best),
    }
