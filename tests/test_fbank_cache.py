"""FBANK kept in uint8: exact codes, whole files, refused when foreign, right in training."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pivot.audio.fbank import log_floor
from pivot.audio.frontend import FrontEnd, Norm, real_frames
from pivot.data.fbank_cache import STEP, TOP, ZERO, FbankCache, open_cache, to_codes, to_nats
from pivot.data.stream import SoundItems
from pivot.embeddings import embed, fbank
from pivot.embeddings.store import EmbeddingStore
from pivot.errors import DataError, NothingUsableError, SettingsError, StoreError
from pivot.settings import AudioSettings, Embed, MuonSettings, PretrainVa, TrainAt
from pivot.training.commands import pretrain_va, train_at
from tests import toy
from video_prep.shards import ShardFolder

NORM = Norm(-5.0, 4.0, "test")
ROUNDING = STEP / 2 + 1e-5  # float32 adds a little at 16 nats


# ---- codes -----------------------------------------------------------------------------------


def test_codes_cover_the_floor_of_fbank_to_15_93_nats() -> None:
    codes = np.arange(256, dtype=np.uint8)
    nats = to_nats(codes)
    np.testing.assert_array_equal(to_codes(nats), codes)
    assert nats.dtype == np.float32 and nats[0] == np.float32(log_floor())
    assert (pytest.approx(-15.942385), pytest.approx(15.932615)) == (ZERO, TOP)
    np.testing.assert_allclose(np.diff(nats), 0.125, atol=2e-6)
    np.testing.assert_array_equal(
        to_codes(np.float32([-99, -16, 15.99, 16.1, 99])), [0, 0, 255, 255, 255]
    )


def test_a_value_is_at_most_a_16th_off() -> None:
    rows = np.random.default_rng(0).uniform(ZERO, TOP, (500, 128)).astype(np.float32)
    error = to_nats(to_codes(rows)) - rows
    assert np.abs(error).max() <= ROUNDING and abs(error.mean()) < 1e-3
    assert np.sqrt(np.square(error).mean()) == pytest.approx(0.125 / np.sqrt(12), rel=0.01)


def test_a_16_bit_sound_is_never_clamped() -> None:
    """The loudest there is at a rate: full scale, alternating and square."""
    for rate in (8000, 16000, 44100, 48000):
        square = np.where(np.arange(rate) // 8 % 2, 32767, -32768).astype(np.int16)
        fast = np.where(np.arange(rate) % 2, 32767, -32768).astype(np.int16)
        audio = AudioSettings(sample_rate=rate)
        assert max(float(real_frames(x[None], rate, audio).max()) for x in (square, fast)) < TOP


def test_real_sound_is_off_by_0_036(realdata: Path) -> None:
    errors = []
    for path in sorted((realdata / "audio" / "esc10").rglob("*.ogg"))[::10]:
        wave, rate = soundfile.read(path, dtype="int16", always_2d=True)
        rows = real_frames(wave.T, rate, AudioSettings(sample_rate="native")).numpy()
        errors.append((to_nats(to_codes(rows)) - rows)[rows > ZERO + STEP])  # the floor is exact
    assert len(errors) >= 5
    every = np.concatenate(errors)
    assert np.abs(every).max() <= ROUNDING
    assert np.sqrt(np.square(every).mean()) == pytest.approx(0.036, abs=0.001)


# ---- the front end in steps ------------------------------------------------------------------


def noise(samples: int) -> np.ndarray:
    return (3000 * np.random.default_rng(samples).standard_normal((1, samples))).astype(np.int16)


@pytest.mark.parametrize("rule", ["plain", "vip_ant"])
@pytest.mark.parametrize("samples", [400, 5000, 16240, 16399])
def test_kept_frames_come_to_the_same_where_nothing_is_cropped(rule: Any, samples: int) -> None:
    end = FrontEnd(AudioSettings(num_frames=100, crop=rule, pad="raw_zero"), NORM)
    wave = noise(samples)
    rows = real_frames(wave, 16000, end.settings)
    kept = end.filled(torch.from_numpy(end.crop_frames(rows.numpy(), np.random.default_rng(0))))
    if end.needs_crop(samples, 16000):  # by less than a frame: the cut moves all frames by 79
        assert (rule, samples) == ("plain", 16399) and kept.shape == (100, 128)
    else:
        assert torch.equal(kept, end(wave, 16000))


def test_longer_sounds_are_cropped_at_whole_frames() -> None:
    end = FrontEnd(AudioSettings(num_frames=100), NORM)
    wave = noise(48000)
    rows = real_frames(wave, 16000, end.settings).numpy()
    assert len(rows) == 298
    middle = end.crop_frames(rows)
    np.testing.assert_array_equal(middle, rows[99:199])
    part = end(wave[:, 99 * 160 : 99 * 160 + end.window_samples(16000)], 16000)
    torch.testing.assert_close(end.filled(torch.from_numpy(middle)), part, rtol=0, atol=1e-4)
    rng = np.random.default_rng(1)
    numbers = np.arange(298)[:, None]
    starts = [int(end.crop_frames(numbers, rng)[0, 0]) for _ in range(3000)]
    assert (min(starts), max(starts)) == (0, 198) and len(set(starts)) == 199


def test_vip_ant_keeps_what_its_window_holds_and_refuses_longer_sounds() -> None:
    end = FrontEnd(AudioSettings(crop="vip_ant"), NORM)
    assert end.uncropped_frames() == 1002
    for frames in (998, 1002):  # 1002 frames are 160560 samples of the window's 160800
        assert not end.needs_crop(400 + (frames - 1) * 160 + 159, 16000)
        assert len(end.crop_frames(np.zeros((frames, 2)))) == min(frames, 1000)
    with pytest.raises(SettingsError, match=r"audio\.crop vip_ant needs samples"):
        end.crop_frames(np.zeros((1003, 2)))


# ---- making a cache --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 clips (every fifth is long, two are silent), a CLIP, gold pairs, a cache."""
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", silent=(3, 8))
    toy.toy_clip(folder / "clip")
    toy.write_gold(folder / "gold.jsonl", [i for i in range(20) if i not in (3, 8)])
    assert embed.run(settings(folder, folder / "cache")) == 0
    return folder


