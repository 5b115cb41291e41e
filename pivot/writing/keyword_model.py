"""An encoder-decoder model of transformers: keywords to a sentence, by beam search."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from pivot.errors import ModelError
from pivot.settings.writing import BeamSettings
from pivot.writing.book import Line
from pivot.writing.find_language import Parts, load_parts
from pivot.writing.language import facts_of, generating


def load_keyword_model(
    name: str, revision: str | None = None, device: str = "cpu", precision: str = "auto"
) -> KeywordModel:
    """Load a T5 or the like from a hub id (downloads what is not cached) or a local folder.

    Raises ModelError, one line, for what is missing, damaged, no encoder-decoder, without some of
    its weights, or with a tokenizer that does not fit or has no mark of a text's end.
    """
    parts = load_parts("encoder-decoder language model", name, revision, device, precision)
    return KeywordModel(parts, device)


class KeywordModel:
    """A T5 (or any encoder-decoder model) with its tokenizer."""

    def __init__(self, parts: Parts, device: str) -> None:
        self.model, self.tokenizer, self.device = parts.model, parts.tokenizer, device
        config, name = self.model.config, parts.source["model"]
        limit = getattr(config, "max_position_embeddings", None)
        self.context = int(limit) if limit else None  # tokens; None where there is no limit
        self.end = self.tokenizer.eos_token_id
        self.pad = self.tokenizer.pad_token_id
        self.start = parts.generation.decoder_start_token_id
        if self.start is None:
            self.start = getattr(config, "decoder_start_token_id", None)
        for what, token in (("eos", self.end), ("pad", self.pad), ("start", self.start)):
            if token is None:
                raise ModelError(f"{name} names no {what} token; take a whole T5 folder")
        self.facts = parts.source | facts_of(self.model, self.context)

    def tokens(self, prompt: str) -> list[int]:
        """The prompt's token ids with one mark of the text's end, as T5 was trained."""
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        while ids and ids[-1] == self.end:
            ids.pop()
        return [*ids, self.end]

    def decoding(self, beam: BeamSettings) -> GenerationConfig:
        """How captions are decoded; the defaults are keytotext's."""
        longest = min(beam.max_length, self.context or beam.max_length)
        values = {
            "max_length": longest,
            "no_repeat_ngram_size": beam.no_repeat,
            "num_beams": beam.size,
            "do_sample": False,
            "decoder_start_token_id": self.start,
            "eos_token_id": self.end,
            "pad_token_id": self.pad,
        }
        if beam.size > 1:  # one beam has no use for them, and transformers says so
            values |= {"length_penalty": beam.length_penalty, "early_stopping": beam.early_stopping}
        return GenerationConfig(**values)

    def write(self, prompts: Sequence[Sequence[int]], beam: BeamSettings) -> list[Line | None]:
        """A line for each prompt (token ids), None for one that the context cannot hold.

        Raises SettingsError where memory is short.
        """
        fit = [n for n, p in enumerate(prompts) if self.context is None or len(p) <= self.context]
        found: list[Line | None] = [None] * len(prompts)
        if not fit:
            return found
        ids = torch.full((len(fit), max(len(prompts[n]) for n in fit)), self.pad)
        seen = torch.zeros_like(ids)
        for row, n in enumerate(fit):
            ids[row, : len(prompts[n])] = torch.tensor(prompts[n])
            seen[row, : len(prompts[n])] = 1
        with generating(len(fit), self.device):
            made = self.model.generate(
                ids.to(self.device),
                attention_mask=seen.to(self.device),
                generation_config=self.decoding(beam),
            )
        for n, tokens in zip(fit, made[:, 1:].tolist(), strict=True):
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            found[n] = Line(" ".join(text.split()), self.end in tokens)
        return found
