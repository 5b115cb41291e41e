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
from pivot.audio.fill import fill
from pivot.audio.frontend import (
    FrontEnd,
    MelFrontEnd,
    Norm,
    fingerprint,
    input_facts,
    make_front_end,
    real_frames,
    resolve_norm,
)
from pivot.audio.mask import Masks, apply, draw, draw_torch, mask
from pivot.audio.mel import log_mel
from pivot.audio.norms import KIND, NAMED, NO_NORM, front_end
from pivot.audio.views import heard, pack, unpack
from pivot.data.batches import va_batches
from pivot.data.choices import mask_batch
from pivot.data.fbank_cache import open_cache
from pivot.data.stream import SoundItems, open_with_sound
from pivot.errors import DataError, SettingsError, UserError
from pivot.settings import AudioSettings, FitSettings, MaskSettings
from pivot.settings.front_ends import HtkDbSettings, HtkLogSettings, SlaneyDbSettings
from tests.toy import toy_shards

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
    assert num_frames(160800, 16000, AudioSettings()) == 1003
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


# ---- front ends of log-mel ---------------------------------------------------------------------

PASST = HtkLogSettings(
    sample_rate=8000, n_fft=64, window=50, hop=20, num_mel_bins=8, high_freq=3500, num_frames=20
)
SALSA = PASST.model_copy(update={"windows": 3})
WINDOW = 400  # samples of 20 frames


def test_each_kind_has_its_front_end() -> None:
    assert type(make_front_end(AudioSettings(norms="ast"))) is FrontEnd
    assert make_front_end(AudioSettings(), NORM).norm == NORM
    for settings in (HtkLogSettings(), HtkDbSettings(), SlaneyDbSettings()):
        end = make_front_end(settings)
        assert isinstance(end, MelFrontEnd)
        assert end.norm == resolve_norm(settings) == NO_NORM
        assert end.shape == (settings.num_frames, settings.num_mel_bins)
        wave = noise(1, 3 * settings.sample_rate)
        filled = np.zeros(10 * settings.sample_rate, np.float32)
        filled[: wave.size] = wave
        out = end(wave, settings.sample_rate)
        assert out.shape == end.shape
        assert torch.equal(out, log_mel(torch.from_numpy(filled), settings))
    assert make_front_end(SHORT, NORM).shape == (100, 128)
    assert make_front_end(SALSA).shape == (3, 21, 8)
    with pytest.raises(SettingsError, match="kind htk_db has its own range and takes no mean"):
        make_front_end(HtkDbSettings(), NORM)
    with pytest.raises(SettingsError, match="does not lie in 0 to 8000 Hz"):
        make_front_end(HtkDbSettings(high_freq=9000))


