"""Modality geometry: where sounds, frames and words lie in the common space (gap, spread, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot import metrics

Floats = NDArray[np.float32]
MOST = 8192  # rows of a modality that are looked at, evenly chosen: uniformity takes all pairs


def geometry(
    vectors: dict[str, Floats], partners: dict[tuple[str, str], tuple[Floats, Floats]]
) -> dict[str, Any] | None:
    """Gap, spread, uniformity and alignment of modalities; None with fewer than two rows of one.

    vectors: modality ("audio", "image", "text") -> (n, d). partners: pairs of modalities -> two
    (n, d) that belong together row by row. Formulas and sources: `metrics.modality_gap` (distance
    of the means of unit vectors), `spread` (mean cosine within a modality), `uniformity`,
    `alignment`; `partner_cosine` is the mean cosine of partners, 1 - alignment / 2.
    """
    if any(len(x) < 2 for x in vectors.values()):
        return None
    seen = {name: _evenly(x) for name, x in vectors.items()}
    names = list(seen)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    aligned = {f"{a}_{b}": metrics.alignment(*two) for (a, b), two in partners.items()}
    return {
        "gap": {f"{a}_{b}": metrics.modality_gap(seen[a], seen[b]) for a, b in pairs},
        "spread": {name: metrics.spread(x) for name, x in seen.items()},
        "uniformity": {name: metrics.uniformity(x) for name, x in seen.items()},
        "alignment": aligned,
        "partner_cosine": {name: 1 - value / 2 for name, value in aligned.items()},
        "rows": {name: len(x) for name, x in seen.items()},
    }


def _evenly(x: Floats) -> Floats:
    rows: Floats = x[np.linspace(0, len(x) - 1, MOST).astype(int)] if len(x) > MOST else x
    return rows


def space_of(
    audio: Floats,
    image: Floats | None,
    text: Floats | None,
    owners: Sequence[int],
    words: Floats | None = None,
) -> dict[str, Any] | None:
    """`geometry` of the sounds and frames (n, d) of clips and of their captions (m, d).

    owners (m,): the clip of each caption. words (C, d): the labels in words, which stand for the
    text where there are no captions; the result's `text` says which of the two it was.
    """
    vectors: dict[str, Floats] = {"audio": audio}
    partners = {}
    if image is not None:
        vectors["image"] = image
        partners["audio", "image"] = (audio, image)
    if text is not None:
        vectors["text"] = text
        partners["audio", "text"] = (audio[list(owners)], text)
        if image is not None:
            partners["image", "text"] = (image[list(owners)], text)
    elif words is not None:
        vectors["text"] = words
    found = geometry(vectors, partners)
    if found is not None and "text" in vectors:
        found["text"] = "labels" if text is None else "captions"
    return found
