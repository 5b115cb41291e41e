"""Which texts have more tokens than a text encoder reads; needs a tokenizer and no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pivot.errors import ModelError, SettingsError
from pivot.settings import ClipSettings, LintCaptions

OWN = "ViT-B-32"  # an open_clip name with CLIP's own tokenizer, which open_clip brings
NO_LIMIT = 10**6  # transformers gives a huge number where a tokenizer has no limit


class TokenCount:
    """Tells which texts are longer than `limit` tokens of the tokenizer `name`, marks included."""

    def __init__(
        self, name: str, limit: int, longer: Callable[[Sequence[str], int], list[bool]]
    ) -> None:
        self.name, self.limit, self._longer = name, limit, longer

    @classmethod
    def open(cls, settings: LintCaptions) -> TokenCount:
        """The tokenizer that the settings name; CLIP's own by default."""
        if settings.tokenizer is None:
            return _of_clip(settings.clip, settings.max_tokens)
        if settings.clip != ClipSettings():
            raise SettingsError(
                f"--tokenizer {settings.tokenizer} and --clip.model name two tokenizers; leave one "
                "out"
            )
        return _of_transformers(settings.tokenizer, settings.max_tokens)

    def longer(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more than `limit` tokens."""
        return self._longer(texts, self.limit)


def _of_clip(clip: ClipSettings, most: int | None) -> TokenCount:
    import open_clip  # seconds, and only one of the two is needed

    from pivot.encoders.find_clip import resolve

    name = resolve(clip)[0] if clip.model else OWN
    try:
        tokenizer: Any = open_clip.get_tokenizer(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        why = " ".join(str(error).split())[:160]
        raise ModelError(f"the tokenizer of {clip.model} could not be loaded: {why}") from error
    pad = int(tokenizer([""])[0, -1])

    bytewise = isinstance(tokenizer, open_clip.SimpleTokenizer)  # a token is a character or more

    def longer(texts: Sequence[str], limit: int) -> list[bool]:
        found = [False] * len(texts)
        doubtful = [
            n
            for n, text in enumerate(texts)
            if not (bytewise and text.isascii() and len(text) + 2 <= limit)
        ]
        if doubtful:
            # room for limit + 1: the last is the one too many
            ids = tokenizer([texts[n] for n in doubtful], context_length=limit + 1)
            for n, last in zip(doubtful, (ids[:, -1] != pad).tolist(), strict=True):
                found[n] = last
        return found

    return TokenCount(clip.model or "CLIP", most or int(tokenizer.context_length), longer)


def _of_transformers(name: str, most: int | None) -> TokenCount:
    from pivot.writing.find_language import load_tokenizer

    tokenizer = load_tokenizer(name)
    limit = most or int(tokenizer.model_max_length)
    if limit >= NO_LIMIT:
        raise SettingsError(f"the tokenizer of {name} has no limit; give --max-tokens")

    def longer(texts: Sequence[str], limit: int) -> list[bool]:
        rows = tokenizer(list(texts), truncation=True, max_length=limit + 1)["input_ids"]
        return [len(row) > limit for row in rows]

    return TokenCount(name, limit, longer)
