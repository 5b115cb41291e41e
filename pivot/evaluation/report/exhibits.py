"""What the report page shows beyond results.json: curves, class means, points, clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def _nothing() -> Floats:
    return np.zeros((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class ClipExhibit:
    """A test clip to look at and listen to, with the captions nearest to its sound."""

    id: str
    label: str
    captions: tuple[str, ...]  # its true ones
    frames: tuple[bytes, ...]  # JPEG
    sound: bytes  # WAV
    before: tuple[tuple[float, str], ...]  # (score, caption), best first, before AT training
    after: tuple[tuple[float, str], ...]  # the same, after it


@dataclass(frozen=True)
class Exhibits:
    """Arrays and clips for the figures; an empty one leaves its figure out.

    Class means are (classes, d) with the rows in the order of `labels`; their length is free.
    """

    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # by run
    per_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # model -> label
    labels: tuple[str, ...] = ()
    image: Floats = field(default_factory=_nothing)  # means of the held-out frames
    audio: Floats = field(default_factory=_nothing)  # means of the held-out sounds, trained encoder
    text: Floats = field(default_factory=_nothing)  # the labels as text
    audio_before: Floats = field(default_factory=_nothing)  # as audio, untrained encoder
    points: Mapping[str, Floats] = field(default_factory=dict)  # "image", "audio" -> (n, d)
    point_labels: NDArray[np.integer] | None = None  # (n,) rows of `labels`
    clips: tuple[ClipExhibit, ...] = ()

    def __post_init__(self) -> None:
        for name in ("image", "audio", "text", "audio_before"):
            rows = len(getattr(self, name))
            if rows not in {0, len(self.labels)}:
                raise ValueError(f"{name} has {rows} rows for {len(self.labels)} labels")
        known = -1 if self.point_labels is None else len(self.point_labels)
        for name, x in self.points.items():
            if len(x) not in {0, known}:
                raise ValueError(f"points[{name!r}] has {len(x)} rows for {known} point_labels")
