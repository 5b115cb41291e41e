"""Body of a text encoder: a model of transformers (BERT, RoBERTa, ...) and how it is pooled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pivot.encoders.clip import FrozenClip
from pivot.encoders.find_text import FAULTS, empty_text, find_text, first_line
from pivot.errors import DataError, ModelError
from pivot.settings import ClipSettings
from pivot.settings.parts import TextSettings

PROBE = "A dog's BARK, 2 times; then rain."  # tells tokenizers of one vocabulary apart


class HfText(nn.Module):
    """Tokens of the model, filled up to `max_tokens`, to one feature vector a text."""

    def __init__(self, model: Any, tokenizer: Any, settings: TextSettings) -> None:
        """A model whose pooler is not used loses it, so that every weight trains."""
        super().__init__()
        if settings.pooling != "pooler" and getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.width = int(model.config.hidden_size)
        self.notes: list[str] = []  # what a training should say of it
        drops = (module for module in model.modules() if isinstance(module, nn.Dropout))
        self._drops = [(module, module.p) for module in drops]
        self.drop(settings.dropout)
        self._check_length()

    @classmethod
    def start(cls, settings: TextSettings, clip: FrozenClip | None, seed: int) -> HfText:
        """Load the model and tokenizer that `settings.model` names."""
        model, tokenizer = find_text(settings.model, seed)
        found = cls(model, tokenizer, settings)
        if settings.pooling == "pooler" and model.at_random:
            stays = " and stays so, as text.freeze says" if settings.freeze else ""
            found.notes.append(
                f"the weights of {settings.model} lack {model.at_random[-1]}: its pooler starts at "
                f"random{stays} (LAION-CLAP's did); text.pooling cls and mean need none"
            )
        return found

    @classmethod
    def restore(
        cls,
        settings: TextSettings,
        facts: dict[str, Any],
        folder: Path,
        clip: FrozenClip | ClipSettings | None,
    ) -> HfText:
        """Build one of a saved model, without its weights."""
        found = cls(*empty_text(folder), settings)
        if found.identity() != facts:
            raise ModelError(f"the tokenizer in {folder} is not what the model was trained with")
        return found

    def tokenize(self, texts: Sequence[str], full: bool) -> dict[str, Tensor]:
        """Sentences -> ids and mask (n, L): L is max_tokens if `full`, else that of the longest.

        DataError names a text of more than max_tokens; see TextSettings.too_long.
        """
        most, cut = self.settings.max_tokens, self.settings.too_long == "cut"
        rows: list[list[int]] = []
        if texts:
            length = most if cut else None
            rows = self.tokenizer(list(texts), truncation=cut, max_length=length, verbose=False)[
                "input_ids"
            ]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > most:
                raise DataError(
                    f"text of {len(row)} tokens is longer than the {most} of text.max_tokens: "
                    f"{text[:80]!r}; shorten it, raise the number, or set text.too_long cut"
                )
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        columns = torch.arange(most if full else int(lengths.max()) if rows else 0)
        mask = columns < lengths[:, None]
        ids = torch.full(mask.shape, int(self.tokenizer.pad_token_id))
        ids[mask] = torch.tensor([i for row in rows for i in row], dtype=torch.long)
        return {"input_ids": ids, "attention_mask": mask.long()}

    def drop(self, share: float | None) -> None:
        """Set the dropout of all layers and of attention; None: as the model's config says.

        ModelError for a model without any that can be set.
        """
        if share is not None and not self._drops:
            raise ModelError(
                f"{self.settings.model} ({self.model.config.model_type}) has no dropout that can "
                "be set; leave out text.dropout"
            )
        for module, own in self._drops:
            module.p = own if share is None else share

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """Tokens of n texts -> features (n, width), pooled; filled places have no part in it."""
        found = self.model(**tokens)
        if self.settings.pooling == "pooler":
            pooled: Tensor = found.pooler_output
            return pooled
        states: Tensor = found.last_hidden_state
        if self.settings.pooling == "cls":
            return states[:, 0]
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp_min(1)

    def identity(self) -> dict[str, Any]:
        """Kind of model and the vocabulary: what decides features beside weights and settings."""
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        config = self.model.config
        return {
            "model_type": config.model_type,
            "activation": getattr(config, "hidden_act", None),
            "vocabulary": hashlib.sha256(vocabulary).hexdigest(),
            "probe": self.tokenizer(PROBE)["input_ids"],
        }

    def facts(self) -> dict[str, Any]:
        """The same; the config lies beside the tokenizer."""
        return self.identity()

    def save(self, folder: Path) -> None:
        """Write config and tokenizer, as transformers reads them."""
        folder.mkdir(exist_ok=True)
        self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @torch.no_grad()
    def _check_length(self) -> None:
        """Refuse a model that cannot read max_tokens, or does not give what is pooled."""
        settings, name = self.settings, self.settings.model
        training = self.training
        self.eval()
        mask = torch.ones(1, settings.max_tokens, dtype=torch.long)
        word = 0 if self.tokenizer.pad_token_id else 1  # RoBERTa gives fillers no position
        try:
            found = self.model(input_ids=torch.full_like(mask, word), attention_mask=mask)
            missing = settings.pooling == "pooler" and found.pooler_output is None
            states = found.last_hidden_state
        except FAULTS as error:
            raise ModelError(
                f"{name} cannot read {settings.max_tokens} tokens at once ({first_line(error)}); "
                "lower text.max_tokens, or take another model"
            ) from error
        finally:
            self.train(training)
        if missing or states.shape[-1] != self.width:
            raise ModelError(f"{name} has no pooler; set text.pooling cls or mean")
