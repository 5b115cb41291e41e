"""Ways to four frames and the sound of a clip: the reference's, the usual ones, ours."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from PIL import Image

from video_prep.decode import decode_clip
from video_prep.recipe import Recipe
from video_prep.storage.members import members_of

FRAMES, SHORT_SIDE, RATE = 4, 256, 16000
OURS = "index-first (pivot)"
Way = Callable[[Path, float, Path], int]


@dataclass(frozen=True)
class Rung:
    """A way to prepare a clip.

    `take` gets the video, its length in seconds and a folder to write into, and returns how many
    pictures it made. `needs` is the Python module or the program without which it cannot run.
    """

    name: str
    take: Way
    needs: str = ""

    def absent(self) -> str:
        """Why this way cannot be taken here; empty where it can."""
        if self.needs == "ffmpeg":
            there = shutil.which("ffmpeg") and shutil.which("ffprobe")
            return "" if there else "not installed"
        try:
            if self.needs:
                import_module(self.needs)
        except ModuleNotFoundError:
            return "not installed"
        except (
            ImportError,
            OSError,
            RuntimeError,
        ) as error:  # libraries that are missing
            first = str(error).strip().splitlines()[:1]
            return f"cannot be loaded ({''.join(first)[:80]})"
        return ""


# ---- the ffmpeg program --------------------------------------------------------------------


def by_reference(video: Path, seconds: float, folder: Path) -> int:
    """audioset-dl's commands: ffprobe, a process a frame in full size, a process for the sound.

    Its times include both ends, and at the very end ffmpeg finds no frame: three pictures of four.
    """
    _run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(video))
    made = 0
    for i in range(FRAMES):
        jpeg = folder / f"{i}.jpg"
        moment = f"{seconds * i / (FRAMES - 1):.4f}"
        _ffmpeg("-ss", moment, "-i", video, "-frames:v", "1", "-q:v", "1", jpeg)
        made += jpeg.exists()
    cut = f"[0:a]atrim=start=0:end={seconds},asetpts=PTS-STARTPTS[b]"
    _ffmpeg(
        "-i", video, "-filter_complex", cut, "-map", "[b]", "-strict", "-2", folder / "sound.mp3"
    )
    return made


def by_one_ffmpeg(video: Path, seconds: float, folder: Path) -> int:
    """One process a clip: frames at even times, scaled, and the sound as WAV."""
    frames = f"fps={FRAMES / seconds},scale=-2:{SHORT_SIDE}"
    pictures = ("-map", "0:v", "-vf", frames, "-frames:v", str(FRAMES), "-q:v", "2")
    sound = ("-map", "0:a", "-ac", "1", "-ar", str(RATE), folder / "sound.wav")
    _ffmpeg("-i", video, *pictures, folder / "%d.jpg", *sound)
    return len(list(folder.glob("*.jpg")))


def _ffmpeg(*arguments: str | Path) -> None:
    _run("ffmpeg", "-y", *map(str, arguments))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


# ---- other decoders ------------------------------------------------------------------------


def by_decord(video: Path, seconds: float, folder: Path) -> int:
    """decord by frame number, its AudioReader, PIL."""
    import decord

    reader = decord.VideoReader(str(video), num_threads=1)
    numbers = [int(len(reader) * (i + 0.5) / FRAMES) for i in range(FRAMES)]
    frames = [_jpeg(Image.fromarray(rgb)) for rgb in reader.get_batch(numbers).asnumpy()]
    decord.AudioReader(str(video), sample_rate=RATE, mono=True)[:].asnumpy()
    return len(frames)


def by_seeking(video: Path, seconds: float, folder: Path) -> int:
    """PyAV: seek to each time, decode forward to it, resize with PIL; then decode the sound."""
    with av.open(str(video)) as container:
        frames = [_jpeg(_sought(container, moment).to_image()) for moment in _moments(seconds)]
        container.seek(0)
        resampler = av.AudioResampler("s16", "mono", RATE)
        parts = [
            part.to_ndarray()
            for frame in container.decode(audio=0)
            for part in resampler.resample(frame)
        ]
        np.concatenate(parts, axis=1)
    return len(frames)


def _sought(container: Any, moment: float) -> Any:
    """The last frame at or before `moment` seconds."""
    container.seek(round(moment * av.time_base))
    last = None
    for frame in container.decode(video=0):
        if last is not None and frame.time > moment:
            break
        last = frame
    return last


def by_torchcodec(video: Path, seconds: float, folder: Path) -> int:
    """torchcodec in its exact mode, scaled by its decoder to RGB, simplejpeg."""
    from torchcodec.decoders import AudioDecoder, VideoDecoder
    from torchcodec.transforms import Resize

    with av.open(str(video)) as container:  # the size is a setting of the decoder
        context = container.streams.video[0].codec_context
        size = _scaled(context.width, context.height)
    decoder = VideoDecoder(
        str(video), dimension_order="NHWC", num_ffmpeg_threads=1, transforms=[Resize(size[::-1])]
    )
    batch = decoder.get_frames_played_at(seconds=_moments(seconds)).data.numpy()
    frames = [simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=90) for rgb in batch]
    AudioDecoder(str(video), sample_rate=RATE, num_channels=1).get_all_samples().data.numpy()
    return len(frames)


def _moments(seconds: float) -> list[float]:
    return [seconds * (i + 0.5) / FRAMES for i in range(FRAMES)]


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.resize(_scaled(*image.size)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _scaled(width: int, height: int) -> tuple[int, int]:
    """Width and height with the short side at SHORT_SIDE; a smaller picture stays as it is."""
    scale = min(1.0, SHORT_SIDE / min(width, height))
    return round(width * scale), round(height * scale)


# ---- ours ----------------------------------------------------------------------------------


def by_index(recipe: Recipe) -> Way:
    """decode_clip with this recipe: JPEG bytes and samples in memory."""
    return lambda video, seconds, folder: len(decode_clip(video, None, None, recipe).frames)


def as_stored(video: Path, seconds: float, folder: Path) -> int:
    """decode_clip and the bytes that a shard keeps, the sound as FLAC."""
    clip = dict.fromkeys(("start", "end"), None) | {"id": "clip", "source": video.name}
    recipe = Recipe()
    decoded = decode_clip(video, None, None, recipe)
    members_of({**clip, "labels": [], "captions": []}, decoded, recipe)
    return len(decoded.frames)


LADDER = (
    Rung("ffmpeg a frame (reference)", by_reference, "ffmpeg"),
    Rung("ffmpeg a clip", by_one_ffmpeg, "ffmpeg"),
    Rung("decord", by_decord, "decord"),
    Rung("PyAV, seeking", by_seeking),
    Rung("torchcodec, exact", by_torchcodec, "torchcodec.transforms"),
    Rung(OURS, by_index(Recipe())),
    Rung("index-first, packed for a shard", as_stored),
    Rung("index-first, snap 0.5 s", by_index(Recipe(snap_seconds=0.5))),
    Rung(
        "index-first, sound copied",
        by_index(Recipe(sound="copy", audio_rate="native", channel="all")),
    ),
)
