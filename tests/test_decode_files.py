"""The exact frame from every kind of file: containers, codecs, rates, tracks, cuts, damage."""

from __future__ import annotations

import os
import random
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import soundfile

from tests.media import SIZE, barcoded, cut_copy, join, number_on, tone, write_sound, write_video
from video_prep.decode import DecodedClip, decode_clip
from video_prep.errors import ClipError
from video_prep.recipe import Recipe

FRAMES = 28  # so that the middle of each quarter lies in the middle of a frame
OPUS = {"audio_codec": "libopus", "rate": 48000}
MP3 = {"audio_codec": "mp3"}
MP2 = {"audio_codec": "mp2", "fps": 25}
X265 = "log-level=none:pools=1:frame-threads=1"
AV1 = {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}}

CLIPS: dict[str, dict[str, Any]] = {
    # containers
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.mov": {},
    "h264.flv": {},
    "h264.ts": {},
    "h264.avi": MP3,
    "h264.3gp": {},
    "faststart.mp4": {"container": {"movflags": "faststart"}},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    # codecs
    "mpeg4.avi": {"codec": "mpeg4", **MP3},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4-no-b.mkv": {"codec": "mpeg4", "bframes": 0},
    "mpeg1.mpg": {"codec": "mpeg1video", **MP2},
    "mpeg2.mpg": {"codec": "mpeg2video", **MP2},
    "mpeg2.ts": {"codec": "mpeg2video", **MP2},
    "mpeg2-interlaced.ts": {
        "codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, **MP2,
    },
    "wmv2.wmv": {"codec": "wmv2", "audio_codec": "wmav2"},
    "flv1.flv": {"codec": "flv", **MP3},
    "h263.3gp": {"codec": "h263", "size": (176, 144)},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_s16le"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "audio_codec": "pcm_s24le"},
    "ffv1.mkv": {"codec": "ffv1", "audio_codec": "flac"},
    "vp8.webm": {"codec": "libvpx", **OPUS},
    "vp8-hidden.webm": {
        "codec": "libvpx", "gop": 100, **OPUS,
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "7"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}, **OPUS},
    "vp9-hidden.webm": {
        "codec": "libvpx-vp9", "gop": 100, **OPUS,
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"},
    },
    "hevc.mp4": {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": X265}},
    "hevc-open-gop.mkv": {
        "codec": "libx265",
        "options": {"preset": "fast", "x265-params": f"{X265}:open-gop=1:keyint=8:bframes=3"},
    },
    "hevc-10-bit.mp4": {
        "codec": "libx265", "pix_fmt": "yuv420p10le",
        "options": {"preset": "ultrafast", "x265-params": X265},
    },
    "av1.mp4": AV1,
    "av1.webm": {**AV1, **OPUS},
    # structures of H.264
    "no-b.mp4": {"bframes": 0},
    "intra.mp4": {"gop": 1},
    "one-keyframe.mp4": {"gop": 250},
    "b-pyramid.mp4": {"gop": 28, "bframes": 8, "options": {"x264-params": "b-pyramid=normal"}},
    "open-gop.mp4": {"bframes": 3, "options": {"x264-params": "open-gop=1"}},
    "open-gop.ts": {"bframes": 3, "options": {"x264-params": "open-gop=1"}},
    "intra-refresh.mp4": {"bframes": 0, "options": {"x264-params": "intra-refresh=1"}},
    "interlaced.mp4": {"options": {"flags": "+ildct+ilme"}},
    "interlaced.ts": {"options": {"flags": "+ildct+ilme"}},
    "slices.mp4": {"options": {"x264-params": "slices=4"}},
    # pixels
    "10-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "4-2-2.mkv": {"pix_fmt": "yuv422p"},
    "4-4-4.mp4": {"pix_fmt": "yuv444p", "size": (191, 127)},
    "full-range.mp4": {"pix_fmt": "yuvj420p"},
    "gray.mkv": {"pix_fmt": "gray"},
    "wide-pixels.mp4": {"aspect": Fraction(4, 3)},
    # rates
    "29.98.mp4": {"fps": Fraction(150000, 5003)},
    "15.25.mp4": {"fps": Fraction(61, 4)},
    "ntsc.mkv": {"fps": Fraction(30000, 1001)},
    "slow.mp4": {"fps": 2},
    "60.mp4": {"fps": 60},
    # sound
    "silent.mp4": {"sound": None},
    "long-sound.mp4": {"sound": tone(4)},
    "long-sound.mkv": {"sound": tone(4)},
    "short-sound.mp4": {"sound": tone(1)},
}  # fmt: skip


