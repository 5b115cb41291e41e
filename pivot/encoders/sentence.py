"""A model's own text encoder, which trains: a body of the table, a projection, and its tokens.

Shapes: n texts, L tokens of a text, k kinds of token rows (ids, mask), d dimensions. An embedding
does not depend on what else is encoded: all texts are filled up to one length, in chunks of one
size. In training texts are filled up to the longest of a batch.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.encoders.clip import (
    CHUNK,
    FrozenClip,
    evaluating,
    hash_tensors,
    in_chunks,
    parts_of,
    refuse_no_texts,
)
from pivot.encoders.projection import TEXT, Projection, build_projection, load_weights
from pivot.encoders.table import text_encoder_class
from pivot.errors import ModelError
from pivot.settings import ClipSettings
from pivot.settings.parts import TEXT_TRAINING, TextSettings

Tokens = dict[str, Tensor]
TEXTS_A_CALL = 4096  # that are tokenised together

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's alone

NORMALISE: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "lower": str.lower,
    "salsa": lambda text: text.lower().translate(NO_PUNCTUATION),
}


class TextEncoder(nn.Module):
    """Sentences to features of the joint space; `encode` gives unit vectors as the model's do.

    The body is of a class of `encoders.TEXT_ENCODERS`: a module with `width`,
    `tokenize(texts, full)` -> rows (n, L), `forward(tokens)` -> (n, width), `identity()` (JSON:
    what decides its features beside weights and settings), `facts()` and `save(folder)`, from
    which the class method `restore` builds it again.
    """

    def __init__(self, body: Any, projection: Projection, settings: TextSettings) -> None:
        super().__init__()
        self.body, self.projection, self.settings = body, projection, settings
        self.body.requires_grad_(not settings.freeze)

    def train(self, mode: bool = True) -> Self:
        """Training mode; a body that is frozen stays in eval mode."""
        super().train(mode)
        if self.settings.freeze:
            self.body.eval()
        return self

    @classmethod
    def start(
        cls, settings: TextSettings, clip: FrozenClip | None, dim: int, seed: int
    ) -> TextEncoder:
        """Encoder at the start of training, of the space of `dim`; `clip` is what kind clip copies.

        ModelError for a model that cannot be used, or whose features do not fit the space.
        """
        projected = settings.projection
        if projected.dim not in (None, dim):
            raise ModelError(
                f"text.projection.dim {projected.dim} is not the {dim} that the sounds have; leave "
                "it out"
            )
        body = text_encoder_class(settings.kind).start(settings, clip, seed)
        return cls(body, build_projection(projected, body.width, dim, seed, TEXT), settings)

    @classmethod
    def restore(
        cls,
        facts: dict[str, Any],
        folder: Path,
        weights: dict[str, Tensor],
        clip: FrozenClip | ClipSettings | None = None,
    ) -> TextEncoder:
        """Encoder of a saved model: its `facts()`, the `folder` of `save`, and its weights.

        `clip` is what kind clip was copied from, or where it is now.
        """
        settings = TextSettings(**facts["settings"])
        body = text_encoder_class(settings.kind).restore(settings, facts["body"], folder, clip)
        projected = settings.projection
        projection = Projection(
            projected.kind, body.width, int(facts["dim"]), dropout=projected.dropout
        )
        text = cls(body, projection, settings)
        load_weights(text, weights, f"the text encoder in {folder.parent}")
        return text

    def trained_as(self, settings: TextSettings) -> TextEncoder | None:
        """This encoder with the settings of its training that `settings` has.

        None where the two differ in more than that, so that they cannot be of one encoder.
        """
        found = settings.model_dump(include=set(TEXT_TRAINING))
        if settings != self.settings.model_copy(update=found):
            return None
        if hasattr(self.body, "drop"):
            self.body.drop(settings.dropout)
        return TextEncoder(self.body, self.projection, settings)

    @property
    def notes(self) -> list[str]:
        """Lines that a training should say of the model, such as a pooler that starts at random."""
        return list(getattr(self.body, "notes", []))

    @property
    def dim(self) -> int:
        """Numbers of a feature vector."""
        return self.projection.dim

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def tokenize(self, texts: Sequence[str], full: bool = False) -> Tokens:
        """Sentences -> named token rows (n, L) on the CPU; L is that of the longest, or full.

        DataError names a text that is no string, or too long where settings.too_long is refuse.
        """
        refuse_no_texts(texts)
        normalise = NORMALISE[self.settings.normalise]
        tokens: Tokens = self.body.tokenize([normalise(text) for text in texts], full)
        return tokens

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of n texts, on this encoder's device -> features (n, d), not normalised."""
        return self.projection(self.body(tokens).float())

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> unit vectors (n, d), float32, in eval mode and outside autocast."""
        with evaluating(self):
            parts = [self._chunks(self.tokenize(some, full=True)) for some in _parts(texts)]
        features = torch.cat(parts)
        if not bool(features.isfinite().all()):
            raise ModelError("the text encoder gives NaN or infinite features: training diverged")
        return F.normalize(features, dim=-1)

    def _chunks(self, tokens: Tokens) -> Tensor:
        """Features (n, d) of tokens, in chunks of one size."""
        if not len(next(iter(tokens.values()))):
            return torch.empty(0, self.dim, device=self.device)
        rows = torch.stack(list(tokens.values()), dim=1).to(self.device)  # (n, k, L)

        def features(part: Tensor) -> Tensor:
            found: Tensor = self(dict(zip(tokens, part.unbind(1), strict=True)))
            return found

        return in_chunks(features, rows, CHUNK.get(self.device.type, 32))

    @property
    def hash(self) -> str:
        """sha256 of all that decides an embedding: weights, tokens, pooling, normalisation."""
        own = {"model", "too_long", "projection", *TEXT_TRAINING}
        facts = {
            "text": self.settings.model_dump(mode="json", exclude=own),
            "projection": self.projection.kind,
            "body": self.body.identity(),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        return hash_tensors(self.state_dict(), digest)

    def facts(self) -> dict[str, Any]:
        """What `restore` needs beside the weights and the files of `save`, for a model's JSON."""
        found = self.settings.model_dump(mode="json")
        usual = TextSettings().model_dump()
        return {
            "settings": {
                name: value
                for name, value in found.items()
                if name not in TEXT_TRAINING or value != usual[name]
            },
            "dim": self.dim,
            "body": self.body.facts(),
        }

    def save(self, folder: Path) -> None:
        """Write what the body needs beside its weights, such as a tokenizer, into `folder`."""
        self.body.save(folder)


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    """Texts in parts that are tokenised together; one empty part of no text."""
    refuse_no_texts(texts)
    return list(parts_of(texts, TEXTS_A_CALL)) or [texts]
