"""A causal language model of transformers that writes to the line's end: any architecture.

The random numbers of a line come from outside, one a token, so that a line depends on its own
numbers and prompt and not on its neighbours in the batch (beyond the rounding of padded sums).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from pivot.errors import SettingsError
from pivot.writing.book import Line


class Language:
    """A language model with its tokenizer. Make one with `find_language.load_language`."""

    def __init__(self, model: Any, tokenizer: Any, device: str, source: dict[str, Any]) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        limit = getattr(model.config, "max_position_embeddings", None)
        self.context = int(limit) if limit else None  # tokens; None where there is no limit
        size = model.get_input_embeddings().num_embeddings
        self.ends = _ends(tokenizer, size).to(device)
        pads = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad = next(int(i) for i in pads if i is not None and i < size)
        self.facts = source | facts_of(model, self.context)

    def tokens(self, prompt: str) -> list[int]:
        """The prompt's token ids, with the mark of a text's start where the tokenizer sets one.

        A mark of the text's end, which some tokenizers add, is taken off: the text goes on.
        """
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        while ids and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return ids or [self.pad]

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        draws: NDArray[np.floating],
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> list[Line]:
        """Continue each prompt (token ids) to its line's end; the batch ends when all have ended.

        draws: (prompts, tokens at most), uniform in [0, 1), one a token. Of the distribution at
        `temperature` the likeliest tokens are kept, as few as hold `top_p` of it together, and
        the token is found where the running sum passes the draw. Raises SettingsError where
        memory is short.
        """
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.pad)
        seen = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left, where the text does not go on
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            seen[row, longest - len(prompt) :] = 1
        numbers = torch.as_tensor(draws, dtype=torch.float32, device=self.device)
        with generating(len(prompts), self.device):
            made = self.model.generate(
                ids.to(self.device),
                attention_mask=seen.to(self.device),
                max_new_tokens=draws.shape[1],
                logits_processor=LogitsProcessorList([_Draw(numbers, longest, temperature, top_p)]),
                stopping_criteria=StoppingCriteriaList([_AtEnd(self.ends)]),
            )
        return [self._line(row) for row in made[:, longest:].tolist()]

    def _line(self, ids: list[int]) -> Line:
        end = next((n for n, i in enumerate(ids) if self.ends[i]), None)
        kept = ids if end is None else ids[: end + 1]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        return Line(" ".join(text.split("\n")[0].split()), end is not None)


def facts_of(model: Any, context: int | None) -> dict[str, Any]:
    """What a results file says of a language model beside its name and hash."""
    return {
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "context": context,
        "precision": str(model.dtype).removeprefix("torch."),
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
    }


@contextmanager
def generating(lines: int, device: str) -> Iterator[None]:
    """Inference mode; SettingsError where `lines` at a time are too many for the memory."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise SettingsError(
            f"{lines} lines at a time do not fit into the memory of {device}; lower --batch-size"
        ) from error


class _Draw(LogitsProcessor):
    """Leaves one token a row: the one that its number draws from the nucleus."""

    def __init__(self, numbers: Tensor, start: int, temperature: float, top_p: float) -> None:
        self.numbers, self.start = numbers, start
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) with -inf for all but the drawn token."""
        step = min(input_ids.shape[1] - self.start, self.numbers.shape[1] - 1)
        chosen = draw(scores, self.numbers[:, step], self.temperature, self.top_p)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def draw(logits: Tensor, numbers: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token id (B,) of each row of logits (B, V), by a number (B,) in [0, 1).

    The nucleus holds the likeliest tokens up to and with the one at which their sum reaches
    `top_p` (Holtzman et al. 2020); equal ones stand in the order of their ids.
    """
    logit, order = (logits.float() / temperature).sort(dim=1, descending=True, stable=True)
    share = logit.softmax(1)
    total = share.cumsum(1)
    inside = total - share < top_p
    inside[:, 0] = True
    mass = (share * inside).cumsum(1)
    place = (mass <= numbers[:, None] * mass[:, -1:]).sum(1)
    return order.gather(1, place.minimum(inside.sum(1) - 1)[:, None])[:, 0]


class _AtEnd(StoppingCriteria):
    """A row is done with a token that ends its line."""

    def __init__(self, ends: Tensor) -> None:
        self.ends = ends

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """Which rows (B,) have just come to their line's end."""
        return self.ends[input_ids[:, -1]]


def _ends(tokenizer: Any, size: int) -> Tensor:
    """Which token ids (size,) end a line: those with a line break in them, and the text's end."""
    ends = torch.zeros(size, dtype=torch.bool)
    ids = sorted(i for i in tokenizer.get_vocab().values() if i < size)
    for i, text in zip(ids, tokenizer.batch_decode([[i] for i in ids]), strict=True):
        ends[i] = "\n" in text
    if tokenizer.eos_token_id is not None:
        ends[tokenizer.eos_token_id] = True
    return ends