def settings(world: Path, out: Path, **values: Any) -> Embed:
    common = {"what": "fbank", "data": str(world / "shards"), "out": str(out), "audio": toy.AUDIO}
    return Embed(**(common | values))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cache_holds_the_rounded_fbank_of_every_sound(world: Path) -> None:
    cache, shards = FbankCache.open(world / "cache"), ShardFolder(world / "shards", sound=True)
    assert cache.ids == shards.ids and len(cache) == 18 and cache.bins == 32
    for n in range(18):
        rows = real_frames(*shards.sound(n), toy.AUDIO).numpy()
        np.testing.assert_array_equal(cache.codes(n), to_codes(rows))
        assert np.abs(to_nats(cache.codes(n)) - rows).max() <= ROUNDING
    assert cache.longest == max(len(cache.codes(n)) for n in range(18)) > toy.AUDIO.num_frames
    assert isinstance(cache.codes(0).base.base, np.memmap) and not cache.codes(0).flags.writeable
    facts = cache.manifest
    assert facts["frames"] * 32 == (world / "cache" / "codes-00000.u8").stat().st_size
    assert facts["audio"] == {
        "sample_rate": 8000, "channel": "first", "num_mel_bins": 32, "frame_length_ms": 25.0,
        "frame_shift_ms": 10.0, "low_freq": 20.0, "high_freq": 0.0, "backend": "torch",
    }  # fmt: skip
    assert facts["code"] == {"dtype": "uint8", "step": 0.125, "zero": log_floor()}
    assert facts["data"]["fingerprint"] == shards.fingerprint and facts["clamped"] == 0
    rows = [json.loads(s) for s in (world / "cache/failures.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["clip3", "clip8"] and facts["failed"] == 2
    assert "no sound" in rows[0]["error"]
    again = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(again.codes(17), cache.codes(17))


def test_parts_and_a_killed_process_give_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(fbank, "FILE_SOUNDS", 3)
    embed.run(settings(world, tmp_path / "one"))
    decode, seen, last = ShardFolder.decode_sound, [], 10

    def dying(self: Any, i: int, data: bytes) -> Any:
        seen.append(i)
        if i == last:
            raise KeyboardInterrupt
        return decode(self, i, data)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "decode_sound", dying)
        with pytest.raises(KeyboardInterrupt):
            embed.run(settings(world, tmp_path / "s", part="2/3"))
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"unfinished.json", "codes-00002.u8", "part-000000006-000000009.npz"}
    with pytest.raises(StoreError, match="is not finished; run the same pivot embed again"):
        FbankCache.open(tmp_path / "s")
    last, seen[:] = -1, []
    monkeypatch.setattr(ShardFolder, "decode_sound", dying)
    capsys.readouterr()
    for number in (2, 3, 1):
        assert embed.run(settings(world, tmp_path / "s", part=f"{number}/3")) == 0
    said = capsys.readouterr()
    assert "going on after 3 of 6 inputs" in said.err
    assert "part 2/3 is done; left: part 1 (6 inputs), part 3 (8 inputs)" in said.out
    assert seen[:3] == [9, 10, 11] and sorted(seen) == sorted(set(range(20)) - {3, 6, 7, 8})
    assert content(tmp_path / "s") == content(tmp_path / "one")
    cache, large = FbankCache.open(tmp_path / "s"), FbankCache.open(world / "cache")
    for n in range(18):
        np.testing.assert_array_equal(cache.codes(n), large.codes(n))
    with pytest.raises(StoreError, match=r"holds a store with another audio\.num_mel_bins \(32"):
        other = toy.AUDIO.model_copy(update={"num_mel_bins": 16})
        embed.run(settings(world, tmp_path / "s", audio=other))


