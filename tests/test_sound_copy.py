"""Sound copied without decoding reads back as the same samples as from the source."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.media import cut_copy, join, tone, write_sound, write_video
from video_prep.decode import decode_clip
from video_prep.decoding.sound_copy import copy_sound, read_copied
from video_prep.decoding.waves import to_int16
from video_prep.errors import ClipError
from video_prep.recipe import Recipe
from video_prep.storage.members import members_of

COPY = Recipe(sound="copy", audio_rate="native", channel="all")
ROW = dict.fromkeys(("id", "source", "start", "end", "labels", "captions"))
CUTS = [(None, None), (0.0, 1.0), (0.3, 0.7), (1.31, 2.77), (2.5, None), (None, 1.5), (0.02, 20.0)]
SOURCES: dict[str, dict[str, Any]] = {
    "aac.mp4": {},
    "aac.ts": {},
    "aac.flv": {},
    "mp3.avi": {"audio_codec": "mp3"},
    "mp3.mp4": {"audio_codec": "mp3"},
    "mp2.mpg": {"codec": "mpeg2video", "fps": 25, "audio_codec": "mp2"},
    "opus.webm": {"codec": "libvpx", "audio_codec": "libopus", "rate": 48000},
    "opus.mp4": {"audio_codec": "libopus", "rate": 48000},
    "flac.mkv": {"audio_codec": "flac"},
    "pcm.mov": {"audio_codec": "pcm_s16le"},
    "pcm.mkv": {"audio_codec": "pcm_s16le"},
    "ac3.ts": {"audio_codec": "ac3"},
}


def same_samples(path: Path, start: float | None, end: float | None, num_frames: int = 1) -> None:
    keep: dict[str, Any] = {
        "num_frames": num_frames, "audio_rate": "native", "channel": "all",
    }  # fmt: skip
    decoded = decode_clip(path, start, end, Recipe(**keep))
    copied = decode_clip(path, start, end, Recipe(**keep, sound="copy"))
    assert copied.wave is None
    assert copied.copied is not None
    # facts cross a shard as JSON
    wave, rate = read_copied(copied.copied, json.loads(json.dumps(copied.facts)))
    assert rate == decoded.rate == copied.rate
    assert np.array_equal(to_int16(wave), decoded.wave)
    assert copied.facts["samples"] == pytest.approx(wave.shape[1], abs=0.06 * rate)
    assert copied.facts["channels"] == len(wave)
    assert copied.facts["sound"]["begins"] == pytest.approx(
        decoded.facts["sound"]["begins"], abs=1e-3
    )


@pytest.mark.parametrize("name", SOURCES)
def test_copies_read_back_as_the_source(tmp_path: Path, name: str) -> None:
    """To the sample, for every codec: decoders start at the same packet in both."""
    settings = SOURCES[name]
    sound = tone(3.2, settings.get("rate", 44100), 2)
    frames = round(3.2 * settings.get("fps", 10))
    path = write_video(tmp_path / name, frames, **{"fps": 10, **settings, "sound": sound})
    for start, end in CUTS:
        same_samples(path, start, end)


@pytest.mark.parametrize(("start", "end"), CUTS)
def test_copies_from_rounded_time_stamps(
    tmp_path: Path, start: float | None, end: float | None
) -> None:
    """Matroska with a codec delay and times in milliseconds: the same samples within 1 ms."""
    path = write_video(tmp_path / "a.mkv", 32, fps=10, sound=tone(3.2, 44100, 2))
    keep: dict[str, Any] = {"audio_rate": "native", "channel": "all", "num_frames": 1}
    decoded = decode_clip(path, start, end, Recipe(**keep)).wave
    clip = decode_clip(path, start, end, Recipe(**keep, sound="copy"))
    assert decoded is not None
    assert clip.copied is not None
    copied = to_int16(read_copied(clip.copied, clip.facts)[0])
    assert abs(copied.shape[1] - decoded.shape[1]) <= 44
    inner = decoded[:, 44:-88]
    shifts = [copied[:, at : at + inner.shape[1]] for at in range(89)]
    assert any(np.array_equal(inner, shifted) for shifted in shifts)


def test_copies_of_vorbis(tmp_path: Path) -> None:
    """Its decoder gives nothing for the first packet, and its first packets are shorter."""
    soundfile.write(tmp_path / "a.ogg", tone(3.2, 44100, 2).T, 44100)
    silent = write_video(tmp_path / "silent.mp4", 32, fps=10, sound=None)
    path = join([silent, tmp_path / "a.ogg"], tmp_path / "vorbis.mkv")
    for start, end in CUTS:
        same_samples(path, start, end)


def test_copies_of_cut_and_moved_files(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", 36, sound=tone(3))
    same_samples(cut_copy(plain, tmp_path / "cut.mp4", 1.1), None, None)
    same_samples(cut_copy(plain, tmp_path / "cut.mp4", 1.1), 0.4, 1.2)
    late = join([plain], tmp_path / "late.mkv", sound_offset=1)
    same_samples(late, None, None)
    same_samples(late, 0.5, 2.5)
    assert copy_sound(late, 0.5, 2.5).begins == pytest.approx(0.5, abs=0.03)


def test_a_copy_is_small_and_keeps_the_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 120, fps=10, sound=tone(12))
    whole, cut = copy_sound(path), copy_sound(path, 6.0, 8.0)
    assert len(cut.data) < len(whole.data) / 3  # 2 s and a second before them, of 12
    assert 1.0 <= cut.lead < 1.05
    assert (cut.seconds, whole.seconds) == (2.0, None)


def test_copies_are_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 24)
    code = (
        "import sys, hashlib\nfrom video_prep.decoding.sound_copy import copy_sound\n"
        "print(hashlib.sha1(copy_sound(sys.argv[1], 0.5, 1.5).data).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(hashes) == 1


def test_sound_files_are_copied_too(tmp_path: Path) -> None:
    wave = tone(2, 44100, 2)
    soundfile.write(tmp_path / "a.flac", wave.T, 44100)
    song = write_sound(tmp_path / "b.m4a", wave)
    for path in (tmp_path / "a.flac", song):
        for start, end in CUTS:
            if start is None or start < 2:
                same_samples(path, start, end, num_frames=0)


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.wmv", 8, codec="wmv2", audio_codec="wmav2")
    with pytest.raises(ClipError, match="wmav2; use --sound flac") as caught:
        decode_clip(path, None, None, COPY)
    assert caught.value.reason == "sound_not_copyable"
    short = write_video(tmp_path / "short.mp4", 48, sound=tone(1))
    clip = decode_clip(short, 3.0, 4.0, COPY)
    assert (clip.copied, clip.wave, clip.flags) == (None, None, ["no_audio"])
    with pytest.raises(ClipError) as caught:
        copy_sound(short, 3.0, 4.0)
    assert caught.value.reason == "no_audio"


def test_damaged_copies_are_named(tmp_path: Path) -> None:
    copied = copy_sound(write_video(tmp_path / "a.mp4", 12))
    with pytest.raises(ClipError, match="cannot be read"):
        read_copied(b"not Matroska" * 9, copied.facts())


@pytest.mark.parametrize(("sound", "suffix"), [("flac", "flac"), ("pcm16", "wav"), ("copy", "mka")])
def test_members(tmp_path: Path, sound: Any, suffix: str) -> None:
    recipe = Recipe(num_frames=2, sound=sound, audio_rate="native", channel="all")
    path = write_video(tmp_path / "a.mp4", 12)
    clip = decode_clip(path, None, None, recipe)
    members = members_of(ROW, clip, recipe)
    assert list(members) == ["0.jpg", "1.jpg", suffix, "json"]
    (tmp_path / "sound").write_bytes(members[suffix])
    if sound == "copy":
        assert members["mka"] == clip.copied
    else:
        wave, rate = soundfile.read(tmp_path / "sound", dtype="int16", always_2d=True)
        assert rate == 44100
        assert np.array_equal(wave.T, clip.wave)
    silent = write_video(tmp_path / "s.mp4", 12, sound=None)
    none = members_of(ROW, decode_clip(silent, None, None, recipe), recipe)
    assert list(none) == ["0.jpg", "1.jpg", "json"]
    facts = json.loads(none["json"])
    assert (facts["flags"], facts["samples"]) == (["no_audio"], 0)
