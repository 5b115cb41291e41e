"""What a training starts from: a trained model, or an encoder fresh from a CLIP."""

from __future__ import annotations

from typing import TypeAlias

from pivot.audio.frontend import FrontEnd, resolve_norm
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.encoders.projection import ProjectedAudio
from pivot.encoders.sentence import TextEncoder
from pivot.encoders.vit import AudioVit
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
from pivot.settings.parts import ProjectionSettings
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

    Its text encoder and the projection behind its sounds are those of --text and --project; see
    `with_sides`. Raises SettingsError where --audio, --encoder, --text or --project contradict the
    model.
    """
    if not settings.model:
        if num_frames:
            raise SettingsError("--num-frames is for a --model; without one set --audio.num-frames")
        if not settings.clip.model:
            raise SettingsError(
                "--model is missing; name a run or model folder, or start from a CLIP with "
                "--clip.model"
            )
        norm = resolve_norm(settings.audio, shards)
        model = fresh(settings, FrontEnd(settings.audio, norm))
    else:
        clip = settings.clip if settings.clip.model else None
        model = load(settings.model, device_of(settings), clip, num_frames)
        for name, default, own in (
            ("audio", AudioSettings(), model.front_end.settings),
            ("encoder", VitSettings(), model.audio.settings),
        ):
            if getattr(settings, name) not in (default, own):
                raise _contradicts(name, settings.model)
    return with_sides(model, settings) if isinstance(settings, TrainAt) else model


def with_sides(model: Pivot, settings: TrainAt) -> Pivot:
    """`model` with the text encoder and the projection that train, where it has none of its own.

    The CLIP stays where its pictures still lie in the space: beside frozen texts, beside sounds
    without a projection, or where frames have a term of the loss.
    """
    text, audio, project = model.text, model.audio, settings.project
    if project.kind != "none" and isinstance(audio, AudioVit):
        audio = ProjectedAudio.of(audio, project, settings.seed)
    elif project.kind != "none" and not _same_projection(audio, project):
        raise _contradicts("project", settings.model)
    if settings.text.kind != "frozen" and text is None:
        text = TextEncoder.start(settings.text, model.clip, audio.dim, settings.seed)
    elif settings.text.kind != "frozen" and text is not None and settings.text != text.settings:
        raise _contradicts("text", settings.model)
    terms = settings.terms
    if settings.text.kind != "frozen" and not (terms.audio_text or terms.image_text):
        raise SettingsError(f"--text.kind {settings.text.kind} trains nothing without text terms")
    frames = terms.image_audio > 0 or terms.image_text > 0
    leaves = text is not None and isinstance(audio, ProjectedAudio) and not frames
    clip = None if leaves else model.clip
    if frames and clip is None:
        raise SettingsError(
            f"--terms with frames need a CLIP, which {settings.model} has not; leave them out"
        )
    if audio is model.audio and text is model.text:
        return model
    return Pivot(clip, audio.to(model.device), model.front_end, model.scale, text)


def _same_projection(audio: AudioVit | ProjectedAudio, project: ProjectionSettings) -> bool:
    """Whether the projection behind the sounds is the one that is asked for."""
    if not isinstance(audio, ProjectedAudio):
        return False
    return project in (audio.projected, audio.projected.model_copy(update={"dim": None}))


def _contradicts(name: str, model: str) -> SettingsError:
    return SettingsError(
        f"--{name} is not what {model} was trained with; leave it out, or leave out --model to "
        "start afresh"
    )
