"""Right frames at the right times from every kind of file, checked by the number each carries."""

import random
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
import soundfile

from tests.media import SIZE, cut_copy, number_on, tone, write_video
from video_prep.decode import DecodedClip, decode_clip, read_sound, resample
from video_prep.decoding.sound_track import _samples
from video_prep.decoding.targets import target_times
from video_prep.decoding.waves import Channel, WaveFitter, fit, to_float
from video_prep.errors import ClipError, UserError
from video_prep.recipe import Recipe


def numbers(clip: DecodedClip) -> list[int]:
    return [number_on(jpeg) for jpeg in clip.frames]


def decode(path: Path, start: float | None = None, end: float | None = None, **k: Any) -> Any:
    return decode_clip(path, start, end, Recipe(**k))


CODECS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.avi": {"audio_codec": "mp3"},  # no display times in the file: only the order is known
    "h264-444.mp4": {"pix_fmt": "yuv444p", "size": (191, 127)},
    "h264-fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "mpeg4.avi": {"codec": "mpeg4", "audio_codec": "mp3"},
    "mpeg2.mpg": {"codec": "mpeg2video", "fps": 25, "audio_codec": "mp2"},
    "vp8-hidden.webm": {
        "codec": "libvpx",
        "gop": 100,
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "7"},
        "audio_codec": "libopus",
        "rate": 48000,
    },
    "vp9.webm": {"codec": "libvpx-vp9", "audio_codec": "libopus", "rate": 48000},
    "hevc-open-gop.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:open-gop=1:keyint=8:bframes=3"},
    },
    "hevc-10-bit.mp4": {
        "codec": "libx265",
        "pix_fmt": "yuv420p10le",
        "options": {"x265-params": "log-level=none"},
    },
}


