"""LAION's tars as they are: ids, sounds, captions, the same by URL, trained on, and every fault."""

import io
import json
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile

from pivot.data.captions import read_captions
from pivot.data.overlap import overlap
from pivot.data.pairs import read_pairs
from pivot.embeddings.sources import open_sounds
from pivot.errors import SettingsError
from pivot.training.commands import train_at
from tests import toy
from tests.test_remote import serving
from tests.toy_runs import at_settings, results_of, rows_of, weights_of
from video_prep.errors import UserError
from video_prep.index import AUDIO, read_clips
from video_prep.shards import ShardFolder, is_shards
from video_prep.storage.laion_facts import SelectText, clip_facts, select_text

TEXT = {"text": ["one", "two"], "tag": ["dog", "cat"], "original_data": {"id": 7}}
ALL = {**TEXT, "text_augment_all": ["one", "two", "three"]}
T5 = {**ALL, "text_augment_t5": "three"}


def flac(number: int, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    wave = toy.tone(list(toy.KINDS)[number % 4], number, 0.33)
    soundfile.write(file, wave, rate, format="FLAC")
    return file.getvalue()


def facts(number: int, **values: Any) -> bytes:
    kind = list(toy.KINDS)[number % 4]
    own = {"text": [f"a {kind}", f"the sound of a {kind}"], "tag": [kind]} | values
    return json.dumps(own).encode()


def pack(path: Path, files: dict[str, bytes], kind: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def clip(key: str | int, number: int, **values: Any) -> dict[str, bytes]:
    return {f"{key}.flac": flac(number), f"{key}.json": facts(number, **values)}


def laion(root: Path, clips: int = 20, per_tar: int = 2, sizes: bool = True) -> Path:
    """A split as LAION writes it: keys count from 0 in the whole split."""
    counts = {}
    for number, first in enumerate(range(0, clips, per_tar)):
        keys = range(first, min(first + per_tar, clips))
        files = {name: data for key in keys for name, data in clip(key, key).items()}
        pack(root / f"{number}.tar", files)
        counts[f"{number}.tar"] = len(keys)
    if sizes:
        (root / "sizes.json").write_text(json.dumps(counts))
    return root


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laion(tmp_path_factory.mktemp("laion") / "toys" / "train")


@pytest.fixture
def in_memory(original: Path) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/laion/train/{file.name}": file.read_bytes() for file in original.iterdir()})
    yield "memory://laion/train"
    fs.rm("/laion", recursive=True)


def says(path: Path | str, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        ShardFolder(path, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what works ------------------------------------------------------------------------------


def test_clips_of_a_split(original: Path) -> None:
    shards = ShardFolder(original)
    assert shards.ids == [f"{i // 2}/{i}" for i in range(20)]  # 10.tar would come after 9.tar
    assert shards.num_frames == 0 and shards.all_have_sound and shards.dataset is None
    wave, rate = shards.sound(7)
    assert rate == 8000
    assert np.array_equal(wave[0], toy.tone("car", 7, 0.33))
    assert shards.captions(7) == ("a car", "the sound of a car")
    assert shards.labels(7) == ("car",)
    assert [one["id"] for one in shards.all_facts()] == shards.ids
    assert shards.facts(7)["source"] == "7.json"
    assert shards.index_of("3/7") == 7
    with pytest.raises(UserError, match=r"clip 'c' is not in .*; it has '0/0', "):
        shards.index_of("c")
    again = pickle.loads(pickle.dumps(shards))
    assert again.read([(3, -2), (5, -1)]) == shards.read([(3, -2), (5, -1)])
    assert is_shards(original) and not is_shards(original.parent.parent.parent)


def test_embed_opens_tars(original: Path) -> None:
    shards, sounds = ShardFolder(original), open_sounds(str(original))
    assert sounds.ids == shards.ids and sounds.fingerprint() == shards.fingerprint


def test_rates_are_the_files_own_and_numbers_order_the_tars(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        pack(tmp_path / f"part{number}.tar", {"a.flac": flac(0, 44100), "a.json": facts(0)})
    shards = ShardFolder(tmp_path)
    assert shards.ids == ["part9/a", "part10/a", "part100/a"]
    assert shards.sound(0)[1] == 44100


def test_fingerprint_tells_other_content(tmp_path: Path) -> None:
    first = ShardFolder(laion(tmp_path / "a", 6)).fingerprint
    assert ShardFolder(laion(tmp_path / "b", 6)).fingerprint == first
    assert ShardFolder(laion(tmp_path / "c", 5)).fingerprint != first
    pack(tmp_path / "b/1.tar", clip(2, 2) | clip(3, 3, text="longer words"))
    assert ShardFolder(tmp_path / "b").fingerprint != first


def test_a_root_with_sets_and_splits(tmp_path: Path) -> None:
    laion(tmp_path / "sets/clotho/train", 3)
    laion(tmp_path / "sets/clotho/test", 1, sizes=False)
    shards = ShardFolder(tmp_path / "sets")
    assert shards.ids == [
        "clotho/test/0/0", "clotho/train/0/0", "clotho/train/0/1", "clotho/train/1/2"
    ]  # fmt: skip
    assert ShardFolder(tmp_path / "sets/clotho").ids[0] == "test/0/0"
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix/clotho").symlink_to(tmp_path / "sets/clotho/train")
    assert ShardFolder(tmp_path / "mix").ids == ["clotho/0/0", "clotho/0/1", "clotho/1/2"]
    with serving(tmp_path / "sets") as url:
        assert ShardFolder(url).ids == shards.ids
    pack(tmp_path / "sets/clotho.tar", clip("train/0/1", 1))
    assert "sets/clotho.tar and clotho/train/0.tar both hold a clip 'clotho/train/0/1'" in says(
        tmp_path / "sets"
    )


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_in_every_format(tmp_path: Path, kind: int) -> None:
    keys = [
        "./a",
        "folder/" * 12 + "deep.key",
        "Straße" * (1 if kind == tarfile.USTAR_FORMAT else 30),
    ]
    files = {name: data for n, key in enumerate(keys) for name, data in clip(key, n).items()}
    files |= {"._a.flac": b"left by a file system", "note.txt": b"no clip"}
    pack(tmp_path / "0.tar", files, kind)
    if kind == tarfile.PAX_FORMAT:
        with tarfile.open(tmp_path / "1.tar", "w", format=kind) as tar:
            for name, data in clip("timed", 1).items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(data), 0.25  # as webdataset writes: a header of its own
                tar.addfile(info, io.BytesIO(data))
        keys.append("timed")
    shards = ShardFolder(tmp_path)
    assert [one.partition("/")[2] for one in shards.ids] == [key.removeprefix("./") for key in keys]
    assert shards.captions(1) == ("a cat", "the sound of a cat")


def test_the_same_by_url(original: Path, in_memory: str) -> None:
    local = ShardFolder(original)
    with serving(original) as http:
        for url in (in_memory, f"{http}/"):
            remote = ShardFolder(url)
            assert (remote.ids, remote.fingerprint) == (local.ids, local.fingerprint)
            assert list(remote.all_facts()) == list(local.all_facts())
            assert np.array_equal(remote.sound(11)[0], local.sound(11)[0])
            assert [c.clip for c in read_captions(url)] == [i for i in local.ids for _ in "ab"]
            assert read_pairs(url).captions == read_pairs(original).captions
    fsspec.filesystem("memory").rm("/laion/train/sizes.json")  # then the server lists the tars
    assert ShardFolder(in_memory).ids == local.ids


def test_select_text() -> None:
    cases: list[tuple[dict[str, Any], SelectText, list[str]]] = [
        (TEXT, "none", ["one", "two"]), (ALL, "none", ["one", "two"]), (T5, "none", ["one", "two"]),
        (TEXT, "all", ["one", "two"]), (T5, "all", ["one", "two", "three"]),
        (TEXT, "augment_only", ["one", "two"]), (T5, "augment_only", ["three"]),
        ({**T5, "text_augment_t5": None}, "augment_only", ["one", "two"]),
        ({**TEXT, "text_augment_t5": "three"}, "augment_only", ["one", "two"]),
        ({**T5, "text_augment_all": []}, "augment_only", ["three"]),
        ({**T5, "text_augment_all": None}, "augment_only", ["three"]),
        ({**T5, "text_augment_all": []}, "all", ["one", "two"]),
        ({**T5, "text_augment_t5": []}, "augment_only", ["one", "two"]),
        ({"text": "alone"}, "all", ["alone"]), ({}, "none", []),
    ]  # fmt: skip
    for found, rule, texts in cases:
        assert select_text(found, rule) == texts, (found, rule)


def test_select_text_of_pairs(tmp_path: Path) -> None:
    files = clip(0, 0, **T5) | clip(1, 1, text=["", "four"])
    pack(tmp_path / "0.tar", files)
    pairs = read_pairs(tmp_path, select_text="augment_only")
    assert list(zip(pairs.audio_ids, pairs.captions, strict=True)) == [
        ("0/0", "three"), ("0/1", "four")
    ]  # fmt: skip
    assert pairs.meta == {"rule": "gold", "source": str(tmp_path), "select_text": "augment_only"}
    assert read_pairs(tmp_path, select_text="all").captions == ["one", "two", "three", "four"]
    table = tmp_path / "gold.csv"
    table.write_text("id,caption\n0/0,one\n")
    with pytest.raises(SettingsError, match=r"--select-text all is for LAION's tars, and .*gold"):
        read_pairs(table, select_text="all")
    assert "is for LAION's tars" in says(toy.toy_shards(tmp_path / "s", 2), select_text="all")


def test_blank_captions_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(tmp_path / "0.tar", clip(0, 0, text=["", "one"]))
    assert read_pairs(tmp_path).captions == ["one"]
    assert capsys.readouterr().err == (
        f"left out: 1 captions, the first {tmp_path} clip 0/0: empty caption\n"
    )


def test_recordings_are_known(tmp_path: Path) -> None:
    """As LAION's own scripts write them for Freesound, FSD50K and AudioSet."""
    told = (
        {"id": 282776, "download_url": "https://freesound.org/apiv2/sounds/282776/download/"},
        {"fname": "145450", "mids(class_label_id)": ["/m/04szw"]},
        {"filename": "1-100032-A-0.wav"},
        {"id": 5, "title": "no one's"},
    )
    found = [clip_facts(facts(0, original_data=one), "0/0", "0.json") for one in told]
    assert [one.get("freesound") for one in found] == ["282776", "145450", None, None]
    assert [one["source"] for one in found] == ["0.json", "145450", "1-100032-A-0.wav", "0.json"]
    files = {k: v for n, one in enumerate(told) for k, v in clip(n, n, original_data=one).items()}
    pack(tmp_path / "tars/0.tar", files)
    listed = tmp_path / "ids.csv"
    listed.write_text("freesound_id\n145450\n100032\n")
    shared = overlap(tmp_path / "tars", listed)
    assert [row[0] for row in shared.rows()] == ["0/1", "0/2"]


# ---- training --------------------------------------------------------------------------------


def test_training_streams_and_resumes(
    original: Path, in_memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.toy_clip(tmp_path / "clip")
    audio = toy.AUDIO.model_copy(update={"norms": "vip_ant"})

    def train(out: str, path: str, **values: Any) -> Path:
        common = {"model": "", "clip": {"model": str(tmp_path / "clip")}, "audio": audio}
        common |= {"encoder": toy.ENCODER, "shards": path, "pairs": path, "max_steps": 4}
        common |= {"checkpoint_every": 2, "log_every": 1}
        assert train_at(at_settings(tmp_path, tmp_path / out, **(common | values))) == 0
        return tmp_path / out

    whole = train("whole", str(original))
    remote = train("remote", in_memory)
    assert rows_of(whole) == rows_of(remote) and weights_of(whole) == weights_of(remote)
    assert results_of(whole)["data"]["fingerprint"] == ShardFolder(original).fingerprint
    decode, calls = ShardFolder.decode_sound, []

    def failing(shards: ShardFolder, i: int, data: bytes) -> tuple[np.ndarray, int]:
        calls.append(i)
        if len(calls) == 15:  # in the third step
            raise KeyboardInterrupt
        return decode(shards, i, data)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "decode_sound", failing)
        with pytest.raises(KeyboardInterrupt):
            train("cut", str(original))
    cut = train("cut", str(original), resume=True)
    assert rows_of(cut) == rows_of(whole) and weights_of(cut) == weights_of(whole)


# ---- what goes wrong -------------------------------------------------------------------------


def cut(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])


def test_tars_that_are_cut_short(tmp_path: Path) -> None:
    tar = pack(tmp_path / "0.tar", clip(0, 0) | clip(1, 1))
    data, places = tar.read_bytes(), {}
    with tarfile.open(tar) as whole:
        for info in whole:
            places[info.name] = info.offset, info.offset_data, info.size
    header, start, size = places["1.flac"]
    assert len(data) > places["1.json"][1] + 1024
    for left, what in (
        (start + size - 1, f"ends inside its member '1.flac', after {size - 1} of {size} bytes"),
        (start, f"ends inside its member '1.flac', after 0 of {size} bytes"),
        (header + 100, "ends inside a header, after member '0.json'"),
        (header, "ends after member '0.json' without the empty blocks that close a tar"),
        (0, "ends after no member without the empty blocks that close a tar"),
    ):
        cut(tar, left)
        assert says(tmp_path) == (
            f"{tar} {what}; download the tar again, or take it out of the folder and of sizes.json"
        )
        tar.write_bytes(data)
    cut(tar, start + size - 1)
    with serving(tmp_path) as url:
        assert "/0.tar ends inside its member '1.flac', after" in says(url)


def test_tars_that_are_wrong(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    first = clip(0, 0)
    for files, what in (
        ({"0.flac": flac(0)}, "holds '0.flac' without '0.json'"),
        (first | {"1.json": facts(1)}, "holds '1.json' without '1.flac'"),
    ):
        pack(tar, files)
        assert f"{tar} {what}; download" in says(tmp_path)
    with tarfile.open(tar, "w") as made:
        for name, data in [*first.items(), *first.items()]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    assert f"{tar} holds '0.flac' twice; download" in says(tmp_path)
    with tarfile.open(tar, "w") as made:
        info = tarfile.TarInfo("0.flac")
        info.type, info.linkname = tarfile.LNKTYPE, "other.flac"
        made.addfile(info)
    assert f"{tar} holds '0.flac' as a link" in says(tmp_path)
    pack(tar, first)
    damaged = bytearray(tar.read_bytes())
    with tarfile.open(tar) as whole:
        place = whole.getmember("0.json").offset
    damaged[place] ^= 1
    tar.write_bytes(damaged)
    assert f"{tar} has a damaged header at byte {place}, after member '0.flac'" in says(tmp_path)
    tar.unlink()
    with tarfile.open(tmp_path / "0.tar.gz", "w:gz") as made:
        made.addfile(tarfile.TarInfo("0.flac"))
    assert "0.tar.gz is compressed (gzip)" in says(tmp_path)
    (tmp_path / "0.tar.gz").rename(tar)
    assert f"{tar} is compressed (gzip)" in says(tmp_path)
    pack(tar, {"a.wav": b"", "a.txt": b""})
    assert f"{tmp_path} holds no clip: its tars are without KEY.flac and KEY.json" in says(tmp_path)


def test_json_that_is_none(tmp_path: Path) -> None:
    wrong = (b"{", b"[]", b"\xff", b'{"text": 5}', b'{"text": ["a", 1]}', b'{"tag": {}}')
    files: dict[str, bytes] = {}
    for number, data in enumerate(wrong):
        files |= {f"{number}.flac": flac(number), f"{number}.json": data}
    tar = pack(tmp_path / "0.tar", files)
    shards = ShardFolder(tmp_path)
    for number in range(len(wrong)):
        with pytest.raises(UserError) as caught:
            shards.captions(number)
        said = str(caught.value)
        assert said.startswith(f"{tar}: its member '{number}.json' cannot be read (")
        assert said.endswith(
            "; download the tar again, or take it out of the folder and of sizes.json"
        )
        assert "\n" not in said
    with pytest.raises(UserError, match=r"0\.tar: its member '0\.json' cannot be read"):
        read_pairs(tmp_path)


def test_sound_that_is_none(tmp_path: Path) -> None:
    tar = pack(tmp_path / "0.tar", clip(0, 0) | {"1.flac": b"no", "1.json": facts(1)}
               | {"2.flac": b"", "2.json": facts(2)})  # fmt: skip
    shards = ShardFolder(tmp_path)
    with pytest.raises(UserError, match=rf"{tar}: the sound of '0/1' is damaged .*; download the"):
        shards.sound(1)
    assert shards.ids_without_sound == ["0/2"]
    assert ShardFolder(tmp_path, sound=True).ids == ["0/0", "0/1"]


def test_sizes(tmp_path: Path) -> None:
    laion(tmp_path, 3)
    sizes = tmp_path / "sizes.json"
    for text, what in (
        ('{"0.tar": 3, "1.tar": 1}', "0.tar holds 2 clips, and sizes.json says 3 clips; download"),
        ('{"0.tar": 1, "1.tar": 1}', "0.tar holds 2 clips, and sizes.json says 1 clips; download"),
        ('{"0.tar": 2}', "1.tar holds 1 clips, and sizes.json says nothing of it"),
        ('{"0.tar": 2, "1.tar": 1, "2.tar": 4}', "sizes.json names 2.tar, which is not there"),
        ('{"0.tar": "2"}', "sizes.json: '0.tar' is '2', not a number of clips"),
        ("[1]", "sizes.json does not hold a JSON object; download it again, or delete it"),
        ("{", "sizes.json cannot be read"),
    ):
        sizes.write_text(text)
        assert f"{tmp_path}/{what}" in says(tmp_path), text
    sizes.unlink()
    assert len(ShardFolder(tmp_path)) == 3


def test_tars_need_no_preparing(original: Path) -> None:
    with pytest.raises(UserError, match="holds LAION's tars, which need no preparing"):
        read_clips(str(original), AUDIO)


def test_other_folders_are_none(tmp_path: Path) -> None:
    """Tars beside sounds, and the shards of a prepare command without its manifest."""
    assert "holds no manifest.json" in says(tmp_path)
    laion(tmp_path / "sounds", 1)
    (tmp_path / "sounds/a.wav").write_bytes(b"")
    assert not is_shards(tmp_path / "sounds")
    shards = toy.toy_shards(tmp_path / "shards", 2)
    (shards / "manifest.json").unlink()
    assert "holds no manifest.json" in says(shards) and not is_shards(shards)
