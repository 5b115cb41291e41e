"""What is kept of an old shard, and what verify finds, says and mends."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.media import write_video
from video_prep.errors import UserError
from video_prep.files import this_host, write_json
from video_prep.keys import key_of
from video_prep.prepare import run as run_frames
from video_prep.settings import PrepareFrames, Verify
from video_prep.storage.reuse import OldShard
from video_prep.storage.seals import file_hash, read_sealed, sealed
from video_prep.storage.shard_writer import write_shard
from video_prep.verify import run

# ---- seals ---------------------------------------------------------------------------------


def test_a_seal_breaks_with_any_change(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"b": 1, "a": ["ü", None, 0.1], "n": {"z": 1, "y": 2}}
    write_json(path, sealed(value))
    assert read_sealed(path) == value
    text = path.read_text()
    assert list(json.loads(text)) == ["b", "a", "n", "check"]
    broken = {
        "a letter": text.replace("ü", "u"),
        "a number": text.replace("0.1", "0.2"),
        "another order": text.replace('"b": 1,', "").replace('"n"', '"b": 1, "n"'),
        "cut": text[:-3],
        "no seal": json.dumps(value),
        "a list": "[1]",
        "too deep": "[" * 100_000,
        "empty": "",
    }
    for what, wrong in broken.items():
        path.write_text(wrong)
        assert read_sealed(path) is None, what
    path.write_bytes(b"\xff\xfe")
    assert read_sealed(path) is None
    path.unlink()
    assert read_sealed(path) is None
    path.mkdir()
    assert read_sealed(path) is None


def test_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_hash(path) == {"bytes": 3, "sha256": digest}  # FIPS 180-2, appendix B.1
    with pytest.raises(OSError, match="nowhere"):
        file_hash(tmp_path / "nowhere")


# ---- what of an old shard is kept ----------------------------------------------------------

PLAN = "plan of this folder"


def members_of(name: str) -> dict[str, bytes]:
    return {f"{k}.jpg": f"{name} {k}".encode() * 99 for k in range(2)} | {"json": b"{}"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with shard 3: clips a and b/c, and two that failed."""
    with write_shard(tmp_path, 3, PLAN, {"av": "1"}) as writer:
        writer.add({"id": "a", "key": key_of("a"), "flags": ["still"]}, members_of("a"))
        writer.fail("gone", "missing_file", "gone.mp4 does not exist")
        writer.add({"id": "b/c", "key": key_of("b/c"), "flags": []}, members_of("b/c"))
        writer.fail("slow", "timeout", "not done after 2 s (--timeout)")
    return tmp_path


def change_index(folder: Path, change: Any) -> None:
    """Change the index of shard 3 and seal it again, as a wrong writer would."""
    path = folder / "shard-00003.json"
    index = json.loads(path.read_text())
    del index["check"]
    change(index)
    write_json(path, sealed(index))


def kept(folder: Path, *retry: str, plan: str = PLAN) -> list[str]:
    """Ids of which anything is kept."""
    shard = OldShard(folder, 3, plan, frozenset(retry))
    ids = ("a", "b/c", "gone", "slow", "other")
    return [name for name in ids if shard.row(name) or shard.members(name)]


def test_a_whole_shard_is_kept(old: Path) -> None:
    shard = OldShard(old, 3, PLAN)
    (old / "shard-00003.json").unlink()  # it was read already
    assert shard.members("a") == ({"id": "a", "key": "a", "flags": ["still"]}, members_of("a"))
    assert shard.members("b/c") == (
        {"id": "b/c", "key": "b%2Fc", "flags": []},
        members_of("b/c"),
    )
    assert shard.row("a") is shard.members("gone") is shard.row("other") is None
    failed = {"id": "gone", "status": "failed", "reason": "missing_file"}
    assert shard.versions == {"av": "1"}
    assert shard.row("gone") == failed | {"error": "gone.mp4 does not exist"}


def test_failed_clips_that_are_tried_again(old: Path) -> None:
    assert kept(old) == ["a", "b/c", "gone", "slow"]
    assert kept(old, "timeout") == ["a", "b/c", "gone"]
    assert kept(old, "timeout", "missing_file") == ["a", "b/c"]
    assert kept(old, "all") == ["a", "b/c"]
    assert kept(old, "ok", "failed") == ["a", "b/c", "gone", "slow"]


