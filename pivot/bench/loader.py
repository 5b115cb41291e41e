"""Samples a second that one core reads from shards: bytes alone, then as training needs.

A sample is one of a clip's four frames, or its CLIP embedding, and ten seconds of sound. The data
are made here, with the sizes of real clips, and lie in the page cache. All layouts take turns, so
that a busy machine slows all of them alike; the figure is the median turn of user and system time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pivot.audio.fbank import one_thread
from pivot.audio.frontend import make_front_end
from pivot.audio.norms import NAMED
from pivot.bench.samples import FRAMES, Samples, make_samples
from pivot.bench.turns import cpu_seconds, median_turns
from pivot.data.clips import ClipDataset
from pivot.data.stream import SoundItems
from pivot.settings import AudioSettings, Bench
from video_prep.shards import SOUND

CLIPS = 500
SIDE = 224  # pixels a side that CLIP sees
TURN = 0.1  # CPU seconds that one turn is to take
LEAST_TURNS = 3
RAW = "random: a frame and the sound, bytes"
IN_ORDER = "webdataset, in order: all bytes"
NAIVE = "PIL float + FLAC + FBANK"
Layout = Callable[[list[tuple[int, int]]], int]  # reads these (clip, frame); returns how many


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {name, us_per_sample, samples_per_second, ratio, note}.

    ratio: speed as a multiple of the plain loader's (PIL, FLAC and FBANK on the CPU). Where a peer
    cannot run its figures are None and `note` says why.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        layouts = _layouts(make_samples(Path(folder), CLIPS))
        able = {name: _timed(layout) for name, layout in layouts.items() if layout}
        took = median_turns(able, settings.seconds, LEAST_TURNS)
    rows = [_row(name, took.get(name), took[NAIVE]) for name in layouts]
    print(_table(rows))
    return {"clock": "CPU", "clips": CLIPS, "rows": rows}


def _timed(layout: Layout) -> Callable[[], float]:
    """CPU seconds a sample, over as many samples as fill a turn; what it needs is loaded now."""
    rng = np.random.default_rng(1)
    _turn(layout, rng, 2)
    number = min(CLIPS, max(4, round(TURN / max(_turn(layout, rng, 4), 1e-6))))
    return lambda: _turn(layout, rng, number)


def _turn(layout: Layout, rng: np.random.Generator, number: int) -> float:
    """CPU seconds a sample of `number` samples in random order."""
    clips = rng.permutation(CLIPS)[:number].tolist()
    samples = [(i, int(k)) for i, k in zip(clips, rng.integers(0, FRAMES, number), strict=False)]
    start = cpu_seconds()
    read = layout(samples)
    return (cpu_seconds() - start) / read


# ---- layouts -------------------------------------------------------------------------------


def _layouts(data: Samples) -> dict[str, Layout | None]:
    """Name -> reader; None for a peer that is not installed."""
    flac, clip, fbank = data.flac, data.clip.vectors, data.fbank
    front_end = make_front_end(AudioSettings(), NAMED["ast"])
    live, kept = SoundItems(flac, front_end), SoundItems(flac, front_end, 0, fbank)
    with_flac, with_pcm16 = ClipDataset(flac), ClipDataset(data.pcm16)
    frames = ClipDataset(flac, sound=False)
    return {
        RAW: _each(lambda i, k: flac.read([(i, k), (i, SOUND)])),
        IN_ORDER: _webdataset(Path(flac.path)),
        NAIVE: _each(lambda i, k: (_by_pil(live, i, k), live.fbank(i))),
        "uint8 + FLAC + FBANK": _each(lambda i, k: (frames[k, i], live.fbank(i))),
        "uint8 + FLAC (FBANK on the GPU)": _each(lambda i, k: with_flac[k, i]),
        "uint8 + PCM16 (FBANK on the GPU)": _each(lambda i, k: with_pcm16[k, i]),
        "uint8 + FBANK cache": _each(lambda i, k: (frames[k, i], kept.fbank(i))),
        "CLIP embedding + FLAC": _each(lambda i, k: (np.array(clip[i, k]), flac.sound(i))),
        "CLIP embedding + FBANK cache": _each(lambda i, k: (np.array(clip[i, k]), kept.fbank(i))),
        "CLIP embedding + FBANK cache, codes": _each(
            lambda i, k: (np.array(clip[i, k]), np.array(fbank.codes(i)))
        ),
    }


def _each(read: Callable[[int, int], object]) -> Layout:
    """Read sample by sample and forget each: memory that is kept would be new, and so slower."""

    def layout(samples: list[tuple[int, int]]) -> int:
        for i, k in samples:
            read(i, k)
        return len(samples)

    return layout


def _webdataset(folder: Path) -> Layout | None:
    """The same shards through webdataset, one after the other: it reads whole clips."""
    try:
        import webdataset
    except ImportError:
        return None
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    return lambda samples: sum(1 for _ in webdataset.WebDataset(tars, shardshuffle=False))


def _by_pil(items: SoundItems, i: int, k: int) -> np.ndarray:
    """float32 (SIDE, SIDE, 3): decoded and resized on the CPU."""
    small = items.frame(i, k).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(small, np.float32) / 255


# ---- the table -----------------------------------------------------------------------------


def _row(name: str, took: float | None, naive: float) -> dict[str, Any]:
    if took is None:
        figures = dict.fromkeys(("us_per_sample", "samples_per_second", "ratio"))
        return {"name": name, **figures, "note": "not installed"}
    figures = {"us_per_sample": 1e6 * took, "samples_per_second": 1 / took, "ratio": naive / took}
    return {"name": name, **figures, "note": ""}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{CLIPS} clips in the page cache, one core, CPU time, median of all turns"]
    for row in rows:
        if row["ratio"] is None:
            lines.append(f"  {row['name']:<38} {row['note']}")
            continue
        lines.append(
            "  {name:<38}{us_per_sample:9.0f} us {samples_per_second:8.0f} samples/s/core "
            "{ratio:7.1f} x plain".format(**row)
        )
    return "\n".join(lines)
