"""Ladder of one training step: ViT-B/32 over ten seconds of sound, rung by rung.

Each rung changes one thing of the rung before: the attention kernel, bf16, how the overlapping
patches are computed, the attention kernel again. Weights are random: speed does not depend on them.
Rungs take turns and report their best turn, so that a busy machine slows all of them alike. With
one thread the clock is the process's CPU time, with more it is the wall's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import torch

from pivot.encoders.blocks import AttentionPath
from pivot.encoders.vit import AudioVit
from pivot.encoders.vit_shape import VisualFacts, VitShape
from pivot.settings import AudioSettings, Bench, VitSettings

BATCH = 4
VIT_B_32 = VitShape(
    width=768,
    layers=12,
    hidden=3072,
    dim=512,
    patch=(32, 32),
    grid=(7, 7),
    norm_before=True,
    layer_scale=False,
    facts=VisualFacts(heads=12),
)


@dataclass(frozen=True)
class Rung:
    """One way to compute the same step."""

    name: str
    patches: Literal["unfold", "conv"]
    attention: AttentionPath
    bf16: bool


LADDER = (
    Rung("fp32, convolution, explicit attention", "conv", "explicit", False),
    Rung("fp32, convolution, fused attention", "conv", "fused", False),
    Rung("bf16, convolution, fused attention", "conv", "fused", True),
    Rung("bf16, unfold + linear, fused attention", "unfold", "fused", True),
    Rung("bf16, unfold + linear, explicit attention", "unfold", "explicit", True),
    Rung("fp32 as Pivot trains and infers", "unfold", "auto", False),
    Rung("bf16 as Pivot trains", "unfold", "auto", True),
)


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {name, forward, train}: samples/s, and how often the first rung's."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        best = _best(settings.threads, settings.seconds)
    finally:
        torch.set_num_threads(before)
    first = best[LADDER[0].name]
    rows = [
        {
            "name": name,
            "forward": BATCH / forward,
            "train": BATCH / train,
            "forward_ratio": first[0] / forward,
            "train_ratio": first[1] / train,
        }
        for name, (forward, train) in best.items()
    ]
    clock = "CPU" if settings.threads == 1 else "wall"
    print(_table(rows, clock, settings.threads))
    return {"threads": settings.threads, "clock": clock, "batch": BATCH, "rows": rows}


def _best(threads: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Best seconds of (forward, forward and backward) for each rung: one turn each, then more.

    The first turn is made whatever the budget (a warm-up of one sound goes before it).
    """
    vit = AudioVit.random(VIT_B_32, VitSettings(), AudioSettings(), seed=1)
    x = torch.randn(BATCH, 1000, 128, generator=torch.Generator().manual_seed(1))
    best = {rung.name: (float("inf"), float("inf")) for rung in LADDER}
    end, turn = time.perf_counter() + seconds, 0
    while turn == 0 or time.perf_counter() < end:
        for rung in LADDER:
            if turn and time.perf_counter() >= end:
                break
            vit.use(patches=rung.patches, attention=rung.attention)
            if not turn:
                _step(vit, x[:1], rung.bf16, train=True)
            old = best[rung.name]
            forward, train = (_time(vit, x, rung.bf16, t, threads) for t in (False, True))
            best[rung.name] = (min(old[0], forward), min(old[1], train))
        turn += 1
    return best


def _time(vit: AudioVit, x: torch.Tensor, bf16: bool, train: bool, threads: int) -> float:
    """Seconds of one pass over the batch."""
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    _step(vit, x, bf16, train)
    return clock() - start


def _step(vit: AudioVit, x: torch.Tensor, bf16: bool, train: bool) -> None:
    """Forward, and with `train` backward, without an optimiser."""
    with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = vit(x)
    if train:
        features.float().square().mean().backward()
        vit.zero_grad(set_to_none=True)


def _table(rows: list[dict[str, Any]], clock: str, threads: int) -> str:
    title = f"ViT-B/32 over 10 s of sound, {threads} thread(s), {clock} time, best of all turns"
    head = f"{'':<42} {'forward /s':>12} {'':>7} {'train /s':>9}"
    lines = [
        f"{row['name']:<42} {row['forward']:12.2f} {row['forward_ratio']:6.2f}x "
        f"{row['train']:9.2f} {row['train_ratio']:6.2f}x"
        for row in rows
    ]
    return "\n".join([title, head, *lines])