def test_a_damaged_member_costs_its_clip(old: Path) -> None:
    tar = old / "shard-00003.tar"
    with tarfile.open(tar) as file:
        at = file.getmember("b%2Fc.1.jpg").offset_data
    data = bytearray(tar.read_bytes())
    data[at + 5] ^= 1
    tar.write_bytes(data)
    assert kept(old) == ["a", "gone", "slow"]
    os.truncate(tar, at + 100)
    assert kept(old) == ["a", "gone", "slow"]
    os.truncate(tar, 600)
    assert kept(old) == ["gone", "slow"]
    tar.unlink()
    assert kept(old) == ["gone", "slow"]


def test_nothing_is_kept_without_a_right_index(old: Path) -> None:
    assert kept(old, plan="another") == []
    path = old / "shard-00003.json"
    text = path.read_text()
    for wrong in (text.replace("gone.mp4 does", "gone.mp3 does"), text[:-9], "{}", "[]", "null"):
        path.write_text(wrong)
        assert kept(old) == []
    path.unlink()
    assert kept(old) == []
    assert OldShard(old / "nowhere", 0, PLAN).row("a") is None


NONSENSE = (None, 7, -1, True, "", "x", 1e300, [], [[]], {}, {"a": {}}, [None] * 3, [0, 1, 2])


@pytest.mark.parametrize("wrong", NONSENSE, ids=repr)
def test_wrong_types_in_an_index(old: Path, wrong: Any) -> None:
    """Whatever a sealed index holds, nothing is kept of that part and nothing is raised."""
    whole = read_sealed(old / "shard-00003.json") or {}
    a, gone = whole["rows"][:2]
    for key in ("format", "plan"):
        change_index(old, lambda index, key=key: index.update({key: wrong}))
        assert kept(old) == []
        change_index(old, lambda index: index.update(whole))
    for key in ("id", "key", "status", "members", "flags"):
        if key == "flags" and isinstance(wrong, list):
            continue  # a list is right
        change_index(old, lambda index, key=key: index.update(rows=[{**a, key: wrong}, gone]))
        assert kept(old) == ["gone"], key
    for key in ("id", "status", "reason", "error"):
        if key in {"reason", "error"} and isinstance(wrong, str):
            continue  # any text is right
        change_index(old, lambda index, key=key: index.update(rows=[a, {**gone, key: wrong}]))
        assert kept(old) == ["a"], key
    for n in range(3):
        place = [*a["members"]["0.jpg"]]
        place[n] = wrong
        row = {**a, "members": a["members"] | {"0.jpg": place}}
        change_index(old, lambda index, row=row: index.update(rows=[row, gone]))
        assert kept(old) == ["gone"], n
    row = {**a, "members": {"0.jpg": wrong}}
    change_index(old, lambda index: index.update(rows=[wrong, row, gone, gone]))
    assert kept(old) == []
    change_index(old, lambda index: index.update(rows=wrong))
    assert kept(old) == []
    change_index(old, lambda index: index.update(whole | {"versions": wrong}))
    assert kept(old) == ["a", "b/c", "gone", "slow"]
    assert OldShard(old, 3, PLAN).versions == {}


