"""What a training starts from: a trained model, or encoders fresh from a CLIP or at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pivot.audio.frontend import FrontEnd, make_front_end, resolve_norm
from pivot.encoders import build_audio
from pivot.encoders.clip import FrozenClip, load_clip
from pivot.encoders.projection import ProjectedAudio, encoder_of
from pivot.encoders.sentence import TextEncoder
from pivot.errors import SettingsError
from pivot.model import Pivot, load
from pivot.model_folder import Audio, sounds_alone
from pivot.settings import FitSettings, PretrainVa, TrainAt, TrainClassifier, VitSettings
from pivot.settings.encoders import TRAINING_ONLY
from pivot.settings.front_ends import SHOWN
from pivot.settings.parts import ProjectionSettings, front_end_settings
from pivot.training import processes
from pivot.training.fit import resolve_precision
from video_prep.shards import ShardFolder

Trains: TypeAlias = PretrainVa | TrainAt | TrainClassifier


@dataclass(frozen=True)
class Parts:
    """What a model is made of, before its sides are fitted to each other."""

    clip: FrozenClip | None
    audio: Audio
    front_end: FrontEnd
    scale: float
    text: TextEncoder | None = None
    hash: str | None = None  # audio_hash of the model that they come from

    @classmethod
    def of(cls, model: Pivot) -> Parts:
        """The parts of a model."""
        parts = (model.clip, model.audio, model.front_end, model.scale, model.text)
        return cls(*parts, model.audio_hash)

    def model(self, device: str) -> Pivot:
        """The parts together, on a device."""
        audio = self.audio.to(device)
        return Pivot(self.clip, audio, self.front_end, self.scale, self.text)


def device_of(settings: FitSettings) -> str:
    """The device of this process, once it is known that it can be used as the settings say."""
    device = processes.device_of(settings)
    resolve_precision(settings.precision, device)
    return device


def require_clip(settings: PretrainVa) -> None:
    """Refuse settings that name no CLIP."""
    if not settings.clip.model:
        raise SettingsError("--clip.model is missing; name an open_clip model, or tiny-world")


def opened_va(settings: PretrainVa, shards: ShardFolder) -> tuple[Parts | None, FrontEnd]:
    """What `--model` of pre-training brings, None without one, and the front end.

    Raises SettingsError where --audio or --encoder contradict the model.
    """
    if not settings.model:
        return None, make_front_end(settings.audio, resolve_norm(settings.audio, shards))
    parts = Parts.of(_as_wanted(load(settings.model, device_of(settings)), settings))
    return parts, parts.front_end


def started_va(settings: PretrainVa, opened: Parts | None, front_end: FrontEnd) -> Pivot:
    """The model at the start of pre-training: the encoder of `--model`, or without one a fresh one.

    Raises SettingsError where the encoder has no place in CLIP's space without --project.
    """
    require_clip(settings)
    if opened is None:
        parts = _fresh(settings, front_end)
    else:
        clip = load_clip(settings.clip, device_of(settings))
        audio = opened.audio
        if isinstance(audio, ProjectedAudio) and audio.dim != clip.dim:
            audio = audio.encoder  # its projection leads into another space
        parts = Parts(clip, audio, front_end, settings.loss.scale_init)
    return _projected(parts, settings).model(device_of(settings))


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
        _require_start(settings)
        norm = resolve_norm(settings.audio, shards)
        parts = _fresh(settings, make_front_end(settings.audio, norm))
    else:
        parts = _opened(settings, num_frames)
    if isinstance(settings, TrainAt):
        parts = with_sides(parts, settings)
    elif parts.clip is not None and parts.audio.dim != parts.clip.dim:
        parts = replace(parts, clip=None)  # a classifier does without
    return parts.model(device_of(settings))


def with_sides(parts: Parts, settings: TrainAt) -> Parts:
    """`parts` with the text encoder and the projection that train, where they have none.

    The CLIP stays where its pictures still lie in the space: beside frozen texts, beside sounds
    without a projection, or where frames have a term of the loss.
    """
    terms, text = settings.terms, parts.text
    if settings.text.kind != "frozen" and not (terms.audio_text or terms.image_text):
        raise SettingsError(f"--text.kind {settings.text.kind} trains nothing without text terms")
    if settings.text.kind != "frozen" and text is not None:
        text = text.trained_as(settings.text)
        if text is None:
            raise _contradicts("text", settings.model)
    frames = terms.image_audio > 0 or terms.image_text > 0
    own_text = text is not None or settings.text.kind != "frozen"
    if (frames or not own_text) and parts.clip is None:
        raise SettingsError(_no_clip(settings, frames))
    parts = _projected(parts, settings, into_clip=frames or not own_text)
    if own_text and text is None:
        text = TextEncoder.start(settings.text, parts.clip, parts.audio.dim, settings.seed)
    moved = isinstance(parts.audio, ProjectedAudio) or parts.audio.settings.kind != "vit"
    leaves = text is not None and moved and not frames
    return replace(parts, clip=None if leaves else parts.clip, text=text)


def _no_clip(settings: TrainAt, frames: bool) -> str:
    if frames:
        return f"--terms with frames need a CLIP, which {settings.model} has not; leave them out"
    return (
        "captions need a text encoder: name a CLIP with --clip.model, or one that trains with "
        "--text.kind hf and --text.model"
    )


def _require_start(settings: Trains) -> None:
    """Refuse the ViT, which starts from a CLIP, without one."""
    if not settings.clip.model and settings.encoder.kind == "vit":
        raise SettingsError(
            "--model is missing; name a run or model folder, or with --clip.model the CLIP that "
            "encoder.kind vit starts from"
        )


def _fresh(settings: Trains, front_end: FrontEnd) -> Parts:
    """Encoders at their start: CLIP's visual weights, or random ones; with the CLIP, if named."""
    clip = load_clip(settings.clip, device_of(settings)) if settings.clip.model else None
    audio = build_audio(clip, settings.encoder, settings.audio, settings.seed)
    return Parts(clip, audio, front_end, settings.loss.scale_init)


