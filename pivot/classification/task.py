"""The task of training a classifier: encoder, head and loss; what is frozen in eval mode."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pivot.classification.batches import ClassBatch
from pivot.classification.head import Head, Target, classification_loss, train_last
from pivot.encoders.projection import ProjectedAudio
from pivot.encoders.vit import AudioVit
from pivot.training.module import Task, encode_in_chunks
from pivot.training.processes import mean_of_processes


class Classify(Task):
    """An audio encoder, whose last layers train, and a head, which always does."""

    def __init__(
        self,
        encoder: AudioVit | ProjectedAudio,
        head: Head,
        target: Target,
        last_layers: int | Literal["all"],
        chunk: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.target, self.chunk = encoder, head, target, chunk
        self.frozen = train_last(encoder, last_layers)

    def train(self, mode: bool = True) -> Classify:
        """Training mode for what trains; what is frozen stays in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

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
        logits = self.head(encode_in_chunks(self.encoder, batch.fbank, self.chunk))
        # processes may hold unequal parts: weighed so that the mean of all is that over all clips
        clips = torch.tensor(float(len(logits)), device=logits.device)
        share = clips / mean_of_processes(clips)
        if not len(logits):
            return logits.sum()
        return share * classification_loss(logits, batch.targets, self.target)
