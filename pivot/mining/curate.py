"""Makes (sound, caption) pairs: through the image pivot, at random, or of the clips' own.

pivot: a sound is given the captions that CLIP finds nearest to its frames (VIP-ANT): the
top k of each frame, then the union over the frames, each caption with its best score.
random: captions that have nothing to do with the clip (the baseline RC). gold: the clip's own (GC).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pivot.data.captions import Caption, clip_numbers, fold, read_captions
from pivot.data.pairs import Pair, write_pairs
from pivot.embeddings.embed import embed_texts
from pivot.embeddings.match import match
from pivot.embeddings.sources import hash_texts, middle_frame
from pivot.embeddings.store import EmbeddingStore, is_store
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError
from pivot.runs import resolve_device, versions
from pivot.settings import ClipSettings, MineCaptions

CLIPS = 1024  # clips matched at a time
RANDOM = 11  # purpose of the random captions' generator
BINS = 1000  # of the cosines between 0 and 1, as told at the end
EXAMPLES = 4  # clips shown at the end


@dataclass(frozen=True)
class Mined:
    """Flat columns: number of the clip, number of the caption, cosine; best first within a clip."""

    clip: NDArray[np.int64]
    caption: NDArray[np.int64]
    score: NDArray[np.float32]


def mine(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    k: int,
    frames: Literal["all", "middle"] = "all",
    device: str = "cpu",
) -> Mined:
    """Captions texts (m, d) of clips images (n, frames, d): the k nearest of each frame, united."""
    parts = list(mine_blocks(images, texts, k, frames, device))
    return Mined(
        np.concatenate([part.clip for part in parts]),
        np.concatenate([part.caption for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def mine_blocks(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    k: int,
    frames: Literal["all", "middle"] = "all",
    device: str = "cpu",
) -> Iterator[Mined]:
    """The same, some clips at a time, so that a memory-mapped store need not fit in memory."""
    if images.ndim != 3 or not len(images):
        raise DataError(f"frame embeddings are {images.shape}; mining needs (clips, frames, d)")
    for start in range(0, len(images), CLIPS):
        block = np.asarray(images[start : start + CLIPS], dtype=np.float32)
        if frames == "middle":
            middle = middle_frame(block.shape[1])
            block = block[:, middle : middle + 1]
        block = block / np.linalg.norm(block, axis=2, keepdims=True)
        found = match(block.reshape(-1, block.shape[2]), texts, k=k, device=device)
        clip = start + found.rows() // block.shape[1]
        yield _united(clip, found.index.ravel(), found.score.ravel())


def _united(
    clip: NDArray[np.int64], caption: NDArray[np.int64], score: NDArray[np.float32]
) -> Mined:
    """Each (clip, caption) once with its best score; by clip, falling score, rising caption."""
    order = np.lexsort((-score, caption, clip))
    clip, caption, score = clip[order], caption[order], score[order]
    first = np.ones(len(clip), dtype=bool)
    first[1:] = (clip[1:] != clip[:-1]) | (caption[1:] != caption[:-1])
    clip, caption, score = clip[first], caption[first], score[first]
    order = np.lexsort((caption, -score, clip))
    return Mined(clip[order], caption[order], score[order])


# ---- the three rules ------------------------------------------------------------------------


def run(settings: MineCaptions) -> int:
    """Make the pairs file and say what is in it."""
    if not settings.out.endswith(".parquet"):
        raise SettingsError(f"--out {settings.out} must end in .parquet")
    images = EmbeddingStore.open(settings.images).require(what="image")
    skipped: list[str] = []
    captions = _captions(settings, skipped)
    summary = _Summary()
    rows = {"pivot": _pivot_rows, "random": _random_rows, "gold": _gold_rows}[settings.rule]
    meta = _meta(settings, images, captions)
    write_pairs(settings.out, summary.watch(rows(settings, images, captions)), meta)
    summary.tell(settings.out, len(images), captions, skipped)
    return 0


def _captions(settings: MineCaptions, skipped: list[str]) -> list[Caption]:
    """Captions of the file, shards or text store; equal sentences once, but for gold."""
    if is_store(settings.captions):
        store = EmbeddingStore.open(settings.captions).require(what="text")
        pairs = zip(store.ids, store.texts or [], strict=True)
        captions = [Caption(own, text) for own, text in pairs]
    else:
        captions = read_captions(settings.captions, skipped)
    return captions if settings.rule == "gold" else fold(captions)


def _pivot_rows(
    settings: MineCaptions, images: EmbeddingStore, captions: list[Caption]
) -> Iterator[Pair]:
    texts = _text_vectors(settings, images, captions)
    device = resolve_device(settings.device)
    with tqdm(total=len(images), unit=" clips", desc="mine", disable=None) as bar:
        blocks = mine_blocks(images.vectors, texts, settings.top_k, settings.frames, device)
        for block in blocks:
            for i, j, score in zip(block.clip, block.caption, block.score, strict=True):
                yield _pair(images.ids[i], captions[j], "pivot", float(score))
            bar.update(min(CLIPS, len(images) - bar.n))


def _text_vectors(
    settings: MineCaptions, images: EmbeddingStore, captions: list[Caption]
) -> NDArray[np.float32]:
    """Embeddings (m, d) of the captions by the CLIP that made the image store, and no other."""
    made_by = images.manifest["clip"]
    if is_store(settings.captions):
        store = EmbeddingStore.open(settings.captions)
        store.require(weights_hash=images.manifest["weights_hash"], prompt=settings.prompt)
        return store.select([caption.id for caption in captions])[:, 0]
    given = settings.clip if settings.clip.model else ClipSettings(**_settings_of(made_by))
    clip = load_clip(given, resolve_device(settings.device))
    images.require(weights_hash=clip.weights_hash)
    return embed_texts(clip, [caption.text for caption in captions], settings.prompt)


def _settings_of(made_by: dict[str, Any]) -> dict[str, Any]:
    return {name: made_by[name] for name in ClipSettings.model_fields}


def _random_rows(
    settings: MineCaptions, images: EmbeddingStore, captions: list[Caption]
) -> Iterator[Pair]:
    """Captions drawn uniformly, without repeats, for each clip; never the clip's own."""
    owners = clip_numbers(captions, images.ids)
    own: dict[int, set[int]] = {}
    for j, owner in enumerate(owners):
        if owner is not None:
            own.setdefault(owner, set()).add(j)
    for i, name in enumerate(images.ids):
        mine = own.get(i, set())
        rng = np.random.default_rng([settings.seed, RANDOM, i])
        wanted = min(settings.top_k + len(mine), len(captions))
        drawn = rng.choice(len(captions), wanted, replace=False).tolist()
        for j in [j for j in drawn if j not in mine][: settings.top_k]:
            yield _pair(name, captions[j], "random")


