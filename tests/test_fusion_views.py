"""Filling up and the four views of fusion: LAION-CLAP's numbers and draws, every length class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pivot.audio.crop import crop
from pivot.audio.fill import fill
from pivot.audio.frontend import MelFrontEnd, make_front_end
from pivot.audio.fusion_views import fusion_views, shrunk, starts
from pivot.audio.mel import log_mel
from pivot.audio.views import unpack
from pivot.errors import DataError
from pivot.settings.encoders import FUSED
from pivot.settings.front_ends import HtkDbSettings

RATE = 48000
# the goldens' small geometry: 4800 samples and 11 frames a view
SMALL = HtkDbSettings(**(FUSED | {"num_frames": 11}))
CLASSES = {  # samples -> whether the sound is longer than a view
    1700: False, 4799: False, 4800: False, 4801: False, 5279: False, 5280: True, 5281: True,
    9600: True, 19200: True,
}  # fmt: skip


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((1, samples)).astype(np.float32)


def front_end(**change: Any) -> Any:
    return make_front_end(SMALL.model_copy(update=change))


# ---- recorded numbers ------------------------------------------------------------------------


def test_views_are_laions(goldens: Path) -> None:
    """`get_audio_features` after np.random.seed(1234): log-mel, `longer`, and what it drew."""
    folder = goldens / "laion_clap"
    drawn = json.loads((folder / "mel_fusion.json").read_text())
    seen: set[bool] = set()
    with np.load(folder / "mel_fusion.npz") as file:
        names = [n.removesuffix(".mel_fusion") for n in file.files if n.endswith(".mel_fusion")]
        assert len(names) == 13
        for name in names:
            _, case, rule, _ = name.split(".")
            end = front_end(fill=rule, antialias=True)  # recorded with torchvision 0.26
            rng = np.random.RandomState(1234)
            views, shares = unpack(end(file[f"s.{case}.in"], RATE, rng))
            longer = bool(file[f"{name}.longer"][0])
            assert shares.tolist() == ([1, 1, 1, 1] if longer else [1, 0, 0, 0]), name
            golden = file[f"{name}.mel_fusion"]
            loud = golden > golden.max() - 45  # below, float32 noise moves more
            np.testing.assert_allclose(views.numpy()[loud], golden[loud], rtol=0, atol=5e-4)
            np.testing.assert_allclose(views, golden, rtol=0, atol=0.06)
            seen.add(longer)
            if longer:
                facts = drawn[f"draw.{case}"]
                total, frames = facts["total_frames"], facts["chunk_frames"]
                rng = np.random.RandomState(1234)
                assert list(starts(total, frames, rng)) == facts["picked"]
                spare = file[f"s.{case}.in"].size - 4800
                assert rng.randint(0, spare + 1) == facts["wave_crop"]  # nothing else was drawn
    assert seen == {True, False}


def test_shrinking_is_laions_with_and_without_antialias(goldens: Path) -> None:
    with np.load(goldens / "laion_clap" / "mel_fusion.npz") as file:
        mel = torch.from_numpy(file["s.long_24000.mel"])
        smooth, plain, again = (
            torch.from_numpy(file[f"s.long_24000.shrink_{name}"])
            for name in ("antialias_True", "antialias_False", "F_bilinear")
        )
    np.testing.assert_allclose(shrunk(mel, 11), plain, rtol=0, atol=1e-5)
    np.testing.assert_allclose(shrunk(mel, 11), again, rtol=0, atol=1e-5)
    np.testing.assert_allclose(shrunk(mel, 11, antialias=True), smooth, rtol=0, atol=1e-5)
    assert float((smooth - plain).abs().max()) > 1


def test_fill_and_random_crop_are_laions(goldens: Path) -> None:
    checked = 0
    with np.load(goldens / "laion_clap" / "mel_fusion.npz") as file:
        for name in file.files:
            if not name.endswith(".rand_trunc.waveform"):
                continue
            _, case, rule, *_ = name.split(".")
            wave: Any = file[f"s.{case}.in"][None]
            rng = np.random.RandomState(1234)
            got = fill(crop(wave, 4800, rule="plain", rng=rng), 4800, rule)
            np.testing.assert_array_equal(got[0], file[name])
            checked += 1
    assert checked == 13


# ---- fill ------------------------------------------------------------------------------------


def test_fill() -> None:
    wave = np.array([[1, 2, 3], [4, 5, 6]], np.int16)
    assert fill(wave, 8, "pad").tolist() == [[1, 2, 3, 0, 0, 0, 0, 0], [4, 5, 6, 0, 0, 0, 0, 0]]
    assert fill(wave, 8, "repeat")[0].tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert fill(wave, 8, "repeatpad")[0].tolist() == [1, 2, 3, 1, 2, 3, 0, 0]
    assert fill(wave, 5, "repeatpad")[0].tolist() == [1, 2, 3, 0, 0]
    assert fill(wave, 6, "repeat")[1].tolist() == [4, 5, 6, 4, 5, 6]
    assert fill(wave, 6, "repeatpad")[1].tolist() == [4, 5, 6, 4, 5, 6]
    assert fill(wave, 8, "repeat").dtype == np.int16
    for rule in ("pad", "repeat", "repeatpad"):
        assert fill(wave, 3, rule) is wave
        assert fill(wave, 2, rule) is wave
        assert fill(wave[:, :1], 4, rule).shape == (2, 4)
        with pytest.raises(DataError, match="without samples"):
            fill(wave[:, :0], 4, rule)


# ---- views -----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", CLASSES)
def test_every_class_of_length(samples: int) -> None:
    """Shapes, `longer`, the same bytes each time, and rng matters for longer sounds alone."""
    end, wave = front_end(), noise(samples)
    out = end(wave, RATE)
    assert out.shape == end.shape == (4, 12, 64)
    assert out.dtype == torch.float32
    views, shares = unpack(out)
    assert shares.tolist() == ([1, 1, 1, 1] if CLASSES[samples] else [1, 0, 0, 0])
    assert torch.equal(out, end(wave, RATE))
    assert torch.equal(out, end(np.concatenate([wave, wave]), RATE))  # its mean is itself
    assert end.needs_crop(samples, RATE) == CLASSES[samples]
    whole = log_mel(torch.from_numpy(fill(wave, 4800, "repeatpad")[0]), SMALL)
    if not CLASSES[samples]:  # up to a hop more than a view: every sample of it is in its frames
        assert torch.equal(views, torch.stack([whole] * 4))
        assert torch.equal(out, end(wave, RATE, np.random.default_rng(3)))
        return
    assert torch.equal(views[0], shrunk(whole, 11))
    for view, start in zip(views[1:], starts(len(whole), 11), strict=True):
        assert torch.equal(view, whole[start : start + 11])


def test_the_last_sample_of_a_sound_just_over_a_view_is_heard() -> None:
    end = front_end()
    wave = noise(5279)
    other = wave.copy()
    other[0, -40:] = 0
    assert not torch.equal(end(wave, RATE), end(other, RATE))
    # its last frame has its middle at sample 4800, 479 from the end
    assert torch.equal(unpack(end(wave, RATE))[0][0, :9], unpack(end(other, RATE))[0][0, :9])


def test_nothing_global_is_drawn() -> None:
    end, wave = front_end(), noise(24000)
    np.random.seed(5)
    torch.manual_seed(5)
    first = end(wave, RATE)
    np.random.random(3)
    torch.rand(3)
    assert torch.equal(first, end(wave, RATE))
    assert np.random.random() == np.random.RandomState(5).random(4)[3]


def test_starts() -> None:
    assert starts(51, 11) == (6, 20, 34)  # of 0..13, 14..27, 28..40
    assert starts(12, 11) == (0, 1, 0)  # of 0 and 1: the last third is empty
    assert starts(13, 11) == (0, 1, 2)
    assert starts(11, 11) == (0, 0, 0)
    drawn = np.array([starts(51, 11, np.random.default_rng(seed)) for seed in range(400)])
    for column, third in zip(drawn.T, ((0, 14), (14, 28), (28, 41)), strict=True):
        assert set(column.tolist()) == set(range(*third))
    assert starts(51, 11, np.random.default_rng(7)) == starts(51, 11, np.random.default_rng(7))


def test_draws_change_the_windows_and_not_the_whole() -> None:
    end, wave = front_end(), noise(24000)
    one, two = (unpack(end(wave, RATE, np.random.default_rng(seed)))[0] for seed in (1, 2))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1:], two[1:])
    assert torch.equal(one, unpack(end(wave, RATE, np.random.default_rng(1)))[0])


def test_antialias_is_a_setting() -> None:
    wave = noise(24000)
    plain, smooth = (unpack(front_end(antialias=flag)(wave, RATE))[0] for flag in (False, True))
    assert torch.equal(plain[1:], smooth[1:])
    assert float((plain[0] - smooth[0]).abs().max()) > 1


def test_too_few_frames() -> None:
    with pytest.raises(DataError, match="10 frames is shorter than a view of 11"):
        fusion_views(torch.zeros(10, 4), 11)


def test_floor_of_a_longer_sound_is_of_all_of_it() -> None:
    """With `top_db` the views are cut off below the loudest of the whole sound."""
    wave = noise(24000)
    wave[0, 9600:] *= 1e-6
    views, _ = unpack(front_end(top_db=80.0)(wave, RATE))
    free, _ = unpack(front_end()(wave, RATE))
    floor = float(log_mel(torch.from_numpy(wave[0]), SMALL).max()) - 80
    assert float(views[1:].min()) == pytest.approx(floor, abs=1e-4)
    assert float(free.min()) < floor - 5


def test_real_length() -> None:
    """Ten seconds and 35 at 48 kHz, as they are published: 1001 frames."""
    end = make_front_end(HtkDbSettings(**FUSED))
    assert isinstance(end, MelFrontEnd)
    assert (end.window_samples(), end.shape) == (480000, (4, 1002, 64))
    for samples, longer in ((480000, False), (480479, False), (480480, True), (1680000, True)):
        _, shares = unpack(end(noise(samples), RATE))
        assert bool(shares[1] > 0) == longer
