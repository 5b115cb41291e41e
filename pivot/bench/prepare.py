"""CPU time of one clip to frames and sound: ours beside naive seeking and decord.

Everyone takes four frames at 256 pixels as JPEG and the sound at 16 kHz. The clips are made here:
a moving texture in H.264 with AAC. Candidates take turns and report their best, so that a busy
machine slows all of them alike.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pivot.settings import Bench
from video_prep.decode import decode_clip
from video_prep.recipe import Recipe

FRAMES, SHORT_SIDE, RATE = 4, 256, 16000
# name -> width, height, frames a second, seconds, frames between keyframes
CLIPS = {
    "10 s 640x360, keyframe each 250": (640, 360, 25, 10, 250),
    "10 s 640x360, keyframe each 12": (640, 360, 25, 10, 12),
    "2 s 128x128, keyframe each 12": (128, 128, 8, 2, 12),
}


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {name, clip, ms_per_clip, clips_per_second, ratio}; ratio: times our time."""
    rows = []
    print(
        "one clip to 4 JPEG frames and its sound at 16 kHz, one core, CPU time, best of all turns"
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, (clip, shape) in enumerate(CLIPS.items()):
            path = Path(folder, f"{number}.mp4")
            _make_clip(path, *shape)
            best = _best(path, settings.seconds / len(CLIPS))
            for name, took in best.items():
                rows.append(_row(name, clip, took, best["index-first (pivot)"]))
                print(
                    "{clip:<32} {name:<20} {ms_per_clip:8.1f} ms "
                    "{clips_per_second:6.0f} clips/s/core {ratio:6.1f} x ours".format(**rows[-1])
                )
    return {"clock": "CPU", "rows": rows}


def _row(name: str, clip: str, took: float, ours: float) -> dict[str, Any]:
    figures = {"ms_per_clip": 1e3 * took, "clips_per_second": 1 / took, "ratio": took / ours}
    return {"name": name, "clip": clip, **figures}


def _best(path: Path, seconds: float) -> dict[str, float]:
    """Best CPU seconds of each candidate over turns within the budget (at least three)."""
    candidates: dict[str, Callable[[Path], object]] = {
        "index-first (pivot)": lambda path: decode_clip(path, None, None, Recipe()),
        "seek (PyAV)": _by_seeking,
    }
    if find_spec("decord"):
        candidates["decord"] = _by_decord
    best = dict.fromkeys(candidates, float("inf"))
    end, turns = time.perf_counter() + seconds, 0
    while turns < 3 or time.perf_counter() < end:
        for name, candidate in candidates.items():
            start = time.process_time()
            candidate(path)
            best[name] = min(best[name], time.process_time() - start)
        turns += 1
    return best


# ---- how it is usually done ----------------------------------------------------------------


def _by_seeking(path: Path) -> tuple[list[bytes], np.ndarray]:
    """Seek to each time, decode forward to it, resize with PIL; then decode the sound."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        seconds = (container.duration or 0) / av.time_base
        frames = []
        for i in range(FRAMES):
            moment = seconds * (i + 0.5) / FRAMES
            container.seek(round(moment * av.time_base))
            last = None
            for frame in container.decode(video):
                if last is not None and frame.time is not None and frame.time > moment:
                    break
                last = frame
            if last is not None:
                frames.append(_jpeg(last.to_image()))
        container.seek(0)
        resampler = av.AudioResampler("s16", "mono", RATE)
        parts = [
            part.to_ndarray()
            for frame in container.decode(audio=0)
            for part in resampler.resample(frame)
        ]
    return frames, np.concatenate(parts, axis=1)


def _by_decord(path: Path) -> tuple[list[bytes], np.ndarray]:
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    numbers = [int(len(reader) * (i + 0.5) / FRAMES) for i in range(FRAMES)]
    frames = [_jpeg(Image.fromarray(rgb)) for rgb in reader.get_batch(numbers).asnumpy()]
    sound = decord.AudioReader(str(path), sample_rate=RATE, mono=True)
    return frames, sound[:].asnumpy()


def _jpeg(image: Image.Image) -> bytes:
    scale = min(1.0, SHORT_SIDE / min(image.size))
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


# ---- the clips -----------------------------------------------------------------------------


def _make_clip(path: Path, width: int, height: int, fps: int, seconds: int, gop: int) -> None:
    """A texture that drifts, with grain, and a tone: H.264 with B-frames, AAC."""
    rng = np.random.default_rng([1, width, gop])
    coarse = rng.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize((width, height))).astype(np.int16)
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=fps, options={"preset": "fast", "crf": "23"})
        video.width, video.height, video.pix_fmt, video.gop_size = width, height, "yuv420p", gop
        audio = file.add_stream("aac", rate=44100, layout="mono")
        for number in range(fps * seconds):
            grain = rng.integers(-8, 8, (height, width, 1), np.int16)
            rgb = np.clip(np.roll(texture, 2 * number, axis=1) + grain, 0, 255).astype(np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        file.mux(video.encode(None))
        tone = 0.3 * np.sin(2 * np.pi * 440 / 44100 * np.arange(44100 * seconds))
        frame = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], "fltp", "mono")
        frame.sample_rate = 44100
        file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
