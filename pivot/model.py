"""Pivot: a frozen CLIP and the audio encoder that lives in its space; encode, save, load.

A model may have a text encoder of its own instead of the frozen CLIP's; then it may have no CLIP.
`model_folder` says what a saved model is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from pivot.audio.frontend import FrontEnd, fingerprint, input_facts, make_front_end
from pivot.encoders.clip import CHUNK, FrozenClip, evaluating, hash_tensors, in_chunks, parts_of
from pivot.encoders.projection import ProjectedAudio, encoder_of
from pivot.encoders.sentence import TextEncoder
from pivot.errors import DataError, ModelError
from pivot.model_folder import (
    FACTS,
    WEIGHTS,
    Audio,
    Facts,
    clip_facts,
    format_of,
    write_model,
)
from pivot.model_folder import model_folder as model_folder
from pivot.runs import versions
from pivot.settings import ClipSettings
from pivot.settings.encoders import TRAINING_ONLY
from video_prep.decode import read_sound

Sound: TypeAlias = "tuple[np.ndarray | Tensor, int] | str | Path"


class Pivot:
    """Image, audio and text encoder of one space. Embeddings are unit vectors, float32.

    Encoding is deterministic and does not depend on what else is in the batch. A sound longer than
    the encoder's window is cut to the window in its middle (with `audio.crop vip_ant`: moved to
    its start or end if the middle is nearly silent); with `audio.windows` or `audio.views` the
    encoder sees more of it. `text` is a text encoder of the model's own; without it captions go
    through the frozen CLIP. There may be no CLIP (None), and with no text either a model of sounds
    alone: an audio encoder to start a training from.
    """

    def __init__(
        self,
        clip: FrozenClip | None,
        audio: Audio,
        front_end: FrontEnd,
        scale: float = 1 / 0.07,
        text: TextEncoder | None = None,
    ) -> None:
        if clip is not None and audio.dim != clip.dim:
            raise ModelError(
                f"the audio encoder gives {audio.dim} numbers and CLIP "
                f"{clip.settings.model} {clip.dim}; take the CLIP it was made from"
            )
        if text is not None and text.dim != audio.dim:
            raise ModelError(
                f"the audio encoder gives {audio.dim} numbers and the text encoder {text.dim}; "
                "give text.projection.kind linear or residual"
            )
        device = next(audio.parameters()).device if clip is None else clip.device
        self.clip = clip
        self.audio = audio.to(device)
        self.text = None if text is None else text.to(device)
        self.front_end = front_end
        self.scale = scale

    @property
    def dim(self) -> int:
        """Dimension of the space."""
        return self.audio.dim

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        if self.clip is not None:
            return self.clip.device
        return next(self.audio.parameters()).device

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """Pictures -> (n, d); ModelError for a model without a CLIP."""
        return self.require_clip().encode_image(images)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> (n, d)."""
        if self.text is not None:
            return self.text.encode(texts)
        self.require_text()
        return self.require_clip().encode_text(texts)

    def tokenize(self, texts: Sequence[str]) -> Tensor | dict[str, Tensor]:
        """Token rows (n, L) of sentences, as `encode_text` sees them; one too long is an error."""
        if self.text is not None:
            return self.text.tokenize(texts)
        self.require_text()
        return self.require_clip().tokenize(texts)

    @property
    def knows_no_text(self) -> bool:
        """Whether this is a model of sounds alone: an audio encoder, with no CLIP and no text."""
        return self.text is None and self.clip is None

    def require_text(self) -> None:
        """ModelError for a model of sounds alone."""
        if self.knows_no_text:
            raise ModelError(
                "this model is an audio encoder alone and knows no text; train it with captions "
                "(train-at --model, --text.kind hf or --clip.model) first"
            )

    def require_clip(self) -> FrozenClip:
        """Return the frozen CLIP; ModelError where the model has none."""
        if self.clip is None:
            raise ModelError(
                "this model has no CLIP for pictures; take a model of pretrain-va, or one trained "
                "with frames too (terms.image-audio)"
            )
        return self.clip

    def encode_audio(self, sounds: Sequence[Sound]) -> Tensor:
        """Sounds -> (n, d): paths of audio or video files, or pairs (wave, sample rate).

        A wave is (samples,) or (channels, samples), int16 or float in -1..1.
        """
        parts = [self.encode_fbank(inputs) for inputs in self._inputs(sounds, "encode_audio")]
        return torch.cat(parts) if parts else torch.empty(0, self.dim, device=self.device)

    def _inputs(self, sounds: Sequence[Sound], asked: str) -> Iterator[Tensor]:
        """Encoder inputs of some sounds at a time, for the method that is asked."""
        if isinstance(sounds, str | Path):
            raise DataError(f"{asked} takes a list of sounds; give [{str(sounds)!r}]")
        for part in parts_of(list(enumerate(sounds)), CHUNK.get(self.device.type, 32)):
            yield torch.stack([self.fbank(sound, index) for index, sound in part])

    def fbank(self, sound: Sound, index: int = 0) -> Tensor:
        """One sound -> encoder input (T, M), or of several windows (V, T + 1, M), see audio.views.

        An error names the sound, or its `index`.
        """
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
        """Encoder input (n, T, M) or (n, V, T + 1, M), as `front_end` makes it -> (n, d)."""
        size = CHUNK.get(self.device.type, 32)
        if not len(x):
            return torch.empty(0, self.dim, device=self.device)
        with evaluating(self.audio):
            features = in_chunks(self.audio, x.to(self.device, torch.float32), size)
        if not bool(features.isfinite().all()):
            raise ModelError("the audio encoder gives NaN or infinite features: training diverged")
        return F.normalize(features, dim=-1)

    @torch.no_grad()
    def encode_tokens(self, sounds: Sequence[Sound]) -> Tensor:
        """Sounds -> the audio encoder's own tokens (n, N, D), before the projection.

        One a patch (vit, ast), a frame of 40 ms (atst), a cell of the last map (htsat, cnn14), or
        a window (passt, mobilenet); those of several windows stand one after the other.
        """
        encoder: Any = encoder_of(self.audio)
        size = CHUNK.get(self.device.type, 32)
        with evaluating(encoder):
            found = [
                in_chunks(encoder.embed_tokens, inputs.to(self.device, torch.float32), size)
                for inputs in self._inputs(sounds, "encode_tokens")
            ]
        return torch.cat(found) if found else torch.empty(0, 0, encoder.dim, device=self.device)

    @property
    def audio_hash(self) -> str:
        """sha256 of all that decides an audio embedding: weights, FBANK, norm, window."""
        settings = self.front_end.settings
        norm = self.front_end.norm
        facts = {
            "front_end": fingerprint(settings),
            **input_facts(settings),
            "norm": [norm.mean, norm.std],
            # where the weights stand; `positions` only says how others would be made of them
            "encoder": self.audio.settings.model_dump(
                mode="json", exclude={"positions", *TRAINING_ONLY}
            ),
            "visual": self.audio.facts(),
        }
        if isinstance(self.audio, ProjectedAudio):
            facts["projection"] = self.audio.projection.kind
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        return hash_tensors(self.audio.state_dict(), digest)

    @property
    def text_hash(self) -> str:
        """sha256 of all that decides a text embedding; the CLIP's where texts go through it."""
        self.require_text()
        return self.require_clip().weights_hash if self.text is None else self.text.hash

    @property
    def clip_hash(self) -> str | None:
        """weights_hash of the CLIP, None without one."""
        return None if self.clip is None else self.clip.weights_hash

    def replaced(
        self,
        audio: Audio | None = None,
        front_end: FrontEnd | None = None,
        scale: float | None = None,
    ) -> Pivot:
        """Return this model with another audio encoder, front end or scale; CLIP and text stay."""
        return Pivot(
            self.clip,
            self.audio if audio is None else audio,
            self.front_end if front_end is None else front_end,
            self.scale if scale is None else scale,
            self.text,
        )

    def resized(self, num_frames: int) -> Pivot:
        """This model for sounds of another length: encoder and front end, with another audio_hash.

        `AudioVit.resized` says where the positions come from. Stores of the two lengths do not
        mix: a store names the audio_hash that made it. The same length gives the model itself.
        """
        settings = self.front_end.settings
        if num_frames == settings.num_frames:
            return self
        front_end = make_front_end(
            settings.model_copy(update={"num_frames": num_frames}), self.front_end.norm
        )
        return self.replaced(self.audio.resized(num_frames), front_end)

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Write the model folder, whole or not at all, replacing one; `facts` go into its JSON."""
        about = {
            "format": format_of(self.clip, self.audio, self.text),
            "pivot": versions()["pivot"],
            "clip": clip_facts(self.clip),
            "audio": self.front_end.settings.model_dump(mode="json"),
            "norm": asdict(self.front_end.norm),
            "encoder": self.audio.settings.model_dump(mode="json"),
            "visual": self.audio.facts(),
            "grid": self.audio.grid,
            "scale": self.scale,
            "audio_hash": self.audio_hash,
            "facts": facts,
        }
        if isinstance(self.audio, ProjectedAudio):
            about["projection"] = self.audio.projected.model_dump(mode="json")
        if self.text is not None:
            about["text"] = self.text.facts() | {"hash": self.text_hash}
        write_model(folder, about, self.audio, self.text)


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
    facts = Facts.read(folder)
    frozen = facts.load_clip(clip, device)
    audio = facts.load_audio().to(device)
    text = facts.load_text(frozen or clip)
    model = Pivot(frozen, audio, make_front_end(facts.audio, facts.norm), facts.scale, text)
    if model.audio_hash != facts.audio_hash:
        raise ModelError(f"{folder / WEIGHTS} does not belong to its {FACTS}; restore both files")
    return model if num_frames is None else model.resized(num_frames)
