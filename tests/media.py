"""Makes small real media files for tests: every frame of a video carries its own number."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg

BITS = 12
SIZE = (192, 128)  # width, height


def barcoded(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """RGB picture (height, width, 3) whose upper half codes `number`, the lower half its inverse.

    A texture that moves with the number makes encoders use motion and B-frames.
    """
    width, height = size
    bits = np.array([number >> i & 1 for i in range(BITS)])
    row = np.repeat(bits, -(-width // BITS))[:width]
    y, x = np.mgrid[:height, :width]
    texture = 12 * np.sin((x + 3 * number) / 7) * np.cos((y + number) / 9)
    code = np.where(y < height // 2, row, 1 - row)
    gray = 40 + 170 * code + texture
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def number_on(jpeg: bytes) -> int:
    """The number that a barcoded picture carries; fails where the two halves disagree."""
    gray = simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0].astype(float)
    half = len(gray) // 2
    edges = np.linspace(0, gray.shape[1], BITS + 1)
    centres = ((edges[:-1] + edges[1:]) / 2).round().astype(int)
    upper, lower = (
        np.array([part[:, c - 2 : c + 3].mean() for c in centres])
        for part in (gray[2 : half - 2], gray[half + 2 : -2])
    )
    assert (np.abs(upper - lower) > 60).all(), "no barcode in this picture"
    return int(((upper > lower) << np.arange(BITS)).sum())


def tone(seconds: float, rate: int = 44100, channels: int = 1, hertz: float = 440) -> np.ndarray:
    """Sine (channels, samples) float32 of amplitude 0.5; each channel an octave higher."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * hertz * 2**c * t) for c in range(channels)]).astype(
        np.float32
    )


def write_video(
    path: Path,
    frames: int = 24,
    *,
    fps: Fraction | int = 12,
    codec: str = "libx264",
    gop: int = 8,
    bframes: int = 2,
    times: list[int] | None = None,
    first: int = 0,
    size: tuple[int, int] = SIZE,
    sound: np.ndarray | str | None = "tone",
    rate: int = 44100,
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    picture: Any = barcoded,
) -> Path:
    """Write a video with barcoded frames; `times` (in 1/1000 s) makes its frame rate vary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(sound, str):
        sound = tone(frames / float(fps), rate)
    # bitexact: Matroska has random numbers otherwise, and damage would hit other bytes each time
    with av.open(str(path), "w", options={"fflags": "+bitexact", **(container or {})}) as file:
        video = file.add_stream(codec, rate=fps)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.codec_context.gop_size = gop
        video.codec_context.time_base = Fraction(1, 1000) if times else 1 / Fraction(fps)
        defaults = {"libx264": {"preset": "veryfast", "crf": "18", "sc_threshold": "0"}}
        context = defaults.get(codec, {}) | (options or {})
        if codec in ("libx264", "mpeg4", "mpeg2video"):
            context["bf"] = str(bframes)
        video.codec_context.options = context
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        audio = None
        if sound is not None:
            audio = file.add_stream(audio_codec, rate=rate)
            audio.layout = "mono" if len(sound) == 1 else "stereo"
            audio.bit_rate = 128_000  # wmav2 has no default
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, size), "rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = video.codec_context.time_base
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio is not None:
            _encode_sound(file, audio, sound, rate)
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        # run by root, it makes this thread a realtime one, and so every child: they would starve
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def _encode_sound(file: Any, audio: Any, sound: np.ndarray, rate: int) -> None:
    step = 1024
    for at in range(0, sound.shape[1], step):
        part = np.ascontiguousarray(sound[:, at : at + step])
        frame = av.AudioFrame.from_ndarray(part, "fltp", audio.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        file.mux(audio.encode(frame))
    file.mux(audio.encode(None))


def write_sound(path: Path, sound: np.ndarray, rate: int = 44100, codec: str = "aac") -> Path:
    """Write a file of sound alone: (channels, samples) float32."""
    with av.open(str(path), "w") as file:
        audio = file.add_stream(codec, rate=rate)
        audio.layout = "mono" if len(sound) == 1 else "stereo"
        _encode_sound(file, audio, sound, rate)
    return path


def cut_copy(source: Path, path: Path, start: float) -> Path:
    """Stream copy from `start` on without re-encoding: the mp4 then has an edit list.

    Packets from the keyframe before `start` are kept and hidden, as `ffmpeg -ss -c copy` does.
    """
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        copies = {s.index: write.add_stream_from_template(s) for s in read.streams}
        video = read.streams.video[0]
        key = max(
            packet.pts
            for packet in read.demux(video)
            if packet.size and packet.is_keyframe and packet.pts * packet.time_base <= start
        )
        read.seek(0)
        for packet in read.demux():
            if not packet.size or packet.pts * packet.time_base < key * video.time_base:
                continue
            shift = round(Fraction(start) / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = copies[packet.stream_index]
            write.mux(packet)
    return path


def join(
    sources: list[Path],
    path: Path,
    *,
    offset: float = 0,
    sound_offset: float = 0,
    cover: bytes | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Copy all tracks of `sources` into one file, moved by `offset` seconds, sound by more.

    `cover`: a JPEG that is attached as the picture of the album.
    """
    with contextlib.ExitStack() as stack:
        kind = "mp4" if path.suffix == ".m4a" else None  # FFmpeg's own m4a takes no cover
        write = stack.enter_context(av.open(str(path), "w", kind, options=container or {}))
        reads = [stack.enter_context(av.open(str(source))) for source in sources]
        if cover is not None and path.suffix == ".mkv":
            write.add_attachment("cover.jpg", "image/jpeg", cover)
        copies = [[write.add_stream_from_template(s) for s in read.streams] for read in reads]
        if cover is not None and path.suffix != ".mkv":
            picture = write.add_stream("mjpeg", width=SIZE[0], height=SIZE[1], pix_fmt="yuvj420p")
            picture.disposition = av.stream.Disposition.attached_pic
            packet = av.Packet(cover)
            packet.stream, packet.pts, packet.dts = picture, 0, 0
            packet.time_base = Fraction(1, 12)
            write.mux(packet)
        packets = [
            (p, own[p.stream_index])
            for r, own in zip(reads, copies, strict=True)
            for p in r.demux()
        ]
        for packet, stream in sorted(
            (pair for pair in packets if pair[0].size),
            key=lambda pair: pair[0].dts * pair[0].time_base,
        ):
            later = offset + (sound_offset if stream.type == "audio" else 0)
            shift = round(Fraction(later) / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
            write.mux(packet)
    return path
