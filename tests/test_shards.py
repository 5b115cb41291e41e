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
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.media import tone, write_video
from video_prep.decode import read_sound
from video_prep.decoding.sound_copy import copy_sound
from video_prep.decoding.waves import to_int16
from video_prep.errors import UserError
from video_prep.files import write_json
from video_prep.keys import LONGEST, id_of, key_of, shard_name
from video_prep.shards import FORMAT, SOUND, ShardFolder, content_fingerprint, read_json
from video_prep.storage.shard_writer import TarWriter, write_shard

IDS = ["-_a", "b.c/d e", "ü%_", "last"]


def wave_of(number: int) -> np.ndarray:
    return (tone(0.1 + 0.01 * number, 8000, 2) * 20000).astype(np.int16)


def picture_of(number: int, k: int) -> bytes:
    return f"picture {number} {k}".encode()


def write(
    folder: Path,
    ids: list[str] = IDS,
    plan: str = "p",
    per_shard: int = 2,
    *,
    silent: Container[str] = (),
    picture: Callable[[int, int], bytes] = picture_of,
) -> Path:
    """A folder of shards with made-up pictures, as prepare would write it; `silent` lack sound."""
    folder.mkdir(exist_ok=True)
    shards = []
    for number in range(-(-len(ids) // per_shard)):
        with write_shard(folder, number, plan) as writer:
            writer.fail(f"bad{number}", "no_audio", "it has none")
            for i, clip_id in list(enumerate(ids))[number * per_shard :][:per_shard]:
                sound = io.BytesIO()
                soundfile.write(sound, wave_of(i).T, 8000, format="FLAC")
                facts = {"id": clip_id, "labels": [f"l{i}"], "captions": ["a", "b"]}
                members = {f"{k}.jpg": picture(i, k) for k in range(3)}
                if clip_id not in silent:
                    members["flac"] = sound.getvalue()
                members["json"] = json.dumps(facts).encode()
                flags = ["no_audio"] if clip_id in silent else []
                writer.add({"id": clip_id, "key": key_of(clip_id), "flags": flags}, members)
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
        assert [shards.frame(i, k) for k in range(3)] == [picture_of(i, k) for k in range(3)]
        wave, rate = shards.sound(i)
        assert rate == 8000
        assert np.array_equal(wave, wave_of(i))
        assert shards.labels(i) == (f"l{i}",)
        assert shards.captions(i) == ("a", "b")
    assert [facts["id"] for facts in shards.all_facts()] == IDS
    mixed = shards.read([(3, 2), (0, SOUND), (3, 0)])
    assert mixed[::2] == [picture_of(3, 2), picture_of(3, 0)]
    assert np.array_equal(shards.decode_sound(0, mixed[1])[0], wave_of(0))
    hashes = [entry["sha256"] for entry in shards.manifest["shards"]]
    assert shards.fingerprint == content_fingerprint(hashes)


def test_clips_without_sound(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", silent={IDS[0], IDS[3]})
    shards = ShardFolder(folder)
    assert shards.ids == IDS
    assert shards.ids_without_sound == [IDS[0], IDS[3]]
    assert [shards.has_sound(i) for i in range(4)] == [False, True, True, False]
    assert not shards.all_have_sound
    assert shards.frame(3, 2) == picture_of(3, 2)
    assert shards.facts(3)["id"] == IDS[3]
    with pytest.raises(UserError, match=r"clip '-_a' of .* has no sound \(flag no_audio\)"):
        shards.sound(0)
    heard = ShardFolder(folder, sound=True)
    assert heard.ids == IDS[1:3]
    assert heard.all_have_sound
    assert heard.ids_without_sound == [IDS[0], IDS[3]]
    assert heard.fingerprint == shards.fingerprint
    assert heard.index_of(IDS[2]) == 1
    assert heard.frame(1, 0) == picture_of(2, 0)
    assert np.array_equal(heard.sound(1)[0], wave_of(2))
    assert heard.facts(1)["id"] == IDS[2]
    none = write(tmp_path / "none", silent=IDS)
    assert len(ShardFolder(none)) == 4
    with pytest.raises(UserError, match="no clip with sound: all 4 are flagged no_audio"):
        ShardFolder(none, sound=True)


def test_sound_kinds(folder: Path) -> None:
    """WAV is told from FLAC by its bytes, as the index does not name the kind."""
    sound = io.BytesIO()
    soundfile.write(sound, wave_of(1).T, 8000, format="WAV", subtype="PCM_16")
    wave, rate = ShardFolder(folder).decode_sound(0, sound.getvalue())
    assert rate == 8000 and np.array_equal(wave, wave_of(1))


def test_copied_stream(tmp_path: Path) -> None:
    """It is decoded to what decoding the video gives, as int16."""
    video = write_video(tmp_path / "video.mp4", 24)
    copied = copy_sound(video)
    facts = copied.facts() | {"id": "a", "labels": [], "captions": []}
    folder = tmp_path / "shards"
    folder.mkdir()
    with write_shard(folder, 0, "p") as writer:
        for clip_id, data in (("a", copied.data), ("b", copied.data[:60])):
            members = {"mka": data, "json": json.dumps(facts | {"id": clip_id}).encode()}
            writer.add({"id": clip_id, "key": clip_id, "flags": []}, members)
    sha256 = read_json(folder / "shard-00000.json")["sha256"]
    shard = {"name": "shard-00000", "sha256": sha256}
    manifest = {"format": FORMAT, "plan": "p", "num_frames": 0, "shards": [shard]}
    write_json(folder / "manifest.json", manifest)
    shards = ShardFolder(folder, sound=True)
    wave, rate = shards.sound(0)
    expected, expected_rate = read_sound(video)
    assert (wave.dtype, rate) == (np.int16, expected_rate)
    assert np.array_equal(wave, to_int16(expected))
    with pytest.raises(UserError, match=r"the sound of 'b' is damaged \("):
        shards.sound(1)


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
    for i, sample in enumerate(samples):
        assert [sample[f"{k}.jpg"] for k in range(3)] == [picture_of(i, k) for k in range(3)]
        wave, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        assert rate == 8000 and np.array_equal(wave.T, wave_of(i))
        assert json.loads(sample["json"])["id"] == IDS[i]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_clips_without_sound(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder = write(tmp_path / "shards", silent={IDS[1]})
    urls = [str(file) for file in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [id_of(sample["__key__"]) for sample in samples] == IDS
    assert ["flac" in sample for sample in samples] == [True, False, True, True]
    assert samples[1]["2.jpg"] == picture_of(1, 2)
    assert json.loads(samples[1]["json"])["id"] == IDS[1]


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
    write_json(tmp_path / "foreign" / "manifest.json", {"format": FORMAT, "plan": "p"})
    assert "manifest.json lacks num_frames" in says(tmp_path / "foreign")
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


@pytest.mark.parametrize(
    "row",
    [
        {"status": "ok", "id": "x", "members": {}},
        {"status": "ok", "id": "x", "members": {"json": []}},
        {"status": "ok", "id": "x", "members": {f"{k}": [-512, 3] for k in range(5)}},
        {"status": "ok", "id": "x", "members": {f"{k}": ["a", 3] for k in range(5)}},
        {"status": "ok", "id": "x"},
        {"status": "ok"},
        {},
        7,
    ],
)
def test_damaged_rows_are_named(folder: Path, row: object) -> None:
    file = folder / "shard-00001.json"
    index = read_json(file)
    write_json(file, index | {"rows": [*index["rows"], row]})
    message = says(folder)
    assert "shard-00001.tar" in message and "run the same prepare command again" in message


def test_damaged_facts_are_named(folder: Path) -> None:
    offset, length, _ = read_json(folder / "shard-00000.json")["rows"][2]["members"]["json"]
    with (folder / "shard-00000.tar").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    with pytest.raises(UserError, match=r"shard-00000\.tar, clip 'b\.c/d e' cannot be read"):
        ShardFolder(folder).facts(1)


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
