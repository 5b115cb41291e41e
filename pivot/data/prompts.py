"""Prompts: the words put around a label or a caption before it is embedded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pivot.errors import SettingsError

TOGETHER = 4096  # texts that are tokenised together


def apply(prompt: str, text: str) -> str:
    """`text` as it is embedded: in the template's {} or after the prompt; "" leaves it alone."""
    if not prompt:
        return text
    if "{" not in prompt and "}" not in prompt:
        return f"{prompt} {text}"
    if prompt.count("{}") != 1 or prompt.count("{") != 1 or prompt.count("}") != 1:
        raise SettingsError(f'--prompt "{prompt}" must hold {{}} once, or no braces at all')
    return prompt.replace("{}", text)


def apply_all(prompt: str, texts: Iterable[str]) -> list[str]:
    """`apply` over texts."""
    return [apply(prompt, text) for text in texts]


def refuse_long_texts(
    tokenize: Callable[[list[str]], Any], texts: Sequence[str], prompt: str
) -> None:
    """Tokenise all texts with the prompt, before anything is written: one too long is named."""
    for start in range(0, len(texts), TOGETHER):
        tokenize(apply_all(prompt, texts[start : start + TOGETHER]))