# ---- a prepared folder that is damaged -----------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips of one second, and three files that cannot be used."""
    folder = tmp_path_factory.mktemp("videos")
    for k in range(9):
        write_video(folder / f"c{k}.mp4", 12, first=100 * k, size=(96, 64))
    (folder / "c1b.mp4").touch()
    (folder / "c5b.mp4").write_text("no video")
    (folder / "c8b.mp4").write_bytes(b"RIFF")
    return folder


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards, four clips each."""
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare(videos, out)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of the shards, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


def prepare(source: Path, out: Path) -> None:
    assert run_frames(PrepareFrames(source=str(source), out=str(out), shard_size=4, workers=2)) == 0


def verify(out: Path, **more: Any) -> int:
    return run(Verify(out=str(out), **{"workers": 2, **more}))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def place(out: Path, number: int, clip: int, suffix: str) -> int:
    """Offset of a member in its tar."""
    index = json.loads((out / f"shard-0000{number}.json").read_text())
    return int(index["rows"][clip]["members"][suffix][0])


def swap(a: Path, b: Path) -> None:
    other = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(other)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def foreign_index(out: Path) -> None:
    path = out / "shard-00001.json"
    index = read_sealed(path) or {}
    write_json(path, sealed({**index, "plan": "another"}))


def text_of_a_failure(out: Path) -> None:
    """Change one letter in a row that no tar holds anything of."""
    path = out / "shard-00000.json"
    text = path.read_text()
    assert "empty" in text
    path.write_text(text.replace("empty", "amply", 1))


def other_manifest(out: Path) -> None:
    manifest = read_sealed(out / "manifest.json") or {}
    manifest["shards"][1]["sha256"] = "0" * 64
    write_json(out / "manifest.json", sealed(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a byte of a frame": (
        lambda out: flip(out / "shard-00001.tar", place(out, 1, 1, "2.jpg") + 40),
        "shard-00001: its tar has another sha256 than its index; 1 of 4 clips are hurt: c4",
    ),
    "a byte between the clips": (
        lambda out: flip(out / "shard-00001.tar", place(out, 1, 1, "0.jpg") - 12),
        "shard-00001: its tar has another sha256 than its index; no clip is hurt",
    ),
    "a cut tar": (
        lambda out: cut(out / "shard-00002.tar", place(out, 2, 1, "json") + 3),
        "shard-00002: its tar has ",
    ),
    "no tar": (
        lambda out: (out / "shard-00000.tar").unlink(),
        "shard-00000: its tar is missing; 3 of 4 clips are hurt: c0, c1, c2",
    ),
    "no index": (
        lambda out: (out / "shard-00001.json").unlink(),
        "shard-00001: its index is missing; no clip is hurt",
    ),
    "an index that is no JSON": (
        lambda out: (out / "shard-00001.json").write_text('{"rows": ['),
        "shard-00001: its index is damaged; no clip is hurt",
    ),
    "a letter of an index": (
        text_of_a_failure,
        "shard-00000: its index is damaged; no clip is hurt",
    ),
    "an index of another plan": (foreign_index, "shard-00001: its index is of another plan"),
    "no index, and a byte of a frame": (
        lambda out: [DAMAGE[kind][0](out) for kind in ("a byte of a frame", "no index")],
        "shard-00001: its index is missing; 4 of 4 clips are hurt: c3, c4, c5, c5b",
    ),
    "no index, and another list of clips": (
        lambda out: [flip(out / "clips.jsonl", 60), (out / "shard-00001.json").unlink()],
        "shard-00001: its index is missing; 4 of 4 clips are hurt: c3, c4, c5, c5b",
    ),
    "swapped tars": (
        lambda out: swap(out / "shard-00000.tar", out / "shard-00002.tar"),
        "shard-00002: its tar has ",
    ),
    "swapped indexes": (
        lambda out: swap(out / "shard-00000.json", out / "shard-00002.json"),
        "shard-00000: its index is that of shard-00002; ",
    ),
    "no manifest": (
        lambda out: (out / "manifest.json").unlink(),
        "manifest.json: it is missing",
    ),
    "no manifest, and a cut tar": (
        lambda out: [DAMAGE[kind][0](out) for kind in ("no manifest", "a cut tar")],
        "shard-00002: its tar has ",
    ),
    "a letter of the manifest": (
        lambda out: flip(out / "manifest.json", 300),
        "manifest.json: it is damaged or of another plan",
    ),
    "a manifest of other shards": (
        other_manifest,
        "manifest.json: it is not that of these shards (shard-00001)",
    ),
    "no list of clips": (
        lambda out: (out / "clips.jsonl").unlink(),
        "clips.jsonl: No such file or directory",
    ),
    "a letter of the failures": (
        lambda out: flip(out / "failures.jsonl", 60),
        "failures.jsonl: it has other bytes than manifest.json says",
    ),
    "no summary": (
        lambda out: (out / "summary.html").unlink(),
        "summary.html: No such file or directory",
    ),
    "a shard too many": (
        lambda out: shutil.copy(out / "shard-00000.tar", out / "shard-00007.tar"),
        "shard-00007.tar: the plan has 3 shards, this one is not of it",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_mended(
    whole: Path, out: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, line = DAMAGE[kind]
    damage(out)
    damaged = content(out)
    assert damaged != content(whole)
    assert verify(out, check_only=True) == 1
    said = capsys.readouterr().out.splitlines()
    assert any(text.startswith(line) for text in said), said
    assert said[-1].startswith("damaged: ")
    assert content(out) == damaged
    assert verify(out) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(text.startswith(line) for text in said), said
    assert any(text.startswith("mended: ") for text in said)
    assert content(out) == content(whole)
    assert verify(out, check_only=True) == 0


def test_a_whole_folder(whole: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "notes.txt").write_text("mine")
    (out / f".tmp-{this_host()}-4194999-shard-00001.tar").write_text("half")  # no such process
    before = content(out)
    assert verify(out, check_only=True) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("-shard-00001.tar: left over from a run that was stopped (harmless)")
    assert said[1] == "notes.txt: not made by this command (left alone)"
    assert said[2].startswith("whole: 3 shards, ")
    assert content(out) == before
    assert verify(out) == 0
    assert content(out) == {**content(whole), "notes.txt": b"mine"}


def test_everything_at_once(whole: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("a shard too many", "a byte of a frame", "a cut tar", "no tar", "no summary"):
        DAMAGE[kind][0](out)
    assert verify(out) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("mended: 3 of 3 shards, 1 file of the record, 1 file of foreign shards")
    assert content(out) == content(whole)


# ---- what verify refuses -------------------------------------------------------------------


def test_inputs_that_are_gone(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its source a clip is not redone, so nothing is; the others need no source."""
    source, out = Path(shutil.copytree(videos, tmp_path / "in")), tmp_path / "out"
    prepare(source, out)
    whole = content(out)
    flip(out / "shard-00001.tar", place(out, 1, 1, "2.jpg") + 40)
    damaged = content(out)
    for path in source.iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(UserError, match=r"c4\.mp4 is gone and clip 'c4' of shard-00001 must be"):
        verify(out)
    assert content(out) == damaged
    (source / "c4.mp4").write_bytes((videos / "c4.mp4").read_bytes() + b"more")
    with pytest.raises(UserError, match=r"c4\.mp4 has \d+ bytes, not \d+, and clip 'c4'"):
        verify(out)
    assert content(out) == damaged
    shutil.copy(videos / "c4.mp4", source / "c4.mp4")
    (out / "shard-00002.json").unlink()
    assert verify(out) == 0  # the other sources are still gone
    assert "; clips prepared again: 1, " in capsys.readouterr().out
    assert content(out) == whole


