"""The encoders of sound and of text by kind: two literal tables, and what imports a row.

Another encoder is another row, a class in a file of its own.

    ENCODERS        encoder input -> features (B, dim): subclasses of audio_encoder.AudioEncoder,
                    and vit.AudioVit, which has the same interface and starts from a CLIP
    TEXT_ENCODERS   modules tokens -> features (n, width): see sentence.TextEncoder
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pivot.errors import ModelError

ENCODERS = {
    "vit": "pivot.encoders.vit:AudioVit",
    "ast": "pivot.encoders.ast_encoder:Ast",
    "passt": "pivot.encoders.passt:Passt",
    "atst": "pivot.encoders.atst:Atst",
    "mobilenet": "pivot.encoders.mobilenet:MobileNet",
    "cnn14": "pivot.encoders.cnn14:Cnn14",
    "htsat": "pivot.encoders.htsat:Htsat",
}
TEXT_ENCODERS = {
    "clip": "pivot.encoders.clip_text:ClipText",
    "hf": "pivot.encoders.hf_text:HfText",
}


def encoder_class(kind: str) -> Any:
    """Import the class of an audio encoder kind."""
    return _class("audio", ENCODERS, kind)


def text_encoder_class(kind: str) -> Any:
    """Import the class of a text encoder kind."""
    return _class("text", TEXT_ENCODERS, kind)


def _class(what: str, table: dict[str, str], kind: str) -> Any:
    if kind not in table:
        raise ModelError(f"no {what} encoder of kind {kind!r}; there are: {', '.join(table)}")
    module, name = table[kind].split(":")
    return getattr(import_module(module), name)
