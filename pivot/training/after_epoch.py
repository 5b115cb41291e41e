"""What a training does after an epoch: keep the model, measure retrieval on held-out clips."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pivot.audio.frontend import FrontEnd
from pivot.data.stream import SoundItems, open_with_sound
from pivot.embeddings.embed import embed_frame
from pivot.embeddings.sources import middle_frame
from pivot.errors import DataError
from pivot.evaluation.retrieval import image_audio
from pivot.model import Pivot
from pivot.runs import Run
from pivot.settings import PretrainVa
from pivot.training.fit import VALIDATION
from pivot.training.module import Contrast
from video_prep.shards import ShardFolder

SOUNDS_A_CALL = 64


class AfterEpoch:
    """Called with the number of an epoch that has ended, from 1 on."""

    def __init__(
        self, run: Run, keep: int, task: Contrast, model: Pivot, validation: Validation | None
    ) -> None:
        """keep: keep the model of every so many epochs, 0 for none; it holds `task.encoder`."""
        self.run, self.keep, self.task = run, keep, task
        self.model, self.validation = model, validation

    def __call__(self, epoch: int) -> None:
        """Write RUN/models/epoch-0003 and a row of RUN/validation.jsonl, as they are wanted."""
        self.model.scale = self.task.scale
        if self.keep and epoch % self.keep == 0:
            folder = self.run.path / "models" / f"epoch-{epoch:04d}"
            facts = {"steps": self.task.step, "epoch": epoch}
            self.model.save(folder, command=self.run.command, **facts)
        if self.validation is not None:
            row = {"epoch": epoch, "step": self.task.step, **self.validation.measure(self.model)}
            with (self.run.path / VALIDATION).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


class Validation:
    """Held-out clips: their sounds against their middle frames, and by identical label sets."""

    def __init__(self, shards: ShardFolder, front_end: FrontEnd, cache_mb: float) -> None:
        if not shards.num_frames:
            raise DataError(
                f"--validation {shards.path} holds sounds without frames; give shards of "
                "pivot prepare-frames"
            )
        self.shards, self.items = shards, SoundItems(shards, front_end, cache_mb)
        labels = [tuple(sorted(facts["labels"])) for facts in shards.all_facts()]
        self.label_sets = labels if any(labels) else None
        self._frames: NDArray[np.float32] | None = None

    @classmethod
    def open(cls, settings: PretrainVa, front_end: FrontEnd) -> Validation:
        """Open the shards of `--validation`."""
        return cls(open_with_sound(settings.validation or ""), front_end, settings.cache_mb)

    def facts(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "shards": self.shards.path,
            "fingerprint": self.shards.fingerprint,
            "clips": len(self.shards),
            "labels": self.label_sets is not None,
        }

    def measure(self, model: Pivot) -> dict[str, Any]:
        """Numbers of `evaluation.retrieval.image_audio` for all clips; frames are encoded once."""
        if self._frames is None:
            assert model.clip is not None  # pre-training starts from one
            frame = middle_frame(self.shards.num_frames)
            self._frames = embed_frame(self.shards, model.clip, frame)
        parts = []
        for start in range(0, len(self.items), SOUNDS_A_CALL):
            clips = range(start, min(start + SOUNDS_A_CALL, len(self.items)))
            fbank = torch.stack(self.items.fbanks(clips, [None] * len(clips)))
            parts.append(model.encode_fbank(fbank).cpu().numpy())
        return image_audio(self._frames, np.concatenate(parts), self.label_sets)
