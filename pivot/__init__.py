"""Connect sound and text without audio-text pairs, through video frames and a frozen CLIP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pivot.classification.classifier import load_classifier as load_classifier
    from pivot.data.clips import ClipDataset as ClipDataset
    from pivot.data.clips import ClipSampler as ClipSampler
    from pivot.embeddings.match import match as match
    from pivot.embeddings.store import EmbeddingStore as EmbeddingStore
    from pivot.model import Pivot as Pivot
    from pivot.model import load as load
    from pivot.training.loss import contrastive as contrastive

__version__ = "0.1.0"
__all__ = [
    "ClipDataset", "ClipSampler", "EmbeddingStore", "Pivot", "contrastive", "load",
    "load_classifier", "match",
]  # fmt: skip

# Public name -> module; loaded on first use, so that `import pivot` stays instant.
_HOMES = {
    "ClipDataset": "pivot.data.clips",
    "ClipSampler": "pivot.data.clips",
    "EmbeddingStore": "pivot.embeddings.store",
    "Pivot": "pivot.model",
    "contrastive": "pivot.training.loss",
    "load": "pivot.model",
    "load_classifier": "pivot.classification.classifier",
    "match": "pivot.embeddings.match",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pivot' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
