"""`pivot evaluate`: zero-shot classification, audio-text and image-audio retrieval of a model.

What the clips have decides what is measured: labels, captions, frames. results.json holds
zero_shot, clip_image_zero_shot (the frozen CLIP on the clips' middle frames: the pivot's ceiling),
retrieval, image_audio and pivotability, with the settings, labels, counts and hashes behind them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.benchmarks import read_labels
from pivot.data.captions import Caption, clip_numbers, read_captions
from pivot.data.stream import open_with_sound
from pivot.embeddings.embed import embed_audio, embed_frame, embed_texts
from pivot.embeddings.sources import hash_texts, middle_frame
from pivot.embeddings.store import EmbeddingStore, as_stored
from pivot.errors import DataError
from pivot.evaluation.retrieval import image_audio, pivotability, retrieval
from pivot.evaluation.zero_shot import clip_labels, label_vectors, labels_of, zero_shot
from pivot.model import Pivot, load
from pivot.runs import Run, resolve_device
from pivot.settings import Evaluate
from video_prep.shards import ShardFolder

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Clips:
    """What is known about the clips: classes and captions, both possibly none."""

    labels: list[str]
    truth: list[tuple[int, ...]]
    captions: list[Caption]
    owners: list[int]  # clip of each caption
    left_out: int  # captions of other clips


def run(settings: Evaluate) -> int:
    """Measure a model on held-out clips; print a table and write OUT/results.json."""
    shards = open_with_sound(settings.shards)
    clips = _read_clips(settings, shards)
    model = load(settings.model, resolve_device(settings.device))
    images = _stored_frames(settings, shards, model)
    run_folder = Run.create(settings.out, "evaluate", settings, resume=_unfinished(settings.out))
    audio = embed_audio(model, shards, settings.batch_size)
    if images is None and shards.num_frames:
        middle = middle_frame(shards.num_frames)
        images = as_stored(embed_frame(shards, model.clip, middle, settings.batch_size))
    results = _results(settings, model, clips, audio, images)
    run_folder.finish(results, _data(shards, model, clips))
    _print(results)
    return 0


def _unfinished(out: str) -> bool:
    """Whether an evaluation began here and was cut off: it is simply done again."""
    path = Path(out)
    return (path / "run.json").is_file() and not (path / "results.json").exists()


# ---- what is there --------------------------------------------------------------------------


def _read_clips(settings: Evaluate, shards: ShardFolder) -> _Clips:
    labels = read_labels(settings.labels) if settings.labels else labels_of(shards)
    truth = clip_labels(shards, labels) if labels else []
    captions, owners, left_out = _read_captions(settings, shards)
    if settings.labels and not any(truth):
        raise DataError(f"no clip of {shards.path} has a label; --labels cannot be used")
    if not any(truth) and not captions and not shards.num_frames:
        raise DataError(
            f"{shards.path} has neither labels, captions nor frames: nothing to measure; "
            "give --captions, or prepare the clips from a list with labels"
        )
    return _Clips(labels, truth, captions, owners, left_out)


def _read_captions(settings: Evaluate, shards: ShardFolder) -> tuple[list[Caption], list[int], int]:
    """Captions of clips that are here, with the number of their clip; and how many are not."""
    if settings.captions is None and not any(facts["captions"] for facts in shards.all_facts()):
        return [], [], 0
    skipped: list[str] = []
    captions = read_captions(settings.captions or settings.shards, skipped)
    for line in skipped:
        print(f"left out: {line}", file=sys.stderr)
    placed = [
        (caption, number)
        for caption, number in zip(captions, clip_numbers(captions, shards.ids), strict=True)
        if number is not None
    ]
    if not placed:
        raise DataError(
            f"no caption of {settings.captions} belongs to a clip of {shards.path} "
            f"(such as {shards.ids[0]}); its clip ids must be those of the shards"
        )
    left_out = len(captions) - len(placed)
    return [caption for caption, _ in placed], [number for _, number in placed], left_out


def _stored_frames(settings: Evaluate, shards: ShardFolder, model: Pivot) -> Floats | None:
    """Middle frames (n, d) out of the store, where one is given."""
    if settings.images is None:
        return None
    store = EmbeddingStore.open(settings.images)
    store.require(
        what="image", weights_hash=model.clip.weights_hash, fingerprint=shards.fingerprint
    )
    return store.select(shards.ids)[:, middle_frame(store.rows)]


# ---- the numbers ----------------------------------------------------------------------------


def _results(
    settings: Evaluate, model: Pivot, clips: _Clips, audio: Floats, images: Floats | None
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if any(clips.truth):
        words = label_vectors(model.clip, clips.labels, settings.prompt, settings.score)
        results["zero_shot"] = zero_shot(audio, words, clips.truth, clips.labels)
        if images is not None:
            results["clip_image_zero_shot"] = zero_shot(images, words, clips.truth, clips.labels)
    if images is not None:
        sets = [tuple(sorted(own)) for own in clips.truth] if any(clips.truth) else None
        results["image_audio"] = image_audio(images, audio, sets)
    if clips.captions:
        results |= _text_results(settings, model, clips, audio, images)
    return results


def _text_results(
    settings: Evaluate, model: Pivot, clips: _Clips, audio: Floats, images: Floats | None
) -> dict[str, Any]:
    """Retrieval among the clips that have captions: the others would only be distractors."""
    chosen = sorted(set(clips.owners))
    place = {clip: i for i, clip in enumerate(chosen)}
    owners = [place[clip] for clip in clips.owners]
    texts = [caption.text for caption in clips.captions]
    text = embed_texts(model.clip, texts, settings.caption_prompt, settings.batch_size)
    results: dict[str, Any] = {"retrieval": retrieval(audio[chosen], text, owners)}
    if images is not None:
        results["retrieval_clip_image"] = retrieval(images[chosen], text, owners)
        results["pivotability"] = pivotability(audio[chosen], images[chosen], text, owners)
    return results


def _data(shards: ShardFolder, model: Pivot, clips: _Clips) -> dict[str, Any]:
    """Counts, hashes and lists that the numbers rest on."""
    return {
        "shards": {
            "path": shards.path,
            "fingerprint": shards.fingerprint,
            "clips": len(shards),
        },
        "labels": clips.labels,
        "captions": {
            "count": len(clips.captions),
            "left_out": clips.left_out,
            "sha256": hash_texts([caption.text for caption in clips.captions]),
        },
        "model": {"audio_hash": model.audio_hash, "clip_hash": model.clip.weights_hash},
    }


# ---- the table ------------------------------------------------------------------------------


def _print(results: dict[str, Any]) -> None:
    names = {"zero_shot": "sounds", "clip_image_zero_shot": "CLIP on the middle frames"}
    for key, name in names.items():
        if key in results:
            print(_classification(name, results[key]))
    rows = [
        ("audio to text", "retrieval", "audio_to_text"),
        ("text to audio", "retrieval", "text_to_audio"),
        ("image to audio", "image_audio", "image_to_audio"),
        ("audio to image", "image_audio", "audio_to_image"),
    ]
    shown = [(name, results[key][way]) for name, key, way in rows if key in results]
    if shown:
        print(f"{'retrieval':<16}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'medR':>7}{'mAP@10':>8}{'n':>8}")
    for name, n in shown:
        shares = "".join(f"{100 * n[key]:7.1f}" for key in ("r1", "r5", "r10"))
        print(f"{name:<16}{shares}{n['medr']:7.0f}{100 * n['map10']:8.1f}{n['queries']:8d}")
    if "pivotability" in results:
        print(f"pivotability     {100 * results['pivotability']['5']:.1f} % through 5 images")


def _classification(name: str, n: dict[str, Any]) -> str:
    key, word = ("accuracy", "accuracy") if "accuracy" in n else ("map", "mAP")
    about = f"{n['n']} clips, {n['classes']} classes, chance {100 * n['chance']:.1f} %"
    return f"zero-shot, {name}: {word} {100 * n[key]:.1f} % ({about})"
