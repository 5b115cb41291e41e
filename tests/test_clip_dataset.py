"""The dataset for other people's training: frames and sounds, exact order, split and resume."""

import itertools
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from torch.utils.data import DataLoader

from pivot.data.choices import BatchOrder, FrameChoice
from pivot.data.clips import ClipDataset, ClipSampler
from pivot.errors import DataError, SettingsError
from tests.test_shards import wave_of, write
from video_prep.errors import UserError
from video_prep.shards import ShardFolder, read_json

N = 11
IDS = [f"c{i:02}" for i in range(N)]


def picture(number: int, k: int) -> bytes:
    """A grey JPEG of its own size whose level names clip and frame."""
    pixels = np.full((8 + number, 16 + k, 3), 5 + 20 * number + 6 * k, np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=100))


def seen(frame: np.ndarray) -> tuple[int, int]:
    """Clip and frame number of a picture, by its size and its level."""
    assert frame.dtype == np.uint8 and frame.shape[2] == 3
    number, k = frame.shape[0] - 8, frame.shape[1] - 16
    assert np.abs(frame.astype(int) - (5 + 20 * number + 6 * k)).max() <= 1
    return number, k


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "shards"
    return write(path, IDS, per_shard=3, picture=picture)


def small(item: dict[str, Any]) -> tuple[str, int, int, int]:
    """What a loader is to stack: id, clip, frame, samples."""
    return (item["id"], *seen(item["frame"]), item["sound"].shape[1])


def loaded(dataset: ClipDataset, sampler: Iterable[Any], **more: Any) -> list[list[Any]]:
    loader = DataLoader(dataset, sampler=sampler, collate_fn=list, **{"batch_size": 2, **more})
    return list(loader)


def flat(batches: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(batches))


# ---- items -----------------------------------------------------------------------------------


def test_items(folder: Path) -> None:
    dataset = ClipDataset(folder, frame=1)
    assert len(dataset) == N
    for i in (0, 4, 10):
        item = dataset[i]
        assert list(item) == ["id", "frame", "sound", "rate"]
        assert (item["id"], seen(item["frame"]), item["rate"]) == (IDS[i], (i, 1), 8000)
        assert item["sound"].dtype == np.int16
        assert np.array_equal(item["sound"], wave_of(i))
    assert [item["id"] for item in dataset] == IDS  # ends by itself
    with pytest.raises(IndexError, match="no clip number 11"):
        dataset[N]
    with pytest.raises(IndexError):
        dataset[-1]


def test_frames_by_rule(folder: Path) -> None:
    assert seen(ClipDataset(folder, "middle")[7]["frame"]) == (7, 1)
    assert [seen(frame) for frame in ClipDataset(folder, "all")[7]["frame"]] == [
        (7, 0), (7, 1), (7, 2),
    ]  # fmt: skip
    assert list(ClipDataset(folder, None)[7]) == ["id", "sound", "rate"]
    assert list(ClipDataset(folder, 0, sound=False)[7]) == ["id", "frame"]
    for frame in (3, -1, "first"):
        with pytest.raises(SettingsError, match=r"is none of 0 to 2 .*, random, middle, all"):
            ClipDataset(folder, frame)  # type: ignore[arg-type]


