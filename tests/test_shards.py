"""The format of shards: same bytes, random reads, webdataset reads them, damage is named."""

import errno
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.media import tone
from video_prep.errors import UserError
from video_prep.files import write_json
from video_prep.keys import LONGEST, id_of, key_of, shard_name
from video_prep.shard_writer import TarWriter, write_shard
from video_prep.shards import FORMAT, ShardFolder, content_fingerprint, read_json

IDS = ["-_a", "b.c/d e", "ü%_", "last"]


def wave_of(number: int) -> np.ndarray:
    return (tone(0.1 + 0.01 * number, 8000, 2) * 20000).astype(np.int16)


def write(folder: Path, ids: list[str] = IDS, plan: str = "p", per_shard: int = 2) -> Path:
    """A folder of shards with made-up pictures, as prepare would write it."""
    folder.mkdir(exist_ok=True)
    shards = []
    for number in range(-(-len(ids) // per_shard)):
        with write_shard(folder, number, plan) as writer:
            writer.fail(f"bad{number}", "no_audio", "it has none")
            for i, clip_id in list(enumerate(ids))[number * per_shard :][:per_shard]:
                sound = io.BytesIO()
                soundfile.write(sound, wave_of(i).T, 8000, format="FLAC")
                facts = {"id": clip_id, "labels": [f"l{i}"], "captions": ["a", "b"]}
                members = {f"{k}.jpg": f"picture {i} {k}".encode() for k in range(3)}
                members |= {"flac": sound.getvalue(), "json": json.dumps(facts).encode()}
                writer.add({"id": clip_id, "key": key_of(clip_id), "flags": []}, members)
        index = read_json(folder / f"{shard_name(number)}.json")
        keys = ("clips", "bytes", "sha256")
        shards.append({"name": shard_name(number), **{key: index[key] for key in keys}})
    write_json(
        folder / "manifest.json",
        {"format": FORMAT, "plan": plan, "num_frames": 3, "shards": shards},
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "shards")


def test_reader(folder: Path) -> None:
    shards = ShardFolder(folder)
    assert shards.ids == IDS
    assert len(shards) == 4
    assert shards.num_frames == 3
    for i, clip_id in enumerate(IDS):
        assert shards.index_of(clip_id) == i
        assert shards.facts(i)["id"] == clip_id
        assert [shards.frame(i, k) for k in range(3)] == [
            f"picture {i} {k}".encode() for k in range(3)
        ]
        wave, rate = shards.sound(i)
        assert rate == 8000
        assert np.array_equal(wave, wave_of(i))
        assert shards.labels(i) == (f"l{i}",)
        assert shards.captions(i) == ("a", "b")
    hashes = [entry["sha256"] for entry in shards.manifest["shards"]]
    assert shards.fingerprint == content_fingerprint(hashes)


def test_same_bytes(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other")
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_tar_is_plain(folder: Path) -> None:
    index = read_json(folder / "shard-00001.json")
    rows = [row for row in index["rows"] if row["status"] == "ok"]
    with tarfile.open(folder / "shard-00001.tar") as tar:
        infos = tar.getmembers()
        names = [f"{row['key']}.{suffix}" for row in rows for suffix in row["members"]]
        assert [info.name for info in infos] == names
        assert {(info.mtime, info.uid, info.uname, info.mode) for info in infos} == {
            (0, 0, "", 0o644)
        }
        places = [place for row in rows for place in row["members"].values()]
        assert [[i.offset_data, i.size] for i in infos] == [place[:2] for place in places]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it closes nothing
def test_webdataset_reads_them(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(file) for file in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [id_of(sample["__key__"]) for sample in samples] == IDS
    assert set(samples[0]) >= {"0.jpg", "1.jpg", "2.jpg", "flac", "json"}
    assert samples[2]["1.jpg"] == b"picture 2 1"


def test_keys() -> None:
    for clip_id in [*IDS, "a/b.mp4", "日本", "~x", "", "A" * LONGEST]:
        key = key_of(clip_id)
        assert id_of(key) == clip_id
        assert not set(key) & set("./~")
    long = [key_of("x" * 200 + end) for end in "ab"]
    assert len(set(long)) == 2
    assert all(len(key) <= LONGEST and id_of(key) is None for key in long)


def test_threads_pickle_and_processes(folder: Path) -> None:
    shards = ShardFolder(folder)
    expected = [shards.frame(i, 1) for i in range(4)]
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(i for _ in range(50) for i in range(4) if shards.frame(i, 1) != expected[i])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    copy = pickle.loads(pickle.dumps(shards))
    assert [copy.frame(i, 1) for i in range(4)] == expected
    copy.close()
    assert copy.frame(3, 1) == expected[3]
    code = f"import pickle; print(pickle.loads({pickle.dumps(shards)!r}).frame(2, 1).decode())"
    root = Path(__file__).parent.parent
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert said.stdout.strip() == "picture 2 1"


# ---- what is wrong with a folder -----------------------------------------------------------


def says(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        ShardFolder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folders_that_are_none(tmp_path: Path, folder: Path) -> None:
    assert "is not a folder of shards" in says(tmp_path / "gone")
    assert "is not a folder of shards" in says(folder / "shard-00000.tar")
    (tmp_path / "foreign").mkdir()
    assert "holds no manifest.json" in says(tmp_path / "foreign")
    (tmp_path / "foreign" / "plan.json").write_text("{}")
    assert "is not finished" in says(tmp_path / "foreign")
    (tmp_path / "foreign" / "manifest.json").write_text('{"made": "by others"}')
    assert "is of format None" in says(tmp_path / "foreign")
    assert "holds no usable clip" in says(write(tmp_path / "none", [], per_shard=1))


def damage(folder: Path, name: str) -> Iterator[str]:
    path = folder / name
    data = path.read_bytes()
    for wrong in (data[:-600], b"", data[: len(data) // 2] + b"\0"):
        path.write_bytes(wrong)
        yield says(folder)
    path.unlink()
    yield says(folder)


def test_damage_is_named(tmp_path: Path) -> None:
    for name in ("shard-00001.tar", "shard-00001.json"):
        for message in damage(write(tmp_path / name), name):
            assert name in message
            assert "run the same prepare command again" in message


def test_foreign_shard(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", ["x", "y", "z"], plan="q")
    for suffix in (".tar", ".json"):
        (other / f"shard-00001{suffix}").replace(folder / f"shard-00001{suffix}")
    assert "belongs to other settings" in says(folder)


def test_reading_what_is_not_there(folder: Path) -> None:
    shards = ShardFolder(folder)
    for read in (
        lambda: shards.index_of("nobody"),
        lambda: shards.frame(0, 3),
        lambda: shards.frame(4, 0),
        lambda: shards.facts(-1),
    ):
        with pytest.raises(UserError):
            read()
    os.truncate(folder / "shard-00001.tar", 4000)  # damaged after it was opened
    with pytest.raises(UserError, match=r"shard-00001\.tar: member"):
        shards.sound(3)


def test_damaged_sound(folder: Path) -> None:
    index = read_json(folder / "shard-00000.json")
    offset, length, _ = index["rows"][1]["members"]["flac"]
    with (folder / "shard-00000.tar").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    with pytest.raises(UserError, match="sound of '-_a' is damaged"):
        ShardFolder(folder).sound(0)


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: TarWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(TarWriter, "_write", full)
    with pytest.raises(UserError, match="No space left on device"):
        write(tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []
