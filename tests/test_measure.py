"""`pivot measure-fbank` and the stream of clips: exact, order-free, refused where foreign."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from pivot.audio.frontend import FrontEnd, Norm, real_frames, resolve_norm
from pivot.audio.norms import FbankStats
from pivot.bench import fbank as bench_fbank
from pivot.data import measure
from pivot.data.stream import SoundItems
from pivot.errors import DataError, NothingUsableError, SettingsError, UserError
from pivot.settings import AudioSettings, Bench, MeasureFbank
from video_prep.shards import FORMAT, ShardFolder
from video_prep.storage.shard_writer import write_shard

AUDIO = AudioSettings(num_mel_bins=32, num_frames=50)
LENGTHS = [16000, 399, 8000, 24000, 4000, 400, 12000]  # 399: shorter than one window


def sounds(lengths: Sequence[int] = LENGTHS) -> dict[str, np.ndarray]:
    """Id -> int16 noise whose loudness and colour differ from clip to clip."""
    rng = np.random.default_rng(7)
    return {
        f"clip{i}": (rng.standard_normal(n) * 300 * (i + 1)).astype(np.int16)
        for i, n in enumerate(lengths)
    }


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 6), 200).save(file, "JPEG")
    return file.getvalue()


def make_shards(out: Path, clips: dict[str, np.ndarray], a_shard: int = 3) -> Path:
    """Write a prepared folder with one frame a clip, `a_shard` clips in each tar."""
    out.mkdir()
    ids, entries = list(clips), []
    for number, first in enumerate(range(0, len(ids), a_shard)):
        with write_shard(out, number, "plan") as shard:
            for clip_id in ids[first : first + a_shard]:
                flac = io.BytesIO()
                soundfile.write(flac, clips[clip_id], 16000, format="FLAC")
                facts = json.dumps({"id": clip_id, "labels": [], "captions": []}).encode()
                shard.add(
                    {"id": clip_id, "key": clip_id, "flags": []},
                    {"0.jpg": jpeg(), "flac": flac.getvalue(), "json": facts},
                )
        index = json.loads((out / f"shard-{number:05d}.json").read_text())
        entries.append({"name": f"shard-{number:05d}", "sha256": index["sha256"]})
    manifest = {"format": FORMAT, "plan": "plan", "num_frames": 1, "shards": entries}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards") / "all", sounds())


# ---- exact sums ------------------------------------------------------------------------------


def test_sums_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((n, 4)).astype(np.float32) * 5 - 6 for n in (1, 7, 30, 2)]
    forward, backward = FbankStats(), FbankStats()
    for part in parts:
        forward.add(part)
    for part in reversed(parts):
        one = FbankStats()
        one.add(part)
        backward.merge(FbankStats.from_json(json.loads(json.dumps(one.to_json()))))
    assert forward == backward
    everything = np.concatenate(parts).astype(np.float64)
    assert forward.frames == len(everything)
    np.testing.assert_allclose(forward.moments(), (everything.mean(), everything.std()), rtol=1e-6)
    means, stds = forward.bin_moments()
    np.testing.assert_allclose(means, everything.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(stds, everything.std(axis=0), rtol=1e-6)


def test_no_cancellation_over_many_clips() -> None:
    """1.7 million clips of 998 frames at -15.9: float32 sums are long stuck by then."""
    count, value = 1_715_367 * 998, round(-15.9 * 2**20)
    square = round((15.9**2 + 1e-6) * 2**20)
    stats = FbankStats(count, 1_715_367, [value * count], [square * count])
    mean, std = stats.moments()
    exact = Fraction(square, 2**20) - Fraction(value, 2**20) ** 2
    assert mean == pytest.approx(-15.9, abs=1e-6)
    assert std == pytest.approx(float(exact) ** 0.5, rel=1e-12)


def test_sums_that_do_not_fit() -> None:
    a, b = FbankStats(1, 1, [1, 2], [1, 2]), FbankStats(1, 1, [1], [1])
    with pytest.raises(DataError, match="2 and 1 mel bins"):
        a.merge(b)
    with pytest.raises(DataError, match="units"):
        FbankStats.from_json({"scale": 10})
    with pytest.raises(DataError, match="no FBANK frame"):
        FbankStats().moments()


# ---- the command -----------------------------------------------------------------------------


def test_measures_real_frames(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure.run(MeasureFbank(shards=str(folder), audio=AUDIO)) == 0
    found = json.loads((folder / "fbank.json").read_text())
    rows = [
        real_frames(wave, 16000, AUDIO).double()
        for wave in sounds().values()
        if len(wave) >= 400
    ]  # fmt: skip
    every = torch.cat(rows)
    assert found["clips"] == 6
    assert found["frames"] == len(every)
    assert found["mean"] == pytest.approx(every.mean().item(), abs=1e-5)
    assert found["std"] == pytest.approx(every.std(correction=0).item(), abs=1e-5)
    np.testing.assert_allclose(found["per_bin"]["mean"], every.mean(0), rtol=0, atol=1e-4)
    assert [row["id"] for row in found["skipped"]] == ["clip1"]
    said = capsys.readouterr()
    assert "6 clips" in said.out
    assert "1 skipped" in said.out
    assert len(said.out.splitlines()) == 1
    assert "'clip1'" in said.err
    norm = resolve_norm(AUDIO, folder)
    assert (norm.mean, norm.std) == (found["mean"], found["std"])


def test_order_sharding_and_workers_do_not_matter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = measure.measure(ShardFolder(folder), AUDIO).stats
    backwards = make_shards(tmp_path / "back", dict(reversed(sounds().items())), a_shard=2)
    assert measure.measure(ShardFolder(backwards), AUDIO).stats == expected
    monkeypatch.setattr(measure, "CLIPS_A_TASK", 2)
    part = measure.measure(ShardFolder(folder), AUDIO, workers=2)
    assert part.stats == expected
    assert [number for number, _ in part.skipped] == [1]


def test_norm_of_other_front_end_or_other_clips(folder: Path, tmp_path: Path) -> None:
    mine = make_shards(tmp_path / "mine", sounds([16000, 8000]))
    with pytest.raises(DataError, match=r"fbank\.json does not exist; run pivot measure-fbank"):
        resolve_norm(AUDIO, mine)
    measure.run(MeasureFbank(shards=str(folder), audio=AUDIO, out=str(mine / "fbank.json")))
    with pytest.raises(DataError, match="measured on other clips"):
        resolve_norm(AUDIO, mine)
    assert resolve_norm(AUDIO.model_copy(update={"norms": str(mine / "fbank.json")})).std > 0
    with pytest.raises(SettingsError, match=r"audio\.num_mel_bins 32 there, 64 here"):
        resolve_norm(AudioSettings(num_mel_bins=64), mine)


def test_bad_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder of shards"):
        measure.run(MeasureFbank(shards=str(tmp_path / "none")))
    tiny = make_shards(tmp_path / "tiny", sounds([100, 399]))
    with pytest.raises(NothingUsableError, match="none of the 2 sounds"):
        measure.run(MeasureFbank(shards=str(tiny)))
    silent = make_shards(tmp_path / "silent", {"a": np.zeros(8000, np.int16)})
    with pytest.raises(DataError, match="silence"):
        measure.run(MeasureFbank(shards=str(silent)))
    for folder in (tiny, silent):
        assert not (folder / "fbank.json").exists()


def test_damaged_shards_stop_the_measurement(tmp_path: Path) -> None:
    folder = make_shards(tmp_path / "cut", sounds([16000, 8000]))
    tar = folder / "shard-00000.tar"
    data = bytearray(tar.read_bytes())
    at = data.find(b"fLaC")
    data[at : at + 400] = bytes(400)
    tar.write_bytes(data)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"shard-00000\.tar"):
            measure.run(MeasureFbank(shards=str(folder), audio=AUDIO, workers=workers))
    assert not (folder / "fbank.json").exists()


# ---- the stream ------------------------------------------------------------------------------


def test_stream_caches_what_needs_no_crop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ShardFolder(folder)
    end = FrontEnd(AUDIO, Norm(-6.0, 5.0, "test"))
    items = SoundItems(shards, end, cache_mb=1)
    reads = []
    real = shards.decode_sound
    short, long = shards.index_of("clip4"), shards.index_of("clip3")
    expected = end(*shards.sound(short))
    monkeypatch.setattr(shards, "decode_sound", lambda i, data: reads.append(i) or real(i, data))
    for rng in (None, np.random.default_rng(1)):
        assert torch.equal(items.fbank(short, rng), expected)
        items.fbank(long, rng)
    assert reads == [short, long, long]
    assert torch.equal(items.fbank(long), end(*shards.sound(long)))
    drawn = items.fbank(long, np.random.default_rng(5))
    assert torch.equal(drawn, end(*shards.sound(long), np.random.default_rng(5)))
    assert len(items) == len(LENGTHS)


def test_stream_memory_is_bounded(folder: Path) -> None:
    end = FrontEnd(AUDIO, Norm(-6.0, 5.0, "test"))
    one = 50 * 32 * 4 / 2**20
    shards = ShardFolder(folder)
    usable = [i for i in range(len(shards)) if shards.ids[i] not in ("clip1",)]
    for cache_mb, kept in ((0, 0), (one, 1), (2.5 * one, 2), (100, 3)):
        items = SoundItems(shards, end, cache_mb)
        for i in usable * 2:
            items.fbank(i)
        assert len(items._memory) == kept
        assert len(pickle.loads(pickle.dumps(items))._memory) == 0


def test_stream_pickles_and_shows_frames(folder: Path) -> None:
    items = SoundItems(ShardFolder(folder), FrontEnd(AUDIO, Norm(-6.0, 5.0, "test")), 1)
    other = pickle.loads(pickle.dumps(items))
    assert torch.equal(items.fbank(0), other.fbank(0))
    picture = other.frame(0, 0)
    assert (picture.size, picture.mode) == ((8, 6), "RGB")


def test_stream_names_the_bad_clip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ShardFolder(folder)
    items = SoundItems(shards, FrontEnd(AUDIO, Norm(-6.0, 5.0, "test")), 1)
    with pytest.raises(DataError, match=r"clip 'clip1' in .*shorter than one window"):
        items.fbank(shards.index_of("clip1"))
    monkeypatch.setattr(shards, "read", lambda wanted: [jpeg()[:60]])
    with pytest.raises(DataError, match=r"frame 0 of clip 'clip0'.*damaged"):
        items.frame(0, 0)


# ---- the benchmark ---------------------------------------------------------------------------


def test_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_fbank, "SECONDS", 1)
    before = torch.get_num_threads()
    found = bench_fbank.bench(Bench(what="fbank", seconds=0.01))
    assert torch.get_num_threads() == before
    assert [(row["name"], row["sample_rate"]) for row in found["rows"]] == [
        (name, rate)
        for rate in (16000, 44100)
        for name in ("torch (pivot)", "kaldi-native-fbank", "torchaudio")
    ]
    assert all(row["ms_per_clip"] > 0 for row in found["rows"])
    assert found["rows"][0]["ratio"] == 1
    assert "16000 Hz  kaldi-native-fbank" in capsys.readouterr().out