def test_a_file_that_appeared(tmp_path: Path, videos: Path) -> None:
    """A clip whose file was missing stays the clip it was."""
    (tmp_path / "list.csv").write_text(f"path,id\n{videos}/c0.mp4,a\nlater.mp4,b\n")
    prepare(tmp_path / "list.csv", tmp_path / "out")
    whole = content(tmp_path / "out")
    DAMAGE["no tar"][0](tmp_path / "out")
    (tmp_path / "out/shard-00000.json").unlink()
    assert verify(tmp_path / "out") == 0
    assert content(tmp_path / "out") == whole
    DAMAGE["no tar"][0](tmp_path / "out")
    (tmp_path / "out/shard-00000.json").unlink()
    shutil.copy(videos / "c1.mp4", tmp_path / "later.mp4")
    with pytest.raises(UserError, match=r"later\.mp4 was not there before and clip 'b'"):
        verify(tmp_path / "out")


def test_folders_that_cannot_be_verified(out: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path, out / "plan.json"):
        with pytest.raises(UserError, match="is no prepared folder"):
            verify(folder)
    (out / "manifest.json").unlink()
    (out / "shard-00001.json").unlink()
    with pytest.raises(UserError, match=r"is not finished \(2 of 3 shards are done\)"):
        verify(out)
    text = (out / "inputs.jsonl").read_text()
    (out / "inputs.jsonl").write_text(text.replace('"id": "c4"', '"id": "d4"'))
    with pytest.raises(UserError, match=r"the plan in .* is damaged"):
        verify(out)


def test_the_share_of_failures(out: Path) -> None:
    (out / "summary.html").unlink()
    assert verify(out, max_fail=0.2) == 1  # three of twelve failed
    (out / "summary.html").unlink()
    assert verify(out, max_fail=0.25) == 0
