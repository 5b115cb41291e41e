"""The files of a saved model: what is in its folder, and each part of it read back.

    model.json          which CLIP, how sound becomes FBANK, what the encoders are, hashes
    model.safetensors   weights of the audio encoder
    text.safetensors    weights of a text encoder of the model's own, where it has one
    text/               config and tokenizer of one that is a transformers model

CLIP's weights are not copied: they are found again by name and refused if their hash differs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pivot.audio.frontend import Norm
from pivot.encoders import encoder_class
from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.clip import FrozenClip, findable, load_clip
from pivot.encoders.projection import ProjectedAudio
from pivot.encoders.sentence import TextEncoder
from pivot.encoders.vit import AudioVit
from pivot.errors import ModelError
from pivot.settings import AudioSettings, ClipSettings, VitSettings
from pivot.settings.parts import EncoderSettings, FrontEndSettings, ProjectionSettings
from video_prep.files import whole_folder, write_json

# of model.json; raised where an older Pivot could not read it rightly
# 2: with a text encoder of its own, or a projection behind the sounds; 3: with another audio
# encoder than the ViT of a CLIP, or with sounds alone
FORMAT, OWN_ENCODERS, OTHER_ENCODERS = 1, 2, 3
WEIGHTS, FACTS = "model.safetensors", "model.json"
TEXT_WEIGHTS, TEXT_FILES = "text.safetensors", "text"
Audio: TypeAlias = AudioVit | AudioEncoder | ProjectedAudio


class _Parts(BaseModel):
    """Reads a front end and an encoder of any kind."""

    audio: FrontEndSettings = AudioSettings()
    encoder: EncoderSettings = VitSettings()


@dataclass(frozen=True)
class Facts:
    """What model.json says, checked; the parts are loaded from it one by one."""

    folder: Path
    clip: ClipSettings | None  # where the CLIP was
    clip_hash: str | None
    audio: FrontEndSettings
    norm: Norm
    encoder: EncoderSettings
    visual: dict[str, Any]  # what the encoder's weights do not tell
    projection: ProjectionSettings
    text: dict[str, Any] | None
    scale: float
    audio_hash: str

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Read model.json; ModelError for one of another version, changed or damaged."""
        about = _read_json(folder)
        try:
            clip = about["clip"]
            return cls(
                folder=folder,
                clip=ClipSettings(**clip["settings"]) if clip else None,
                clip_hash=clip["weights_hash"] if clip else None,
                audio=_Parts(audio={"kind": "fbank", **about["audio"]}).audio,
                norm=Norm(**about["norm"]),
                encoder=_Parts(encoder={"kind": "vit", **about["encoder"]}).encoder,
                visual=dict(about["visual"]),
                projection=ProjectionSettings(**about.get("projection", {})),
                text=dict(about["text"]) if "text" in about else None,
                scale=float(about["scale"]),
                audio_hash=about["audio_hash"],
            )
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise ModelError(
                f"{folder / FACTS} is not a model's of this Pivot ({_line(error)}); "
                "it was changed, or written by another version"
            ) from error

    def load_clip(
        self, named: ClipSettings | None, device: str | torch.device
    ) -> FrozenClip | None:
        """CLIP of the model, `named` where it is now; None where the model has none."""
        if self.clip is None:
            if named is not None and (self.text or {}).get("settings", {}).get("kind") != "clip":
                raise ModelError(f"{self.folder} has no CLIP; leave out --clip.model {named.model}")
            return None
        frozen = load_clip(named or self.clip, device)
        if frozen.weights_hash != self.clip_hash:
            raise ModelError(
                f"{self.folder} was trained with another CLIP than {(named or self.clip).model} is "
                f"now (hash {str(self.clip_hash)[:12]}, not {frozen.weights_hash[:12]}); name the "
                "right one"
            )
        return frozen

    def load_audio(self) -> Audio:
        """Audio encoder of the model, on the CPU."""
        weights, kind = _read_weights(self.folder, WEIGHTS), encoder_class(self.encoder.kind)
        if self.projection.kind == "none":
            return kind.from_weights(weights, self.visual, self.encoder, self.audio)
        return ProjectedAudio.from_weights(
            kind, weights, self.visual, self.encoder, self.audio, self.projection
        )

    def load_text(self, clip: FrozenClip | ClipSettings | None) -> TextEncoder | None:
        """Text encoder of the model's own, on the CPU; `clip`: what it was copied from, or where.

        ModelError where weights, config and JSON do not belong together.
        """
        if self.text is None:
            return None
        weights = _read_weights(self.folder, TEXT_WEIGHTS)
        try:
            text = TextEncoder.restore(self.text, self.folder / TEXT_FILES, weights, clip)
        except (KeyError, TypeError, ValidationError) as error:
            raise ModelError(
                f"{self.folder / FACTS} says nothing usable of its text encoder ({_line(error)}); "
                "it was changed, or written by another version"
            ) from error
        if text.hash != self.text.get("hash"):
            raise ModelError(
                f"{self.folder / TEXT_WEIGHTS} does not belong to its {FACTS}; restore both files"
            )
        return text


