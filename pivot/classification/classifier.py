"""A trained classifier: its model folder, and what it says of sounds.

    classifier = load_classifier("runs/esc50")
    scores = classifier.predict(["dog.wav"])          # (1, classes), numpy
    classifier.labels[scores[0].argmax()]             # "dog"

The folder is a model of Pivot (`pivot.load` reads its audio encoder) with two more files:
`classifier.safetensors`, the head's weights, and `classifier.json`, its labels and kind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pivot.classification.head import Features, Head, Target, source_of
from pivot.classification.mixup import FirstFrames
from pivot.encoders.clip import CHUNK, in_chunks, parts_of
from pivot.errors import ModelError
from pivot.model import Pivot, Sound, load, model_folder
from pivot.model_folder import Audio
from pivot.settings import ClipSettings, LossSettings
from video_prep.files import whole_folder, write_json

FORMAT = 1  # of classifier.json
WEIGHTS, FACTS = "classifier.safetensors", "classifier.json"


class Classifier:
    """A model, a head on its raw audio features, and the labels of the head's outputs."""

    def __init__(
        self,
        model: Pivot,
        head: Head,
        labels: Sequence[str],
        target: Target,
        features: Features = "projected",
    ) -> None:
        self.model, self.labels, self.target, self.features = model, list(labels), target, features
        self.head = head.to(model.device).eval()

    def predict(self, sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """Scores (n, classes) in 0..1 of sounds: paths, or pairs (wave, sample rate).

        cross_entropy: probabilities, each row sums to 1; bce: each label's own probability; mse:
        the outputs, cut to 0..1. The columns are `labels`. A sound longer than the window is cut as
        `Pivot.encode_audio` says.
        """
        logits = torch.from_numpy(self.logits(sounds))
        if self.target == "mse":
            scores = logits.clamp(0, 1)
        else:
            scores = logits.softmax(1) if self.target == "cross_entropy" else logits.sigmoid()
        found: NDArray[np.float32] = scores.numpy()
        return found

    @property
    def source(self) -> Audio:
        """The module whose features the head sees: the encoder, or it without its projection."""
        return source_of(self.model.audio, self.features)

    @torch.no_grad()
    def logits(self, sounds: Sequence[Sound]) -> NDArray[np.float32]:
        """Logits (n, classes), which rank the sounds of a class without ties at 0 and 1."""
        audio = self.source.eval()
        device = self.model.device
        size = CHUNK.get(device.type, 32)
        found = [np.empty((0, len(self.labels)), np.float32)]
        for part in parts_of(list(enumerate(sounds)), size):
            fbank = torch.stack([self.model.fbank(sound, index) for index, sound in part])
            found.append(self.head(in_chunks(audio, fbank.to(device), size)).cpu().numpy())
        return np.concatenate(found)

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Write model and head, whole or not at all, replacing a folder; `facts` are kept."""
        about = {
            "format": FORMAT,
            "labels": self.labels,
            "target": self.target,
            "head": self.head.kind,
            "front_end": "first_frames" if isinstance(self.model.front_end, FirstFrames) else "",
            "audio_hash": self.model.audio_hash,
            "facts": facts,
        } | ({"features": self.features} if self.features != "projected" else {})
        weights = {n: v.detach().cpu().contiguous() for n, v in self.head.state_dict().items()}
        with whole_folder(folder) as aside:
            self.model.save(aside, command="train-classifier", **facts)
            save_file(weights, aside / WEIGHTS)
            write_json(aside / FACTS, about)


def load_classifier(
    path: str | Path, device: str | torch.device = "cpu", clip: ClipSettings | None = None
) -> Classifier:
    """Load the classifier of a run or model folder of `pivot train-classifier`.

    `clip` says where the CLIP is now, if not where it was. Raises ModelError for a folder without
    a classifier, or one whose files do not belong together.
    """
    folder = model_folder(path)
    about = classifier_facts(folder)
    model = load(folder, device, clip)
    try:
        labels, target, kind = list(about["labels"]), about["target"], about["head"]
        if about["audio_hash"] != model.audio_hash:
            raise ModelError(f"{folder / FACTS} is of another encoder; restore the whole folder")
        features: Features = about.get("features", "projected")
        dim = source_of(model.audio, features).dim
        head = Head(kind, dim, len(labels), target, LossSettings(), 0)
        head.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, TypeError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"{folder / WEIGHTS} does not fit its {FACTS} ({' '.join(str(error).split())[:120]}); "
            "copy the folder again"
        ) from error
    if about["front_end"] == "first_frames":
        model.front_end = FirstFrames.of(model.front_end)
    return Classifier(model, head, labels, target, features)


def classifier_facts(folder: Path) -> dict[str, Any]:
    """Read classifier.json; raises ModelError."""
    path = folder / FACTS
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is a model without a classifier; make one with pivot train-classifier"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); copy the folder again") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ModelError(f"{path} is not a classifier's of this Pivot; train it again")
    return about