def _gold_rows(
    settings: MineCaptions, images: EmbeddingStore, captions: list[Caption]
) -> Iterator[Pair]:
    numbers = clip_numbers(captions, images.ids)
    if all(number is None for number in numbers):
        raise DataError(
            f"no caption of {settings.captions} belongs to a clip of {images.path} "
            f"(such as {images.ids[0]}); gold captions name their clip"
        )
    placed = sorted((n, j) for j, n in enumerate(numbers) if n is not None)
    for number, j in placed:
        yield _pair(images.ids[number], captions[j], "gold")


def _pair(audio_id: str, caption: Caption, rule: str, score: float = float("nan")) -> Pair:
    return Pair(audio_id, caption.id, caption.text, score, rule)


# ---- what is told ---------------------------------------------------------------------------


def _meta(
    settings: MineCaptions, images: EmbeddingStore, captions: Sequence[Caption]
) -> dict[str, Any]:
    """What made the pairs, for the file itself."""
    return {
        "rule": settings.rule,
        "settings": settings.model_dump(mode="json"),
        "clip": images.manifest["clip"],
        "images": {**images.manifest["data"], "count": len(images)},
        "captions": {
            "count": len(captions),
            "sha256": hash_texts([caption.text for caption in captions]),
        },
        "versions": versions(),
    }


class _Summary:
    """Counts pairs on their way to the file."""

    def __init__(self) -> None:
        self.pairs, self.captions, self.shown = 0, set[str](), list[Pair]()
        self.clips, self.last = 0, ""
        self.scores = np.zeros(2 * BINS + 1, np.int64)  # a histogram: pairs may be many

    def watch(self, rows: Iterator[Pair]) -> Iterator[Pair]:
        """Pass the pairs on (those of a clip come together)."""
        for row in rows:
            if row.audio_id != self.last:
                self.clips, self.last = self.clips + 1, row.audio_id
                if len(self.shown) < EXAMPLES:
                    self.shown.append(row)
            self.pairs += 1
            self.captions.add(row.caption_id)
            if row.score == row.score:
                self.scores[round((row.score + 1) * BINS)] += 1
            yield row

    def _quantile(self, share: float) -> float:
        seen = np.cumsum(self.scores)
        return float(np.searchsorted(seen, max(1, share * seen[-1]))) / BINS - 1

    def tell(self, out: str, clips: int, captions: Sequence[Caption], skipped: list[str]) -> None:
        """Print what the file holds."""
        print(
            f"{out}: {self.pairs:,} pairs of {self.clips:,} of {clips:,} clips with "
            f"{len(self.captions):,} of {len(captions):,} captions"
        )
        if self.scores.any():
            low, middle, high = (self._quantile(share) for share in (0, 0.5, 1))
            print(f"cosine {low:.3f} to {high:.3f}, median {middle:.3f}")
        if skipped:
            print(f"{len(skipped)} empty captions left out, the first: {skipped[0]}")
        for pair in self.shown:
            score = f"{pair.score:.3f}" if pair.score == pair.score else pair.rule
            print(f"  {pair.audio_id}  {score}  {pair.caption}")
