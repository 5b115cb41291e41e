"""Partners: the frozen embeddings that the audio embeddings of a batch should meet.

Frames come from a store or are encoded when first needed; captions are encoded once, up front. All
are rounded to float16 as a store holds them, so it makes no difference where they come from.
Legend: B clips, R partners of a clip whose mean is met, d dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pivot.data.prompts import apply_all
from pivot.data.stream import SoundItems, pictures
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders.clip import FrozenClip
from pivot.errors import StoreError
from video_prep.shards import ShardFolder

TEXTS_A_CALL = 1024


class Partners(Protocol):
    """Rows (B, R) of a table of embeddings -> their means (B, d), float32."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Look up."""


class TablePartners:
    """Embeddings that are all there: a float16 table (rows, d), in memory or memory-mapped."""

    def __init__(self, table: NDArray[np.float16]) -> None:
        self.table = table

    def __call__(self, rows: Tensor) -> Tensor:
        """Look up, in the order of the file and then back, so that a large one is read forwards."""
        wanted, back = np.unique(rows.numpy(), return_inverse=True)
        return _mean(np.asarray(self.table[wanted])[back.reshape(rows.shape)])


class StorePartners(TablePartners):
    """Frames of the clips of some shards, from a store that must hold all of them."""

    def __init__(self, store: EmbeddingStore, shards: ShardFolder, clip: FrozenClip) -> None:
        store.require(what="image", weights_hash=clip.weights_hash)
        if store.rows != shards.num_frames:
            raise StoreError(
                f"{store.path} holds {store.rows} frames a clip and {shards.path} "
                f"{shards.num_frames}; embed these shards again"
            )
        numbers = {clip_id: i for i, clip_id in enumerate(store.ids)}
        missing = [clip_id for clip_id in shards.ids if clip_id not in numbers]
        if missing:
            raise StoreError(
                f"{store.path} lacks {len(missing)} of the {len(shards)} clips of {shards.path}, "
                f"the first {missing[0]!r}; embed these shards again"
            )
        super().__init__(store.vectors.reshape(-1, store.dim))
        self.numbers = np.array([numbers[clip_id] for clip_id in shards.ids])
        self.frames = store.rows

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows count the clips as the shards do; the store may have them in another order."""
        clips, frames = rows.numpy() // self.frames, rows.numpy() % self.frames
        return super().__call__(torch.from_numpy(self.numbers[clips] * self.frames + frames))


class FramePartners:
    """Frames encoded when a batch first asks for them, then kept (2 d bytes a frame).

    Reading and encoding happens in the training process, between two steps: for large data make
    a store first.
    """

    def __init__(self, sounds: SoundItems, clip: FrozenClip) -> None:
        self.sounds, self.clip = sounds, clip
        count = len(sounds.shards) * sounds.shards.num_frames
        self.table = np.zeros((count, clip.dim), np.float16)  # pages appear when written
        self.known = np.zeros(count, bool)

    def __call__(self, rows: Tensor) -> Tensor:
        """Encode what is missing, then look up."""
        missing = np.unique(rows.numpy()[~self.known[rows.numpy()]])
        if len(missing):
            frames = self.sounds.shards.num_frames
            found = pictures(self.sounds.shards, [divmod(row, frames) for row in missing.tolist()])
            self.table[missing] = self.clip.encode_image(found).cpu().numpy()
            self.known[missing] = True
        return _mean(self.table[rows.numpy()])


class SoundStorePartners(TablePartners):
    """Sounds from a store that must hold all that train; row = number in `ids`."""

    def __init__(self, store: EmbeddingStore, ids: Sequence[str], wanted: Iterable[int]) -> None:
        """`wanted` are the rows that will be asked for; the others need not be in the store."""
        store.require(what="audio")
        places = {clip_id: i for i, clip_id in enumerate(store.ids)}
        rows = sorted(set(wanted))
        missing = [ids[row] for row in rows if ids[row] not in places]
        if missing:
            raise StoreError(
                f"{store.path} lacks {len(missing)} of the {len(rows)} clips that train, the first "
                f"{missing[0]!r}; embed their shards with the same model"
            )
        super().__init__(store.vectors[:, 0])
        self.numbers = np.full(len(ids), -1)
        self.numbers[rows] = [places[ids[row]] for row in rows]

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows count the clips; the store may have them in another order."""
        return super().__call__(torch.from_numpy(self.numbers[rows.numpy()]))


class TextStorePartners(TablePartners):
    """Captions from a store of sentences that must hold all of them; row = number in `texts`."""

    def __init__(
        self, store: EmbeddingStore, texts: Sequence[str], clip: FrozenClip | None, prompt: str
    ) -> None:
        """Without `clip` the store may be of any text encoder."""
        store.require(what="text", weights_hash=clip.weights_hash if clip else None)
        super().__init__(store.vectors[:, 0])
        self.numbers = store.rows_of_texts(texts, prompt)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows count the captions as the pairs do."""
        return super().__call__(torch.from_numpy(self.numbers[rows.numpy()]))


def text_partners(clip: FrozenClip, texts: Sequence[str], prompt: str) -> TablePartners:
    """Encode each text once, behind the prompt."""
    table = np.empty((len(texts), clip.dim), np.float16)
    with tqdm(total=len(texts), desc="captions", unit="text", disable=None) as bar:
        for start in range(0, len(texts), TEXTS_A_CALL):
            part = apply_all(prompt, texts[start : start + TEXTS_A_CALL])
            table[start : start + len(part)] = clip.encode_text(part).cpu().numpy()
            bar.update(len(part))
    return TablePartners(table)


def _mean(vectors: NDArray[np.float16]) -> Tensor:
    """(B, R, d) -> (B, d)."""
    return torch.from_numpy(vectors.astype(np.float32).mean(axis=1))