def decode(path: Path, start: float | None = None, end: float | None = None, **k: Any) -> Any:
    return decode_clip(path, start, end, Recipe(**k))


def numbers(clip: DecodedClip) -> list[int]:
    return [number_on(jpeg) for jpeg in clip.frames]


def check_cuts(path: Path, fps: Fraction | int = 12) -> None:
    """The whole file; cuts at a keyframe, between keyframes and across the end."""
    whole = decode(path)
    assert numbers(whole) == [3, 10, 17, 24]
    assert not {"truncated", "corrupt_gop", "short_video", "corrupt_audio"} & set(whole.flags)
    first = whole.facts["bounds"][0]  # a transport stream's sound may begin before its pictures
    assert 0 <= first < 0.3
    step = 1 / float(fps)
    assert numbers(decode(path, first + 8 * step, first + 20 * step)) == [9, 12, 15, 18]
    assert numbers(decode(path, first + 5 * step, first + 25 * step)) == [7, 12, 17, 22]
    last = decode(path, first + 16 * step, first + 100 * step)
    assert numbers(last) == [17, 20, 23, 26]
    assert "short_video" in last.flags


@pytest.mark.parametrize("name", CLIPS)
def test_exact_frames(tmp_path: Path, name: str) -> None:
    check_cuts(write_video(tmp_path / name, FRAMES, **CLIPS[name]), CLIPS[name].get("fps", 12))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 frames at 12 fps, keyframes every 8, B-frames, sound."""
    return write_video(tmp_path_factory.mktemp("media") / "plain.mp4", FRAMES)


def jpeg(number: int) -> bytes:
    return bytes(simplejpeg.encode_jpeg(barcoded(number)))


@pytest.mark.parametrize(
    ("name", "moves"),
    {
        "offset.mkv": {"offset": 3.7},
        "offset.ts": {"offset": 100},
        "offset.flv": {"offset": 2},
        "late-sound.mp4": {"sound_offset": 1},
        "late-sound.mkv": {"sound_offset": 1},
        "cover.mp4": {"cover": jpeg(99)},
        "cover.mkv": {"cover": jpeg(99)},
    }.items(),
)
def test_tracks_that_begin_elsewhere(
    tmp_path: Path, plain: Path, name: str, moves: dict[str, Any]
) -> None:
    path = join([plain], tmp_path / name, **moves)
    check_cuts(path)
    assert decode(path).facts["sound"]["begins"] == pytest.approx(
        moves.get("sound_offset", 0), abs=0.1
    )


def test_first_of_two_video_tracks(tmp_path: Path, plain: Path) -> None:
    other = write_video(tmp_path / "other.mp4", FRAMES, first=500, sound=None)
    check_cuts(join([plain, other], tmp_path / "two.mkv"))
    check_cuts(join([plain, other], tmp_path / "two.mp4"))


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("start", [8, 13, 22])
def test_stream_copied_cuts(tmp_path: Path, suffix: str, start: int) -> None:
    """In MP4 frames before the cut are hidden by an edit list; Matroska shows them."""
    source = write_video(tmp_path / "source.mp4", FRAMES + start)
    path = cut_copy(source, tmp_path / f"cut.{suffix}", start / 12 + 1e-5)
    shown = FRAMES if suffix != "mkv" else FRAMES + start % 8
    expected = [FRAMES + start - shown + (2 * i + 1) * shown / 8 for i in range(4)]
    clip = decode(path)
    assert clip.facts["video"]["frames"] == shown
    assert numbers(clip) == [int(n) for n in expected]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_varying_rates(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(1)
    times = [0]
    for _ in range(39):
        times.append(times[-1] + rng.choice([20, 40, 200, 400]))
    extra = {"codec": "libvpx", **OPUS} if suffix == "webm" else {}
    path = write_video(tmp_path / f"vfr.{suffix}", 40, times=times, **extra)
    for start, end in ((None, None), (1.003, 2.501), (3.333, 5.017)):
        clip = decode(path, start, end, num_frames=6)
        low, high = clip.facts["bounds"]
        moments = [low + (high - low) * (2 * i + 1) / 12 for i in range(6)]
        shown = [max(n for n in range(40) if times[n] <= 1000 * moment) for moment in moments]
        assert numbers(clip) == shown


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, [0] * 4), (2, [0, 0, 1, 1]), (4, [0, 1, 2, 3])]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_very_short_videos(tmp_path: Path, suffix: str, frames: int, expected: list[int]) -> None:
    path = write_video(
        tmp_path / f"short.{suffix}", frames, audio_codec="mp3", fps=25, sound=tone(frames / 25)
    )
    clip = decode(path)
    assert numbers(clip) == expected
    assert ("duplicate_frames" in clip.flags) == (frames < 4)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rotation(tmp_path: Path, rotation: int, suffix: str) -> None:
    path = write_video(tmp_path / f"turned.{suffix}", FRAMES, rotation=rotation)
    clip = decode(path)
    assert clip.facts["frame_size"] == list(SIZE[:: -1 if rotation % 180 else 1])
    assert clip.facts["video"]["rotation"] == rotation
    back = [np.rot90(simplejpeg.decode_jpeg(f), -rotation // 90) for f in clip.frames]
    clip.frames = [bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(f), 95)) for f in back]
    assert numbers(clip) == [3, 10, 17, 24]


# ---- which frames --------------------------------------------------------------------------


def test_endpoints_are_clamped_and_said_so(plain: Path) -> None:
    clip = decode(plain, frame_policy="endpoints")
    assert numbers(clip) == [0, 9, 18, 27]
    assert clip.facts["clamped"] == [3]
    assert clip.facts["frame_times"][3] == pytest.approx(27 / 12, abs=1e-5)
    cut = decode(plain, 0.5, 1.5, frame_policy="endpoints")
    assert (numbers(cut), cut.facts["clamped"]) == ([6, 10, 14, 18], [])
    assert "clamped" not in decode(plain).facts


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, [3, 10, 17, 24]), (0.1, [3, 10, 16, 24]), (0.2, [3, 8, 16, 24]), (0.3, [0, 8, 16, 24])],
)
def test_keyframes_near_are_taken(plain: Path, seconds: float, expected: list[int]) -> None:
    clip = decode(plain, snap_seconds=seconds)  # keyframes are 0, 8, 16, 24
    assert numbers(clip) == expected
    assert clip.facts["frame_times"] == pytest.approx([n / 12 for n in expected], abs=1e-5)


def test_snapped_frames_stay_distinct_and_in_order(tmp_path: Path) -> None:
    sparse = write_video(tmp_path / "sparse.mp4", FRAMES, gop=100)  # the only keyframe is 0
    assert numbers(decode(sparse, snap_seconds=60)) == [0, 10, 17, 24]
    two = write_video(tmp_path / "two.mp4", FRAMES, gop=12)  # keyframes are 0, 12, 24
    for count in (4, 9):
        taken = numbers(decode(two, snap_seconds=60, num_frames=count))
        assert taken == sorted(set(taken))
    one = write_video(tmp_path / "one.mp4", 1)
    assert numbers(decode(one, snap_seconds=1)) == [0] * 4


def test_long_films_are_read_again(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no room for packets in memory every needed group of pictures is read a second time."""
    avi = write_video(tmp_path / "order.avi", FRAMES, audio_codec="mp3")
    expected = [decode(path, *cut).frames for path in (plain, avi) for cut in ((), (0.8, 1.9))]
    monkeypatch.setattr("video_prep.decoding.packets.MOST_HELD", 0)
    got = [decode(path, *cut).frames for path in (plain, avi) for cut in ((), (0.8, 1.9))]
    assert got == expected
    assert numbers(decode(plain, num_frames=FRAMES)) == list(range(FRAMES))
    check_cuts(plain)


