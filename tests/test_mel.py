"""Log-mel of three definitions: recorded numbers, a second implementation, bad settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pivot.audio.frontend import make_front_end
from pivot.audio.mel import check_window, log_mel, mel_bank, num_frames, window_samples
from pivot.audio.views import heard, masked_mean, unpack
from pivot.errors import DataError, SettingsError
from pivot.settings.encoders import FUSED, own_front_end
from pivot.settings.front_ends import (
    HtkDbSettings,
    HtkLogSettings,
    MelSettings,
    SlaneyDbSettings,
)

KINDS: list[Any] = [
    HtkLogSettings(),
    HtkDbSettings(),
    HtkDbSettings(**FUSED),
    SlaneyDbSettings(),
    SlaneyDbSettings(sample_rate=44100, bank_rate=32000),
]


def noise(samples: int, seed: int = 0) -> Tensor:
    """Noise with a spectrum that falls, so that no bin is at its floor."""
    x = np.random.default_rng(seed).standard_normal(samples)
    return torch.from_numpy(0.05 * (x + np.cumsum(x) / 50)).float()


# ---- recorded numbers ------------------------------------------------------------------------


def test_front_ends_are_the_publishers(goldens: Path) -> None:
    """PaSST's, EfficientAT's, ATST's and PANNs' own code: to 2e-5 of the largest value."""
    with np.load(goldens / "distill" / "encoders.npz") as file:
        x32, x16 = (torch.from_numpy(file[f"wave/{name}"]) for name in ("x32", "x16"))
        clap = SlaneyDbSettings(sample_rate=44100)
        cases = [
            (x32, HtkLogSettings(), file["frontend/passt_mel"][0].T),
            (x32, HtkLogSettings(), file["frontend/mn_mel"][0].T),
            (x16, HtkDbSettings(), file["frontend/atst_mel"][0, 0].T),
            (x32, SlaneyDbSettings(), file["frontend/cnn14_logmel_32k"][0, 0]),
            (x32, clap, file["frontend/cnn14_logmel_44k_own_melW"][0, 0]),
            # with the checkpoint's bank, 44.1 kHz gives what 32 kHz gives
            (
                x32,
                clap.model_copy(update={"bank_rate": 32000}),
                file["frontend/cnn14_logmel_32k"][0, 0],
            ),
        ]
        bank = file["frontend/cnn14_melW_32k"]
    for wave, settings, golden in cases:
        out = log_mel(wave, settings)
        assert out.dtype == torch.float32
        assert out.shape == golden.shape == (num_frames(len(wave), settings), golden.shape[1])
        np.testing.assert_allclose(out, golden, rtol=0, atol=2e-5 * np.abs(golden).max())
    np.testing.assert_allclose(mel_bank(SlaneyDbSettings()), bank, rtol=0, atol=2e-9)
    assert bank.max() > 0.01


def test_log_mel_of_fusion_is_laions(goldens: Path) -> None:
    """To 5e-4 dB within 60 dB of the loudest; below, float32 noise of the transform moves more."""
    with np.load(goldens / "laion_clap" / "mel_fusion.npz") as file:
        wave, golden = torch.from_numpy(file["s.long_24000.in"]), file["s.long_24000.mel"]
    out = log_mel(wave, HtkDbSettings(**FUSED)).numpy()
    assert out.shape == golden.shape == (51, 64)
    loud = golden > golden.max() - 60
    assert 0.2 < loud.mean() < 0.9
    np.testing.assert_allclose(out[loud], golden[loud], rtol=0, atol=5e-4)
    np.testing.assert_allclose(out, golden, rtol=0, atol=0.06)


# ---- second implementations ------------------------------------------------------------------


def defined(wave: np.ndarray, settings: Any) -> np.ndarray:
    """The definition in float64, frame by frame, filter by filter."""
    s, kind, x = settings, settings.kind, wave.astype(np.float64)
    if kind == "htk_log":
        x = np.array([x[i] - 0.97 * x[i - 1] for i in range(1, len(x))])
    steps = s.window - 1 if kind == "htk_log" else s.window
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s.window) / steps)
    side = (s.n_fft - s.window) // 2
    hann = np.concatenate([np.zeros(side), hann, np.zeros(s.n_fft - s.window - side)])
    x = np.pad(x, s.n_fft // 2, mode="reflect")
    frames = [x[i : i + s.n_fft] * hann for i in range(0, len(x) - s.n_fft + 1, s.hop)]
    power = np.abs(np.fft.rfft(frames)) ** 2 @ defined_bank(s)
    if kind == "htk_log":
        return np.asarray((np.log(power + 1e-5) + 4.5) / 5)
    db = 10 * np.log10(np.maximum(power, 1e-10))
    if kind == "htk_db" and s.top_db:
        db = np.maximum(db, db.max() - s.top_db)
    if kind == "htk_db" and s.scaled:
        db = (np.clip(db, -50, 80) + 79.6482) / 130.3324 * 2 - 1
    return np.asarray(db)


def defined_bank(s: Any) -> np.ndarray:
    """Mel weights (F, M) one by one, with the scales as they are written in the literature."""
    if s.kind == "slaney_db":

        def mel(f: float) -> float:
            return f / (200 / 3) if f < 1000 else 15 + np.log(f / 1000) / (np.log(6.4) / 27)

        def hertz(m: float) -> float:
            return m * 200 / 3 if m < 15 else 1000 * np.exp((m - 15) * np.log(6.4) / 27)
    else:

        def mel(f: float) -> float:
            return 2595 * np.log10(1 + f / 700)

        def hertz(m: float) -> float:
            return 700 * (10 ** (m / 2595) - 1)

    rate = getattr(s, "bank_rate", None) or s.sample_rate
    low, high, count = mel(s.low_freq), mel(s.high_freq), s.num_mel_bins
    marks = [low + (high - low) * i / (count + 1) for i in range(count + 2)]
    out = np.zeros((s.n_fft // 2 + 1, count))
    for m in range(count):
        left, centre, right = marks[m : m + 3]
        for k in range(len(out)):
            place = k * rate / s.n_fft
            # Kaldi's triangles are straight on the mel scale, the others in Hz
            on = mel if s.kind == "htk_log" else float
            a, b, c = (left, centre, right) if s.kind == "htk_log" else map(hertz, marks[m : m + 3])
            x = on(place)
            out[k, m] = max(0.0, min((x - a) / (b - a), (c - x) / (c - b)))
        if s.kind == "slaney_db":
            out[:, m] *= 2 / (hertz(right) - hertz(left))
    return out


@pytest.mark.parametrize("settings", KINDS, ids=lambda s: f"{s.kind}-{s.sample_rate}")
def test_the_definition(settings: Any) -> None:
    wave = noise(5000)
    np.testing.assert_allclose(mel_bank(settings), defined_bank(settings), rtol=0, atol=1e-11)
    expected = defined(wave.numpy(), settings)
    exact = log_mel(wave.double(), settings)
    assert exact.dtype == torch.float64
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(log_mel(wave, settings), expected, rtol=0, atol=2e-3)


def test_banks_are_torchaudios() -> None:
    functional = pytest.importorskip("torchaudio").functional
    from torchaudio.compliance import kaldi

    for settings, scale, norm in ((KINDS[1], "htk", None), (KINDS[3], "slaney", "slaney")):
        s = settings
        other = functional.melscale_fbanks(
            513, s.low_freq, s.high_freq, s.num_mel_bins, s.sample_rate, norm, scale
        )
        np.testing.assert_allclose(mel_bank(s), other, rtol=0, atol=3e-5 * other.max())
    other, _ = kaldi.get_mel_banks(128, 1024, 32000.0, 8.5, 14321.0, 100.0, -500.0, 1.0)
    bank = mel_bank(KINDS[0], 8.5, 14321.0)
    np.testing.assert_allclose(bank[:-1].T, other, rtol=0, atol=3e-5)
    assert not bank[-1].any()


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("samples", [14000, 48000])
def test_htsats_inputs_are_those_of_transformers(truncation: str, samples: int) -> None:
    """The extractor of CLAP in transformers, with the lowest edge that LAION trained with."""
    transformers = pytest.importorskip("transformers")
    extractor = transformers.ClapFeatureExtractor(
        frequency_min=50, max_length_s=1, truncation=truncation, padding="repeatpad"
    )
    wave = noise(samples).numpy()
    theirs = extractor(wave, sampling_rate=48000, return_tensors="np")["input_features"][0]
    fusion = HtkDbSettings(**(FUSED | {"num_frames": 101}))
    plain = SlaneyDbSettings(**(own_front_end({"kind": "htsat"}) | {"num_frames": 101}))
    if truncation == "fusion":
        ours = unpack(make_front_end(fusion)(wave, 48000))[0]
    else:
        ours = make_front_end(plain)(wave, 48000)[None]
    assert theirs.shape == tuple(ours.shape) == (len(ours), 101, 64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-4)


# ---- properties ------------------------------------------------------------------------------


def test_lengths() -> None:
    """Ten seconds are the published number of frames, and a whole window is exactly its frames."""
    tens = {"htk_log": 1000, "htk_db": 1001, "slaney_db": 1001}
    for settings in KINDS[:4]:
        samples = 10 * settings.sample_rate
        assert num_frames(samples, settings) == settings.num_frames == tens[settings.kind]
        assert window_samples(settings) == samples
        small = settings.model_copy(update={"num_frames": 7})
        assert log_mel(noise(window_samples(small)), small).shape == (7, settings.num_mel_bins)
        for samples in (2000, 2399, 2400, 2401, 2879, 2880, 2881):
            assert len(log_mel(noise(samples), settings)) == num_frames(samples, settings)


def test_floor_is_of_this_sound_alone() -> None:
    """A quiet sound is the same beside a loud one; values end `top_db` below its own maximum."""
    settings = HtkDbSettings(scaled=False)
    gap = 1e-7 * torch.sin(torch.arange(8000) / 9)
    quiet = torch.cat([noise(8000), gap])
    loud = log_mel(quiet * 16, settings)
    out = log_mel(quiet, settings)
    assert float(out.min()) == pytest.approx(float(out.max()) - 80, abs=1e-5)
    np.testing.assert_allclose(loud - out, 20 * np.log10(16), rtol=0, atol=1e-4)
    free = log_mel(quiet, HtkDbSettings(scaled=False, top_db=None))
    assert float(free.min()) < float(out.min()) - 5
    assert torch.equal(out, free.clamp(min=float(free.max()) - 80))


def test_silence() -> None:
    zeros = torch.zeros(3000)
    assert log_mel(zeros, HtkLogSettings()).unique().tolist() == pytest.approx(
        [(np.log(1e-5) + 4.5) / 5]
    )
    assert log_mel(zeros, SlaneyDbSettings()).unique().tolist() == [-100]
    assert log_mel(zeros, HtkDbSettings()).unique().tolist() == pytest.approx(
        [(-50 + 79.6482) / 130.3324 * 2 - 1]
    )


def test_a_frame_does_not_depend_on_the_block_it_is_in() -> None:
    settings = SlaneyDbSettings()
    wave = noise(320 * 700)
    whole = log_mel(wave, settings)
    later = log_mel(wave[320 * 300 :], settings)
    np.testing.assert_allclose(whole[305:], later[5:], rtol=0, atol=1e-4)
    assert torch.equal(whole, log_mel(wave, settings))


def test_types() -> None:
    for settings in (HtkLogSettings(), HtkDbSettings()):
        whole = (noise(4000) * 20000).to(torch.int16)
        expected = log_mel(whole.float() / 32768, settings)
        assert torch.equal(log_mel(whole, settings), expected)
        with torch.autocast("cpu"):
            assert torch.equal(log_mel(whole, settings), expected)


def test_other_edges_for_one_sound() -> None:
    wave, settings = noise(4000), HtkLogSettings()
    moved = log_mel(wave, settings, (7.0, 14500.0))
    as_set = settings.model_copy(update={"low_freq": 7.0, "high_freq": 14500.0})
    assert torch.equal(moved, log_mel(wave, as_set))
    assert not torch.equal(moved, log_mel(wave, settings))


# ---- bad settings and sounds -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (HtkDbSettings(high_freq=8001), "audio.high_freq 8001 Hz does not lie in 0 to 8000 Hz"),
        (HtkLogSettings(sample_rate=16000), "15000 Hz does not lie in 0 to 8000 Hz"),
        (HtkLogSettings(jitter=(10, 2001)), "16000.5 Hz does not lie in 0 to 16000 Hz"),
        (HtkLogSettings(jitter=(15000, 0)), "audio.low_freq 15000 to audio.high_freq 15000"),
        (HtkLogSettings(jitter=(13500, 4000)), "audio.low_freq 13500 to audio.high_freq 13000"),
        (SlaneyDbSettings(sample_rate=48000, bank_rate=16000), "14000 Hz does not lie in 0 to 8"),
        (SlaneyDbSettings(low_freq=14000), "audio.low_freq 14000 to audio.high_freq 14000"),
        (HtkDbSettings(num_frames=4), "audio.num_frames 4 are 480 samples, fewer than the 513"),
    ],
)
def test_settings_that_hear_nothing(settings: MelSettings, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        check_window(settings)
    assert "\n" not in str(error.value)


def test_settings_at_the_edge() -> None:
    check_window(HtkDbSettings(high_freq=8000, num_frames=5))
    check_window(HtkLogSettings(jitter=(10, 2000)))  # SALSA's: up to 16000 of 16000 Hz
    check_window(HtkLogSettings(num_frames=2))


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(512), "512 samples; log-mel needs 513"),
        (torch.zeros(0), "0 samples"),
        (torch.zeros(1, 4000), r"shape \(1, 4000\)"),
        (torch.zeros(4000, dtype=torch.int32), "type torch.int32"),
    ],
)
def test_bad_waves(wave: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        log_mel(wave, SlaneyDbSettings())
    assert log_mel(torch.zeros(513), SlaneyDbSettings()).shape == (2, 64)


# ---- windows ---------------------------------------------------------------------------------


def test_tokens_are_averaged_as_far_as_the_sound_goes(goldens: Path) -> None:
    """SALSA's snippets with an encoder that gives back what it sees: one token, or four."""
    with np.load(goldens / "distill" / "salsa.npz") as file:
        names = ("wave", "audio_length", "one_token_per_snippet", "four_tokens_per_snippet")
        wave, length, one, four = (torch.from_numpy(file[f"snippets/{name}"]) for name in names)
    shares = (length[:, None] * 3 - torch.arange(3)).clamp(0, 1)
    for golden, count in ((one, 1), (four, 4)):
        tokens = wave.reshape(3, 3 * count, -1)
        mask = heard(shares, count)
        np.testing.assert_allclose(masked_mean(tokens, mask), golden, rtol=0, atol=1e-6)
    assert len(set(length.tolist())) > 1