def _opened(settings: TrainAt | TrainClassifier, num_frames: int | None) -> Parts:
    """The parts of `--model`; to one of sounds alone the CLIP that is named comes."""
    device = device_of(settings)
    named = settings.clip if settings.clip.model else None
    alone = sounds_alone(settings.model)
    model = load(settings.model, device, None if alone else named, num_frames)
    parts = Parts.of(_as_wanted(model, settings))
    if alone and named is not None:
        return replace(parts, clip=load_clip(named, device))
    return parts


def _as_wanted(model: Pivot, settings: Trains) -> Pivot:
    """The model as --encoder and --audio want it; only what its weights do not know may differ."""
    found = model.audio
    encoder = encoder_of(found)
    own = model.front_end.settings
    kind = _said("encoder", settings, encoder.settings, TRAINING_ONLY)
    heard = _said("audio", settings, own, set() if own.kind == "fbank" else SHOWN)
    if heard.num_frames != own.num_frames:
        return _as_wanted(model.resized(heard.num_frames), settings)
    if (kind, heard) == (encoder.settings, own):
        return model
    own_class: Any = type(encoder)
    audio = own_class.from_weights(encoder.state_dict(), encoder.facts(), kind, heard)
    audio = audio.to(model.device)
    if isinstance(found, ProjectedAudio):
        audio = ProjectedAudio(audio, found.projection, found.projected)
    return model.replaced(audio, make_front_end(heard, model.front_end.norm))


def _said(part: str, settings: Trains, own: Any, free: set[str]) -> Any:
    """A model's `own` settings of a part with what is asked; what is not `free` must agree."""
    asked: Any = getattr(settings, part)
    names = settings.named(part) or _unusual(part, settings)
    for key in sorted(names - free, key=lambda key: key != "kind"):
        if getattr(asked, key) != getattr(own, key, None):
            raise _differs(f"{part}.{key}", getattr(asked, key), getattr(own, key, None), settings)
    return type(own)(**own.model_dump() | {key: getattr(asked, key) for key in names})


def _unusual(part: str, settings: Trains) -> set[str]:
    """Fields of a part that are not what stands there where nothing is said."""
    asked: Any = getattr(settings, part)
    usual: Any = front_end_settings(settings.encoder) if part == "audio" else VitSettings()
    kind = set() if type(asked) is type(usual) else {"kind"}
    usual = type(asked)() if kind else usual
    return kind | {
        key for key in type(asked).model_fields if getattr(asked, key) != getattr(usual, key)
    }


def _differs(flag: str, asked: Any, own: Any, settings: Trains) -> SettingsError:
    has = "" if own is None else f" ({_shown(own)})"
    return SettingsError(
        f"--{flag.replace('_', '-')} {_shown(asked)} is not what {settings.model} was trained "
        f"with{has}; leave it out, or leave out --model to start afresh"
    )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _projected(parts: Parts, settings: PretrainVa | TrainAt, into_clip: bool = True) -> Parts:
    """The parts with --project behind the sounds; `into_clip`: into CLIP's space."""
    project, audio = settings.project, parts.audio
    dim = parts.clip.dim if into_clip and parts.clip is not None else None
    if project.kind != "none" and isinstance(audio, ProjectedAudio):
        if not _same_projection(audio, project):
            raise _contradicts("project", settings.model)
    elif project.kind != "none":
        wanted = project.model_copy(update={"dim": project.dim or dim})
        audio = ProjectedAudio.of(audio, wanted, settings.seed)
    if dim is not None and audio.dim != dim:
        raise SettingsError(
            f"the sounds have {audio.dim} numbers and CLIP's space {dim}; give --project.kind "
            f"linear (or residual, mlp), with --project.dim {dim} or none"
        )
    return replace(parts, audio=audio)


def _same_projection(audio: ProjectedAudio, project: ProjectionSettings) -> bool:
    """Whether the projection behind the sounds is the one that is asked for."""
    return project in (audio.projected, audio.projected.model_copy(update={"dim": None}))


def _contradicts(name: str, model: str) -> SettingsError:
    return SettingsError(
        f"--{name} is not what {model} was trained with; leave it out, or leave out --model to "
        "start afresh"
    )
