"""Which window of a long sound is embedded, and what becomes of a short one, when measured.

The default is the front end's own: the middle of a longer sound, padding of a shorter one. The
curation paper measures on 5 s: a longer sound by one random window, a shorter one repeated (its
training pads with zeros).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from pivot.audio.crop import Rng, crop
from pivot.audio.fill import fill
from pivot.audio.frontend import FrontEnd
from pivot.embeddings.embed import embed_audio
from pivot.embeddings.sources import ShardSounds
from pivot.errors import DataError, SettingsError
from pivot.model import Pivot
from pivot.settings import Evaluate
from video_prep.shards import ShardFolder

Floats = NDArray[np.float32]
Rule = Literal["middle", "mean", "random"]


def embed_measured(settings: Evaluate, model: Pivot, shards: ShardFolder) -> Floats:
    """Sounds of shards (n, d), unit length, through the windows that the settings name.

    With `crop mean` a sound is the mean of its windows' unit vectors, of unit length again. Raises
    SettingsError for windows longer than the encoder sees, DataError for a sound without use.
    """
    if window_facts(settings) is None:
        return embed_audio(model, shards, settings.batch_size)
    seconds = window_seconds(settings, model.front_end)
    sounds, parts = ShardSounds(shards), []
    with tqdm(total=len(shards), unit=" sounds", desc="embed sounds", disable=None) as bar:
        for start in range(0, len(shards), settings.batch_size):
            part = range(start, min(start + settings.batch_size, len(shards)))
            rows = list(_fbanks(settings, model.front_end, seconds, sounds, part))
            vectors = model.encode_fbank(torch.cat(rows)).split([len(own) for own in rows])
            parts.append(normalize(torch.stack([own.mean(0) for own in vectors]), dim=-1).cpu())
            bar.update(len(part))
    found: Floats = torch.cat(parts).numpy()
    return found


def _fbanks(
    settings: Evaluate, front_end: FrontEnd, seconds: float, sounds: ShardSounds, part: range
) -> Iterator[Tensor]:
    """FBANK of the windows of each sound, (windows, T, M)."""
    for i, sound in zip(part, sounds.read(part), strict=True):
        try:
            if isinstance(sound, DataError):
                raise sound
            wave, rate = sound
            rng = generator(settings.seed, sounds.ids[i]) if settings.crop == "random" else None
            own = windows(wave, math.ceil(seconds * rate), settings.crop, rng, settings.short)
            yield torch.stack([front_end(piece, rate) for piece in own])
        except DataError as error:
            raise DataError(f"{sounds.ids[i]} in {sounds.path}: {error}") from None


def windows(
    wave: NDArray[Any],
    samples: int,
    rule: Rule = "middle",
    rng: Rng | None = None,
    short: Literal["pad", "tile"] = "pad",
) -> list[NDArray[Any]]:
    """Windows of `samples` samples of a wave (channels, n); one of all of it where n is no more.

    middle, or random by `rng`: one. mean: the fewest of equal steps that cover the wave, from its
    first sample to its last, as whole windows (10 s by 5 s: its two halves). A wave that is shorter
    is left to the front end's padding, or with short `tile` repeated from its start and cut.
    """
    n = wave.shape[-1]
    if n < samples:
        return [tile(wave, samples)] if short == "tile" and n else [wave]
    if rule == "mean":
        count = -(-n // samples)
        starts = np.linspace(0, n - samples, count).round().astype(int)
        return [wave[..., start : start + samples] for start in starts.tolist()]
    if rule == "random" and rng is None:
        raise ValueError("random windows need a generator")
    return [crop(wave, samples, rule="plain", rng=rng if rule == "random" else None)]


def tile(wave: NDArray[Any], samples: int) -> NDArray[Any]:
    """A wave (channels, n) repeated from its start to exactly `samples` samples."""
    return fill(wave, samples, "repeat")[..., :samples]


def generator(seed: int, clip: str) -> np.random.Generator:
    """Generator of one clip: its window does not depend on what else is measured."""
    digest = hashlib.sha256(clip.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def window_seconds(settings: Evaluate, front_end: FrontEnd) -> float:
    """Length of a window: --crop-seconds, or what the encoder sees."""
    audio = front_end.settings
    rate = 16000 if audio.sample_rate == "native" else audio.sample_rate
    seen = front_end.window_samples(rate) / rate
    if settings.crop_seconds is None:
        return seen
    if settings.crop_seconds > seen:
        raise SettingsError(
            f"--crop-seconds {settings.crop_seconds:g} is longer than the {seen:g} s that the "
            "encoder sees; take a shorter window, or more of --num-frames"
        )
    return settings.crop_seconds


def window_facts(settings: Evaluate) -> dict[str, Any] | None:
    """What differs from the front end's own window, for results.json; None where nothing does."""
    if (settings.crop, settings.crop_seconds, settings.short) == ("middle", None, "pad"):
        return None
    facts: dict[str, Any] = {
        "crop": settings.crop, "seconds": settings.crop_seconds, "short": settings.short,
    }  # fmt: skip
    return facts | ({"seed": settings.seed} if settings.crop == "random" else {})
