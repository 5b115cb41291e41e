"""Crop, masks, norms and the whole front end: against the reference's draws, and bad sounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pivot.audio.crop import crop, first_sample
from pivot.audio.fbank import fbank, num_frames
from pivot.audio.frontend import FrontEnd, Norm, fingerprint, real_frames, resolve_norm
from pivot.audio.mask import Masks, apply, draw, draw_torch, mask
from pivot.audio.norms import KIND, NAMED, front_end
from pivot.data.choices import mask_batch
from pivot.errors import DataError, SettingsError, UserError
from pivot.settings import AudioSettings, FitSettings, MaskSettings

NORM = Norm(-5.0, 4.0, "test")
SHORT = AudioSettings(num_frames=100)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- crop ------------------------------------------------------------------------------------


def test_vip_ant_crop_is_the_reference(goldens: Path) -> None:
    with np.load(goldens / "vip_ant" / "frontend.npz") as file:
        for case in ("even", "quiet_mid", "quiet_but_end", "odd"):
            x = file[f"crop/{case}/x"]
            assert (
                first_sample(x, 300, rule="vip_ant", rng=None)
                == file[f"crop/{case}/eval_start_300"]
            )
            starts = [
                first_sample(x, 300, rule="vip_ant", rng=np.random.RandomState(seed))
                for seed in range(20)
            ]
            assert starts == file[f"crop/{case}/train_start_300_seed0_19"].tolist(), case
        assert crop(file["crop/short/x"], 300, rule="vip_ant").shape == (1, 200)


def test_plain_crop() -> None:
    x = np.arange(10, dtype=np.int16)[None]
    assert crop(x, 4, rule="plain").tolist() == [[3, 4, 5, 6]]
    assert crop(x, 10, rule="plain") is x
    assert crop(x, 11, rule="plain", rng=np.random.default_rng(0)) is x
    rng = np.random.default_rng(0)
    starts = [crop(x, 4, rule="plain", rng=rng)[0, 0] for _ in range(200)]
    assert set(starts) == set(range(7))
    again = np.random.default_rng(0)
    assert starts == [crop(x, 4, rule="plain", rng=again)[0, 0] for _ in range(200)]


# ---- masks -----------------------------------------------------------------------------------


def test_masks_are_the_reference(goldens: Path) -> None:
    """torchaudio's two masks after torch.manual_seed(s), from the global generator and an own."""
    with np.load(goldens / "vip_ant" / "frontend.npz") as file:
        rows = file["mask/seed0_199_fstart_flen_tstart_tlen"]
    assert len(rows) == 200
    settings = MaskSettings(rule="vip_ant")
    for seed, row in enumerate(rows):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            masks = draw_torch(1000, 128, settings)
        for start, length, got in ((*row[:2], masks[:2]), (*row[2:], masks[2:])):
            if length > 0:
                assert got == (start, start + length), seed
            else:
                assert got[0] == got[1], seed
        assert draw_torch(1000, 128, settings, torch.Generator().manual_seed(seed)) == masks


def test_masks_of_a_batch_are_drawn_clip_by_clip() -> None:
    """Whatever the rule, a clip has the masks of its seed, epoch and place among all clips."""
    places = np.array([4, 0, 2])
    for settings in (MaskSettings(time=9, freq=5), MaskSettings(rule="vip_ant", time=9, freq=5)):
        fbank = torch.ones(3, 20, 8)
        mask_batch(fbank, settings, 7, 1, places, 6)
        alone = [torch.ones(1, 20, 8) for _ in places]
        for row, place in zip(alone, places, strict=True):
            mask_batch(row, settings, 7, 1, np.array([place]), 6)
        assert torch.equal(fbank, torch.cat(alone))
        other = [torch.ones(3, 20, 8) for _ in range(2)]
        mask_batch(other[0], settings, 8, 1, places, 6)
        mask_batch(other[1], settings, 7, 2, places, 6)
        assert not any(torch.equal(fbank, x) for x in other)
    drawn = draw_torch(20, 8, MaskSettings(rule="vip_ant", time=0, freq=5), torch.Generator())
    assert drawn[2:] == (0, 0)
    for seed in range(200):  # masks longer than the FBANK
        masks = draw_torch(20, 8, MaskSettings(), torch.Generator().manual_seed(seed))
        assert 0 <= masks.freq_start <= masks.freq_stop <= 8
        assert 0 <= masks.time_start <= masks.time_stop <= 20


