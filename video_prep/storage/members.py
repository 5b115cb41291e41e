"""What a shard holds of one clip: its frames, its sound and its facts, as bytes with names."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import soundfile

from video_prep.decode import DecodedClip
from video_prep.recipe import Recipe

_MOST_FLAC_CHANNELS = 8


def members_of(clip: dict[str, Any], decoded: DecodedClip, recipe: Recipe) -> dict[str, bytes]:
    """Suffix -> bytes of a clip's members: frames, sound (where it has one), facts."""
    members = {f"{k}.jpg": jpeg for k, jpeg in enumerate(decoded.frames)}
    if decoded.copied is not None:
        members["mka"] = decoded.copied
    elif decoded.wave is not None:
        kind = "WAV" if recipe.sound == "pcm16" else "FLAC"
        suffix, data = encode_sound(decoded.wave, decoded.rate, kind)
        members[suffix] = data
    facts = {key: clip[key] for key in ("id", "source", "start", "end", "labels", "captions")}
    facts |= {key: clip[key] for key in ("fold", "split", "freesound", "youtube") if key in clip}
    facts |= {**decoded.facts, "flags": decoded.flags}
    members["json"] = json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()
    return members


def encode_sound(wave: np.ndarray, rate: int, kind: str = "FLAC") -> tuple[str, bytes]:
    """Suffix and bytes of int16 (channels, samples): FLAC, or WAV for more than 8 channels."""
    kind = kind if len(wave) <= _MOST_FLAC_CHANNELS else "WAV"
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.T, rate, format=kind, subtype="PCM_16")
    return kind.lower(), buffer.getvalue()
