"""The one LightningModule: an audio encoder and its scale against frozen partners."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from pivot.data.batches import Batch
from pivot.settings import LossSettings
from pivot.training.loss import LogitScale, contrastive
from pivot.training.optim import set_rates
from pivot.training.partners import Partners
from pivot.training.schedule import Schedule


class Contrast(LightningModule):
    """The audio encoder and the scale, trained against frozen partners."""

    def __init__(
        self,
        encoder: nn.Module,
        partners: Partners,
        loss: LossSettings,
        plan: Schedule,
        start: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale = LogitScale(scale, loss.scale_max, loss.learn_scale)
        self.partners, self.reduction = partners, loss.reduction
        self.plan, self.step = plan, start
        self.optimizer: torch.optim.Optimizer
        self.rates: dict[str, float] = {}
        self.losses: list[Tensor] = []  # of micro-batches, until the journal takes them

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, index: int) -> Batch:
        """Bring FBANK to the device; the rows stay, as partners are looked up on the CPU."""
        return Batch(batch.fbank.to(device, non_blocking=True), batch.rows)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of one micro-batch; its negatives are its own items, also when accumulating."""
        partners = self.partners(batch.rows).to(batch.fbank.device)
        sounds = self.encoder(batch.fbank)
        loss = contrastive(sounds, partners, self.scale(), None, self.reduction)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Hand Lightning the optimiser that `fit` made."""
        return self.optimizer

    def optimizer_step(self, epoch: int, index: int, optimizer: Any, closure: Any = None) -> None:
        """Set the rates of this step before it is taken."""
        self.rates = set_rates(self.optimizer, self.plan.share(self.step))
        super().optimizer_step(epoch, index, optimizer, closure)
        self.step += 1
