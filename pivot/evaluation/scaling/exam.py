"""What each training of a scaling curve is scored on: one test set or several, prepared once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pivot.data.benchmarks import read_labels, refuse_ids
from pivot.data.stream import SoundItems, open_with_sound
from pivot.embeddings.embed import embed_texts
from pivot.errors import DataError, SettingsError
from pivot.evaluation.retrieval import retrieval
from pivot.evaluation.zero_shot import clip_labels, label_vectors, labels_of, zero_shot
from pivot.model import Pivot
from pivot.settings import ScalingCurve

Floats = NDArray[np.float32]
Scores = dict[str, float]
SCORES = {  # as in the rows -> in words
    "zero_shot": "zero-shot accuracy",
    "map": "mean average precision",
    "text_to_audio_r1": "text to audio, R@1",
    "audio_to_text_r1": "audio to text, R@1",
}
BATCH = 64


@dataclass(frozen=True)
class TestClips:
    """Held-out clips: FBANK, and the vectors of their labels and captions where they have any."""

    __test__ = False  # for pytest: this is no test
    name: str
    items: SoundItems
    truth: list[tuple[int, ...]]
    labels: list[str]
    label_vectors: Floats | None
    captions: Floats | None
    owners: list[int]  # the clip of each caption

    def score(self, model: Pivot) -> Scores:
        """All scores of a model: of the labels, of the captions, or of both."""
        audio = np.concatenate(list(self._embed(model)))
        found: Scores = {}
        if self.label_vectors is not None:
            numbers = zero_shot(audio, self.label_vectors, self.truth, self.labels)
            name = "zero_shot" if "accuracy" in numbers else "map"
            found[name] = float(numbers["accuracy" if name == "zero_shot" else "map"])
        if self.captions is not None:
            numbers = retrieval(audio, self.captions, self.owners)
            for way in ("text_to_audio", "audio_to_text"):
                found[f"{way}_r1"] = float(numbers[way]["r1"])
        return found

    def facts(self) -> dict[str, Any]:
        """For results.json."""
        shards = self.items.shards
        return {
            "name": self.name,
            "shards": shards.path,
            "fingerprint": shards.fingerprint,
            "clips": len(shards),
            "labelled": sum(map(bool, self.truth)),
            "captions": len(self.owners),
            "labels": self.labels,
            "dataset": shards.dataset,
        }

    def _embed(self, model: Pivot) -> Iterator[Floats]:
        for start in range(0, len(self.items), BATCH):
            part = range(start, min(start + BATCH, len(self.items)))
            fbank = torch.stack(self.items.fbanks(part, [None] * len(part)))
            yield model.encode_fbank(fbank).cpu().numpy()


class Exam:
    """Every test set of a curve; the first one has labels, and the curve's target is its score."""

    def __init__(self, model: Pivot, settings: ScalingCurve) -> None:
        self.sets: list[TestClips] = []
        for path in (settings.test, *settings.more_tests):
            taken = [known.name for known in self.sets]
            self.sets.append(_open(path, model, settings, taken))

    def score(self, model: Pivot) -> dict[str, Scores]:
        """Test set -> scores."""
        return {clips.name: clips.score(model) for clips in self.sets}

    @staticmethod
    def main(scores: dict[str, Scores]) -> float:
        """The score that the curve is named after: of the labels of the first test set."""
        first = next(iter(scores.values()))
        return first["zero_shot"] if "zero_shot" in first else first["map"]


def _open(path: str, model: Pivot, settings: ScalingCurve, taken: list[str]) -> TestClips:
    """Open one test set; the first needs labels, the others labels or captions."""
    shards, first = open_with_sound(path), not taken
    labels = read_labels(settings.labels) if settings.labels and first else labels_of(shards)
    refuse_ids(labels, path)
    truth = clip_labels(shards, labels)
    captions = [list(facts.get("captions") or []) for facts in shards.all_facts()]
    owners = [clip for clip, own in enumerate(captions) for _ in own]
    if first and not any(truth):
        raise DataError(f"no clip of {path} has a label; give test clips with labels")
    if not any(truth) and not owners:
        raise DataError(f"no clip of {path} has a label or a caption; leave it out")
    known = (shards.dataset or {}).get("name")
    name = next((n for n in (known, Path(path).name, path) if n and n not in taken), None)
    if name is None:
        raise SettingsError(f"--more-tests {path} is named twice")
    texts = [text for own in captions for text in own]
    return TestClips(
        name,
        SoundItems(shards, model.front_end, settings.cache_mb / settings.jobs),
        truth,
        labels,
        label_vectors(model, labels, settings.prompt) if any(truth) else None,
        embed_texts(model, texts, settings.caption_prompt) if texts else None,
        owners,
    )
