"""FBANK against recorded torchaudio, a second implementation in float64, and the other backends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pivot.audio import backends
from pivot.audio.fbank import EPS, Fbank, fbank, log_floor, mel_weights, num_frames
from pivot.errors import DataError, SettingsError
from pivot.settings import AudioSettings

BACKENDS = ("torch", "torchaudio", "kaldi-native-fbank")
NOISY = {"noise", "pink", "clipped", "square110", "impulse", "dc_noise", "lsb"}
AUDIO = AudioSettings()


@pytest.fixture(scope="module")
def recorded(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "fbank" / "fbank.npz") as file:
        return {name: file[name] for name in file.files}


def centred(wave: np.ndarray) -> torch.Tensor:
    """int16 or float -> float32 in -1..1 with its mean subtracted, as the goldens were made."""
    x = torch.from_numpy(wave.astype(np.float32)) / (32768 if wave.dtype == np.int16 else 1)
    return x - x.mean()


def defined(wave: np.ndarray, rate: int, audio: AudioSettings = AUDIO) -> np.ndarray:
    """The definition, frame by frame, in float64 numpy: mel energies before the logarithm."""
    length, shift = (
        int(rate * audio.frame_length_ms / 1000),
        int(rate * audio.frame_shift_ms / 1000),
    )
    size = 2 ** int(np.ceil(np.log2(length)))
    window = np.hanning(length)
    rows = []
    for start in range(0, len(wave) - length + 1, shift):
        x = wave[start : start + length].astype(np.float64)
        x = x - x.mean()
        x = x - 0.97 * np.concatenate([x[:1], x[:-1]])
        power = np.abs(np.fft.rfft(x * window, size)) ** 2
        rows.append(power)

    def mel(f: float) -> float:
        return 1127 * float(np.log(1 + f / 700))

    top = audio.high_freq if audio.high_freq > 0 else rate / 2 + audio.high_freq
    low, high, bins = mel(audio.low_freq), mel(top), audio.num_mel_bins
    bank = np.zeros((size // 2 + 1, bins))
    for m in range(bins):
        left, centre, right = (low + (m + i) * (high - low) / (bins + 1) for i in range(3))
        for k in range(size // 2 + 1):
            at = mel(k * rate / size)
            if left < at < right:
                up = at <= centre
                bank[k, m] = (
                    (at - left) / (centre - left) if up else (right - at) / (right - centre)
                )
    return np.stack(rows) @ bank


@pytest.mark.parametrize("backend", BACKENDS)
def test_goldens(recorded: dict[str, np.ndarray], backend: str) -> None:
    audio = AudioSettings(backend=backend)
    cases = [name[:-5] for name in recorded if name.endswith("/wave")]
    assert len(cases) == 20
    for case in cases:
        rate, signal = case.split("/")
        wave, expected = centred(recorded[f"{case}/wave"]), recorded[f"{case}/fbank"]
        got = fbank(wave, int(rate), audio).numpy()
        assert got.shape == expected.shape, case
        off = np.abs(got - expected)
        loud = expected >= expected.max(axis=1, keepdims=True) - 6 * np.log(10)  # 60 dB
        assert off[loud].max() <= 1e-3, case
        assert off.max() <= (1e-3 if signal in NOISY else 0.05), case
        energy = np.maximum(defined(wave.numpy(), int(rate)), np.finfo(np.float32).eps)
        most = energy.max(axis=1, keepdims=True)
        bound = 1e-3 * energy + 3e-11 * most + 1e-12
        assert (np.abs(np.exp(got.astype(np.float64)) - energy) <= bound).all(), case


def test_float64_is_the_definition(recorded: dict[str, np.ndarray]) -> None:
    for case in ("16000/sweep", "44100/decay_zero", "8000/noise"):
        wave = centred(recorded[f"{case}/wave"]).double()
        rate = int(case.split("/")[0])
        expected = np.log(np.maximum(defined(wave.numpy(), rate), np.finfo(np.float32).eps))
        got = fbank(wave, rate, AUDIO)
        assert got.dtype == torch.float64
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-9, err_msg=case)


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_settings_are_the_definition(backend: str) -> None:
    audio = AudioSettings(
        num_mel_bins=40, frame_length_ms=32, frame_shift_ms=12.5, low_freq=50, high_freq=-400,
        backend=backend,
    )  # fmt: skip
    wave = 0.1 * np.random.default_rng(5).standard_normal(12000).astype(np.float32)
    got = fbank(torch.from_numpy(wave), 22050, audio)
    assert got.shape == (num_frames(12000, 22050, audio), 40)
    np.testing.assert_allclose(got, np.log(defined(wave, 22050, audio)), rtol=0, atol=1e-3)


def test_vip_ant_goldens(goldens: Path) -> None:
    with np.load(goldens / "vip_ant" / "fbank.npz") as file:
        for case in ("m16k", "s44k", "m48k", "m8k", "m22k"):
            wave, rate = file[f"{case}/wave"], int(file[f"{case}/sr"])
            got = fbank(torch.from_numpy((wave - wave.mean())[0]), rate, AUDIO)
            np.testing.assert_allclose(got, file[f"{case}/fbank"], rtol=0, atol=1.5e-3)


def test_int16_is_the_scaled_float(recorded: dict[str, np.ndarray]) -> None:
    wave = torch.from_numpy(recorded["16000/pink/wave"])
    assert torch.equal(fbank(wave, 16000, AUDIO), fbank(wave.float() / 32768, 16000, AUDIO))
    np.testing.assert_allclose(
        fbank(wave, 16000, AUDIO), recorded["variant/pink_no_zero_mean"], rtol=0, atol=1e-3
    )
    raw = fbank(wave.float() - wave.float().mean(), 16000, AUDIO)
    np.testing.assert_allclose(raw, recorded["variant/pink_int16_scale"], rtol=0, atol=1e-3)


def test_mel_weights(recorded: dict[str, np.ndarray]) -> None:
    weights = mel_weights(16000, AUDIO)
    np.testing.assert_allclose(weights[:256].T, recorded["melbank/16000"], rtol=0, atol=2e-5)
    assert np.flatnonzero(weights.max(axis=0) == 0).tolist() == [3]
    empty = {r: int((mel_weights(r, AUDIO).max(axis=0) == 0).sum()) for r in (8000, 22050, 44100)}
    assert empty == {8000: 4, 22050: 0, 44100: 0}
    high = mel_weights(44100, AUDIO)
    np.testing.assert_allclose(high.sum(axis=0), recorded["melbank/44100_sum"], atol=1e-3)
    assert ((high > 0).sum(axis=0) == recorded["melbank/44100_nonzero"]).all()


@pytest.mark.parametrize(
    ("samples", "rate", "frames"),
    [(399, 16000, 0), (400, 16000, 1), (559, 16000, 1), (560, 16000, 2), (1000, 16000, 4),
     (160000, 16000, 998), (441000, 44100, 998), (480000, 48000, 998), (110250, 11025, 1000)],
)  # fmt: skip
def test_number_of_frames(samples: int, rate: int, frames: int) -> None:
    assert num_frames(samples, rate, AUDIO) == frames
    if 0 < frames < 10:
        assert fbank(torch.zeros(samples), rate, AUDIO).shape == (frames, 128)


def test_silence_and_constant_are_the_floor() -> None:
    for level in (0.0, 0.5):
        rows = fbank(torch.full((8000,), level), 16000, AUDIO)
        assert rows.unique().tolist() == pytest.approx([log_floor()], abs=1e-6)
    assert log_floor() == pytest.approx(-15.942385)


def test_blocks_batches_and_calls_do_not_matter() -> None:
    waves = 0.1 * torch.randn(3, 16000 * 6, generator=torch.Generator().manual_seed(1))
    module = Fbank(AUDIO, 16000)
    rows = module(waves)
    assert rows.shape == (3, 598, 128)
    assert torch.equal(rows[1], module(waves[1]))
    assert torch.equal(rows, module(waves))
    at_once = torch.empty_like(rows)  # the path of a GPU, which takes clips together
    module._at_once(waves, at_once)
    torch.testing.assert_close(at_once.clamp(min=EPS).log(), rows, rtol=0, atol=1e-4)
    part = module(waves[0, : 160 * 300 + 240])  # another number of frames, other blocks
    torch.testing.assert_close(part, rows[0, : len(part)], rtol=0, atol=1e-4)


def test_casts_and_autocast_change_nothing() -> None:
    wave = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(1))
    expected = Fbank(AUDIO, 16000)(wave)
    module = Fbank(AUDIO, 16000).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        got = module(wave.requires_grad_())
    assert got.dtype == torch.float32
    assert not got.requires_grad
    assert torch.equal(got, expected)


def test_threads_change_nothing() -> None:
    wave = 0.1 * torch.randn(48000, generator=torch.Generator().manual_seed(1))
    expected, before = fbank(wave, 16000, AUDIO), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(fbank(wave, 16000, AUDIO), expected)
            assert torch.get_num_threads() == threads
            with pytest.raises(DataError):
                fbank(wave[:10], 16000, AUDIO)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_gives_the_same() -> None:
    waves = 0.1 * torch.randn(70, 16000, generator=torch.Generator().manual_seed(1))
    got = Fbank(AUDIO, 16000)(waves.cuda()).cpu()
    torch.testing.assert_close(got, Fbank(AUDIO, 16000)(waves), rtol=0, atol=5e-3)


def test_knf_never_sees_an_empty_mel_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wheels read memory out of bounds there; see backends.py."""
    asked: list[tuple[int, int]] = []
    real = backends.knf_rows

    def spy(samples: list[float], module: Fbank, run: tuple[int, int]) -> np.ndarray:
        asked.append(run)
        return real(samples, module, run)

    monkeypatch.setattr(backends, "knf_rows", spy)
    rows = fbank(torch.randn(1600), 16000, AudioSettings(backend="kaldi-native-fbank"))
    assert asked == [(0, 3), (4, 128)]
    assert rows[:, 3].tolist() == pytest.approx([log_floor()] * len(rows))
    for rate in (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000):
        weights = mel_weights(rate, AUDIO)[:-1]
        for first, last in backends.safe_runs(rate, AUDIO):
            assert (weights[:, first:last].max(axis=0) >= backends.SAFE_WEIGHT).all()