def format_of(clip: FrozenClip | None, audio: Audio, text: TextEncoder | None) -> int:
    """Oldest format that says all of a model."""
    if audio.settings.kind != "vit" or (clip is None and text is None):
        return OTHER_ENCODERS
    own = text is not None or isinstance(audio, ProjectedAudio)
    return OWN_ENCODERS if own else FORMAT


def write_model(
    folder: str | Path, about: dict[str, Any], audio: Audio, text: TextEncoder | None
) -> None:
    """Write a model folder, whole or not at all, replacing one."""
    with whole_folder(folder) as aside:
        save_file(_on_cpu(audio), aside / WEIGHTS)
        if text is not None:
            save_file(_on_cpu(text), aside / TEXT_WEIGHTS)
            text.save(aside / TEXT_FILES)
        write_json(aside / FACTS, about)


def clip_facts(clip: FrozenClip | None) -> dict[str, Any] | None:
    """Which CLIP, for model.json."""
    if clip is None:
        return None
    settings = findable(clip.settings).model_dump(mode="json")
    return {"settings": settings, "weights_hash": clip.weights_hash}


def model_folder(path: str | Path) -> Path:
    """Folder with the model files: `path` itself, or `model/` in a run folder."""
    path = Path(path).expanduser()
    for folder in (path, path / "model"):
        if (folder / FACTS).is_file() or (folder / WEIGHTS).is_file():
            return folder
    if not path.exists():
        raise ModelError(f"no model at {path}: the folder does not exist; check the path")
    if (path / "run.json").is_file():
        raise ModelError(f"run {path} has no model yet; finish it with --resume")
    raise ModelError(f"{path} is neither a model folder nor a run folder with a model")


def sounds_alone(path: str | Path) -> bool:
    """Whether the model at `path` is an audio encoder alone, without CLIP and text."""
    facts = Facts.read(model_folder(path))
    return facts.clip is None and facts.text is None


def _read_json(folder: Path) -> dict[str, Any]:
    """Read model.json of a format that this Pivot knows."""
    path = folder / FACTS
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        written = about["format"]
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {FACTS}: half a model; save or copy it again") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read ({_line(error)}); restore the file") from error
    if not isinstance(written, int) or written > OTHER_ENCODERS:
        raise ModelError(
            f"{path} has format {written} (Pivot {about.get('pivot')}), this Pivot reads up to "
            f"{OTHER_ENCODERS}; install a newer Pivot"
        )
    if not (isinstance(about.get("scale"), float | int) and math.isfinite(about["scale"])):
        raise ModelError(f"{path} has no finite scale; restore the file")
    return dict(about)


def _read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Read a weights file."""
    path = folder / name
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {name}: half a model; copy it again") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({_line(error)}); copy it again") from error


def _on_cpu(module: torch.nn.Module) -> dict[str, Tensor]:
    """State of a module as it is written."""
    return {n: v.detach().cpu().contiguous() for n, v in module.state_dict().items()}


def _line(error: Exception) -> str:
    """An error in one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
