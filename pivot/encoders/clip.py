"""The frozen CLIP: any open_clip model as image and text encoder, with its own preprocessing.

Everything is float32, in eval mode, outside autocast, and runs in chunks of one fixed size, so
that an embedding does not depend on what else is in the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from PIL.Image import Image
from torch import Tensor

from pivot.encoders.find_clip import Found, find_clip
from pivot.encoders.vit_shape import VisualFacts
from pivot.errors import DataError, ModelError
from pivot.settings import ClipSettings

CHUNK = {"cpu": 8, "cuda": 64}  # items a forward pass, always: see `in_chunks`


def load_clip(settings: ClipSettings, device: str | torch.device = "cpu") -> FrozenClip:
    """Load the CLIP that `settings` names; downloads only where a tag or hub model is named."""
    return FrozenClip(settings, find_clip(settings), torch.device(device))


class FrozenClip:
    """Image and text encoder of a CLIP, frozen; embeddings are unit vectors of one space."""

    def __init__(self, settings: ClipSettings, found: Found, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self.model = found.model.to(device).eval().requires_grad_(False)
        self.preprocess: Callable[[Image], Tensor] = found.preprocess
        self.dim = int(found.config["embed_dim"])
        self.image_size: tuple[int, int] = found.image_size
        self.tokenizer = ClipTokenizer(settings.model, found.tokenizer)
        self.context_length = self.tokenizer.context_length
        self._found = found

    @torch.no_grad()
    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """Pictures -> unit vectors (n, d), float32, on this CLIP's device."""
        size = CHUNK.get(self.device.type, 32)
        parts = [
            self._unit(self.model.encode_image, torch.stack([self._picture(i) for i in part]), size)
            for part in parts_of(images, size)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.dim, device=self.device)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> unit vectors (n, d), float32; DataError names a text that is too long."""
        ids = self.tokenize(texts)
        if not len(ids):
            return torch.empty(0, self.dim, device=self.device)
        return self._unit(self.model.encode_text, ids, CHUNK.get(self.device.type, 32))

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Sentences -> token ids (n, context_length); see ClipTokenizer."""
        return self.tokenizer(texts)

    def visual_state_dict(self) -> dict[str, Tensor]:
        """Copy of the image encoder's weights, on the CPU, under open_clip's names."""
        return {n: v.detach().cpu().clone() for n, v in self.model.visual.state_dict().items()}

    def visual_facts(self) -> VisualFacts:
        """What an audio encoder must know beside the weights; refuses what is not a plain ViT."""
        visual = self.model.visual
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
            what = "pools by attention" if isinstance(visual, VisionTransformer) else "is not a ViT"
            raise ModelError(
                f"the image encoder of {self.settings.model} {what} of open_clip's own kind, so no "
                "audio encoder can start from it; choose a ViT such as ViT-B-32-quickgelu"
            )
        block = visual.transformer.resblocks[0]
        activation = type(block.mlp.gelu).__name__
        if activation not in ("QuickGELU", "GELU") or visual.pool_type not in ("tok", "avg"):
            raise ModelError(
                f"{self.settings.model} uses {activation} and {visual.pool_type} pooling, which "
                "the audio encoder lacks; choose a ViT such as ViT-B-32-quickgelu"
            )
        return VisualFacts(
            heads=block.attn.num_heads,
            activation="quick_gelu" if activation == "QuickGELU" else "gelu",
            pool=visual.pool_type,
            norm_after_pool=visual.final_ln_after_pool,
            grid=visual.grid_size,
            eps=visual.ln_post.eps,
        )

    @cached_property
    def weights_hash(self) -> str:
        """sha256 of all that decides an embedding: weights, activations, preprocessing, context."""
        kinds = {type(module).__name__ for module in self.model.modules()}
        facts: dict[str, Any] = {
            "activations": sorted(kind for kind in kinds if "GELU" in kind.upper()),
            "context": self.context_length,
            "preprocess": self._found.preprocess_config,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        return hash_tensors(self.model.state_dict(), digest)

    def _picture(self, image: Image) -> Tensor:
        """One picture -> (3, height, width)."""
        if not isinstance(image, Image):
            raise DataError(f"a picture must be a PIL image, not {type(image).__name__}")
        return self.preprocess(image)

    def _unit(self, encode: Callable[[Tensor], Tensor], batch: Tensor, size: int) -> Tensor:
        """Encode one chunk, outside autocast, to unit length."""
        features = in_chunks(encode, batch.to(self.device), size)
        if not bool(features.isfinite().all()):
            raise ModelError(f"{self.settings.model} gives NaN or infinite features: bad weights?")
        return F.normalize(features, dim=-1)


class ClipTokenizer:
    """Sentences -> token ids (n, context_length); never cut short, unlike open_clip's own."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        """`tokenizer` of open_clip belongs to the CLIP `name`."""
        self.name, self.tokenizer = name, tokenizer
        self.context_length = int(tokenizer.context_length)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (n, context_length); DataError names a text that is none or is too long."""
        refuse_no_texts(texts)
        if not texts:
            return torch.empty(0, self.context_length, dtype=torch.long)
        ids: Tensor = self.tokenizer(list(texts))
        for row in (ids[:, -1] != self._pad).nonzero().flatten().tolist():
            self._refuse_long(texts[row], ids[row])
        return ids

    @cached_property
    def _pad(self) -> int:
        """Token that fills the end of a short text."""
        return int(self.tokenizer([""])[0, -1])

    def _refuse_long(self, text: str, ids: Tensor) -> None:
        """Raise DataError if the tokenizer cut `text` to `ids`: it says nothing by itself."""
        whole = self.tokenizer([text], context_length=max(4 * len(ids), 4 * len(text)))[0]
        needed = int((whole != self._pad).sum())
        if needed > int((ids != self._pad).sum()):
            raise DataError(
                f"text of {needed} tokens is longer than the {self.context_length} that "
                f"{self.name} reads: {text[:80]!r}; shorten it"
            )


def refuse_no_texts(texts: Sequence[str]) -> None:
    """Raise DataError for one string in place of a list of them, or for what is no string."""
    if isinstance(texts, str):
        raise DataError(f"texts must be a list of strings; give [{texts!r}]")
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise DataError(f"a text must be a string, not {wrong[0]!r}; check the caption file")


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def in_chunks(encode: Callable[[Tensor], Tensor], batch: Tensor, size: int) -> Tensor:
    """Run `encode` over `batch` in chunks of exactly `size`, the last one filled with zeros.

    Every matrix product then has one shape whatever the batch, so an item's features do not
    depend on its neighbours. Float32, outside autocast.
    """
    parts = []
    with torch.autocast(batch.device.type, enabled=False):
        for part in batch.split(size):
            filled = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            parts.append(encode(filled)[: len(part)].float())
    return torch.cat(parts)


def findable(settings: ClipSettings) -> ClipSettings:
    """The CLIP's settings with its folder or file as an absolute path."""
    updates = {
        name: str(Path(value).expanduser().resolve())
        for name, value in (("model", settings.model), ("pretrained", settings.pretrained))
        if value and value != "tiny-world" and Path(value).expanduser().exists()
    }
    return settings.model_copy(update=updates)


def hash_tensors(tensors: dict[str, Tensor], digest: Any = None) -> str:
    """sha256 over names, kinds, shapes and bytes, in the order of the names."""
    digest = digest or hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return str(digest.hexdigest())


def parts_of(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Slices of `size` items."""
    return (items[i : i + size] for i in range(0, len(items), size))