def test_random_frames_are_those_of_training(folder: Path) -> None:
    dataset = ClipDataset(folder, "random", seed=3)
    for epoch in range(3):
        rows = FrameChoice("random", N, 3, 3)(epoch, np.arange(N))[:, 0]
        assert [seen(dataset[epoch, i]["frame"]) for i in range(N)] == [
            (row // 3, row % 3) for row in rows
        ]
    frames = [[seen(dataset[e, i]["frame"])[1] for i in range(N)] for e in range(3)]
    assert frames[0] != frames[1] != frames[2]
    assert set(flat(frames)) == {0, 1, 2}


def test_only_the_wanted_frame_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, asked = ShardFolder(folder), []
    read = shards.read
    monkeypatch.setattr(shards, "read", lambda wanted: asked.append(wanted) or read(wanted))
    ClipDataset(shards, 2)[5]
    ClipDataset(shards, 2, sound=False).__getitems__([5, (1, 6)])
    assert asked == [[(5, 2), (5, -2)], [(5, 2), (6, 2)]]


def test_clips_without_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "shards", IDS, silent={"c02", "c05"}, picture=picture)
    dataset = ClipDataset(folder)
    assert dataset.shards.ids == [i for i in IDS if i not in ("c02", "c05")]
    assert "left out: 2 of 11 clips" in capsys.readouterr().err
    assert dataset[2]["id"] == "c03"
    assert np.array_equal(dataset[2]["sound"], wave_of(3))
    assert len(ClipDataset(folder, sound=False)) == N
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match="2 clips without sound"):
        ClipDataset(ShardFolder(folder))


def test_sounds_without_frames(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", IDS[:2], picture=picture)
    manifest = read_json(folder / "manifest.json")
    shards = ShardFolder(folder)
    assert manifest["num_frames"] == shards.num_frames == 3
    shards.num_frames = 0
    with pytest.raises(DataError, match="take frame=None"):
        ClipDataset(shards)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", IDS[:2], picture=picture)
    offset, length, _ = read_json(folder / "shard-00000.json")["rows"][2]["members"]["1.jpg"]
    with (folder / "shard-00000.tar").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    dataset = ClipDataset(folder, 1)
    assert dataset[0]["id"] == "c00"
    with pytest.raises(UserError, match=r"frame 1 of clip 'c01' .* is damaged"):
        dataset[1]


# ---- order -----------------------------------------------------------------------------------


def test_order_is_that_of_training(folder: Path) -> None:
    dataset = ClipDataset(folder, seed=4)
    order = BatchOrder(N, 4, seed=4)
    sampler = ClipSampler(dataset, rank=0, world_size=1)
    for epoch in range(2):
        expected = np.concatenate([order(epoch * 3 + m)[1] for m in range(3)])
        assert list(sampler) == [(epoch, i) for i in expected.tolist()]
    sampler.set_epoch(7)
    assert {epoch for epoch, _ in sampler} == {7}


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_clip_once_an_epoch_over_all_ranks(folder: Path, world: int) -> None:
    dataset = ClipDataset(folder)
    samplers = [ClipSampler(dataset, rank=r, world_size=world) for r in range(world)]
    epochs = []
    for epoch in range(2):
        parts = [list(sampler) for sampler in samplers]
        sizes = [len(part) for part in parts]
        assert sizes == [len(sampler) for sampler in samplers]
        assert sizes == [N // world + (r < N % world) for r in range(world)]
        assert {e for e, _ in flat(parts)} == {epoch}
        epochs.append([i for _, i in flat(parts)])
        assert sorted(epochs[-1]) == list(range(N))
    assert epochs[0] != epochs[1]


def test_even_ranks(folder: Path) -> None:
    dataset = ClipDataset(folder)
    samplers = [ClipSampler(dataset, rank=r, world_size=4, even=True) for r in range(4)]
    left_out = []
    for _ in range(4):
        parts = [[i for _, i in sampler] for sampler in samplers]
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        assert len(set(flat(parts))) == 8
        left_out.append(set(range(N)) - set(flat(parts)))
    assert len({frozenset(clips) for clips in left_out}) > 1
    with pytest.raises(DataError, match="11 clips are fewer than 12 ranks"):
        ClipSampler(dataset, rank=0, world_size=12, even=True)
    with pytest.raises(SettingsError, match="rank 2 is not between 0 and 1"):
        ClipSampler(dataset, rank=2, world_size=2)


def test_ranks_of_a_running_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ClipDataset(folder)
    alone = ClipSampler(dataset)
    assert (alone.rank, alone.world_size) == (0, 1)
    for name, value in (("is_initialized", True), ("get_rank", 2), ("get_world_size", 3)):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda value=value: value)
    assert list(ClipSampler(dataset)) == list(alone)[2::3]


# ---- loaders and resuming --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process is multi-threaded:DeprecationWarning")
def test_workers_change_nothing(folder: Path) -> None:
    dataset = ClipDataset(folder, seed=1, transform=small)
    alone = ClipSampler(dataset, rank=0, world_size=1)
    helped = ClipSampler(dataset, rank=0, world_size=1)
    epochs = []
    for _ in range(2):
        epochs.append(loaded(dataset, alone))
        assert loaded(dataset, helped, num_workers=1) == epochs[-1]
        assert sorted(row[0] for row in flat(epochs[-1])) == IDS
        assert all(row[3] == wave_of(row[1]).shape[1] for row in flat(epochs[-1]))
    assert epochs[0] != epochs[1]
    copy = pickle.loads(pickle.dumps(dataset))  # as a spawned worker gets it
    order = list(alone)
    assert copy.__getitems__(order) == dataset.__getitems__(order)


@pytest.mark.filterwarnings("ignore:This process is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [1, 2, 5, 6])
def test_resume_gives_exactly_the_rest(folder: Path, workers: int, stop: int) -> None:
    dataset = ClipDataset(folder, seed=2, transform=small)
    whole = ClipSampler(dataset, rank=0, world_size=1)
    epochs = [loaded(dataset, whole) for _ in range(3)]
    sampler = ClipSampler(dataset, rank=0, world_size=1)
    sampler.set_epoch(1)
    loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=list, num_workers=workers)
    taken = list(itertools.islice(loader, stop))
    assert taken == epochs[1][:stop]
    state = sampler.state_dict(2 * stop)
    resumed = ClipSampler(dataset, rank=0, world_size=1)
    resumed.load_state_dict(state)
    assert resumed.epoch == (1 if stop < 6 else 2)
    resumed.set_epoch(resumed.epoch)  # as the loop over epochs does
    if stop < 6:
        assert len(resumed) == N - 2 * stop
        assert loaded(dataset, resumed) == epochs[1][stop:]
    assert loaded(dataset, resumed) == epochs[2]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 4), (2, 2)])
def test_resume_on_other_ranks(folder: Path, before: int, after: int) -> None:
    dataset = ClipDataset(folder)
    first = [ClipSampler(dataset, rank=r, world_size=before) for r in range(before)]
    done = [i for sampler in first for _, i in itertools.islice(sampler, 3)]
    states = [sampler.state_dict(3) for sampler in first]
    assert all(state == states[0] for state in states)
    rest = []
    for r in range(after):
        sampler = ClipSampler(dataset, rank=r, world_size=after)
        sampler.load_state_dict(states[0])
        rest.append(list(sampler))
        assert {epoch for epoch, _ in sampler} == {1}  # then a whole epoch comes
    assert sorted(done + [i for _, i in flat(rest)]) == list(range(N))


def test_resume_twice_in_one_epoch(folder: Path) -> None:
    dataset = ClipDataset(folder)
    order = list(ClipSampler(dataset, rank=0, world_size=1))
    sampler, found = ClipSampler(dataset, rank=0, world_size=1), []
    for count in (4, 3):
        found += list(itertools.islice(sampler, count))
        state = sampler.state_dict(count)
        sampler = ClipSampler(dataset, rank=0, world_size=1)
        sampler.load_state_dict(state)
    assert found + list(sampler) == order


def test_state_of_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    state = ClipSampler(ClipDataset(folder, seed=1)).state_dict(2)
    with pytest.raises(DataError, match="its seed is 1, here 2"):
        ClipSampler(ClipDataset(folder, seed=2)).load_state_dict(state)
    other = write(tmp_path / "shards", IDS[:9], picture=picture)
    with pytest.raises(DataError, match="its fingerprint is"):
        ClipSampler(ClipDataset(other, seed=1)).load_state_dict(state)
