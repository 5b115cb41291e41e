"""Twelve steps of VA and of AT against a plain loop that was written from the specification alone.

Nothing of Pivot's encoder, loss, optimiser or schedule is used in the plain one: a functional ViT,
two cross entropies that are added up, LARS by the number of axes, rates set at every step from 0.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pivot.data.batches import Batch
from pivot.encoders.vit import AudioVit
from pivot.settings import AudioSettings, FitSettings, LarsSettings, VitSettings
from pivot.training.fit import fit
from pivot.training.loss import LogitScale, contrastive
from pivot.training.module import Contrast
from pivot.training.optim import build_optimizer, set_rates
from pivot.training.schedule import Schedule

STRIDE, GRID, FRAMES, MELS = (4, 6), (24, 5), 100, 32
B, DIM, PER_EPOCH, EPOCHS, WARMUP = 6, 16, 4, 3, 2
LR_WEIGHT, LR_BIAS = 20.0, 0.5  # large, as a batch of 6 is a small part of 256

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def visual(goldens: Path) -> Weights:
    with np.load(goldens / "vip_ant" / "tiny_tower.npz") as file:
        return {name[3:]: torch.tensor(file[name]) for name in file.files if name[:3] == "sd/"}


class Fixed:
    """The same batches for both loops; partners of a batch are rows of one table."""

    def __init__(self, side: str, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.side, self.per_epoch = side, PER_EPOCH
        self.fbank = torch.randn(PER_EPOCH * EPOCHS, B, FRAMES, MELS, generator=generator)
        self.table = torch.randn(PER_EPOCH * EPOCHS * B, DIM, generator=generator)

    def fingerprint(self) -> str:
        return self.side

    def rows(self, m: int) -> Tensor:
        return torch.arange(m * B, (m + 1) * B)[:, None]

    def __getitem__(self, m: int) -> Batch:
        return Batch(self.fbank[m], {self.side: self.rows(m)})


# ---- the plain loop ------------------------------------------------------------------------------


def plain_start(visual: Weights) -> Weights:
    """CLIP's visual weights with positions resized from 4 x 4 to the audio grid."""
    table = visual["positional_embedding"]
    grid = table[1:].T.reshape(1, -1, 4, 4)
    grid = F.interpolate(grid, size=GRID, mode="bilinear", align_corners=False)
    positions = torch.cat([table[:1], grid.flatten(2)[0].T])
    return {**{k: v.clone() for k, v in visual.items()}, "positional_embedding": positions}


