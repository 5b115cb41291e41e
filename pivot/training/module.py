"""What a step does: the task that every training has, and the contrastive one of VA, AT and VAT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pivot.data.batches import Batch
from pivot.settings import LossSettings, TermSettings
from pivot.training.loss import LogitScale, Transform, contrastive, likeness_weights, mlp_loss
from pivot.training.optim import set_rates
from pivot.training.partners import Partners
from pivot.training.processes import number_of_processes, rank
from pivot.training.schedule import Schedule
from pivot.training.targets import divergence_offset, spread

DRAWS = 4201  # what a generator is for, as in `choices`: dropout
MLP = "audio_text"  # the term that LAION-CLAP's loss is for
# The two sides that each term of the loss brings together.
TERMS = {
    "audio_text": ("audio", "text"),
    "image_audio": ("image", "audio"),
    "image_text": ("image", "text"),
}


class Aim(Protocol):
    """What the similarities of a batch should be, for one term of the loss."""

    @property
    def divergence(self) -> bool:
        """Whether the loss is a KL divergence to the targets, not a cross entropy."""

    def __call__(self, batch: Batch, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Targets and `back` of `contrastive`, by the clips of the batch."""


class Task(LightningModule):
    """What `fit` trains: a subclass has the modules and says what the loss of a batch is.

    `fit` sets plan, step, optimizer and a seed: what the modules draw from torch's generator in a
    micro-batch (dropout, stripes, patches that are left out) is the same after a resumption.
    A loss may leave tensors in `parts`, which become columns of metrics.jsonl beside `loss`, each
    the mean over its row's steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plan: Schedule
        self.step = 0  # optimiser steps that were taken
        self.part_of_step = 0  # micro-batches of the next one that were seen
        self.seed: int | None = None
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

    def rate_factor(self, name: str) -> float:
        """What the optimiser's rates are multiplied by for the parameter `name`; 1 for all here."""
        return 1.0

    def facts(self) -> dict[str, float]:
        """More columns of a row of metrics.jsonl, as they are now (such as a scale)."""
        return {}

    def training_step(self, batch: Any, index: int) -> Tensor:
        """Loss of one micro-batch, kept for the journal."""
        self.parts = {}
        if self.seed is not None:
            key = [self.seed, DRAWS, self.step, self.part_of_step, rank()]
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
        self.part_of_step += 1
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
        for module in self.modules():
            if isinstance(module, LogitScale):
                module.clamp_()
        self.step, self.part_of_step = self.step + 1, 0


class Contrast(Task):
    """An audio encoder, trained to meet its partners: frames (VA), captions (AT), both (VAT).

    The loss is the sum over `terms` of weight x `contrastive`, each with a scale of its own.
    Partners are frozen, or a module (the text encoder of a CLAP) that trains as well.
    """

    def __init__(
        self,
        encoder: nn.Module,
        partners: Mapping[str, Partners],
        loss: LossSettings | None = None,
        terms: TermSettings | None = None,
        scale: float | None = None,
        chunk: int = 0,
        *,
        aims: Mapping[str, Aim] | None = None,
        every: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        """`partners` has the sides `image` and/or `text` that the terms need.

        terms: None is VA for image partners and AT for text partners. scale: where all scales
        start, default `loss.scale_init`. chunk: sounds that are encoded at a time (GradCache).
        aims: targets of terms by name; without one an item's own partner is its only one. every:
        sides whose partners are all met one by one, not their mean; their terms need an aim. seed:
        of the transforms that `loss.mlp` trains beside the encoder.
        """
        super().__init__()
        loss = loss or LossSettings()
        self.encoder, self.chunk = encoder, chunk
        self.partners, self.reduction = dict(partners), loss.reduction
        trained = {side: p for side, p in self.partners.items() if isinstance(p, nn.Module)}
        self.trained = nn.ModuleDict(trained)
        self.aims, self.every = dict(aims or {}), set(every)
        self.logit_max, self.kappa = loss.logit_max, loss.kappa
        self.weights = weights_of(terms) if terms else _usual(self.partners)
        names = [*self.weights, *(["text_audio"] if loss.mlp else [])]
        self.scales = nn.ModuleDict({name: LogitScale.of(loss, scale) for name in names})
        sides = TERMS[MLP] if loss.mlp else ()
        dim = int(getattr(encoder, "dim", 0))
        self.transforms = nn.ModuleDict({side: Transform(dim, seed, side) for side in sides})

    @property
    def scale(self) -> float:
        """The scale that goes with the model: of sounds and captions, else of frames and sounds."""
        return self.term_scales()[next(iter(self.weights))]

    def term_scales(self) -> dict[str, float]:
        """Scale of each term; `text_audio` is that of transformed sounds and captions."""
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
            if side in self.partners:
                rows = rows.reshape(-1, 1) if side in self.every else rows
                sides[side] = self.partners[side](rows).to(batch.fbank.device)
        found = {name: self._term(name, sides, batch) for name in self.weights}
        if len(found) > 1:
            self.parts = {f"loss_{name}": value.detach() for name, value in found.items()}
        return torch.stack([self.weights[name] * value for name, value in found.items()]).sum()

    def _term(self, name: str, sides: Mapping[str, Tensor], batch: Batch) -> Tensor:
        a, b = (sides[side] for side in TERMS[name])
        scale, aim = self.scales[name](), self.aims.get(name)
        if aim is None:
            return self._contrast(name, a, b, scale, None, None)
        each = [batch.rows[side].shape[1] if side in self.every else 1 for side in TERMS[name]]
        forth, back = spread(*aim(batch, scale), each[0], each[1])
        loss = self._contrast(name, a, b, scale, forth, back)
        if aim.divergence:
            offset = divergence_offset(forth, back) * number_of_processes()
            loss = loss + (offset if self.reduction == "sum" else offset / 2)
        return loss

    def _contrast(
        self, name: str, a: Tensor, b: Tensor, scale: Tensor, forth: Tensor | None,
        back: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """The loss of one term, of sounds and captions as `loss.mlp` and `loss.kappa` say."""
        more: dict[str, Any] = {
            "targets": forth, "back": back, "reduction": self.reduction, "clamp": self.logit_max,
        }  # fmt: skip
        if name == MLP and self.transforms:
            a_mlp, b_mlp = self.transforms["audio"](a), self.transforms["text"](b)
            second = self.scales["text_audio"]()
            return mlp_loss(a, b, a_mlp, b_mlp, scale, second, self.kappa, **more)
        weights = None
        if name == MLP and self.kappa:
            weights = (likeness_weights(a, self.kappa), likeness_weights(b, self.kappa))
        return contrastive(a, b, scale, weights=weights, **more)


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