@pytest.mark.parametrize("name", CODECS)
def test_frames_are_the_ones_on_screen(tmp_path: Path, name: str) -> None:
    clip = decode(write_video(tmp_path / name, 24, **CODECS[name]))
    assert numbers(clip) == [3, 9, 15, 21]
    fps = CODECS[name].get("fps", 12)
    times = np.array(clip.facts["frame_times"])
    assert times - clip.facts["bounds"][0] == pytest.approx(
        np.array([3, 9, 15, 21]) / fps, abs=2e-3
    )
    assert clip.rate == 16000
    assert clip.wave.dtype == np.int16
    assert clip.wave.shape[1] / 16000 == pytest.approx(24 / fps, abs=0.06)
    assert not clip.flags


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 12 fps, keyframes every 8 frames, B-frames, sound."""
    return write_video(tmp_path_factory.mktemp("media") / "plain.mp4", 48)


def test_bounds_cut_pictures_and_sound(plain: Path) -> None:
    clip = decode(plain, 1.0, 2.0)
    assert numbers(clip) == [13, 16, 19, 22]  # at 1.125, 1.375, 1.625, 1.875 s
    assert clip.wave.shape == (1, 16000)
    whole = decode(plain)
    assert np.abs(clip.wave[0, 100:-100].astype(int) - whole.wave[0, 16100:31900]).max() < 40


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0, 1.7, 2.9, 3.8])
@pytest.mark.parametrize("length", [0.05, 0.5, 1.5])
def test_any_cut(plain: Path, start: float, length: float) -> None:
    clip = decode(plain, start, start + length, num_frames=3)
    end = min(start + length, 4.0)
    steps = Fraction(str(start)), Fraction(str(end)) - Fraction(str(start))
    moments = [steps[0] + steps[1] * Fraction(2 * i + 1, 6) for i in range(3)]
    assert numbers(clip) == [int(moment * 12) for moment in moments]


def test_cut_beyond_the_end(plain: Path) -> None:
    assert decode(plain, 3.0, 9.0).flags == ["short_video"]
    with pytest.raises(ClipError, match="lie outside the video") as caught:
        decode(plain, 8.0, 9.0)
    assert caught.value.reason == "outside"


def test_endpoints_are_the_reference_rule(plain: Path) -> None:
    assert numbers(decode(plain, frame_policy="endpoints")) == [0, 16, 32, 47]
    assert target_times(Fraction(2), Fraction(8), 4, "endpoints") == [2, 4, 6, 8]
    assert target_times(Fraction(2), Fraction(8), 3, "midpoints") == [3, 5, 7]
    assert target_times(Fraction(2), Fraction(8), 1, "endpoints") == [2]


def test_every_frame(plain: Path) -> None:
    assert numbers(decode(plain, num_frames=48)) == list(range(48))


def test_varying_frame_rate(tmp_path: Path) -> None:
    rng = random.Random(1)
    times = [0]
    for _ in range(40):
        times.append(times[-1] + rng.choice([20, 40, 200, 400]))
    path = write_video(tmp_path / "vfr.mp4", 40, times=times[:40], sound=tone(9, 16000), rate=16000)
    clip = decode(path, num_frames=7)
    first, last = (Fraction(b).limit_denominator(10**6) for b in clip.facts["bounds"])
    for number, moment in zip(
        numbers(clip), target_times(first, last, 7, "midpoints"), strict=True
    ):
        assert number == max(n for n in range(40) if times[n] <= moment * 1000)


@pytest.mark.parametrize("start", [0.75, 1.25, 2.0])
def test_edit_list_hides_frames(plain: Path, tmp_path: Path, start: float) -> None:
    """A stream copy keeps frames before its start that are decoded and not shown."""
    clip = decode(cut_copy(plain, tmp_path / "cut.mp4", start))
    shown = 48 - round(start * 12)
    assert clip.facts["video"]["frames"] == shown
    assert numbers(clip) == [round(start * 12) + (2 * i + 1) * shown // 8 for i in range(4)]


def test_short_clips(tmp_path: Path) -> None:
    one = decode(write_video(tmp_path / "one.mp4", 1))
    assert numbers(one) == [0, 0, 0, 0]
    assert one.flags == ["duplicate_frames", "still"]
    three = decode(write_video(tmp_path / "three.mp4", 3))
    assert numbers(three) == [0, 1, 1, 2]
    assert three.flags == ["duplicate_frames"]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, rotation: int) -> None:
    upright = decode(write_video(tmp_path / "0.mp4", 8), num_frames=1)
    turned = decode(write_video(tmp_path / "r.mp4", 8, rotation=rotation), num_frames=1)
    ours = simplejpeg.decode_jpeg(turned.frames[0], "GRAY")[..., 0].astype(int)
    plain = simplejpeg.decode_jpeg(upright.frames[0], "GRAY")[..., 0].astype(int)
    assert turned.facts["frame_size"] == list(SIZE[:: -1 if rotation % 180 else 1])
    assert np.abs(ours - np.rot90(plain, rotation // 90)).mean() < 3


def test_sizes(tmp_path: Path, plain: Path) -> None:
    wide = write_video(tmp_path / "sar.mp4", 8, aspect=Fraction(2, 1))
    assert decode(wide, short_side=0).facts["frame_size"] == [384, 128]
    assert decode(wide, short_side=64).facts["frame_size"] == [192, 64]
    assert numbers(decode(wide, short_side=64)) == [1, 3, 5, 7]
    assert decode(plain, short_side=100).facts["frame_size"] == [150, 100]
    assert decode(plain, short_side=512).facts["frame_size"] == list(SIZE)


def test_colours(tmp_path: Path) -> None:
    colours = np.array([[200, 30, 40], [20, 180, 60], [30, 50, 210], [230, 230, 230]])

    def picture(number: int, size: tuple[int, int]) -> np.ndarray:
        return np.full((size[1], size[0], 3), colours[number], np.uint8)

    clip = decode(write_video(tmp_path / "c.mp4", 4, picture=picture, bframes=0))
    for jpeg, colour in zip(clip.frames, colours, strict=True):
        assert np.abs(simplejpeg.decode_jpeg(jpeg).mean((0, 1)) - colour).max() < 6


def test_flags_of_pictures_and_sound(tmp_path: Path) -> None:
    def black(number: int, size: tuple[int, int]) -> np.ndarray:
        return np.zeros((size[1], size[0], 3), np.uint8)

    silence = np.zeros((1, 32000), np.float32)
    clip = decode(write_video(tmp_path / "b.mp4", 12, picture=black, sound=silence, rate=16000))
    assert clip.flags == ["black", "still", "silent_audio"]


# ---- bad files -----------------------------------------------------------------------------


def failure(path: Path, start: float | None = None, end: float | None = None) -> str:
    with pytest.raises(ClipError) as caught:
        decode(path, start, end)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_what_is_not_a_video(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "page.mp4").write_text("<html>video not available</html>" * 50)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/x.ts\n")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "picture.mp4").write_bytes(decode(plain).frames[0])
    assert failure(tmp_path / "gone.mp4") == "missing_file"
    assert failure(tmp_path / "empty.mp4") == "empty_file"
    assert failure(tmp_path / "page.mp4") == "not_media"
    assert failure(tmp_path / "list.mp4") == "not_media"
    assert failure(tmp_path / "folder.mp4") == "not_a_file"
    assert failure(tmp_path / "picture.mp4") == "not_media"


def test_videos_without_a_usable_sound(tmp_path: Path) -> None:
    """Their frames are kept, with the flag no_audio; for prepare-audio they are failures."""
    silent = write_video(tmp_path / "silent.mp4", 8, sound=None)
    clip = decode(silent)
    assert (numbers(clip), clip.flags) == ([1, 3, 5, 7], ["no_audio"])
    assert (clip.wave, clip.copied, clip.rate) == (None, None, 0)
    assert [clip.facts[key] for key in ("samples", "channels", "sound")] == [0, 0, None]
    short = write_video(tmp_path / "short.mp4", 48, sound=tone(1))
    clip = decode(short, 3.0, 4.0)
    assert (numbers(clip), clip.wave, clip.flags) == ([37, 40, 43, 46], None, ["no_audio"])
    assert clip.facts["sound"] == {"codec": "aac", "bad_packets": 0}
    assert decode(short, 0.5, 4.0).wave.shape == (1, 8347)  # AAC ends with a whole packet
    low = decode(short, 0.5, 4.0, audio_rate=1)  # half a sample, rounded
    assert low.facts["samples"] + ("no_audio" in low.flags) == 1
    for path, bounds in ((silent, (None, None)), (short, (3.0, 4.0))):
        with pytest.raises(ClipError) as caught:
            decode(path, *bounds, num_frames=0)
        assert caught.value.reason == "no_audio"


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(1)[0], 44100)
    shutil.copy(tmp_path / "tone.wav", tmp_path / "tone.mp4")
    assert failure(tmp_path / "tone.mp4") == "no_video_stream"


def test_truncated_files(tmp_path: Path) -> None:
    data = write_video(tmp_path / "whole.mkv", 96, sound=tone(8)).read_bytes()
    (tmp_path / "part.mkv").write_bytes(data[: len(data) // 2])
    clip = decode(tmp_path / "part.mkv")
    assert "truncated" in clip.flags
    assert numbers(clip) == [int(t * 12 + 0.01) for t in clip.facts["frame_times"]]
    moov_last = write_video(tmp_path / "whole.mp4", 24).read_bytes()
    (tmp_path / "part.mp4").write_bytes(moov_last[: len(moov_last) // 2])
    assert failure(tmp_path / "part.mp4") == "not_media"


def test_damaged_pictures_are_flagged(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "a.mkv", 96, gop=96, sound=tone(8)).read_bytes())
    rng = random.Random(3)
    for _ in range(60):
        data[rng.randrange(len(data) // 5, len(data) - 4000)] ^= 1 << rng.randrange(8)
    (tmp_path / "bits.mkv").write_bytes(data)
    clip = decode(tmp_path / "bits.mkv")
    assert "corrupt_gop" in clip.flags


# ---- sound ---------------------------------------------------------------------------------


def test_read_sound_of_plain_files(tmp_path: Path) -> None:
    wave = (tone(0.5, 44100, 2) * 32767).astype(np.int16)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, wave.T, 44100)
        got, rate = read_sound(tmp_path / name)
        assert rate == 44100
        assert got.dtype == np.int16
        assert np.array_equal(got, wave)
        assert np.array_equal(read_sound(tmp_path / name, channel="first")[0], wave[:1])
        cut, _ = read_sound(tmp_path / name, start=0.1, end=0.2)
        assert np.array_equal(cut, wave[:, 4410:8820])
    mean, _ = read_sound(tmp_path / "a.wav", channel="mean")
    assert mean == pytest.approx(wave.mean(0, keepdims=True) / 32768, abs=1e-6)
    low, rate = read_sound(tmp_path / "a.wav", sample_rate=16000, channel="first")
    assert (low.shape, rate, low.dtype) == ((1, 8000), 16000, np.float32)
    assert low[0, 200:-200] == pytest.approx(tone(0.5, 16000)[0, 200:-200], abs=2e-3)


def test_flac_without_a_length(tmp_path: Path) -> None:
    """Written to a pipe, its header has no number of samples: libsndfile cannot read it."""
    wave = (tone(1.0, 16000) * 32767).astype(np.int16)
    soundfile.write(tmp_path / "a.flac", wave[0], 16000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21] &= 0xF0  # STREAMINFO: 36 bits of total samples
    data[22:26] = bytes(4)
    data[26:42] = bytes(16)  # and the MD5 of the samples
    (tmp_path / "pipe.flac").write_bytes(data)
    got, rate = read_sound(tmp_path / "pipe.flac")
    assert rate == 16000
    assert np.array_equal(got, wave)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channel", ["first", "mean", "all"])
def test_sound_in_blocks_is_as_at_once(rate: int, channel: Channel) -> None:
    wave = tone(5, 44100, 2)
    for source in (wave, (wave * 32767).astype(np.int16)):
        fitter = WaveFitter(44100, channel, rate, False)
        for at in range(0, wave.shape[1], 1000):
            fitter.add(source[:, at : at + 1000])
        expected, _ = fit(source, 44100, rate, channel)
        got = fitter.finish()
        assert got.dtype == expected.dtype
        assert np.array_equal(got, expected)
    assert WaveFitter(44100, channel, rate, True).finish().shape == (1, 0)


def test_sound_of_a_video(plain: Path) -> None:
    got, rate = read_sound(plain, start=1.0, end=2.0)
    assert (got.shape, rate) == ((1, 44100), 44100)
    period = np.fft.rfft(got[0]).__abs__().argmax()
    assert period == 440


def test_native_rate_keeps_channels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "s.mp4", 12, sound=tone(1, 44100, 2))
    clip = decode(path, audio_rate="native", channel="all")
    assert (clip.wave.shape[0], clip.rate) == (2, 44100)
    assert clip.facts["channels"] == 2


@pytest.mark.parametrize("form", ["s16", "s16p", "flt", "fltp", "s32", "dblp", "u8p"])
def test_sample_formats(form: str) -> None:
    """24 channels: PyAV's to_ndarray reads beyond the planes of more than 8."""
    wave = tone(0.01, 8000, 24)
    frame = av.AudioFrame.from_ndarray(wave.T.reshape(1, -1).copy(), "flt", "22.2")
    frame.sample_rate = 8000
    (same,) = av.AudioResampler(form, "22.2", 8000).resample(frame)
    got = to_float(_samples(same))
    assert got == pytest.approx(wave, abs=1 / 100 if form == "u8p" else 1e-4)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"not a sound at all" * 9])
