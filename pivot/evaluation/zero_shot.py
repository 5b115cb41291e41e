"""Zero-shot classification: the nearest label in words is the class (VIP-ANT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pivot import metrics
from pivot.data.benchmarks import label_index, tidy, unique_labels
from pivot.data.prompts import apply_all
from pivot.embeddings.embed import embed_audio, embed_texts
from pivot.embeddings.match import match
from pivot.encoders.clip import CHUNK, FrozenClip, in_chunks
from pivot.errors import DataError, SettingsError
from pivot.model import Pivot
from video_prep.shards import ShardFolder

Floats = NDArray[np.float32]
Truth = Sequence[Sequence[int]]


def zero_shot_accuracy(
    model: Pivot, shards: ShardFolder, labels: Sequence[str], prompt: str, batch_size: int = 64
) -> dict[str, Any]:
    """Accuracy of a model on the labelled clips of shards: accuracy, per_class, n, chance, ..."""
    truth = clip_labels(shards, labels)
    audio = embed_audio(model, shards, batch_size)
    return zero_shot(audio, label_vectors(model, labels, prompt), truth, labels)


def zero_shot(audio: Floats, text: Floats, truth: Truth, labels: Sequence[str]) -> dict[str, Any]:
    """Numbers for embeddings audio (n, d) and labels text (C, d); truth: the classes of each clip.

    Scores are dot products, so text decides between cosine and the reference's product. Clips
    without a class are left out and counted as `unlabelled`; labels that no clip has are named in
    `classes_without_clips`. One class a clip: accuracy, per_class, confusion (C, C); labels without
    clips stay as wrong answers. More: map, the unweighted mean over the classes with clips of their
    average precision (per_class), and the share of clips whose nearest label is one of theirs.
    Raises DataError for lengths that differ, a class out of range, and NaN.
    """
    if len(audio) != len(truth) or len(text) != len(labels):
        raise DataError(f"{len(audio)} sounds for {len(truth)} truths, {len(text)} label vectors")
    places = [i for i, classes in enumerate(truth) if classes]
    if not places:
        raise DataError("no clip has a label; give clips with labels, or leave the labels out")
    sounds, classes = audio[places], [truth[i] for i in places]
    present = {c for own in classes for c in own}
    if min(present) < 0 or max(present) >= len(labels):
        raise DataError(f"a clip is of class {max(present)}, but there are {len(labels)} labels")
    best = match(sounds, text, k=1).index[:, 0]
    facts = {
        "n": len(places),
        "classes": len(labels),
        "classes_without_clips": [name for c, name in enumerate(labels) if c not in present],
        "unlabelled": len(truth) - len(places),
    }
    if any(len(own) > 1 for own in classes):
        return {**_many(sounds, text, classes, best, labels), **facts}
    answers = np.array([own[0] for own in classes])
    return {**_one(best, answers, labels), **facts}


def _one(
    best: NDArray[np.int64], answers: NDArray[np.int64], labels: Sequence[str]
) -> dict[str, Any]:
    table = metrics.confusion(best, answers, len(labels))
    counts = table.sum(axis=1)
    return {
        "accuracy": metrics.accuracy(best, answers),
        "chance": 1 / len(labels),
        "per_class": {
            label: float(table[c, c] / counts[c]) for c, label in enumerate(labels) if counts[c]
        },
        "confusion": table.tolist(),
    }


def _many(
    sounds: Floats,
    text: Floats,
    classes: Truth,
    best: NDArray[np.int64],
    labels: Sequence[str],
) -> dict[str, Any]:
    truth = np.zeros((len(sounds), len(text)), dtype=bool)
    for i, own in enumerate(classes):
        truth[i, list(own)] = True
    # Exact products, rounded as those of match: true ties share one threshold.
    scores = (sounds.astype(np.float64) @ text.astype(np.float64).T).astype(np.float32)
    values = metrics.average_precisions(scores, truth)
    there = np.flatnonzero(truth.any(axis=0)).tolist()
    return {
        "map": float(values[there].mean()),
        "nearest_is_one": float(truth[np.arange(len(sounds)), best].mean()),
        "chance": float(truth[:, there].mean()),
        "per_class": {labels[c]: float(values[c]) for c in there},
    }


def clip_labels(shards: ShardFolder, labels: Sequence[str]) -> list[tuple[int, ...]]:
    """Classes of each clip as positions in `labels`; a label that is not there is an error."""
    numbers = label_index(labels)
    if len(numbers) != len(labels):
        raise DataError("the label list holds a label twice; remove one")
    found = []
    for clip, facts in zip(shards.ids, shards.all_facts(), strict=True):
        own = [tidy(label) for label in facts["labels"]]
        for label in own:
            if label.casefold() not in numbers:
                raise DataError(f'clip {clip} has the label "{label}", which is not in the list')
        found.append(tuple(dict.fromkeys(numbers[label.casefold()] for label in own)))
    return found


def labels_of(shards: ShardFolder) -> list[str]:
    """All labels of the clips, sorted."""
    return sorted(unique_labels(label for facts in shards.all_facts() for label in facts["labels"]))


def label_vectors(
    encoder: FrozenClip | Pivot,
    labels: Sequence[str],
    prompt: str,
    score: Literal["cosine", "dot"] = "cosine",
) -> Floats:
    """Labels in words as vectors (C, d): unit ones, or for dot as long as CLIP makes them.

    The reference multiplies without normalising, so that the lengths of texts count. Raises
    SettingsError for dot with a model that has a text encoder of its own.
    """
    if score == "cosine":
        return embed_texts(encoder, labels, prompt)
    clip = clip_of_texts(encoder)
    tokens = clip.tokenize(apply_all(prompt, labels)).to(clip.device)
    size = CHUNK.get(clip.device.type, 32)
    raw = in_chunks(clip.model.encode_text, tokens, size)
    vectors: Floats = raw.detach().cpu().numpy()
    return vectors


def clip_of_texts(encoder: FrozenClip | Pivot) -> FrozenClip:
    """The frozen CLIP that embeds an encoder's texts; SettingsError where another one does."""
    if not isinstance(encoder, Pivot):
        return encoder
    if encoder.clip is None or encoder.text is not None:
        raise SettingsError(
            "the dot product (--score dot, --compat vip_ant) is that of a frozen CLIP's texts, and "
            "this model has a text encoder of its own; leave it out"
        )
    return encoder.clip
