"""Trains the demo's language model: a tiny GPT-J on a captions file, as transformers keeps one.

The demo has no 12 GB of GPT-J. This one has the same architecture and about 0.1 M parameters, a
word a token, and learns the captions as lines of one text in seconds, so that `write-captions`
primes and samples it exactly as it would the large one.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch
import tyro
from pydantic import Field
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor
from tqdm import tqdm

from pivot.data.captions import read_captions
from pivot.settings import Settings
from video_prep.files import whole_folder

if TYPE_CHECKING:  # seconds of import, which the demo's list of jobs need not wait for
    from transformers import GPTJForCausalLM, PreTrainedTokenizerFast

END, UNKNOWN = "\n", "<unknown>"
WARMUP = 20  # steps


class TrainWriter(Settings):
    """Train a tiny GPT-J on captions, for `pivot write-captions --model`."""

    captions: str  # captions file
    out: str  # folder for the weights, the tokenizer and the configuration
    seed: int = 0  # seed of weights and batches
    steps: int = Field(200, gt=0)  # optimiser steps
    batch_size: int = Field(32, gt=0)  # stretches of text a step
    window: int = Field(64, gt=1)  # tokens of a stretch
    width: int = Field(64, gt=0)  # of the embeddings
    layers: int = Field(2, gt=0)  # blocks
    lr: float = Field(3e-3, gt=0)  # peak rate of AdamW


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word of the texts, the line's end among them."""
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.split()})
    ids = {word: i for i, word in enumerate([END, UNKNOWN, *words])}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(r"\n|[^ \n]+"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)


def train(settings: TrainWriter, lines: list[list[int]], vocabulary: int) -> GPTJForCausalLM:
    """The trained model. `lines` are token ids, each with its line's end."""
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(
        vocab_size=vocabulary,
        n_positions=4 * settings.window,  # rotary: it reads further than it was trained
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=2,
        rotary_dim=16,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = GPTJForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, betas=(0.9, 0.95))
    rng = np.random.default_rng([settings.seed, 4102])
    bar = tqdm(range(settings.steps), "train the writer", disable=None, file=sys.stderr)
    for step in bar:
        cosine = (1 + math.cos(math.pi * step / settings.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / WARMUP) * cosine
        batch = torch.stack([_stretch(rng, lines, settings) for _ in range(settings.batch_size)])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")
    return model.eval()


def _stretch(rng: np.random.Generator, lines: list[list[int]], settings: TrainWriter) -> Tensor:
    """Captions drawn at random, one after the other, to the window's length."""
    ids: list[int] = []
    while len(ids) < settings.window:
        ids += lines[rng.integers(len(lines))]
    return torch.tensor(ids[: settings.window])


def run(settings: TrainWriter) -> int:
    """Train and write the folder; returns the exit status."""
    texts = [caption.text for caption in read_captions(settings.captions)]
    tokenizer = tokenizer_of(texts)
    lines = [tokenizer(text + END)["input_ids"] for text in texts]
    model = train(settings, lines, len(tokenizer))
    with whole_folder(settings.out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    size = sum(p.numel() for p in model.parameters())
    print(f"{settings.out}: {size:,} parameters, {len(texts)} captions, {settings.steps} steps")
    return 0


if __name__ == "__main__":
    sys.exit(run(tyro.cli(TrainWriter, prog="python -m pivot.world.train_writer")))