def test_knf_is_refused_where_rounding_could_empty_a_bin() -> None:
    # The edges of bins a hair beside an FFT bin: 31.25 Hz apart at 16 kHz, 512 points.
    audio = AudioSettings(
        num_mel_bins=1, low_freq=31.2, high_freq=62.500001, backend="kaldi-native-fbank"
    )
    assert backends.safe_runs(16000, audio) in ([], [(0, 1)])
    narrow = audio.model_copy(update={"low_freq": 62.4999, "high_freq": 90.0})
    with pytest.raises(SettingsError, match=r"next to no FFT bin.*audio\.backend torch"):
        fbank(torch.randn(1600), 16000, narrow)


@pytest.mark.parametrize("backend", ["torchaudio", "kaldi-native-fbank"])
def test_missing_backend_says_what_to_do(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError(f"{name}: libcudart.so.13 is missing")

    monkeypatch.setattr(backends.importlib, "import_module", broken)
    with pytest.raises(SettingsError, match=f"pip install {backend}, or use audio.backend torch"):
        fbank(torch.randn(1600), 16000, AudioSettings(backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(399), "399 samples at 16000 Hz is shorter than one window"),
        (torch.zeros(0), "0 samples"),
        (torch.zeros(1, 2, 1600), "shape"),
        (torch.tensor(1.0), "shape"),
        (torch.zeros(1600, dtype=torch.int32), "type torch.int32"),
        (torch.zeros(1600, dtype=torch.float16), "type torch.float16"),
    ],
)
def test_bad_waves(wave: torch.Tensor, message: str, backend: str) -> None:
    with pytest.raises(DataError, match=message):
        fbank(wave, 16000, AudioSettings(backend=backend))


@pytest.mark.parametrize(
    ("rate", "change", "message"),
    [
        (16000, {"high_freq": 9000.0}, "9000 Hz does not lie in 0 to 8000 Hz"),
        (16000, {"low_freq": 8000.0}, "8000 to audio.high_freq 8000"),
        (16000, {"high_freq": -8000.0}, "does not lie"),
        (100, {}, "2 and 1 samples at 100 Hz"),
        (16000, {"frame_shift_ms": 0.01}, "at least 4 and 1"),
    ],
)
def test_bad_settings(rate: int, change: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Fbank(AudioSettings(**change), rate)