def norm(x: Tensor, w: Weights, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def plain_features(w: Weights, fbank: Tensor) -> Tensor:
    """A pre-norm ViT of one head with QuickGELU over one-channel, overlapping patches."""
    kernel = w["conv1.weight"].mean(1, keepdim=True)
    x = F.conv2d(fbank[:, None], kernel, stride=STRIDE).flatten(2).transpose(1, 2)
    x = torch.cat([w["class_embedding"].expand(len(x), 1, -1), x], 1) + w["positional_embedding"]
    x = norm(x, w, "ln_pre")
    for layer in range(2):
        at = f"transformer.resblocks.{layer}"
        y = norm(x, w, f"{at}.ln_1")
        y = y @ w[f"{at}.attn.in_proj_weight"].T + w[f"{at}.attn.in_proj_bias"]
        q, k, v = y.chunk(3, -1)
        y = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = x + y @ w[f"{at}.attn.out_proj.weight"].T + w[f"{at}.attn.out_proj.bias"]
        y = norm(x, w, f"{at}.ln_2") @ w[f"{at}.mlp.c_fc.weight"].T + w[f"{at}.mlp.c_fc.bias"]
        y = y * torch.sigmoid(1.702 * y)
        x = x + y @ w[f"{at}.mlp.c_proj.weight"].T + w[f"{at}.mlp.c_proj.bias"]
    return norm(x[:, 0], w, "ln_post") @ w["proj"]


def plain_loss(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    logits = log_scale.exp() * a @ b.T
    own = torch.arange(len(a))
    return F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)


def plain_rate(step: int) -> float:
    """Before it is multiplied by lr_weight or lr_bias."""
    base, warm, steps = B / 256, WARMUP * PER_EPOCH, EPOCHS * PER_EPOCH
    if step < warm:
        return base * step / warm
    q = (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2
    return base * q + 0.001 * base * (1 - q)


def plain_training(start: Weights, data: Fixed) -> tuple[list[float], Weights, float]:
    """Losses of the steps, the weights after them, and the scale; starts with a fresh scale."""
    params = {name: value.clone() for name, value in start.items()}
    params["log_scale"] = torch.tensor(math.log(1 / 0.07))
    momenta = {name: torch.zeros_like(p) for name, p in params.items()}
    losses = []
    for step in range(EPOCHS * PER_EPOCH):
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        sounds = plain_features(leaves, data.fbank[step])
        loss = plain_loss(data.table[data.rows(step)[:, 0]], sounds, leaves["log_scale"])
        grads = torch.autograd.grad(loss, list(leaves.values()))
        losses.append(loss.item())
        for (name, p), d in zip(params.items(), grads, strict=True):
            rate = plain_rate(step) * (LR_WEIGHT if p.ndim > 1 else LR_BIAS)
            if p.ndim > 1:
                d = d + 1e-6 * p
                if p.norm() > 0 and d.norm() > 0:
                    d = d * 0.001 * p.norm() / d.norm()
            momenta[name] = 0.9 * momenta[name] + d
            params[name] = p - rate * momenta[name]
    scale = params.pop("log_scale").exp().item()
    return losses, params, scale


# ---- Pivot's -------------------------------------------------------------------------------------


def encoder_of(visual: Weights) -> AudioVit:
    audio = AudioSettings(num_frames=FRAMES, num_mel_bins=MELS)
    return AudioVit.from_clip(visual, 1, VitSettings(stride=STRIDE), audio, seed=1)


def lars() -> LarsSettings:
    return LarsSettings(lr_weight=LR_WEIGHT, lr_bias=LR_BIAS)


def check(found: list[float], wanted: list[float], encoder: AudioVit, weights: Weights) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
    own = encoder.state_dict()
    assert own.keys() == weights.keys()
    for name, value in weights.items():
        assert (own[name] - value).abs().max() < 5e-6, name


def test_fit_walks_the_reference_through_va_and_at(visual) -> None:
    settings: dict[str, Any] = {"batch_size": B, "epochs": EPOCHS, "warmup_epochs": WARMUP}
    settings |= {"optim": lars(), "precision": "fp32", "device": "cpu", "log_every": 1}
    encoder, weights = encoder_of(visual), plain_start(visual)
    start = {name: value.clone() for name, value in weights.items()}
    for side, seed in (("image", 11), ("text", 12)):  # AT goes on from VA with a fresh scale
        data = Fixed(side, seed)
        table = data.table
        task = Contrast(encoder, {side: lambda rows, table=table: table[rows[:, 0]]})
        fitted = fit(task, data, FitSettings(out="none", **settings))
        losses, weights, scale = plain_training(weights, data)
        check([row["loss"] for row in fitted.rows], losses, encoder, weights)
        assert task.scale == pytest.approx(scale, rel=1e-6) and abs(scale - 1 / 0.07) > 1e-3
        rates = [row["rates"]["weights"] for row in fitted.rows]
        assert rates == pytest.approx([LR_WEIGHT * plain_rate(step) for step in range(12)])
    moved = [(weights[n] - start[n]).norm() / start[n].norm() for n in start if start[n].ndim > 1]
    assert min(moved) > 1e-3


def test_the_pieces_driven_by_hand_walk_the_reference(visual) -> None:
    data, encoder, scale = Fixed("image", 11), encoder_of(visual), LogitScale(1 / 0.07)
    named = [*encoder.named_parameters(), *scale.named_parameters()]
    optimizer = build_optimizer(named, lars(), B)
    plan = Schedule(EPOCHS * PER_EPOCH, WARMUP * PER_EPOCH, 0.001)
    found = []
    for step in range(plan.steps):
        set_rates(optimizer, plan.share(step))
        optimizer.zero_grad()
        partners = data.table[data.rows(step)[:, 0]]
        loss = contrastive(encoder(data.fbank[step]), partners, scale())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    losses, weights, plain_scale = plain_training(plain_start(visual), data)
    check(found, losses, encoder, weights)
    assert scale().item() == pytest.approx(plain_scale, rel=1e-6)