def test_the_rule_of_masks_can_stand_alone_in_a_file() -> None:
    settings = FitSettings.model_validate({"out": "x", "mask": "vip_ant"})
    assert settings.mask == MaskSettings(rule="vip_ant", time=200, freq=32)
    with pytest.raises(ValidationError, match=r"mask.rule[\s\S]*'plain' or 'vip_ant'"):
        FitSettings.model_validate({"out": "x", "mask": "vipant"})


def test_masks_are_applied_to_a_copy() -> None:
    x = torch.ones(6, 5)
    out = apply(x, Masks(1, 3, 4, 5))
    assert x.sum() == 30
    assert (out == 0).nonzero().tolist() == [
        [f, m] for f in range(6) for m in range(5) if m in (1, 2) or f == 4
    ]
    off = MaskSettings(time=0, freq=0)
    assert torch.equal(mask(x, off, np.random.default_rng(0)), x)


def test_masks_come_from_their_generator_and_fit() -> None:
    x = torch.ones(20, 8)
    settings = MaskSettings(time=200, freq=32)  # both longer than the FBANK
    drawn = []
    for seed in range(300):
        masks = draw(20, 8, settings, np.random.default_rng(seed).random)
        assert 0 <= masks.freq_start <= masks.freq_stop <= 8
        assert 0 <= masks.time_start <= masks.time_stop <= 20
        drawn.append(masks.time_stop - masks.time_start)
        assert torch.equal(mask(x, settings, np.random.default_rng(seed)), apply(x, masks))
    assert set(drawn) == set(range(20))


# ---- front end -------------------------------------------------------------------------------


def test_whole_pipeline_on_a_golden(goldens: Path) -> None:
    """1.2 s padded to 150 frames with raw 0.0 and normalised with VIP-ANT's norm."""
    with np.load(goldens / "fbank" / "fbank.npz") as file:
        wave, rows = file["16000/pink/wave"], file["variant/pink_pad150_norm"]
        stereo, stereo_rows = file["variant/stereo_wave"], file["variant/stereo_fbank"]
    audio = AudioSettings(num_frames=150, pad="raw_zero", norms="vip_ant", crop="vip_ant")
    out = FrontEnd(audio, resolve_norm(audio))(wave[None], 16000)
    assert out.shape == (150, 128)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out[[0, 50, 117, 118, 149]], rows, rtol=0, atol=1e-3)
    assert out[118:].unique().tolist() == pytest.approx([0.857732], abs=1e-5)
    np.testing.assert_allclose(real_frames(stereo, 16000, audio), stereo_rows, rtol=0, atol=1e-3)


def test_pad_with_the_mean() -> None:
    out = FrontEnd(SHORT, NORM)(noise(1, 8000), 16000)
    assert out.shape == (100, 128)
    assert (out[48:] == 0).all()
    assert (out[:48, :3] != 0).all()


def test_long_sounds_are_cropped() -> None:
    wave = noise(1, 48000)
    end = FrontEnd(SHORT, NORM)
    assert end.window_samples(16000) == 400 + 99 * 160
    middle = end(wave, 16000)
    assert torch.equal(middle, end(wave, 16000))
    start = round((48000 - end.window_samples(16000)) / 2)
    part = end(wave[:, start : start + end.window_samples(16000)], 16000)
    torch.testing.assert_close(middle, part, rtol=0, atol=1e-5)
    drawn = end(wave, 16000, np.random.default_rng(3))
    assert torch.equal(drawn, end(wave, 16000, np.random.default_rng(3)))
    assert not torch.equal(drawn, end(wave, 16000, np.random.default_rng(4)))
    assert not torch.equal(drawn, middle)


