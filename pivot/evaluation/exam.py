"""What every audio encoder of a run is asked: the texts and frames once, the sounds of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.embeddings.embed import embed_frame, embed_texts
from pivot.embeddings.sources import middle_frame
from pivot.embeddings.store import EmbeddingStore, as_stored
from pivot.errors import SettingsError, StoreError
from pivot.evaluation.clips import Clips
from pivot.evaluation.compat import Rules
from pivot.evaluation.folds import fold_scores
from pivot.evaluation.geometry import space_of
from pivot.evaluation.retrieval import (
    image_audio,
    label_ranks,
    pivot_shares,
    pivotable,
    retrieval,
)
from pivot.evaluation.zero_shot import label_vectors, zero_shot
from pivot.model import Pivot
from pivot.settings import Evaluate

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Exam:
    """What sounds are held against: labels in words (C, d), captions (m, d), frames (n, d)."""

    clips: Clips
    rules: Rules
    words: Floats | None
    bare: Floats | None  # labels without the prompt
    text: Floats | None
    images: Floats | None


def set_exam(
    settings: Evaluate, model: Pivot, clips: Clips, rules: Rules, images: Floats | None
) -> Exam:
    """Embed labels and captions by a model, and without `images` the middle frames by its CLIP.

    A model without a CLIP has no side for frames: they are left out.
    """
    words = bare = text = None
    if clips.labelled and clips.wordless is None:
        names = rules.words(clips.labels)
        words = label_vectors(model, names, settings.prompt, rules.score)
        bare = label_vectors(model, names, "", rules.score)
    if clips.captions:
        texts = [caption.text for caption in clips.captions]
        text = embed_texts(model, texts, settings.caption_prompt, settings.batch_size)
    if images is None and clips.shards.num_frames and model.clip is not None:
        middle = middle_frame(clips.shards.num_frames)
        images = as_stored(embed_frame(clips.shards, model.clip, middle, settings.batch_size))
    return Exam(clips, rules, words, bare, text, images)


def stored_frames(settings: Evaluate, model: Pivot, clips: Clips) -> Floats | None:
    """Middle frames (n, d) out of the store --images, where one is given.

    Raises StoreError for a store of other data, of another CLIP, or with NaN, and SettingsError for
    a model without a CLIP.
    """
    if settings.images is None:
        return None
    if model.clip is None:
        raise SettingsError(f"{settings.model} has no CLIP, so no frames; leave out --images")
    store, shards = EmbeddingStore.open(settings.images), clips.shards
    store.require(
        what="image", weights_hash=model.clip.weights_hash, fingerprint=shards.fingerprint
    )
    frames = store.select(shards.ids)[:, middle_frame(store.rows)]
    damaged = np.flatnonzero(~np.isfinite(frames).all(axis=1))
    if damaged.size:
        raise StoreError(
            f"{store.path} holds NaN or infinite values for {damaged.size} clips, such as "
            f"{shards.ids[damaged[0]]}; embed again"
        )
    return frames


def measure(exam: Exam, audio: Floats) -> dict[str, Any]:
    """All numbers of sounds (n, d), one a clip in their order, for results.json."""
    clips, images, words = exam.clips, exam.images, exam.words
    results: dict[str, Any] = {}
    if words is not None and exam.bare is not None:
        truth, labels = clips.truth, clips.labels
        results["zero_shot"] = zero_shot(audio, words, truth, labels)
        if exam.rules.name == "laion" and not clips.several:
            results["zero_shot"]["ranks"] = label_ranks(audio, words, truth)
        results["zero_shot_without_prompt"] = zero_shot(audio, exam.bare, truth, labels)
        if images is not None:
            results["clip_image_zero_shot"] = zero_shot(images, words, truth, labels)
        if folds := fold_scores(audio, words, truth, labels, clips.folds):
            bare = fold_scores(audio, exam.bare, truth, labels, clips.folds)
            results["folds"] = folds | {"without_prompt": bare}
    if images is not None:
        first = exam.rules.first
        sets = [exam.rules.label_set(own) for own in clips.truth[:first]]
        results["image_audio"] = image_audio(
            images[:first], audio[:first], sets if clips.labelled else None
        )
    results |= _of_captions(exam, audio)
    results["geometry"] = space_of(audio, images, exam.text, clips.owners, words)
    return results


def _of_captions(exam: Exam, audio: Floats) -> dict[str, Any]:
    """Retrieval among the clips that have captions: the others would only be distractors."""
    if exam.text is None:
        return {}
    chosen = sorted(set(exam.clips.owners))
    place = {clip: i for i, clip in enumerate(chosen)}
    owners = [place[clip] for clip in exam.clips.owners]
    text, name = exam.text, exam.rules.name
    results: dict[str, Any] = {"retrieval": retrieval(audio[chosen], text, owners, name)}
    if exam.images is not None:
        images = exam.images[chosen]
        results["retrieval_clip_image"] = retrieval(images, text, owners, name)
        shares = pivot_shares(audio[chosen], images, text, owners)
        results["pivotability"] = {str(k): float(own.mean()) for k, own in shares.items()}
        results["pivotable"] = pivotable(shares)
    return results
