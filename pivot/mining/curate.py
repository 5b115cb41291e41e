"""Makes (sound, caption) pairs: through the image pivot, at random, or of the clips' own.

pivot: a sound is given the captions that CLIP finds nearest to its frames (VIP-ANT's AC, VC, FC,
by the captions given): the top k of each frame, then the union over the frames, each caption with
its best score. random: captions that have nothing to do with the clip (RC). gold: the clip's own
(GC). labels: the clip's labels in words (GL). du, ds, ads: see `pivot.mining.near`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pivot.data.captions import Caption, clip_numbers
from pivot.data.pair_lists import CAP, frame_name
from pivot.data.pairs import Pair, check_out, write_frames, write_pairs
from pivot.embeddings.embed import embed_texts
from pivot.embeddings.sources import hash_texts
from pivot.embeddings.store import EmbeddingStore, is_store
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError
from pivot.mining import near
from pivot.mining.pool import caption_pool, chosen_clips
from pivot.mining.rounds import FramesWithSounds, joined
from pivot.mining.summary import Summary
from pivot.mining.teacher import Teacher, check_ids, check_rows, store_facts, text_hash
from pivot.mining.union import FrameMatches, Mined, mine, mine_blocks
from pivot.runs import resolve_device, versions
from pivot.settings import ClipSettings, MineCaptions

__all__ = ["Mined", "mine", "mine_blocks", "run"]

RANDOM = 11  # purpose of the random captions' generator
TOP_K = 10  # captions a frame in VIP-ANT
MIXED = ("audio", "texts", "mix")  # settings of mining with the sounds as well
FOREIGN = (  # settings of du, ds and ads
    "model", "labels", "label_prompt", "label_threshold", "threshold", "quantile", "wanted",
    "max_per_caption", "max_per_audio", "most",
)  # fmt: skip


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

    @property
    def top_k(self) -> int:
        """Captions a frame, or a clip."""
        return self.settings.top_k or TOP_K

    @cached_property
    def sounds(self) -> EmbeddingStore | None:
        """The store of --audio."""
        path = self.settings.audio
        return None if path is None else EmbeddingStore.open(path).require(what="audio")


def run(settings: MineCaptions) -> int:
    """Make the pairs file and say what is in it."""
    check_out(settings.out)
    if settings.joined and settings.rule != "labels":
        raise SettingsError(f"--joined is for --rule labels, not for {settings.rule}")
    if settings.rule in near.RULES:
        return near.run(settings)
    _refuse_foreign(settings)
    images = EmbeddingStore.open(settings.images).require(what="image")
    clips, only = chosen_clips(settings, images)
    skipped: list[str] = []
    job = _Job(settings, images, clips, caption_pool(settings, skipped))
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


def _refuse_foreign(settings: MineCaptions) -> None:
    """Raise SettingsError for a setting of du, ds, ads or mixed mining with another rule."""
    mixed = () if settings.rule == "pivot" else MIXED
    for name in (*FOREIGN, *mixed):
        if getattr(settings, name) != MineCaptions.model_fields[name].default:
            rules = "du, ds or ads" if name in FOREIGN else "pivot"
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} is for --rule {rules}, not for {settings.rule}")
    if settings.audio is None and settings.rule == "pivot":
        for name in ("texts", "mix"):
            if getattr(settings, name) != MineCaptions.model_fields[name].default:
                raise SettingsError(f"--{name} needs --audio, the store of the clips' sounds")


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
    settings, device = job.settings, resolve_device(job.settings.device)
    frames, texts = _sides(job)
    with tqdm(total=len(job.clips), unit=" clips", desc="mine", disable=None) as bar:
        for block in mine_blocks(frames, texts, job.top_k, settings.frames, device, job.clips):
            yield block
            bar.update(len(block.clip))


def _sides(job: _Job) -> tuple[NDArray[np.floating] | FramesWithSounds, NDArray[np.float32]]:
    """Frames (n, F, d) and captions (m, d); with --audio both joined to the model's own."""
    settings, texts = job.settings, _text_vectors(job)
    if settings.audio is None:
        return job.images.vectors, texts
    check_rows(job.images, job.clips)
    sounds = job.sounds
    assert sounds is not None
    check_ids(sounds)
    check_rows(sounds)
    frames = FramesWithSounds(job.images, sounds, settings.mix, job.clips)
    words = [caption.text for caption in job.captions]
    if settings.texts is not None:
        own = Teacher(settings, sounds).captions(words, settings.texts)
    elif text_hash(sounds) == job.images.manifest["weights_hash"]:
        own = texts  # the model's captions go through the same frozen CLIP
    else:
        raise SettingsError(
            f"{sounds.path} has a text encoder of its own; embed {settings.captions} with its "
            "model and name the store with --texts"
        )
    return frames, joined(texts, own, settings.mix)


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
        wanted = min(job.top_k + len(mine), len(captions))
        drawn = rng.choice(len(captions), wanted, replace=False).tolist()
        for j in [j for j in drawn if j not in mine][: job.top_k]:
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
        "settings": job.settings.model_dump(mode="json", exclude=_unused(job.settings))
        | {"top_k": job.top_k},
        "clip": job.images.manifest["clip"],
        "images": {**job.images.manifest["data"], "count": len(job.images)},
        "captions": {"count": len(job.captions), "sha256": _hash(job.captions)},
        "versions": versions(),
    }
    if job.sounds is not None:
        facts["audio"] = store_facts(job.sounds)
    if job.settings.rule == "labels":
        facts["labels"] = sorted({caption.id for caption in job.captions})
    return facts


def _unused(settings: MineCaptions) -> set[str]:
    """Settings that say nothing of these pairs."""
    return {"out", *FOREIGN, *(() if settings.audio else MIXED)}


def _hash(captions: Sequence[Caption] | Iterable[Caption]) -> str:
    return hash_texts([caption.text for caption in captions])
