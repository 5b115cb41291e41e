"""The encoders of sound and of text by kind: two literal tables, and what imports a row.

Another encoder is another row, a class in a file of its own.

    ENCODERS        modules FBANK (B, T, M) -> features (B, dim), with `dim`, `settings`, `grid`,
                    `facts()` (JSON: what the weights do not tell), `resized(num_frames)`, and the
                    class methods `start(clip, settings, audio, seed)` and
                    `from_weights(weights, facts, settings, audio)`
    TEXT_ENCODERS   modules tokens -> features (n, width): see sentence.TextEncoder
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pivot.errors import ModelError

if TYPE_CHECKING:
    from pivot.encoders.vit import AudioVit

ENCODERS = {
    "vit": "pivot.encoders.vit:AudioVit",
}
TEXT_ENCODERS = {
    "clip": "pivot.encoders.clip_text:ClipText",
    "hf": "pivot.encoders.hf_text:HfText",
}


def encoder_class(kind: str) -> type[AudioVit]:
    """Import the class of an audio encoder kind."""
    found: type[AudioVit] = _class("audio", ENCODERS, kind)
    return found


def text_encoder_class(kind: str) -> Any:
    """Import the class of a text encoder kind."""
    return _class("text", TEXT_ENCODERS, kind)


def _class(what: str, table: dict[str, str], kind: str) -> Any:
    if kind not in table:
        raise ModelError(f"no {what} encoder of kind {kind!r}; there are: {', '.join(table)}")
    module, name = table[kind].split(":")
    return getattr(import_module(module), name)