def test_values_over_the_top_are_clamped_and_counted(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    real = fbank.real_frames
    monkeypatch.setattr(fbank, "real_frames", lambda *a: real(*a) + 14)
    embed.run(settings(world, tmp_path / "s"))
    cache, shards = FbankCache.open(tmp_path / "s"), ShardFolder(world / "shards", sound=True)
    every = np.concatenate([real(*shards.sound(n), toy.AUDIO).numpy() + 14 for n in range(18)])
    over = int((every > TOP + STEP / 2).sum())
    assert over > 100 and cache.manifest["clamped"] == over
    assert f"{over} values above 15.93 nats were clamped" in capsys.readouterr().out
    assert max(int(cache.codes(n).max()) for n in range(18)) == 255


def test_too_short_sounds_are_failures_and_none_usable_an_error(
    world: Path, tmp_path: Path
) -> None:
    audio = toy.AUDIO.model_copy(update={"frame_length_ms": 400.0})  # longer than short clips
    embed.run(settings(world, tmp_path / "s", audio=audio))
    cache = FbankCache.open(tmp_path / "s")
    assert cache.ids == ["clip0", "clip5", "clip10", "clip15"] and cache.manifest["failed"] == 16
    none = toy.AUDIO.model_copy(update={"frame_length_ms": 900.0})
    with pytest.raises(NothingUsableError, match="none of 20"):
        embed.run(settings(world, tmp_path / "none", audio=none))
    assert [p.name for p in (tmp_path / "none").iterdir()] == ["failures.jsonl"]
    with pytest.raises(SettingsError, match="fbank takes no --model, --clip or --prompt"):
        embed.run(settings(world, tmp_path / "x", model="m"))


# ---- refusals --------------------------------------------------------------------------------


def test_a_cache_of_another_front_end_or_other_shards_is_refused(
    world: Path, tmp_path: Path
) -> None:
    cache, shards = FbankCache.open(world / "cache"), ShardFolder(world / "shards")
    free = {"num_frames": 7, "pad": "raw_zero", "norms": "ast"}
    assert cache.require(toy.AUDIO.model_copy(update=free), shards) is cache
    for key, value, said in (
        ("num_mel_bins", 64, r"audio\.num_mel_bins 32 there, 64 here"),
        ("sample_rate", "native", r"audio\.sample_rate 8000 there, native here"),
        ("channel", "mean", r"audio\.channel first there, mean here"),
        ("backend", "torchaudio", r"audio\.backend torch there, torchaudio here"),
    ):
        with pytest.raises(StoreError, match=said):
            cache.require(toy.AUDIO.model_copy(update={key: value}), shards)
    other = ShardFolder(toy.toy_shards(tmp_path / "other", clips=6))
    with pytest.raises(StoreError, match=r"stale or foreign: it was made of .*other clips now"):
        cache.require(toy.AUDIO, other)
    cache.manifest["definition"] = "older"
    with pytest.raises(StoreError, match="another version of the FBANK code"):
        cache.require(toy.AUDIO, shards)


@pytest.mark.parametrize(
    "name, change, said",
    [
        ("codes-00000.u8", lambda data: data[:-1], r"codes-00000\.u8 has \d+ bytes, not \d+"),
        ("codes-00000.u8", None, r"codes-00000\.u8 is missing"),
        ("sounds.npy", lambda data: data[:-8], "missing a file or damaged"),
        ("ids.json", lambda data: b'["clip0"]', "is damaged"),
        ("ids.json", None, "missing a file or damaged"),
        ("manifest.json", lambda data: b"{}", "is not an FBANK cache of this Pivot"),
        ("manifest.json", lambda data: b"{", "is not an FBANK cache of this Pivot"),
    ],
)
def test_damage_is_named(world: Path, tmp_path: Path, name: str, change: Any, said: str) -> None:
    for path, data in content(world / "cache").items():
        if path != name or change:
            (tmp_path / path).write_bytes(change(data) if path == name else data)
    with pytest.raises(StoreError, match=said):
        FbankCache.open(tmp_path)


def test_a_folder_of_another_kind_is_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist; make it with pivot embed fbank"):
        FbankCache.open(tmp_path / "none")
    with pytest.raises(StoreError, match="is not an FBANK cache"):
        FbankCache.open(world / "shards")
    with pytest.raises(StoreError, match="is not an embedding store"):
        EmbeddingStore.open(world / "cache")
    with pytest.raises(StoreError, match="is in use"):
        embed.run(settings(world, world / "cache", what="image", audio=AudioSettings(),
                           clip={"model": str(world / "clip")}))  # fmt: skip


# ---- training --------------------------------------------------------------------------------


def va_settings(world: Path, out: Path, **values: Any) -> PretrainVa:
    common: dict[str, Any] = {
        "shards": str(world / "shards"),
        "out": str(out),
        "clip": {"model": str(world / "clip")},
        "audio": toy.AUDIO,
        "encoder": toy.ENCODER,
        "mask": toy.MASK,
        "batch_size": 6,
        "max_steps": 4,
        "optim": MuonSettings(),
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
        "fbank": str(world / "cache"),
    }
    return PretrainVa(**(common | values))


def rows_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(s).items() if k != "clips_per_second"} for s in lines]


