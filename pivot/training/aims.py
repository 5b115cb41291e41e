"""What the similarities of each batch should be: its targets, from its clips and from teachers.

Teachers are constants: stores of a model's embeddings, a frozen copy of the model that trains, or
the frozen CLIP's view of the frames. The cosines of several are averaged before any softmax.
Legend: B clips of a process, N of the whole batch, d dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.data.batches import Batch
from pivot.embeddings.store import EmbeddingStore
from pivot.errors import SettingsError, StoreError
from pivot.model import Pivot
from pivot.settings import PretrainVa, TrainAt
from pivot.settings.targets import TargetSettings
from pivot.training.at_data import AtData
from pivot.training.loss import gathered, own_rows
from pivot.training.module import encode_in_chunks, weights_of
from pivot.training.partners import Partners, SoundStorePartners, TextStorePartners
from pivot.training.targets import cosines, estimated, positives_of, shared_weights, soft_labels


class Teacher(Protocol):
    """Embeddings (B, d) of both sides of a term for the clips of a batch, of any length."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Look up, or encode without a gradient."""


class StoredTeacher:
    """A model's stores of sounds and captions; `batch.rows` has `clip` and `text`."""

    def __init__(self, stores: tuple[str, str], sounds: Partners, texts: Partners) -> None:
        self.stores, self.sides = stores, (("clip", sounds), ("text", texts))

    @classmethod
    def open(
        cls,
        stores: tuple[str, str],
        ids: Sequence[str],
        clips: Sequence[int],
        texts: Sequence[str],
        prompt: str,
    ) -> StoredTeacher:
        """Open AUDIO_STORE and TEXT_STORE, of one model, with all that trains.

        ids: of the clips by number; clips: the numbers that train. Raises StoreError for stores of
        two models, and for a clip or a sentence that is missing.
        """
        audio, text = (EmbeddingStore.open(path) for path in stores)
        sounds = SoundStorePartners(audio, ids, clips)
        captions = TextStorePartners(text, texts, None, prompt)
        if not audio.same_model(text):
            raise StoreError(
                f"{stores[0]} and {stores[1]} are not of one model, so their cosines say nothing; "
                "embed sounds and captions with the same one"
            )
        return cls(stores, sounds, captions)

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Look up; a damaged row is an error, as its NaN would reach the loss."""
        found = []
        for path, (side, partners) in zip(self.stores, self.sides, strict=True):
            vectors = partners(batch.rows[side])
            if not bool(vectors.isfinite().all()):
                raise StoreError(f"{path} holds NaN or infinite vectors; embed again")
            found.append(vectors)
        return found[0], found[1]


class OwnTeacher:
    """A frozen copy of the model as it starts, in eval mode, on the very inputs of the student.

    It is no part of the task: neither trained nor kept in checkpoints, and made again on resuming.
    """

    def __init__(self, encoder: nn.Module, text: Partners, chunk: int = 0) -> None:
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.text, self.chunk = text, chunk
        if isinstance(text, nn.Module):
            self.text = copy.deepcopy(text).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encode, `chunk` sounds at a time."""
        device, count = batch.fbank.device, len(batch.fbank)
        self.encoder.to(device)
        if isinstance(self.text, nn.Module):
            self.text.to(device)
        parts = batch.fbank.split(self.chunk) if self.chunk and count else (batch.fbank,)
        sounds = torch.cat([encode_in_chunks(self.encoder, part) for part in parts])
        return sounds, self.text(batch.rows["text"])


class FrameTeacher:
    """The frozen CLIP's frames for both sides: how alike two clips look says how alike they are."""

    def __init__(self, frames: Partners) -> None:
        self.frames = frames

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean of the frames that are a clip's partners."""
        found = self.frames(batch.rows["image"])
        return found, found


