"""Reads sounds from audio and video files: native rate or soxr HQ, what is bad is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from video_prep.decoding.container import check_file, collect_sound
from video_prep.decoding.sound_track import Sound, SoundTrack, within
from video_prep.decoding.waves import Channel, Rate, WaveFitter, resample
from video_prep.errors import ClipError

__all__ = ["load_sound", "read_sound", "resample"]

_SEEKABLE = {"WAV", "FLAC", "AIFF", "W64", "RF64", "CAF"}  # libsndfile's seek is exact in these
_BLOCK = 1 << 20  # samples read at a time


def read_sound(
    path: str | Path,
    *,
    sample_rate: Rate = "native",
    channel: Channel = "all",
    start: float | None = None,
    end: float | None = None,
) -> tuple[np.ndarray, int]:
    """Sound of an audio or video file, from `start` to `end` seconds, and its rate in Hz.

    Returns (channels, samples): int16 where the file holds 16-bit samples and nothing had to be
    computed, float32 (full scale 1) otherwise. libsndfile reads first; what it cannot open (or a
    FLAC without a length in its header) FFmpeg reads. Raises ClipError, a one-line UserError.
    """
    sound = load_sound(path, start, end, sample_rate=sample_rate, channel=channel)
    return sound.wave, sound.rate


def load_sound(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    *,
    channel: Channel = "all",
    sample_rate: Rate = "native",
    short: bool = False,
) -> Sound:
    """As `read_sound`, with facts of the source; int16 where `short`. Raises ClipError."""
    path = Path(path)
    check_file(path)
    try:
        sound = _load_soundfile(path, start, end, (channel, sample_rate, short))
    except (soundfile.LibsndfileError, ValueError):
        sound = None  # FFmpeg opens more, and names what is wrong where it cannot either
    if sound is None:
        sound = _load_container(path, start, end, (channel, sample_rate, short))
    if sound.wave.shape[1] == 0:
        raise ClipError("no_audio", f"{path} holds no sound{within(start, end)}")
    return sound


def _load_soundfile(
    path: Path, start: float | None, end: float | None, want: tuple[Channel, Rate, bool]
) -> Sound | None:
    with soundfile.SoundFile(path) as file:
        if file.frames <= 0 or file.frames >= 1 << 48:
            return None  # a FLAC written to a pipe has no length
        rate = file.samplerate
        first = 0 if start is None else min(round(start * rate), file.frames)
        last = file.frames if end is None else min(round(end * rate), file.frames)
        at = first if file.format in _SEEKABLE else 0
        if at:
            file.seek(at)
        fitter = WaveFitter(rate, *want)
        kind = "int16" if file.subtype == "PCM_16" else "float32"
        while at < last:
            wave = file.read(min(last - at, _BLOCK), dtype=kind, always_2d=True)
            if not len(wave):
                break
            fitter.add(np.ascontiguousarray(wave[max(first - at, 0) :].T))
            at += len(wave)
        return Sound(
            fitter.finish(),
            fitter.rate,
            f"{file.format} {file.subtype}".lower(),
            source_rate=rate,
            source_channels=file.channels,
            truncated=at < last,
        )


def _load_container(
    path: Path, start: float | None, end: float | None, want: tuple[Channel, Rate, bool]
) -> Sound:
    channel, rate, short = want
    sound: Sound = collect_sound(
        path,
        lambda stream, origin: SoundTrack(
            stream, origin, start, end, channel=channel, sample_rate=rate, short=short
        ),
    )
    return sound