def test_items_from_the_cache_are_those_of_the_sound_to_a_16th(world: Path) -> None:
    shards, end = ShardFolder(world / "shards", sound=True), FrontEnd(toy.AUDIO, NORM)
    live = SoundItems(shards, end)
    kept = SoundItems(shards, end, cache=open_cache(str(world / "cache"), end, shards))
    cache = FbankCache.open(world / "cache")
    for i, name in enumerate(shards.ids):
        if int(name[4:]) % 5:
            assert (live.fbank(i) - kept.fbank(i)).abs().max() * NORM.std <= ROUNDING
        else:  # cropped: any 32 frames in a row
            rows = end.filled(torch.from_numpy(to_nats(cache.codes(i)[5:37])))
            starts = [np.random.default_rng(s) for s in range(200)]
            assert any(torch.equal(kept.fbank(i, rng), rows) for rng in starts)
        assert kept.fbank(i).shape == live.fbank(i).shape


def test_training_reads_the_cache_and_no_sound(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with toy.one_thread():
        pretrain_va(va_settings(world, tmp_path / "live", fbank=None))
        monkeypatch.setattr(ShardFolder, "decode_sound", None)
        pretrain_va(va_settings(world, tmp_path / "va"))
        pretrain_va(va_settings(world, tmp_path / "again", workers=1))
        common = va_settings(world, tmp_path / "at").model_dump()
        shared = set(TrainAt.model_fields) - {"model", "clip", "audio", "encoder", "targets"}
        common = {name: value for name, value in common.items() if name in shared}
        pairs = str(world / "gold.jsonl")
        assert train_at(TrainAt(**common, model=str(tmp_path / "va"), pairs=pairs)) == 0
    assert rows_of(tmp_path / "va") == rows_of(tmp_path / "again")
    live, kept = (rows_of(tmp_path / name)[0]["loss"] for name in ("live", "va"))
    assert live != kept and live == pytest.approx(kept, rel=0.02)
    for run in ("va", "at"):
        facts = json.loads((tmp_path / run / "results.json").read_text())["data"]
        assert facts["fbank"] == str(world / "cache")


def test_a_cache_that_does_not_fit_is_refused_before_the_run(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    audio = toy.AUDIO.model_copy(update={"num_mel_bins": 16, "norms": "ast"})
    with pytest.raises(StoreError, match=r"another front end \(audio\.num_mel_bins 32 there, 16"):
        pretrain_va(va_settings(world, out, audio=audio))
    audio = toy.AUDIO.model_copy(update={"crop": "vip_ant"})
    with pytest.raises(SettingsError, match=r"of up to 58 frames; leave out --fbank, or set"):
        pretrain_va(va_settings(world, out, audio=audio))
    audio = toy.AUDIO.model_copy(update={"frame_length_ms": 400.0, "norms": "ast"})
    embed.run(settings(world, tmp_path / "few", audio=audio))
    with pytest.raises(DataError, match="few lacks 14 of 18 sounds, the first 'clip1'; see fail"):
        pretrain_va(va_settings(world, out, audio=audio, fbank=str(tmp_path / "few")))
    with pytest.raises(StoreError, match="does not exist"):
        pretrain_va(va_settings(world, out, fbank=str(tmp_path / "none")))
    assert not out.exists()