def test_windows_of_a_longer_sound() -> None:
    """22 s at windows of 10 s have shares 1, 1 and 0.2; each window is heard by itself."""
    end = make_front_end(SALSA)
    wave = noise(1, 22 * WINDOW // 10)
    views, shares = unpack(end(wave, 8000))
    assert shares.tolist() == pytest.approx([1, 1, 0.2])
    for i in range(3):
        part = np.zeros(WINDOW, np.float32)
        own = wave[0, i * WINDOW : (i + 1) * WINDOW]
        part[: own.size] = own
        assert torch.equal(views[i], log_mel(torch.from_numpy(part), PASST))
    cases = ((1, [0.0025, 0, 0]), (400, [1, 0, 0]), (401, [1, 0.0025, 0]), (1200, [1, 1, 1]))
    for samples, expected in cases:
        found = unpack(end(noise(1, samples), 8000))[1].tolist()
        assert found == pytest.approx(expected, abs=1e-6), samples
    assert heard(unpack(end(wave, 8000))[1][None], 5).sum() == 11


def test_more_sound_than_all_windows_is_cropped() -> None:
    end = make_front_end(SALSA)
    assert end.window_samples(8000) == 1200
    wave = noise(1, 2001)
    middle = end(wave, 8000)
    assert torch.equal(middle, end(wave[:, 400:1600], 8000))
    assert unpack(middle)[1].tolist() == [1, 1, 1]
    start = first_sample(wave, 1200, rule="plain", rng=np.random.default_rng(3))
    drawn = end(wave, 8000, np.random.default_rng(3))
    assert torch.equal(drawn, end(wave[:, start : start + 1200], 8000))
    assert not torch.equal(drawn, middle)
    assert [end.needs_crop(n, 8000) for n in (1199, 1200, 1201)] == [False, False, True]
    assert end.needs_crop(2401, 16000)
    assert not end.needs_crop(2400, 16000)


def test_a_short_sound_is_filled_by_the_rule() -> None:
    wave = noise(1, 150)
    for rule in ("pad", "repeat", "repeatpad"):
        settings = PASST.model_copy(update={"fill": rule})
        filled = torch.from_numpy(fill(wave, WINDOW, rule)[0])
        assert torch.equal(make_front_end(settings)(wave, 8000), log_mel(filled, PASST))
    assert make_front_end(PASST)(noise(1, 1), 8000).shape == (20, 8)


def test_channels_and_rates_of_log_mel() -> None:
    left, right = noise(1, 3000, seed=1), noise(1, 3000, seed=2)
    both = np.concatenate([left, right])
    mean, first = (
        make_front_end(PASST.model_copy(update={"channel": name})) for name in ("mean", "first")
    )
    assert torch.equal(first(both, 8000), first(left, 8000))
    torch.testing.assert_close(mean(both, 8000), mean((left + right) / 2, 8000), rtol=0, atol=1e-5)
    assert not torch.equal(mean(both, 8000), first(both, 8000))
    whole = (left * 10000).astype(np.int16)
    assert torch.equal(mean(whole, 8000), mean(whole / np.float32(32768), 8000))
    soxr = pytest.importorskip("soxr")
    at8k = soxr.resample(left[0], 16000, 8000, quality="HQ")[None]
    assert torch.equal(mean(left, 16000), mean(at8k, 8000))
    with pytest.raises(DataError, match="sample rate 0"):
        mean(left, 0)
    with pytest.raises(DataError, match="without samples"):
        mean(left[:, :0], 8000)


def test_jitter_moves_the_mel_edges_while_training() -> None:
    """PaSST's: low from 0 to 10 Hz more, high up to 1000 Hz either way; and never without rng."""
    settings = HtkLogSettings(jitter=(10, 2000), num_frames=20)
    end, plain = make_front_end(settings), make_front_end(HtkLogSettings(num_frames=20))
    wave = noise(1, 6400)
    assert torch.equal(end(wave, 32000), plain(wave, 32000))
    rng = np.random.default_rng(5)
    low, high = rng.uniform(0, 10), 16000 - rng.uniform(0, 2000)
    expected = log_mel(torch.from_numpy(wave[0]), HtkLogSettings(), (low, high))
    drawn = end(wave, 32000, np.random.default_rng(5))
    assert torch.equal(drawn, expected)
    assert not torch.equal(drawn, end(wave, 32000, np.random.default_rng(6)))
    assert not torch.equal(drawn, plain(wave, 32000, np.random.default_rng(5)))
    assert end.needs_crop(10, 32000)
    assert not plain.needs_crop(6400, 32000)


def test_jittered_inputs_are_not_kept(tmp_path: Path) -> None:
    """An epoch that kept the first epoch's draw would train on one jitter for ever."""
    shards = open_with_sound(toy_shards(tmp_path / "shards", clips=4))
    draws = [np.random.default_rng(seed) for seed in (1, 2)]
    for jitter, same in (((0, 0), True), ((50, 400), False)):
        end = make_front_end(PASST.model_copy(update={"jitter": jitter, "num_frames": 400}))
        items = SoundItems(shards, end, cache_mb=10)
        first, second = (items.fbank(1, rng) for rng in draws)
        assert torch.equal(first, second) == same
    assert torch.equal(items.fbank(1), items.fbank(1))


def test_log_mel_has_no_fbank_parts(tmp_path: Path) -> None:
    end = make_front_end(PASST)
    shards = open_with_sound(toy_shards(tmp_path / "shards", clips=2))
    calls: list[Any] = [
        lambda: end.crop_frames(np.zeros((9, 8))),
        lambda: end.filled(torch.zeros(9, 8)),
        end.uncropped_frames,
        lambda: FrontEnd(PASST, NORM),
        lambda: real_frames(noise(1, 800), 8000, PASST),
        lambda: open_cache(str(tmp_path / "cache"), end, shards),
    ]
    for call in calls:
        with pytest.raises(SettingsError, match=r"is for FBANK, and audio\.kind is htk_log") as e:
            call()
        assert "\n" not in str(e.value)
    assert open_cache(None, end, shards) is None


def test_fingerprints_of_every_kind() -> None:
    """FBANK's is what it was before there were kinds; each kind's names what changes its values."""
    assert fingerprint(AudioSettings()) == "deaf32fd24e5d4e7"
    native = AudioSettings(sample_rate="native", channel="mean", num_mel_bins=64)
    assert fingerprint(native) == "aec0b7a5d7a99bde"
    assert "kind" not in front_end(AudioSettings())
    base: list[Any] = [HtkLogSettings(), HtkDbSettings(), SlaneyDbSettings()]
    same: list[Any] = [
        HtkLogSettings(num_frames=7, windows=3, jitter=(10, 2000)),
        HtkDbSettings(fill="repeat", views="fusion", antialias=True),
        SlaneyDbSettings(fill="repeatpad"),
    ]
    other: list[Any] = [
        HtkLogSettings(low_freq=1), HtkLogSettings(sample_rate=44100), HtkLogSettings(hop=160),
        HtkDbSettings(top_db=None), HtkDbSettings(scaled=False), HtkDbSettings(channel="first"),
        SlaneyDbSettings(bank_rate=44100), SlaneyDbSettings(window=800),
    ]  # fmt: skip
    assert [fingerprint(s) for s in same] == [fingerprint(s) for s in base]
    assert len({fingerprint(s) for s in base + other}) == len(base + other)


def test_facts_of_an_input() -> None:
    """What decides an embedding beside the fingerprint; jitter and backend are in neither."""
    assert input_facts(AudioSettings(num_frames=7, backend="torchaudio")) == {
        "window": [7, "plain", "mean"]
    }
    assert input_facts(HtkLogSettings(windows=3, jitter=(10, 2000))) == {"window": [1000, 3, "pad"]}
    assert input_facts(HtkDbSettings(views="fusion", fill="repeat")) == {
        "window": [1001, 1, "repeat"],
        "views": ["fusion", False],
    }


# ---- masks of log-mel --------------------------------------------------------------------------


def test_masks_of_log_mel_are_its_own_mean() -> None:
    """The same places as in FBANK; the value is the sound's mean, not 0."""
    settings, places = MaskSettings(time=9, freq=5), np.array([4, 0, 2])
    zeroed = torch.ones(3, 20, 8)
    mask_batch(zeroed, settings, 7, 1, places, 6)
    rows = torch.from_numpy(noise(3, 20, 8)) - torch.tensor([40.0, 2, 7])[:, None, None]
    out = rows.clone()
    mask_batch(out, settings, 7, 1, places, 6, own_mean=True)
    assert torch.equal(out == rows, zeroed == 1)
    for clip, before, hidden in zip(out, rows, zeroed == 0, strict=True):
        assert hidden.any()
        assert clip[hidden].unique().tolist() == pytest.approx([float(before.mean())])


@pytest.mark.parametrize("rule", ["plain", "vip_ant"])
def test_masks_of_several_views(rule: Any) -> None:
    """All views have the masks that one view would have; the row of shares has none."""
    settings, places = MaskSettings(rule=rule, time=9, freq=5), np.array([4, 0])
    one = torch.ones(2, 20, 8)
    mask_batch(one, settings, 7, 1, places, 6)
    views = torch.from_numpy(noise(2, 3, 20, 8)) - 30
    shares = torch.tensor([[1, 1, 0.2], [0.5, 0, 0]])
    packed = pack(views, shares)
    mask_batch(packed, settings, 7, 1, places, 6, own_mean=True)
    out, after = unpack(packed)
    assert torch.equal(after, shares)
    assert not packed[:, :, -1, 1:].any()
    hidden = (one == 0)[:, None].expand_as(out)
    assert torch.equal(out[~hidden], views[~hidden])
    for clip, before, place, count in zip(out, views, hidden, (3, 1), strict=True):
        mean = float(before[:count].mean())  # windows without sound do not count
        assert clip[place].numpy() == pytest.approx(mean, rel=1e-5)


def test_batches_of_several_windows(tmp_path: Path) -> None:
    sounds = SoundItems(
        open_with_sound(toy_shards(tmp_path / "shards", clips=6)), make_front_end(SALSA)
    )
    off = MaskSettings(time=0, freq=0)
    plain = va_batches(sounds, "middle", 4, off, seed=3)
    masked = va_batches(sounds, "middle", 4, MaskSettings(time=9, freq=4), seed=3)
    fbank, same = plain[0].fbank, plain[0].fbank
    assert fbank.shape == (4, 3, 21, 8)
    assert torch.equal(fbank, same)
    assert torch.equal(fbank[:, :, -1], masked[0].fbank[:, :, -1])
    assert not torch.equal(fbank, masked[0].fbank)
    assert plain.part(0, 4, 5).fbank.shape == (0, 3, 21, 8)
