"""How long and how fast: steps of a training and the rate at each of them, as pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pivot.errors import SettingsError
from pivot.settings import FitSettings


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then a cosine down to `final` of the peak, or a factor `gamma` at each milestone.

    By hand, as `fit` does it: `set_rates(optimizer, Schedule(99275, 39710, 0.001).share(step))`
    before step 0, 1, ... is taken. With that the rates are VIP-ANT's LARS schedule (its code).
    """

    steps: int  # optimiser steps in all
    warmup: int  # of them, warm-up; may exceed `steps`, then the peak is never reached
    final: float  # share of the peak rate at the end of the cosine
    every: int = 1  # steps between two rates of the warm-up
    milestones: tuple[int, ...] = ()  # steps; where there are some, there is no cosine
    gamma: float = 0.5  # factor at a milestone
    end: int | None = None  # step at which the cosine ends; None: the last one
    first: int = 0  # steps of the warm-up that the first step is already at

    def share(self, step: int) -> float:
        """Share of the peak rate at optimiser step `step`, counted from 0.

        The warm-up is linear with `every` 1: (step + first) / warmup, with `first` 0 VIP-ANT's and
        with 1 open_clip's and LAION-CLAP's, which never takes a step at rate 0. With more it goes
        in jumps, as the reference with Adam: every step n - 1, 2 n - 1, ... sets
        (step + 1) / warmup, and step 0 1 / warmup.
        """
        if step < self.warmup:
            jumps = max(1, (step + 1) // self.every * self.every)
            return (step + self.first if self.every == 1 else jumps) / self.warmup
        if self.milestones:
            return float(self.gamma ** sum(step >= milestone for milestone in self.milestones))
        end = self.steps if self.end is None else self.end
        if step >= end:
            return self.final
        progress = (step - self.warmup) / (end - self.warmup)
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

    def steps_of(epochs: float) -> int:
        return int(epochs * per_epoch / settings.accumulate)

    warmup = steps_of(settings.warmup_epochs)
    if settings.warmup_steps is not None:
        warmup = settings.warmup_steps
    first = warmup if settings.milestones_from == "warmup" else 0
    milestones = tuple(first + steps_of(epochs) for epochs in sorted(settings.milestones))
    end = steps_of(settings.cosine_epochs) if settings.cosine_epochs else None
    if end is not None and end <= warmup:
        raise SettingsError(
            f"--cosine-epochs {settings.cosine_epochs} are {end} steps, of which {warmup} are "
            "warm-up; raise it, or shorten the warm-up"
        )
    return Schedule(
        steps,
        warmup,
        settings.final_lr,
        settings.warmup_every,
        milestones,
        settings.gamma,
        end,
        int(settings.warmup_from == "first"),
    )