# ---- bad files -----------------------------------------------------------------------------


def failure(path: Path, **k: Any) -> str:
    with pytest.raises(ClipError) as caught:
        decode(path, **k)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_files_that_are_no_video(tmp_path: Path, plain: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1)[0], 44100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><title>gone</title>" * 99)
    (tmp_path / "picture.mp4").write_bytes(jpeg(3))
    (tmp_path / "folder.mp4").mkdir()
    shutil.copy(tmp_path / "a.wav", tmp_path / "sound.mp4")
    reasons = {
        "empty": "empty_file",
        "page": "not_media",
        "picture": "not_media",
        "folder": "not_a_file",
        "vanished": "missing_file",
        "sound": "no_video_stream",
    }
    for name, reason in reasons.items():
        for decoder in ("pyav", "decord", "torchcodec"):
            assert failure(tmp_path / f"{name}.mp4", decoder=decoder) == reason


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    song = write_sound(tmp_path / "song.m4a", tone(1))
    path = join([song], tmp_path / "cover.m4a", cover=jpeg(3))
    assert failure(path) == "no_video_stream"


def test_no_permission(tmp_path: Path, plain: Path) -> None:
    path = shutil.copy(plain, tmp_path / "locked.mp4")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    assert failure(path) == "unreadable"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 s at 12 fps whose header comes first."""
    path = tmp_path_factory.mktemp("media") / "long.mp4"
    return write_video(path, 96, sound=tone(8), container={"movflags": "faststart"})


def outcome(path: Path) -> tuple[str, list[str]]:
    try:
        clip = decode(path)
    except ClipError as error:
        return error.reason, []
    except MemoryError:  # a header that asks for too much; the worker's reason is the same
        return "out_of_memory", []
    return "ok", clip.flags


def test_truncated_files(long: Path, tmp_path: Path) -> None:
    data = long.read_bytes()
    for share in (0.3, 0.55, 0.8):
        (tmp_path / "part.mp4").write_bytes(data[: int(len(data) * share)])
        clip = decode(tmp_path / "part.mp4")
        assert "truncated" in clip.flags
        assert numbers(clip) == [round(t * 12) for t in clip.facts["frame_times"]]
    (tmp_path / "stub.mp4").write_bytes(data[:2000])
    assert outcome(tmp_path / "stub.mp4")[0] in {"not_media", "no_frames"}
    mkv = join([long], tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "part.mkv").write_bytes(mkv[: len(mkv) * 55 // 100])
    assert "truncated" in decode(tmp_path / "part.mkv").flags


def test_damaged_header(long: Path, tmp_path: Path) -> None:
    data = bytearray(long.read_bytes())
    at = data.index(b"moov")
    (tmp_path / "none.mp4").write_bytes(data[: at - 4] + data[data.index(b"mdat") - 4 :])
    assert failure(tmp_path / "none.mp4") == "not_media"
    rng = random.Random(2)
    for _ in range(20):
        fuzzed = bytearray(data)
        for _ in range(30):
            fuzzed[rng.randrange(at + 4, data.index(b"mdat") - 4)] = rng.randrange(256)
        (tmp_path / "fuzzed.mp4").write_bytes(fuzzed)
        outcome(tmp_path / "fuzzed.mp4")  # a row with a reason or a clip, never another error


def test_damaged_data(long: Path, tmp_path: Path) -> None:
    data = bytearray(long.read_bytes())
    first = data.index(b"mdat") + 4
    rng = random.Random(4)
    bits = bytearray(data)
    for _ in range(300):
        bits[rng.randrange(first, len(bits))] ^= 1 << rng.randrange(8)
    (tmp_path / "bits.mp4").write_bytes(bits)
    clip = decode(tmp_path / "bits.mp4")
    assert {"corrupt_gop", "corrupt_audio"} <= set(clip.flags)
    assert clip.facts["sound"]["bad_packets"] > 0
    assert clip.wave.shape[1] > 4 * 16000
    zeros = bytearray(data)
    third = (len(data) - first) // 3
    zeros[first + third : first + 2 * third] = bytes(third)
    (tmp_path / "zeros.mp4").write_bytes(zeros)
    reason, flags = outcome(tmp_path / "zeros.mp4")
    assert reason == "frame_undecodable" or "corrupt_gop" in flags


SOURCES: list[tuple[str, dict[str, Any]]] = [
    ("a.mp4", {"container": {"movflags": "faststart"}}),
    ("a.mkv", {}),
    ("a.ts", {}),
    ("a.avi", {"codec": "mpeg4", **MP3}),
    ("a.webm", {"codec": "libvpx", **OPUS}),
]


def damaged(data: bytes, kind: int, rng: random.Random) -> bytes:
    """One of six kinds of damage."""
    out = bytearray(data)
    size = len(out)
    at, length = rng.randrange(size), rng.randrange(1, size // 4)
    if kind == 0:
        for _ in range(rng.randrange(1, 200)):
            out[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        out[at : at + length] = bytes(len(out[at : at + length]))
    elif kind == 3:
        del out[at : at + length]
    elif kind == 4:
        for _ in range(40):
            out[rng.randrange(min(size, 1500))] = rng.randrange(256)
    else:
        out[at:at] = rng.randbytes(length)
    return bytes(out)


def test_fuzzed_files_have_typed_outcomes(tmp_path: Path) -> None:
    rng = random.Random(5)
    seen = set()
    for name, settings in SOURCES:
        data = write_video(tmp_path / name, 16, **settings).read_bytes()
        for kind in range(6):
            for _ in range(2):
                path = tmp_path / f"fuzzed-{name}"
                path.write_bytes(damaged(data, kind, rng))
                reason, flags = outcome(path)
                seen |= {reason, *flags}
    assert {"ok", "not_media", "truncated", "corrupt_gop"} <= seen
