"""What a training starts from: a trained model, or an encoder fresh from a CLIP."""

from __future__ import annotations

from typing import TypeAlias

from pivot.audio.frontend import FrontEnd, resolve_norm
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.errors import SettingsError
from pivot.model import Pivot, load
from pivot.settings import (
    AudioSettings,
    FitSettings,
    PretrainVa,
    TrainAt,
    TrainClassifier,
    VitSettings,
)
from pivot.training import processes
from pivot.training.fit import resolve_precision
from video_prep.shards import ShardFolder

Trains: TypeAlias = PretrainVa | TrainAt | TrainClassifier


def device_of(settings: FitSettings) -> str:
    """The device of this process, once it is known that it can be used as the settings say."""
    device = processes.device_of(settings)
    resolve_precision(settings.precision, device)
    return device


def require_clip(settings: PretrainVa) -> None:
    """Refuse settings that name no CLIP."""
    if not settings.clip.model:
        raise SettingsError("--clip.model is missing; name an open_clip model, or tiny-world")


def fresh(settings: Trains, front_end: FrontEnd) -> Pivot:
    """The model at the start of pre-training: CLIP's visual weights, or random ones."""
    clip = load_clip(settings.clip, device_of(settings))
    audio = build_audio(clip, settings.encoder, settings.audio, settings.seed)
    return Pivot(clip, audio, front_end, settings.loss.scale_init)


def started(
    settings: TrainAt | TrainClassifier, shards: ShardFolder, num_frames: int | None = None
) -> Pivot:
    """The model that `--model` names, for sounds of `num_frames`, or without one a fresh one.

    Raises SettingsError where --audio or --encoder contradict the model.
    """
    if not settings.model:
        if num_frames:
            raise SettingsError("--num-frames is for a --model; without one set --audio.num-frames")
        if not settings.clip.model:
            raise SettingsError(
                "--model is missing; name a run or model folder, or start from a CLIP with "
                "--clip.model"
            )
        return fresh(settings, FrontEnd(settings.audio, resolve_norm(settings.audio, shards)))
    clip = settings.clip if settings.clip.model else None
    model = load(settings.model, device_of(settings), clip, num_frames)
    for name, default, own in (
        ("audio", AudioSettings(), model.front_end.settings),
        ("encoder", VitSettings(), model.audio.settings),
    ):
        if getattr(settings, name) not in (default, own):
            raise SettingsError(
                f"--{name} is not what {settings.model} was trained with; leave it out, or leave "
                "out --model to start afresh"
            )
    return model
