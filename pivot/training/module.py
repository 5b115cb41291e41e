"""What a step does: the task that every training has, and the contrastive one of VA, AT and VAT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pivot.data.batches import Batch
from pivot.settings import LossSettings, TermSettings
from pivot.training.loss import LogitScale, contrastive
from pivot.training.optim import set_rates
from pivot.training.partners import Partners
from pivot.training.schedule import Schedule

# The two sides that each term of the loss brings together.
TERMS = {
    "audio_text": ("audio", "text"),
    "image_audio": ("image", "audio"),
    "image_text": ("image", "text"),
}


class Task(LightningModule):
    """What `fit` trains: a subclass has the modules and says what the loss of a batch is.

    `fit` sets plan, step and optimizer. A loss may leave tensors in `parts`, which become columns
    of metrics.jsonl beside `loss`, each the mean over its row's steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plan: Schedule
        self.step = 0  # optimiser steps that were taken
        self.optimizer: torch.optim.Optimizer
        self.rates: dict[str, float] = {}
        self.parts: dict[str, Tensor] = {}
        self.losses: list[dict[str, Tensor]] = []  # of micro-batches, until the journal takes them

    def loss(self, batch: Any) -> Tensor:
        """Loss of a micro-batch, 0-d.

        With several processes `batch` is the part of this one, which may be empty, and the
        gradient is the mean over processes of each one's.
        """
        raise NotImplementedError

    def facts(self) -> dict[str, float]:
        """More columns of a row of metrics.jsonl, as they are now (such as a scale)."""
        return {}

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Loss of one micro-batch, kept for the journal."""
        self.parts = {}
        loss = self.loss(batch)
        self.losses.append({"loss": loss.detach(), **self.parts})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Hand Lightning the optimiser that `fit` made."""
        return self.optimizer

    def optimizer_step(self, epoch: int, index: int, optimizer: Any, closure: Any = None) -> None:
        """Set the rates of this step before it is taken."""
        self.rates = set_rates(self.optimizer, self.plan.share(self.step))
        super().optimizer_step(epoch, index, optimizer, closure)
        self.step += 1


class Contrast(Task):
    """An audio encoder, trained to meet frozen partners: frames (VA), captions (AT), both (VAT).

    The loss is the sum over `terms` of weight x `contrastive`, each with a scale of its own.
    """

    def __init__(
        self,
        encoder: nn.Module,
        partners: Mapping[str, Partners],
        loss: LossSettings | None = None,
        terms: TermSettings | None = None,
        scale: float | None = None,
        chunk: int = 0,
    ) -> None:
        """`partners` has the sides `image` and/or `text` that the terms need.

        terms: None is VA for image partners and AT for text partners. scale: where all scales
        start, default `loss.scale_init`. chunk: sounds that are encoded at a time (GradCache).
        """
        super().__init__()
        loss = loss or LossSettings()
        self.encoder, self.chunk = encoder, chunk
        self.partners, self.reduction = dict(partners), loss.reduction
        self.weights = weights_of(terms) if terms else _usual(self.partners)
        start = scale or loss.scale_init
        self.scales = nn.ModuleDict(
            {name: LogitScale(start, loss.scale_max, loss.learn_scale) for name in self.weights}
        )

    @property
    def scale(self) -> float:
        """The scale that goes with the model: of sounds and captions, else of frames and sounds."""
        return self.term_scales()[next(iter(self.weights))]

    def term_scales(self) -> dict[str, float]:
        """Scale of each term."""
        return {name: scale().item() for name, scale in self.scales.items()}

    def facts(self) -> dict[str, float]:
        """The scale of each term; `scale` is the first."""
        scales = self.term_scales()
        more = {f"scale_{name}": value for name, value in scales.items()}
        return {"scale": self.scale, **(more if len(more) > 1 else {})}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, index: int) -> Batch:
        """Bring FBANK to the device; the rows stay, as partners are looked up on the CPU."""
        return Batch(batch.fbank.to(device, non_blocking=True), batch.rows)

    def loss(self, batch: Batch) -> Tensor:
        """Weighted sum of the terms; the negatives of an item are the whole micro-batch."""
        sides = {"audio": encode_in_chunks(self.encoder, batch.fbank, self.chunk)}
        for side, rows in batch.rows.items():
            sides[side] = self.partners[side](rows).to(batch.fbank.device)
        found = {}
        for name in self.weights:
            a, b = (sides[side] for side in TERMS[name])
            found[name] = contrastive(a, b, self.scales[name](), None, self.reduction)
        if len(found) > 1:
            self.parts = {f"loss_{name}": value.detach() for name, value in found.items()}
        return torch.stack([self.weights[name] * value for name, value in found.items()]).sum()


def weights_of(terms: TermSettings) -> dict[str, float]:
    """Weight of each term that has one, in the order of TERMS."""
    return {name: weight for name in TERMS if (weight := getattr(terms, name))}


def _usual(partners: Mapping[str, Partners]) -> dict[str, float]:
    """VA for frames, AT for captions."""
    return {"audio_text": 1.0} if "text" in partners else {"image_audio": 1.0}


def encode_in_chunks(encoder: nn.Module, fbank: Tensor, chunk: int = 0) -> Tensor:
    """Features (B, d) of FBANK (B, T, M), encoded `chunk` sounds at a time; 0: all at once.

    With chunks only features are kept, and each chunk is encoded again when its gradient is taken
    (GradCache: Gao et al., 2021, arXiv:2101.06983): exact, also for dropout, whose random numbers
    are drawn again. Memory is that of one chunk. No sound at all gives (0, d).
    """
    if not len(fbank):  # a process without a part of a short batch still takes part in the step
        return encoder(fbank.new_zeros(1, *fbank.shape[1:]))[:0]
    if not chunk or len(fbank) <= chunk or not torch.is_grad_enabled():
        return encoder(fbank)
    parts = [checkpoint(encoder, part, use_reentrant=False) for part in fbank.split(chunk)]
    return torch.cat(parts)
