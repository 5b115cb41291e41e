"""Captions of a training behind a text encoder that trains, in the place of frozen partners.

Legend: B clips, d dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pivot.encoders.sentence import TextEncoder

TEXTS_A_CALL = 4096


class Sentences(nn.Module):
    """Rows (B, 1) of some sentences -> their features (B, d), with a gradient, of any length."""

    def __init__(self, encoder: TextEncoder, sentences: Sequence[str], chunk: int = 0) -> None:
        """Sentences with their prompt; all are tokenised once, so one too long is named now.

        chunk: sentences that are encoded at a time (GradCache); 0: all of a batch at once.
        """
        super().__init__()
        self.encoder, self.sentences, self.chunk = encoder, list(sentences), chunk
        for start in range(0, len(self.sentences), TEXTS_A_CALL):
            encoder.tokenize(self.sentences[start : start + TEXTS_A_CALL])

    def forward(self, rows: Tensor) -> Tensor:
        """Encode; without any row a sentence is encoded for its gradient of zero.

        A process without a part of a short batch still takes part in the step so.
        """
        wanted = rows.flatten().tolist()
        tokens = self.encoder.tokenize([self.sentences[row] for row in wanted or [0]])
        device = self.encoder.device
        tokens = {name: values.to(device) for name, values in tokens.items()}
        if not self.chunk or len(wanted) <= self.chunk or not torch.is_grad_enabled():
            features: Tensor = self.encoder(tokens)
            return features[: len(wanted)]
        split = {name: values.split(self.chunk) for name, values in tokens.items()}
        parts = [dict(zip(split, some, strict=True)) for some in zip(*split.values(), strict=True)]
        encoded = [checkpoint(self.encoder, part, use_reentrant=False) for part in parts]
        return torch.cat(encoded)
