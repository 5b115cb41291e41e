"""Encoders of sound and of text, by kind; and the audio encoder that starts from a CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pivot.encoders.table import ENCODERS as ENCODERS
from pivot.encoders.table import TEXT_ENCODERS as TEXT_ENCODERS
from pivot.encoders.table import encoder_class as encoder_class
from pivot.encoders.table import text_encoder_class as text_encoder_class

if TYPE_CHECKING:
    from pivot.encoders.audio_encoder import AudioEncoder
    from pivot.encoders.clip import FrozenClip
    from pivot.encoders.vit import AudioVit
    from pivot.settings import EncoderSettings, FrontEndSettings


def build_audio(
    clip: FrozenClip | None, settings: EncoderSettings, audio: FrontEndSettings, seed: int
) -> AudioVit | AudioEncoder:
    """Build an audio encoder with its weights at the start of training.

    Kind vit starts from `clip`, which it needs; the others at random.
    """
    found: AudioVit | AudioEncoder = encoder_class(settings.kind).start(clip, settings, audio, seed)
    return found
