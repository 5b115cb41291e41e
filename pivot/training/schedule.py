"""How long and how fast: steps of a training and the rate at each of them, as pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pivot.errors import SettingsError
from pivot.settings import FitSettings


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then a cosine down to `final` of the peak (VIP-ANT's code)."""

    steps: int  # optimiser steps in all
    warmup: int  # of them, warm-up; may exceed `steps`, then the peak is never reached
    final: float  # share of the peak rate at the end

    def share(self, step: int) -> float:
        """Share of the peak rate at optimiser step `step`, counted from 0."""
        if step < self.warmup:
            return step / self.warmup
        progress = (step - self.warmup) / (self.steps - self.warmup)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return cosine + self.final * (1 - cosine)


def schedule(settings: FitSettings, per_epoch: int) -> Schedule:
    """Schedule of a training whose epoch has `per_epoch` micro-batches.

    An optimiser step takes `accumulate` micro-batches; when they do not divide the epoch, a step
    goes on into the next one, so every step weighs the same.
    """
    steps = settings.max_steps or settings.epochs * per_epoch // settings.accumulate
    if steps < 1:
        raise SettingsError(
            f"--accumulate {settings.accumulate} is more than the {settings.epochs * per_epoch} "
            "batches of all epochs; lower it, or raise --epochs"
        )
    warmup = int(settings.warmup_epochs * per_epoch / settings.accumulate)
    return Schedule(steps, warmup, settings.final_lr)
