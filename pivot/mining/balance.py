"""Chooses the training clips nearest to a balanced set, by their sounds (`pivot balance`).

VIP-ANT's authors take, for each clip of AudioSet's balanced set, its 100 or 512 nearest clips of
the whole training set, by cosine of the audio embeddings of a VA model, and train on their union.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pivot.data.about import about_of, write_about
from pivot.embeddings.match import match_blocks
from pivot.embeddings.store import EmbeddingStore
from pivot.runs import resolve_device, versions
from pivot.settings import Balance
from video_prep.files import write_whole


def run(settings: Balance) -> int:
    """Write the ids of the chosen clips and, beside them, how often each was chosen."""
    sounds = EmbeddingStore.open(settings.store).require(what="audio")
    balanced = EmbeddingStore.open(settings.queries).require(
        what="audio", weights_hash=sounds.manifest["weights_hash"]
    )
    times = chosen_times(sounds, balanced, settings.k, resolve_device(settings.device))
    names = [sounds.ids[i] for i in np.flatnonzero(times)]
    counts = times[times > 0].tolist()
    lines = np.repeat(np.array(names, object), counts if settings.repeat else 1)
    out = Path(settings.out)
    write_whole(out, "".join(f"{name}\n" for name in lines))
    facts = {
        "chosen": len(names),
        "lines": len(lines),
        "neighbours": int(times.sum()),
        "clips_by_times": {str(n): count for n, count in sorted(Counter(counts).items())},
        "settings": settings.model_dump(mode="json"),
        "store": _facts(sounds),
        "queries": _facts(balanced),
        "versions": versions(),
        "times": dict(zip(names, counts, strict=True)),
    }
    write_about(out, facts)
    _tell(settings, sounds, balanced, facts)
    return 0


def chosen_times(
    sounds: EmbeddingStore, balanced: EmbeddingStore, k: int, device: str = "cpu"
) -> NDArray[np.int64]:
    """How often each sound of a store is among the k nearest of a sound of the balanced one (n,).

    Cosine; ties go to the sound that comes first. Both stores are read block by block.
    """
    times = np.zeros(len(sounds), np.int64)
    with tqdm(total=len(balanced), unit=" sounds", desc="balance", disable=None) as bar:
        for found in match_blocks(balanced.unit_rows(), sounds.unit_rows(), k, device=device):
            np.add.at(times, found.index.ravel(), 1)
            bar.update(len(found.index))
    return times


def _facts(store: EmbeddingStore) -> dict[str, Any]:
    keys = ("count", "weights_hash", "vectors_sha256", "data")
    return {"path": str(store.path)} | {key: store.manifest[key] for key in keys}


def _tell(
    settings: Balance, sounds: EmbeddingStore, balanced: EmbeddingStore, facts: dict[str, Any]
) -> None:
    print(
        f"{settings.out}: {facts['chosen']:,} of {len(sounds):,} clips are among the "
        f"{min(settings.k, len(sounds))} nearest of {len(balanced):,} balanced ones"
    )
    times: dict[str, int] = facts["times"]
    first = max(times, key=lambda name: times[name])
    print(
        f"a clip was chosen {facts['neighbours'] / facts['chosen']:.2f} times on average, at most "
        f"{times[first]:,} ({first}); all counts are in {about_of(Path(settings.out))}"
    )
