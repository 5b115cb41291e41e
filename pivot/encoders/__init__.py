"""Audio encoders by kind: a literal table, and the one function that builds them from a CLIP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pivot.errors import ModelError

if TYPE_CHECKING:
    from pivot.encoders.clip import FrozenClip
    from pivot.encoders.vit import AudioVit
    from pivot.settings import AudioSettings, VitSettings

ENCODERS = {
    "vit": "pivot.encoders.vit:AudioVit",
}


def encoder_class(kind: str) -> type[AudioVit]:
    """Import the class of an encoder kind."""
    if kind not in ENCODERS:
        raise ModelError(f"no audio encoder of kind {kind!r}; there are: {', '.join(ENCODERS)}")
    module, name = ENCODERS[kind].split(":")
    found: type[AudioVit] = getattr(import_module(module), name)
    return found


def build_audio(
    clip: FrozenClip, settings: VitSettings, audio: AudioSettings, seed: int
) -> AudioVit:
    """Build the audio encoder that goes with `clip`, with its weights at the start of training."""
    facts = clip.visual_facts()
    weights = clip.visual_state_dict()
    return encoder_class(settings.kind).from_clip(weights, facts, settings, audio, seed)
