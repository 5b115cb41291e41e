"""CLIP's training data: rendered pictures, shrunk as CLIP will see them, and their captions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pivot.world.captions import web
from pivot.world.draw import picture
from pivot.world.scenes import SHARED_LOOKS, draw_scene, draw_single, generator
from pivot.world.tokenizer import CONTEXT, PAD, build

IMAGE_SIDE = 48  # pixels that CLIP sees of a frame's 128
SINGLES = 0.4  # share of pictures with one thing alone: names are learnt from them first
CAPTIONS = 4  # a picture; each step takes one of them


def _one(seed: int, index: int) -> tuple[np.ndarray, list[str]]:
    """One picture uint8 (S, S, 3) and its captions."""
    rng = generator(seed, "pictures", index)
    single = rng.random() < SINGLES
    scene = (
        draw_single(rng, "pictures", shared=SHARED_LOOKS) if single else draw_scene(rng, "pictures")
    )
    image = Image.fromarray(picture(scene)).resize(
        (IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC
    )
    return np.asarray(image), [web(rng, scene) for _ in range(CAPTIONS)]


def render(seed: int, count: int, each: Callable[..., Any] = map) -> tuple[Tensor, Tensor, int]:
    """Pictures uint8 (N, 3, S, S), tokens int64 (N, CAPTIONS, CONTEXT), size of the vocabulary.

    `each` maps over the pictures, in order: `map`, or that of a pool of processes.
    """
    rows = list(each(partial(_one, seed), range(count)))
    pictures = torch.from_numpy(np.stack([image for image, _ in rows])).movedim(-1, 1).contiguous()
    tokenizer = build()
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD, length=CONTEXT)
    flat = tokenizer.encode_batch([text for _, texts in rows for text in texts])
    tokens = torch.tensor([encoding.ids for encoding in flat]).view(count, CAPTIONS, CONTEXT)
    return pictures, tokens, tokenizer.get_vocab_size()