def test_vip_ant_window_is_10_05_seconds() -> None:
    end = FrontEnd(AudioSettings(crop="vip_ant"), NORM)
    assert [end.window_samples(r) for r in (16000, 44100)] == [160800, 443205]
    assert num_frames(160800, 16000, end.settings) == 1003
    assert end(noise(1, 165000), 16000).shape == (1000, 128)


@pytest.mark.parametrize("crop_rule", ["plain", "vip_ant"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_needs_crop_is_whether_the_generator_matters(crop_rule: Any, rate: int) -> None:
    end = FrontEnd(AudioSettings(num_frames=20, crop=crop_rule, num_mel_bins=16), NORM)
    longest = end.window_samples(16000) * rate // 16000
    for samples in range(longest - 2, longest + 3):
        seen = {
            tuple(end(noise(1, samples), rate, np.random.default_rng(seed))[:, 5].tolist())
            for seed in range(6)
        }
        if not end.needs_crop(samples, rate):
            assert len(seen) == 1
    assert end.needs_crop(2 * longest, rate)
    assert not end.needs_crop(longest // 2, rate)


def test_channels() -> None:
    left, right = noise(1, 16000, seed=1), noise(1, 16000, seed=2)
    both = np.concatenate([left, right])
    first = FrontEnd(SHORT, NORM)
    mean = FrontEnd(AudioSettings(num_frames=100, channel="mean"), NORM)
    torch.testing.assert_close(first(both, 16000), first(left, 16000), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        mean(both, 16000), first((left + right) / 2, 16000), rtol=0, atol=1e-3
    )


def test_types_of_the_same_sound() -> None:
    wave = (3000 * noise(1, 16000)).astype(np.int16) * 10
    end = FrontEnd(SHORT, NORM)
    expected = end(wave, 16000)
    floats = wave / np.float32(32768)
    floats.flags.writeable = False
    for same in (wave[0], floats, floats.astype(np.float64), torch.from_numpy(wave)):
        assert torch.equal(end(same, 16000), expected)
    assert torch.equal(end(np.asfortranarray(np.repeat(wave, 2, 0)), 16000), expected)


def test_rates() -> None:
    wave = noise(1, 48000)
    native = FrontEnd(AudioSettings(num_frames=100, sample_rate="native"), NORM)
    expected = (fbank(torch.from_numpy(wave[0] - wave.mean()), 48000, SHORT) + 5) / 4
    torch.testing.assert_close(native(wave, 48000)[:98], expected, rtol=0, atol=1e-4)
    fixed = FrontEnd(SHORT, NORM)
    soxr = pytest.importorskip("soxr")
    at16k = soxr.resample(wave[0], 48000, 16000, quality="HQ")[None]
    assert torch.equal(fixed(wave, 48000), fixed(at16k, 16000))


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (noise(1, 399), 16000, "399 samples at 16000 Hz is shorter than one window"),
        (noise(1, 1000), 44100, "at 16000 Hz is shorter than one window"),
        (np.zeros((1, 0), np.float32), 16000, "without samples"),
        (np.zeros((0, 1600), np.float32), 16000, "without samples"),
        (noise(1600, 2), 16000, "not the transpose"),
        (noise(1, 1, 1600), 16000, "shape"),
        (np.float32(0.5), 16000, "shape"),
        (np.zeros((1, 1600), np.int32), 16000, "type int32"),
        (np.zeros((1, 1600), np.uint8), 16000, "type uint8"),
        (np.zeros((1, 1600), bool), 16000, "type bool"),
        (np.array([["a"] * 1600]), 16000, "type <U1"),
        (32768 * noise(1, 1600), 16000, "floats are in -1..1"),
        (noise(1, 1600), 0, "sample rate 0"),
        (noise(1, 1600), -16000, "sample rate -16000"),
        (noise(1, 1600), 16000.5, "sample rate 16000.5"),
        (noise(1, 1600), None, "sample rate None"),
    ],
)
def test_bad_sounds(wave: Any, rate: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        FrontEnd(SHORT, NORM)(wave, rate)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sounds_that_are_not_finite(bad: float, dtype: type) -> None:
    wave = noise(2, 1600).astype(dtype)
    wave[1, 700] = bad
    with pytest.raises(
        DataError, match=r"1 samples that are NaN or infinite.*sample 700 of channel 1"
    ):
        FrontEnd(SHORT, NORM)(wave, 16000)


# ---- norms -----------------------------------------------------------------------------------


def test_fingerprint_names_what_changes_fbank() -> None:
    base = fingerprint(AudioSettings())
    same: list[dict[str, Any]] = [
        {"num_frames": 7}, {"crop": "vip_ant"}, {"pad": "raw_zero"}, {"norms": "ast"},
        {"backend": "torchaudio"},
    ]  # fmt: skip
    other: list[dict[str, Any]] = [
        {"sample_rate": "native"}, {"sample_rate": 8000}, {"channel": "mean"},
        {"num_mel_bins": 64}, {"frame_length_ms": 20}, {"frame_shift_ms": 20}, {"low_freq": 0},
        {"high_freq": 7000},
    ]  # fmt: skip
    assert {fingerprint(AudioSettings(**change)) for change in same} == {base}
    prints = {fingerprint(AudioSettings(**change)) for change in other}
    assert len(prints) == len(other)
    assert base not in prints


def test_named_norms() -> None:
    assert resolve_norm(AudioSettings(norms="vip_ant")) == Norm(-4.93839311, 5.75751113, "vip_ant")
    assert resolve_norm(AudioSettings(norms="ast")) == NAMED["ast"]
    with pytest.raises(SettingsError, match="needs a folder of shards"):
        resolve_norm(AudioSettings())


def norm_file(path: Path, audio: AudioSettings, **change: Any) -> AudioSettings:
    """Write a norm file of `audio`; return settings that name it."""
    found = {
        "kind": KIND,
        "mean": -6.5,
        "std": 5.25,
        "front_end": {"fingerprint": fingerprint(audio), "settings": front_end(audio)},
    }
    path.write_text(json.dumps(found | change))
    return AudioSettings(norms=str(path))


def test_norm_file(tmp_path: Path) -> None:
    path = tmp_path / "norm.json"
    audio = norm_file(path, AudioSettings(num_frames=7, backend="torchaudio"))
    assert resolve_norm(audio) == Norm(-6.5, 5.25, str(path))
    norm_file(path, AudioSettings(num_mel_bins=64, sample_rate="native"))
    with pytest.raises(
        SettingsError,
        match=r"num_mel_bins 64 there, 128 here; audio\.sample_rate native there, 16000 here",
    ):
        resolve_norm(audio)
    norm_file(path, AudioSettings(), front_end={"settings": front_end(AudioSettings())})
    with pytest.raises(SettingsError, match="another version of the FBANK code"):
        resolve_norm(audio)


@pytest.mark.parametrize(
    "change",
    [{"mean": None}, {"mean": float("nan")}, {"std": 0.0}, {"std": -1}, {"std": "5"},
     {"kind": "else"}, {"front_end": None}],
)  # fmt: skip
def test_bad_norm_files(change: dict[str, Any], tmp_path: Path) -> None:
    audio = norm_file(tmp_path / "norm.json", AudioSettings(), **change)
    with pytest.raises(UserError, match=r"norm\.json"):
        resolve_norm(audio)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_damaged_norm_files(text: str, tmp_path: Path) -> None:
    path = tmp_path / "norm.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"norm\.json"):
        resolve_norm(AudioSettings(norms=str(path)))
    with pytest.raises(DataError, match="does not exist; run pivot measure-fbank"):
        resolve_norm(AudioSettings(norms=str(tmp_path / "none.json")))
