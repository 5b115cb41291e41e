"""Body of a text encoder: a copy of a CLIP's own text encoder, that trains."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pivot.encoders.clip import FrozenClip, findable, load_clip
from pivot.errors import ModelError
from pivot.settings import ClipSettings
from pivot.settings.parts import TextSettings


class ClipText(nn.Module):
    """The text half of an open_clip model, with its weights, tokenizer and context length."""

    def __init__(self, clip: FrozenClip) -> None:
        """Copy it out of `clip`, which stays as it is."""
        super().__init__()
        # a model without its picture half still has open_clip's encode_text, of every kind of CLIP
        model = copy.deepcopy(clip.model, {id(clip.model.visual): nn.Identity()})
        for name in ("logit_scale", "logit_bias"):  # of a training of CLIP itself
            if getattr(model, name, None) is not None:
                delattr(model, name)
        self.model = model.requires_grad_(True)
        self.width, self.tokenizer = clip.dim, clip.tokenizer
        self._facts = {
            "clip": findable(clip.settings).model_dump(mode="json"),
            "weights_hash": clip.weights_hash,
        }

    @classmethod
    def start(cls, settings: TextSettings, clip: FrozenClip | None, seed: int) -> ClipText:
        """Copy the text encoder of `clip`; ModelError without one."""
        if clip is None:
            raise ModelError("text kind clip copies a CLIP and there is none; take text kind hf")
        return cls(clip)

    @classmethod
    def restore(
        cls,
        settings: TextSettings,
        facts: dict[str, Any],
        folder: Path,
        clip: FrozenClip | ClipSettings | None,
    ) -> ClipText:
        """Build one of a saved model, without its weights; `clip`: its CLIP, or where it is now."""
        if not isinstance(clip, FrozenClip):
            clip = load_clip(clip or ClipSettings(**facts["clip"]))
        if clip.weights_hash != facts["weights_hash"]:
            raise ModelError(
                f"the text encoder in {folder.parent} was copied from another CLIP than "
                f"{clip.settings.model} is now; name the right one"
            )
        return cls(clip)

    def tokenize(self, texts: Sequence[str], full: bool) -> dict[str, Tensor]:
        """Sentences -> ids (n, context length) always; DataError names one that is too long."""
        return {"input_ids": self.tokenizer(texts)}

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """Tokens of n texts -> features (n, width), not normalised."""
        features: Tensor = self.model.encode_text(tokens["input_ids"])
        return features

    def identity(self) -> dict[str, Any]:
        """Which CLIP it was copied from: that decides its shape and tokens."""
        return {"clip": self._facts["weights_hash"]}

    def facts(self) -> dict[str, Any]:
        """Where that CLIP was, and its hash."""
        return self._facts

    def save(self, folder: Path) -> None:
        """Write nothing: shape and tokenizer are the CLIP's, which is found again by name."""
