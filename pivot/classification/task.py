"""The task of training a classifier: encoder, head and loss; what is frozen in eval mode."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pivot.classification.batches import ClassBatch
from pivot.classification.head import (
    Features,
    Head,
    Target,
    classification_loss,
    source_of,
    train_last,
)
from pivot.model_folder import Audio
from pivot.training.module import Task, encode_in_chunks
from pivot.training.processes import mean_of_processes


class Classify(Task):
    """An audio encoder, whose last layers train, and a head, which always does."""

    def __init__(
        self,
        encoder: Audio,
        head: Head,
        target: Target,
        last_layers: int | Literal["all"],
        chunk: int = 0,
        features: Features = "projected",
        encoder_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.target, self.chunk = encoder, head, target, chunk
        self.last_layers, self.features, self.encoder_rate = last_layers, features, encoder_rate
        train_last(encoder, last_layers, features)

    @property
    def source(self) -> Audio:
        """The module whose features the head sees: the encoder, or it without its projection."""
        return source_of(self.encoder, self.features)

    def train(self, mode: bool = True) -> Classify:
        """Training mode for what trains; what is frozen stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        for module in train_last(self.encoder, self.last_layers, self.features):
            module.train(mode)
        return self

    def rate_factor(self, name: str) -> float:
        """Factor on the optimiser's rate for the parameter of this name."""
        return self.encoder_rate if name.startswith("encoder.") else 1.0

    def trained(self) -> dict[str, dict[str, int]]:
        """Values of the encoder and of the head: how many train, and of how many."""
        return {
            name: {
                "trained": sum(p.numel() for p in part.parameters() if p.requires_grad),
                "of": sum(p.numel() for p in part.parameters()),
            }
            for name, part in (("encoder", self.encoder), ("head", self.head))
        }

    def facts(self) -> dict[str, float]:
        """The head's scale, where it has one."""
        return {} if self.head.scale is None else {"scale": float(self.head.scale().detach())}

    def loss(self, batch: ClassBatch) -> Tensor:
        """Mean loss over the clips of all processes."""
        logits = self.head(encode_in_chunks(self.source, batch.fbank, self.chunk))
        # processes may hold unequal parts: weighed so that the mean of all is that over all clips
        clips = torch.tensor(float(len(logits)), device=logits.device)
        share = clips / mean_of_processes(clips)
        if not len(logits):
            return logits.sum()
        return share * classification_loss(logits, batch.targets, self.target)
