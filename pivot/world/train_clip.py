"""Makes the tiny CLIP that ships with the package: `python -m pivot.world.train_clip --out DIR`.

It learns from rendered pictures and captions as the web has them (captions.web): contrastively, and
by guessing from the picture which words its captions hold, rare words first (as in SuperClass,
Huang et al. 2024), which finds shapes in half the steps. Muon steps the matrices of the blocks and
AdamW the rest; AdamW alone needs several times longer. Everything is drawn from the seed; another
machine's rounding moves the last digits, not the accuracy.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
import tyro
from pydantic import Field
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from pivot.encoders.clip import load_clip
from pivot.settings import ClipSettings, MuonSettings, Settings
from pivot.training.loss import contrastive
from pivot.training.optim import build_optimizer, set_rates
from pivot.world.clips import processes
from pivot.world.exam import named_right, sheet
from pivot.world.pictures import IMAGE_SIDE, render
from pivot.world.tokenizer import CONTEXT, write
from video_prep.files import whole_folder, write_json, write_whole

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
WARMUP, FINAL = 50, 0.02  # steps; share of the rate at the end of the cosine

README = """\
# The tiny CLIP of Pivot's made-up world

Made by `python -m pivot.world.train_clip --out DIR` from rendered pictures and captions alone:
{facts}. Weights are stored in half precision. Licence Apache-2.0, as the package.
"""


class TrainClip(Settings):
    """Train the tiny CLIP of the made-up world from nothing, and examine it."""

    out: str  # folder for the weights, the tokenizer and the configuration
    seed: int = 0  # seed of pictures, captions, batches and weights at the start
    pictures: int = Field(40000, gt=0)  # rendered pictures
    steps: int = Field(4000, gt=0)  # optimiser steps
    batch_size: int = Field(128, gt=1)  # pictures a step
    lr: float = Field(0.02, gt=0)  # peak rate of the matrices (Muon)
    adamw_lr: float = Field(2e-3, gt=0)  # peak rate of the rest
    guess: float = Field(4.0, ge=0)  # weight of guessing the captions' words
    exam: int = Field(2000, gt=0)  # held-out pictures to name
    workers: int = Field(2, ge=1)  # processes that render


def config(vocabulary: int) -> dict[str, Any]:
    """open_clip's model configuration, for so many words."""
    return {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": IMAGE_SIDE,
            "patch_size": 12,
            "width": 96,
            "layers": 3,
            "head_width": 32,
            "pool_type": "avg",  # learns in fewer steps than a class token
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "tokenizer.json beside this file",
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    }


def train(settings: TrainClip, pictures: Tensor, tokens: Tensor, vocabulary: int) -> open_clip.CLIP:
    """The trained CLIP. Pictures uint8 (N, 3, S, S); tokens (N, captions a picture, CONTEXT)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = open_clip.CLIP(**config(vocabulary))
        guesser = torch.nn.Linear(model.text_projection.shape[1], vocabulary)
    muon = MuonSettings(lr=settings.lr, adamw_lr=settings.adamw_lr)
    named = [*model.named_parameters(), *guesser.named_parameters(prefix="guesser")]
    optimizer = build_optimizer(named, muon, settings.batch_size)
    rng = np.random.default_rng([settings.seed, 4101])
    words = word_targets(tokens, vocabulary)
    bar = tqdm(range(settings.steps), "train CLIP", disable=None, file=sys.stderr)
    for step in bar:
        rows = rng.integers(len(pictures), size=settings.batch_size)
        told = rng.integers(tokens.shape[1], size=settings.batch_size)
        images = model.encode_image(normalised(pictures[rows]))
        texts = model.encode_text(tokens[rows, told])
        loss = contrastive(images, texts, model.logit_scale.exp().clamp(max=100), reduction="mean")
        guess = F.cross_entropy(guesser(images), words[rows])
        set_rates(optimizer, _share(step, settings.steps))
        optimizer.zero_grad()
        (loss + settings.guess * guess).backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}", guess=f"{guess.item():.2f}")
    return model.eval()


def word_targets(tokens: Tensor, vocabulary: int) -> Tensor:
    """Which words a picture's captions hold: rows (N, V) that sum to 1, rare words weigh more.

    A word weighs log(N / pictures that have it); marks and words of every picture weigh nothing.
    """
    held = torch.zeros(len(tokens), vocabulary)
    held.scatter_(1, tokens.flatten(1), 1.0)
    weight = torch.log(len(held) / held.sum(0).clamp_min(1))
    weight[held.sum(0) == 0] = 0
    held *= weight
    return held / held.sum(1, keepdim=True)


def normalised(pictures: Tensor) -> Tensor:
    """uint8 pictures (N, 3, S, S) -> what the image encoder takes."""
    return (pictures.float() / 255 - MEAN[0]) / STD[0]


def save_clip(model: open_clip.CLIP, folder: Path, facts: str) -> None:
    """Write the folder that open_clip loads as `local-dir:`; weights in half precision."""
    vocabulary = write(folder)
    cleaning = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    write_json(
        folder / "open_clip_config.json",
        {"model_cfg": config(vocabulary), "preprocess_cfg": cleaning},
    )
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    write_whole(folder / "open_clip_model.safetensors", save(weights))
    write_whole(folder / "README.md", README.format(facts=facts))


def run(settings: TrainClip) -> int:
    """Render, train, examine, write; prints the accuracy. Returns the exit status."""
    began = time.process_time()
    with processes(settings.workers) as each:
        pictures, tokens, vocabulary = render(settings.seed, settings.pictures, each)
    model = train(settings, pictures, tokens, vocabulary)
    facts = (
        f"seed {settings.seed}, {settings.pictures} pictures, {settings.steps} steps of "
        f"{settings.batch_size}"
    )
    with whole_folder(settings.out) as folder:
        save_clip(model, folder, facts)
        clip = load_clip(ClipSettings(model=str(folder)))
        own = named_right(clip, *sheet(settings.seed, settings.exam))
        some = named_right(clip, *sheet(settings.seed, settings.exam, shared=0.5))
        result = {
            "named": own,
            "named_with_shared_looks": some,
            "settings": settings.model_dump(exclude={"out"}),
        }
        write_json(folder / "exam.json", result)
    print(f"{settings.out}: names {own:.1%} of {settings.exam} held-out pictures of single things")
    print(f"({some:.1%} where half of the things that share a look show it)")
    print(f"{time.process_time() - began:.0f} seconds of processor time in this process")
    return 0


def _share(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then a cosine."""
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return min(1.0, (step + 1) / WARMUP) * (FINAL + (1 - FINAL) * cosine)


if __name__ == "__main__":
    sys.exit(run(tyro.cli(TrainClip, prog="python -m pivot.world.train_clip")))
