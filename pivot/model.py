"""Pivot: a frozen CLIP and the audio encoder that lives in its space; encode, save, load.

A model folder holds `model.safetensors` (the audio encoder's weights) and `model.json` (which CLIP,
how sound becomes FBANK, what the encoder is). CLIP's weights are not copied: they are found again
by name and refused if their hash differs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pivot.audio.frontend import FrontEnd, Norm, fingerprint
from pivot.encoders import encoder_class
from pivot.encoders.clip import CHUNK, FrozenClip, hash_tensors, in_chunks, load_clip, parts_of
from pivot.encoders.vit import AudioVit
from pivot.encoders.vit_shape import VisualFacts
from pivot.errors import DataError, ModelError
from pivot.runs import versions
from pivot.settings import AudioSettings, ClipSettings, VitSettings
from video_prep.decode import read_sound
from video_prep.files import whole_folder, write_json

FORMAT = 1  # of model.json; raised when an older Pivot could not read it rightly
WEIGHTS, FACTS = "model.safetensors", "model.json"
Sound: TypeAlias = "tuple[np.ndarray | Tensor, int] | str | Path"


class Pivot:
    """Image, audio and text encoder of one space. Embeddings are unit vectors, float32.

    Encoding is deterministic and does not depend on what else is in the batch. A sound longer than
    the encoder's window is cut to the window in its middle (with `audio.crop vip_ant`: moved to
    its start or end if the middle is nearly silent).
    """

    def __init__(
        self, clip: FrozenClip, audio: AudioVit, front_end: FrontEnd, scale: float = 1 / 0.07
    ) -> None:
        if audio.shape.dim != clip.dim:
            raise ModelError(
                f"the audio encoder gives {audio.shape.dim} numbers and CLIP "
                f"{clip.settings.model} {clip.dim}; take the CLIP it was made from"
            )
        self.clip = clip
        self.audio = audio.to(clip.device)
        self.front_end = front_end
        self.scale = scale

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """Pictures -> (n, d)."""
        return self.clip.encode_image(images)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (n, d)."""
        return self.clip.encode_text(texts)

    def encode_audio(self, sounds: Sequence[Sound]) -> Tensor:
        """Sounds -> (n, d): paths of audio or video files, or pairs (wave, sample rate).

        A wave is (samples,) or (channels, samples), int16 or float in -1..1.
        """
        if isinstance(sounds, str | Path):
            raise DataError(f"encode_audio takes a list of sounds; give [{str(sounds)!r}]")
        size = CHUNK.get(self.clip.device.type, 32)
        parts = [
            self.encode_fbank(torch.stack([self.fbank(sound, index) for index, sound in part]))
            for part in parts_of(list(enumerate(sounds)), size)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.clip.dim, device=self.clip.device)

    def fbank(self, sound: Sound, index: int = 0) -> Tensor:
        """One sound -> encoder input (T, M); an error names the sound, or its `index`."""
        wave: np.ndarray | Tensor
        if isinstance(sound, str | Path):
            name, (wave, rate) = str(sound), read_sound(sound, sample_rate="native")
        elif isinstance(sound, tuple) and len(sound) == 2:
            name, (wave, rate) = f"sound {index}", sound
        else:
            raise DataError(f"sound {index} is neither a path nor a pair (wave, sample rate)")
        try:
            return self.front_end(wave, rate)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    @torch.no_grad()
    def encode_fbank(self, x: Tensor) -> Tensor:
        """Normalised FBANK (n, T, M), as `front_end` makes it -> (n, d)."""
        size = CHUNK.get(self.clip.device.type, 32)
        if not len(x):
            return torch.empty(0, self.clip.dim, device=self.clip.device)
        with _evaluating(self.audio):
            features = in_chunks(self.audio, x.to(self.clip.device, torch.float32), size)
        if not bool(features.isfinite().all()):
            raise ModelError("the audio encoder gives NaN or infinite features: training diverged")
        return F.normalize(features, dim=-1)

    @property
    def audio_hash(self) -> str:
        """sha256 of all that decides an audio embedding: weights, FBANK, norm, window."""
        settings = self.front_end.settings
        norm = self.front_end.norm
        facts = {
            "front_end": fingerprint(settings),
            "window": [settings.num_frames, settings.crop, settings.pad],
            "norm": [norm.mean, norm.std],
            # where the weights stand; `positions` only says how others would be made of them
            "encoder": self.audio.settings.model_dump(mode="json", exclude={"positions"}),
            "visual": asdict(self.audio.shape.facts),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        return hash_tensors(self.audio.state_dict(), digest)

    def resized(self, num_frames: int) -> Pivot:
        """This model for sounds of another length: encoder and front end, with another audio_hash.

        `AudioVit.resized` says where the positions come from. Stores of the two lengths do not
        mix: a store names the audio_hash that made it. The same length gives the model itself.
        """
        settings = self.front_end.settings
        if num_frames == settings.num_frames:
            return self
        front_end = FrontEnd(
            settings.model_copy(update={"num_frames": num_frames}), self.front_end.norm
        )
        return Pivot(self.clip, self.audio.resized(num_frames), front_end, self.scale)

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Write the model folder, whole or not at all, replacing one; `facts` go into its JSON."""
        weights = {n: v.detach().cpu().contiguous() for n, v in self.audio.state_dict().items()}
        about = {
            "format": FORMAT,
            "pivot": versions()["pivot"],
            "clip": {
                "settings": _findable(self.clip.settings).model_dump(mode="json"),
                "weights_hash": self.clip.weights_hash,
            },
            "audio": self.front_end.settings.model_dump(mode="json"),
            "norm": asdict(self.front_end.norm),
            "encoder": self.audio.settings.model_dump(mode="json"),
            "visual": asdict(self.audio.shape.facts),
            "grid": self.audio.grid,
            "scale": self.scale,
            "audio_hash": self.audio_hash,
            "facts": facts,
        }
        with whole_folder(folder) as aside:
            save_file(weights, aside / WEIGHTS)
            write_json(aside / FACTS, about)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    clip: ClipSettings | None = None,
    num_frames: int | None = None,
) -> Pivot:
    """Load a model folder, or the model of a run folder.

    `clip` says where the CLIP is now, if not where it was; it must be the same CLIP. `num_frames`
    is another length of FBANK than the model was trained with (18 s: 1800), see `Pivot.resized`.
    """
    folder = model_folder(path)
    about = _read_facts(folder)
    try:
        stored = ClipSettings(**about["clip"]["settings"])
        settings = AudioSettings(**about["audio"])
        encoder = VitSettings(**about["encoder"])
        norm = Norm(**about["norm"])
        visual = TypeAdapter(VisualFacts).validate_python(about["visual"])
        scale, hashes = float(about["scale"]), (about["clip"]["weights_hash"], about["audio_hash"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ModelError(
            f"{folder / FACTS} is not a model's of this Pivot ({_line(error)}); "
            "it was changed, or written by another version"
        ) from error
    frozen = load_clip(clip or stored, device)
    if frozen.weights_hash != hashes[0]:
        raise ModelError(
            f"{folder} was trained with another CLIP than {(clip or stored).model} is now "
            f"(hash {hashes[0][:12]}, not {frozen.weights_hash[:12]}); name the right one"
        )
    weights = _read_weights(folder)
    audio = encoder_class(encoder.kind).from_weights(weights, visual, encoder, settings)
    model = Pivot(frozen, audio, FrontEnd(settings, norm), scale)
    if model.audio_hash != hashes[1]:
        raise ModelError(f"{folder / WEIGHTS} does not belong to its {FACTS}; restore both files")
    return model if num_frames is None else model.resized(num_frames)


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


def _read_facts(folder: Path) -> dict[str, Any]:
    """Read model.json of a format that this Pivot knows."""
    path = folder / FACTS
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        written = about["format"]
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {FACTS}: half a model; save or copy it again") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read ({_line(error)}); restore the file") from error
    if not isinstance(written, int) or written > FORMAT:
        raise ModelError(
            f"{path} has format {written} (Pivot {about.get('pivot')}), this Pivot reads up to "
            f"{FORMAT}; install a newer Pivot"
        )
    if not (isinstance(about.get("scale"), float | int) and math.isfinite(about["scale"])):
        raise ModelError(f"{path} has no finite scale; restore the file")
    return dict(about)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights file."""
    path = folder / WEIGHTS
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no {WEIGHTS}: half a model; copy it again") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({_line(error)}); copy it again") from error


def _findable(settings: ClipSettings) -> ClipSettings:
    """The CLIP's settings with its folder or file as an absolute path."""
    updates = {
        name: str(Path(value).expanduser().resolve())
        for name, value in (("model", settings.model), ("pretrained", settings.pretrained))
        if value and value != "tiny-world" and Path(value).expanduser().exists()
    }
    return settings.model_copy(update=updates)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _line(error: Exception) -> str:
    """An error in one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