def test_bad_sounds(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.wav"):
        read_sound(tmp_path / "a.wav")


def test_sounds_that_cannot_be_used(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.int16), 16000)
    with pytest.raises(ClipError, match="holds no sound"):
        read_sound(tmp_path / "none.wav")
    broken = np.full(1600, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", broken, 16000, subtype="FLOAT")
    with pytest.raises(ClipError, match="NaN"):
        decode(tmp_path / "nan.wav", num_frames=0)
    with pytest.raises(UserError, match="sample rate 0"):
        resample(broken[None], 16000, 0)
    with pytest.raises(ClipError) as caught:
        read_sound(tmp_path / "gone.wav")
    assert caught.value.reason == "missing_file"


# ---- other decoders ------------------------------------------------------------------------


def test_decord_is_never_silently_wrong(plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    assert numbers(decode(plain, decoder="decord")) == [6, 18, 30, 42]
    assert decode(plain, decoder="decord").flags == []
    cut = cut_copy(plain, tmp_path / "cut.mp4", 1.25)
    assert decode(cut, decoder="decord").flags == ["decoder_mismatch"]


def test_torchcodec_is_never_silently_wrong(plain: Path, tmp_path: Path) -> None:
    try:
        import torchcodec  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        pytest.skip("torchcodec or FFmpeg's libraries are not here")
    assert numbers(decode(plain, decoder="torchcodec")) == [6, 18, 30, 42]
    assert decode(plain, decoder="torchcodec").flags == []
    cut = cut_copy(plain, tmp_path / "cut.mp4", 1.25)
    assert numbers(decode(cut, decoder="torchcodec")) == numbers(decode(cut))
    stream = write_video(tmp_path / "a.ts", 96, gop=48)
    wrong = decode(stream, decoder="torchcodec")
    assert wrong.flags == ["decoder_mismatch"]
    assert numbers(wrong) != numbers(decode(stream)) == [12, 36, 60, 84]


@pytest.mark.parametrize("rotation", [90, 180])
@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_other_decoders_turn_pictures_themselves(
    tmp_path: Path, rotation: int, decoder: str
) -> None:
    pytest.importorskip(decoder, exc_type=Exception)
    path = write_video(tmp_path / "r.mp4", 16, rotation=rotation, aspect=Fraction(4, 3))
    clip = decode(path, decoder=decoder)
    assert clip.flags == []
    assert [clip.facts[key] for key in ("frame_size", "video")] == [
        decode(path).facts[key] for key in ("frame_size", "video")
    ]


@pytest.mark.parametrize(
    ("decoder", "advice"),
    [("decord", "pip install decord"), ("torchcodec", r"pivot-audio\[torchcodec\].*FFmpeg")],
)
def test_missing_decoders_are_named(
    plain: Path, monkeypatch: pytest.MonkeyPatch, decoder: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, decoder, None)
    monkeypatch.setitem(sys.modules, f"{decoder}.decoders", None)
    with pytest.raises(UserError, match=advice) as caught:
        decode(plain, decoder=decoder)
    assert not isinstance(caught.value, ClipError)
    assert "\n" not in str(caught.value)


def test_real_videos(realdata: Path) -> None:
    """Real files with odd rates: each frame is the last that began before its time."""
    usable = 0
    for path in sorted((realdata / "video").rglob("*.*")):
        if path.suffix in {".mp4", ".mkv", ".webm"} and path.stem != "0":
            clip = decode(path)
            first, last = clip.facts["bounds"]
            step = 1.5 / clip.facts["video"]["fps"]
            for i, time in enumerate(clip.facts["frame_times"]):
                moment = first + (last - first) * (2 * i + 1) / 8
                assert moment - step <= time <= moment + 1e-6
            usable += 1
    assert usable == 8
    clip = decode(realdata / "video/languagebind_assets/0.mp4")
    assert (clip.wave, clip.flags) == (None, ["no_audio"])
    ogg, rate = read_sound(realdata / "video/pydub/bach.ogg")  # libsndfile cannot open this one
    assert (rate, ogg.shape) == (44100, (1, 133632))
