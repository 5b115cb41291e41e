"""Makes (sound, caption) pairs: through the image pivot, at random, or of the clips' own.

pivot: a sound is given the captions that CLIP finds nearest to its frames (VIP-ANT's AC, VC, FC,
by the captions given): the top k of each frame, then the union over the frames, each caption with
its best score. random: captions that have nothing to do with the clip (RC). gold: the clip's own
(GC). labels: the clip's labels in words (GL).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pivot.data.captions import Caption, clip_numbers, find_clips, fold, read_captions
from pivot.data.ids import read_ids
from pivot.data.pair_lists import CAP, frame_name
from pivot.data.pairs import Pair, check_out, write_frames, write_pairs
from pivot.embeddings.embed import embed_texts
from pivot.embeddings.sources import hash_texts
from pivot.embeddings.store import EmbeddingStore, is_store
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError
from pivot.mining.labels import label_captions
from pivot.mining.summary import Summary, some
from pivot.mining.union import FrameMatches, Mined, mine, mine_blocks
from pivot.runs import resolve_device, versions
from pivot.settings import ClipSettings, MineCaptions

__all__ = ["Mined", "mine", "mine_blocks", "run"]

RANDOM = 11  # purpose of the random captions' generator


@dataclass(frozen=True)
class _Job:
    """One run of `pivot mine-captions`: the image store, its clips in use, and the captions."""

    settings: MineCaptions
    images: EmbeddingStore
    clips: NDArray[np.int64]  # numbers in the store, rising
    captions: list[Caption]

    @property
    def ids(self) -> list[str]:
        """Ids of the clips in use."""
        return [self.images.ids[i] for i in self.clips]


def run(settings: MineCaptions) -> int:
    """Make the pairs file and say what is in it."""
    check_out(settings.out)
    if settings.joined and settings.rule != "labels":
        raise SettingsError(f"--joined is for --rule labels, not for {settings.rule}")
    images = EmbeddingStore.open(settings.images).require(what="image")
    clips, only = _chosen(settings, images)
    skipped: list[str] = []
    job = _Job(settings, images, clips, _captions(settings, skipped))
    meta = _meta(job) | ({"only": only} if only else {})
    summary = Summary()
    if settings.rule == "pivot" and settings.out.endswith(CAP):
        texts = {caption.id: caption.text for caption in job.captions}
        write_frames(Path(settings.out), _frame_lines(job, summary), texts, meta)
    else:
        write_pairs(settings.out, summary.watch(_RULES[settings.rule](job)), meta)
    pool = len({caption.id for caption in job.captions})
    summary.tell(settings.out, f" of {len(clips):,}", f" of {pool:,}")
    if skipped:
        print(f"{len(skipped)} empty captions left out, the first: {skipped[0]}")
    summary.show()
    return 0


def _chosen(
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


def _captions(settings: MineCaptions, skipped: list[str]) -> list[Caption]:
    """The pool, equal sentences once; for gold all captions, for labels the labels in words."""
    if settings.rule == "labels":
        return label_captions(settings.captions, settings.prompt, settings.joined)
    if is_store(settings.captions):
        store = EmbeddingStore.open(settings.captions).require(what="text")
        pairs = zip(store.ids, store.texts or [], strict=True)
        captions = [Caption(own, text) for own, text in pairs]
    else:
        captions = read_captions(settings.captions, skipped)
    return captions if settings.rule == "gold" else fold(captions)


# ---- pivot ----------------------------------------------------------------------------------


def _pivot_rows(job: _Job) -> Iterator[Pair]:
    for block in _blocks(job):
        yield from _united(job, block)


def _frame_lines(job: _Job, summary: Summary) -> Iterator[tuple[str, list[str]]]:
    """Name and caption ids of each frame, as X_cap.csv has them; the union is counted."""
    for block in _blocks(job):
        for pair in _united(job, block):
            summary.add(pair)
        for clip, frames in zip(block.clip, block.caption, strict=True):
            for frame, captions in zip(block.frame.tolist(), frames, strict=True):
                name = frame_name(job.images.ids[clip], frame, job.images.rows)
                yield name, [job.captions[j].id for j in captions]


def _united(job: _Job, block: FrameMatches) -> Iterator[Pair]:
    found = block.united()
    for i, j, score in zip(found.clip, found.caption, found.score, strict=True):
        yield _pair(job.images.ids[i], job.captions[j], "pivot", float(score))


def _blocks(job: _Job) -> Iterator[FrameMatches]:
    settings, images = job.settings, job.images
    texts, device = _text_vectors(job), resolve_device(settings.device)
    with tqdm(total=len(job.clips), unit=" clips", desc="mine", disable=None) as bar:
        for block in mine_blocks(
            images.vectors, texts, settings.top_k, settings.frames, device, job.clips
        ):
            yield block
            bar.update(len(block.clip))


def _text_vectors(job: _Job) -> NDArray[np.float32]:
    """Embeddings (m, d) of the captions by the CLIP that made the image store, and no other."""
    settings, images, captions = job.settings, job.images, job.captions
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


# ---- the other rules ------------------------------------------------------------------------


def _random_rows(job: _Job) -> Iterator[Pair]:
    """Captions drawn uniformly, without repeats, for each clip; never the clip's own."""
    settings, captions = job.settings, job.captions
    own: dict[int, set[int]] = {}
    for j, owner in enumerate(clip_numbers(captions, job.images.ids)):
        if owner is not None:
            own.setdefault(owner, set()).add(j)
    for i in job.clips.tolist():
        mine = own.get(i, set())
        rng = np.random.default_rng([settings.seed, RANDOM, i])
        wanted = min(settings.top_k + len(mine), len(captions))
        drawn = rng.choice(len(captions), wanted, replace=False).tolist()
        for j in [j for j in drawn if j not in mine][: settings.top_k]:
            yield _pair(job.images.ids[i], captions[j], "random")


def _own_rows(job: _Job) -> Iterator[Pair]:
    """The captions (or labels) that name their clip."""
    ids, settings = job.ids, job.settings
    numbers = clip_numbers(job.captions, ids)
    if all(number is None for number in numbers):
        raise DataError(
            f"no caption of {settings.captions} belongs to a clip of {job.images.path} "
            f"(such as {ids[0]}); {settings.rule} captions name their clip"
        )
    placed = sorted((n, j) for j, n in enumerate(numbers) if n is not None)
    for number, j in placed:
        yield _pair(ids[number], job.captions[j], settings.rule)


_RULES = {"pivot": _pivot_rows, "random": _random_rows, "gold": _own_rows, "labels": _own_rows}


def _pair(audio_id: str, caption: Caption, rule: str, score: float = float("nan")) -> Pair:
    return Pair(audio_id, caption.id, caption.text, score, rule)


# ---- what is noted --------------------------------------------------------------------------


def _meta(job: _Job) -> dict[str, Any]:
    """What made the pairs, for the file itself."""
    facts = {
        "rule": job.settings.rule,
        # without the name of the file: equal inputs give equal bytes
        "settings": job.settings.model_dump(mode="json", exclude={"out"}),
        "clip": job.images.manifest["clip"],
        "images": {**job.images.manifest["data"], "count": len(job.images)},
        "captions": {"count": len(job.captions), "sha256": _hash(job.captions)},
        "versions": versions(),
    }
    if job.settings.rule == "labels":
        facts["labels"] = sorted({caption.id for caption in job.captions})
    return facts


def _hash(captions: Sequence[Caption] | Iterable[Caption]) -> str:
    return hash_texts([caption.text for caption in captions])