class Aim:
    """Targets of one term of the loss, batch by batch, as the settings say."""

    def __init__(self, settings: TargetSettings, teachers: Sequence[Teacher] = ()) -> None:
        """`soft` and `estimated` need teachers, all kinds but `diagonal` the rows `clip`."""
        self.settings, self.teachers = settings, list(teachers)

    @property
    def divergence(self) -> bool:
        """Whether the loss is a KL divergence (soft labels), not a cross entropy."""
        return self.settings.kind == "soft"

    def __call__(self, batch: Batch, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Targets and `back` (B, N) of `contrastive`; `scale` is that of the student."""
        own, device = own_rows(batch.fbank), batch.fbank.device
        with torch.autocast(device.type, enabled=False):
            forth, back = self._whole(batch, scale, own)
        return forth[own], back[own]

    def _whole(self, batch: Batch, scale: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        """Targets (N, N) of the whole batch."""
        settings = self.settings
        if settings.kind in ("diagonal", "same_recording"):
            found = self._positives(batch, own)
            return found, found
        a, b = self._taught(batch)
        tau = settings.temperature or 1 / scale
        if settings.kind == "soft":
            fixed = tau.detach() if isinstance(tau, Tensor) else tau
            return soft_labels(a, b, settings.share, settings.target, fixed)
        forth, back = estimated(cosines(a, b), tau)
        if settings.share == 1:
            return forth, back
        rest = (1 - settings.share) * self._positives(batch, own)
        return rest + settings.share * forth, rest + settings.share * back

    def _positives(self, batch: Batch, own: slice) -> Tensor:
        device = batch.fbank.device
        if self.settings.kind == "diagonal":
            ids = torch.arange(own.start, own.stop, device=device)[:, None]
        else:
            ids = batch.rows["clip"].to(device)
        return shared_weights(positives_of(gathered(ids)))

    def _taught(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Both sides of the whole batch (N, d), the teachers' unit vectors beside each other.

        So the cosine of two rows is the mean of the teachers' cosines, whatever their dimensions.
        """
        device = batch.fbank.device
        found = [teacher(batch) for teacher in self.teachers]
        sides = [
            torch.cat([F.normalize(pair[k].to(device).float(), dim=-1) for pair in found], dim=1)
            for k in (0, 1)
        ]
        return gathered(sides[0]), gathered(sides[1])


# ---- of the commands ----------------------------------------------------------------------------


def va_aims(settings: PretrainVa, frames: Partners) -> dict[str, Aim]:
    """Aims of pre-training; none where a clip has one partner and no other is like it."""
    if settings.targets.kind == "diagonal" and settings.frames != "all":
        return {}
    return {"image_audio": Aim(settings.targets, [FrameTeacher(frames)])}


def at_aims(settings: TrainAt, teachers: Sequence[Teacher]) -> dict[str, Aim]:
    """Aims of fine-tuning: recordings concern all terms, teachers that of sounds and captions."""
    kind = settings.targets.kind
    if kind == "diagonal":
        return {}
    names = weights_of(settings.terms) if kind == "same_recording" else ["audio_text"]
    return {name: Aim(settings.targets, teachers) for name in names}


def require_teacher(settings: TrainAt) -> None:
    """Refuse a training that would be taught by a model with random weights."""
    taught = settings.targets.kind in ("soft", "estimated")
    if taught and not settings.targets.teachers and not settings.model:
        raise SettingsError(
            f"--targets.kind {settings.targets.kind} needs a teacher: --targets.teachers "
            "AUDIO_STORE:TEXT_STORE, or --model, whose frozen copy then teaches"
        )


def teachers_of(
    settings: TrainAt, at: AtData, model: Pivot, partners: Mapping[str, Partners]
) -> list[Teacher]:
    """The teachers that the settings name, else the model itself as it is now."""
    if settings.targets.kind not in ("soft", "estimated"):
        return []
    ids, numbers = at.ids, at.numbers
    found: list[Teacher] = [
        StoredTeacher.open(stores, ids, numbers, at.texts, settings.prompt)
        for stores in settings.targets.stores()
    ]
    return found or [OwnTeacher(model.audio, partners["text"], settings.grad_cache)]


def facts_of(teachers: Sequence[Teacher]) -> list[dict[str, Any]]:
    """What taught, for results.json."""
    found: list[dict[str, Any]] = []
    for teacher in teachers:
        if isinstance(teacher, StoredTeacher):
            hashes = [EmbeddingStore.open(path).manifest["weights_hash"] for path in teacher.stores]
            found.append({"stores": list(teacher.stores), "weights_hashes": hashes})
        else:
            found.append({"self": type(teacher).__name__})
    return found
