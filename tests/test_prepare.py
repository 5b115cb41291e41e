"""prepare-frames and prepare-audio: sources, resume, bad clips, crashes, the record they leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pivot import cli
from tests.media import number_on, tone, write_video
from video_prep.errors import NothingUsableError, UserError
from video_prep.index import AUDIO, read_clips
from video_prep.prepare import prepare, run, run_audio
from video_prep.running.plan import Plan, make_plan
from video_prep.settings import PrepareAudio, PrepareFrames
from video_prep.shards import ShardFolder

ROOT = Path(__file__).resolve().parent.parent


def settings(source: Path | str, out: Path, **more: Any) -> PrepareFrames:
    return PrepareFrames(source=str(source), out=str(out), **{"workers": 2, **more})


def plan_of(given: PrepareFrames) -> Plan:
    clips = read_clips(given.source)
    return make_plan("prepare-frames", given.recipe(), given.shard_size, clips)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_whole_way(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    shutil.copytree(videos, source / "sub")
    (source / "sub/c3.mp4").write_bytes(b"")
    (source / "text.mp4").write_text("no video")
    (source / "notes.txt").write_text("not looked at")
    write_video(source / "-_silent.mp4", 12, sound=None, size=(96, 64))
    out = tmp_path / "out"
    assert run(settings(source, out, shard_size=5)) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"prepared 10 of 12 clips into {out} (3 shards, ")
    assert "2 failed (1 empty_file, 1 not_media), named with reasons in" in last
    shards = ShardFolder(out)
    good = [k for k in range(10) if k != 3]
    assert shards.ids == ["-_silent", *(f"sub/c{k}" for k in good)]
    assert ShardFolder(out, sound=True).ids == shards.ids[1:]
    for i, k in enumerate(good, 1):
        taken = [number_on(shards.frame(i, n)) - 100 * k for n in range(4)]
        assert taken == [1, 4, 7, 10]
        facts = shards.facts(i)
        assert facts["source"] == f"sub/c{k}.mp4"
        assert facts["frame_times"] == pytest.approx([n / 12 for n in taken], abs=1e-5)
        wave, rate = shards.sound(i)
        assert (wave.shape, rate) == ((1, facts["samples"]), 16000)
    reasons = {row["id"]: row["reason"] for row in rows(out / "failures.jsonl")}
    assert reasons == {"sub/c3": "empty_file", "text": "not_media"}
    listed = rows(out / "clips.jsonl")
    assert len(listed) == 12
    assert listed[0]["flags"] == ["no_audio"]
    assert {row["tools"] for row in listed} == {
        "; ".join(f"{name} {text}" for name, text in shards.manifest["versions"].items())
    }
    assert {"av", "ffmpeg", "numpy", "python"} <= set(shards.manifest["versions"])
    assert str(tmp_path) not in (out / "failures.jsonl").read_text()
    counts = shards.manifest["counts"]
    assert (counts["clips"], counts["prepared"], counts["failed"]) == (12, 10, 2)


def test_same_bytes_anywhere_and_for_any_workers(videos: Path, tmp_path: Path) -> None:
    run(settings(videos, tmp_path / "a", shard_size=3))
    shutil.copytree(videos, tmp_path / "moved")
    run(settings(tmp_path / "moved", tmp_path / "b", shard_size=3, workers=1))
    one, other = content(tmp_path / "a"), content(tmp_path / "b")
    assert one.pop("inputs.jsonl") != other.pop("inputs.jsonl")  # where the files lie
    assert one == other


# ---- interruption --------------------------------------------------------------------------

DRIVER = """
import functools, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
import video_prep.prepare as station
from tests.test_prepare import settings
station.prepare = functools.partial(station.prepare, decode="tests.faults:slow")
sys.exit(station.run(settings(sys.argv[1], sys.argv[2], shard_size=2)))
"""


def start(videos: Path, out: Path, slow: str = "0.15") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(videos), str(out)],
        cwd=ROOT,
        env=os.environ | {"SLOW": slow},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kill_9_then_resume_gives_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(settings(videos, whole, shard_size=2))
    for shard in ("shard-00000.json", "shard-00001.json", "shard-00002.json"):
        process = start(videos, out)
        wait_for(out / shard)
        while not (workers := children(process.pid)):
            assert process.poll() is None, "it was through before it could be killed"
            time.sleep(0.005)
        process.kill()
        process.communicate()
        for worker in workers:  # they die with their parent
            end = time.monotonic() + 10
            while Path(f"/proc/{worker}/exe").exists() and time.monotonic() < end:
                time.sleep(0.02)
            assert not Path(f"/proc/{worker}/exe").exists()
        assert not (out / "manifest.json").exists()
        with pytest.raises(UserError, match="not finished"):
            ShardFolder(out)
    index = out / "shard-00000.json"
    before = index.stat().st_mtime_ns
    assert run(settings(videos, out, shard_size=2)) == 0
    assert index.stat().st_mtime_ns == before  # not done again
    assert content(out) == content(whole)


def test_damaged_shards_are_redone(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(settings(videos, out, shard_size=4))
    whole = content(out)
    os.truncate(out / "shard-00001.tar", 1000)
    (out / "shard-00002.json").write_text("{")
    run(settings(videos, out, shard_size=4))
    assert content(out) == whole


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_schedulers_stop_cleanly(videos: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    process = start(videos, out, slow="1")
    wait_for(out / "shard-00000.json")
    process.send_signal(signal.Signals[name])
    said, noted = process.communicate(timeout=60)
    assert process.returncode == 130, noted
    assert "of 5 shards are done; run the same command again to go on" in noted
    assert "Traceback" not in noted
    assert said == ""
    assert not list(out.glob(".*"))


# ---- what a clip can do to its worker ------------------------------------------------------


def test_faults_cost_one_clip_each(videos: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    shutil.copytree(videos, source)
    for name in ("crash1", "hang1", "killed1", "memory1", "bug1", "crash2"):
        shutil.copy(videos / "c0.mp4", source / f"{name}.mp4")
    given = settings(source, tmp_path / "out", shard_size=4, timeout=1.5, memory_mb=4000)
    counts = prepare(plan_of(given), given, decode="tests.faults:decode")
    assert counts["prepared"] == 10
    failed = {row["id"]: row for row in rows(tmp_path / "out/failures.jsonl")}
    assert {name: row["reason"] for name, row in failed.items()} == {
        "bug1": "error",
        "crash1": "crashed",
        "crash2": "crashed",
        "hang1": "timeout",
        "killed1": "killed",
        "memory1": "out_of_memory",
    }
    assert "SIGSEGV" in failed["crash1"]["error"]
    assert failed["hang1"]["error"] == "not done after 1.5 s (--timeout)"
    assert failed["bug1"]["error"] == "ZeroDivisionError: division by zero"
    assert len(rows(tmp_path / "out/clips.jsonl")) == 16
    assert not list((tmp_path / "out").glob(".*"))
    assert len(ShardFolder(tmp_path / "out")) == 10


def test_full_disk(videos: Path, tmp_path: Path) -> None:
    """A worker whose writes fail ends the run with one line, and leaves no half shard."""
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(videos / "c0.mp4", source / "disk.mp4")
    given = settings(source, tmp_path / "out")
    with pytest.raises(UserError, match=r"cannot write .*shard-00000\.tar"):
        prepare(plan_of(given), given, decode="tests.faults:decode")
    assert sorted(content(tmp_path / "out")) == ["inputs.jsonl", "plan.json"]
    assert prepare(plan_of(given), given)["prepared"] == 1


def test_workers_that_cannot_start(videos: Path, tmp_path: Path) -> None:
    given = settings(videos, tmp_path / "out")
    with pytest.raises(UserError, match=r"No module named 'tests\.nowhere'"):
        prepare(plan_of(given), given, decode="tests.nowhere:decode")


# ---- mistakes ------------------------------------------------------------------------------


def test_other_settings_or_inputs_are_refused(videos: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "in"
    shutil.copytree(videos, source)
    run(settings(source, out))
    run(settings(source, out, workers=1, timeout=5))  # these change nothing
    with pytest.raises(UserError, match="begun with num_frames 4, not 3"):
        run(settings(source, out, num_frames=3))
    with pytest.raises(UserError, match="begun with command prepare-frames, not prepare-audio"):
        run_audio(PrepareAudio(source=f"{source}/*.mp4", out=str(out)))
    shutil.copy(source / "c0.mp4", source / "c1.mp4")
    with pytest.raises(UserError, match="other inputs"):
        run(settings(source, out))
    (source / "c9.mp4").unlink()
    with pytest.raises(UserError, match="10 input clips, not 9"):
        run(settings(source, out))


def test_output_folders_that_cannot_be_used(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(it holds thesis.txt\)"):
        run(settings(videos, tmp_path / "used"))
    assert [file.name for file in (tmp_path / "used").iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file"):
        run(settings(videos, tmp_path / "used/thesis.txt"))


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").touch()
    with pytest.raises(NothingUsableError, match=r"none of 1 clips .*\(1 empty_file\)"):
        run(settings(tmp_path / "in", tmp_path / "out"))
    assert rows(tmp_path / "out/failures.jsonl")[0]["reason"] == "empty_file"
    with pytest.raises(UserError, match="holds no usable clip"):
        ShardFolder(tmp_path / "out")


# ---- sources -------------------------------------------------------------------------------


def test_lists(videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "v")
    (tmp_path / "list.csv").write_bytes(
        b"\xef\xbb\xbfpath,id,start,end,labels,captions\r\n"
        b'v/c0.mp4,-_x,0.5,1.0,dog;cat,"a dog, barking"\r\n\r\n'
        b"v/c1.mp4,,,,,\r\n"
        b"v/gone.mp4,,,,,\r\n"
    )
    assert run(settings(tmp_path / "list.csv", tmp_path / "out")) == 0
    shards = ShardFolder(tmp_path / "out")
    assert shards.ids == ["-_x", "v/c1"]
    assert shards.labels(0) == ("dog", "cat")
    assert shards.captions(0) == ("a dog, barking",)
    assert [number_on(shards.frame(0, k)) for k in range(4)] == [6, 8, 9, 11]
    assert shards.sound(0)[0].shape == (1, 8000)
    assert rows(tmp_path / "out/failures.jsonl")[0]["reason"] == "missing_file"
    row = {"path": "v/c0.mp4", "id": "-_x", "start": 0.5, "end": 1, "labels": ["dog", "cat"]}
    (tmp_path / "list.jsonl").write_text(
        json.dumps(row | {"captions": ["a dog, barking"]})
        + "\n"
        + json.dumps({"path": "v/c1.mp4", "start": None})
    )
    assert read_clips(str(tmp_path / "list.jsonl")) == read_clips(str(tmp_path / "list.csv"))[:2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,id\na.mp4,x\n", "no column 'path' .found: file, id"),
        ("path,strat\na.mp4,1\n", "column 'strat' is unknown; perhaps you meant 'start'"),
        ("path,path\na,b\n", "column 'path' appears 2 times"),
        ("path,start,end\na.mp4,5,3\n", "line 2: start 5 is not before end 3"),
        ("path,start,end\na.mp4,-1,3\n", "line 2: start '-1' is not a number of seconds"),
        ("path,start\na.mp4,nan\n", "line 2: start 'nan'"),
        ("path,end\na.mp4,ten\n", "line 2: end 'ten'"),
        ("path,end\na.mp4,0\n", "end 0 leaves nothing"),
        ("path,id\na.mp4,x\nb.mp4,x\n", "clips 1 and 2 have the same id 'x'"),
        ("path\na.mp4\n\na.mov\n", "the same id 'a'"),
        ("path,id\n,x\n", "line 2: the path is empty"),
        ("path\na.mp4,b,c\n", "line 2: 3 cells for 1 columns"),
        ("path\n", "lists no clips"),
        ("", "lists no clips"),
    ],
)
def test_wrong_lists(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_clips(str(tmp_path / "list.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a.mp4"', "line 1: not valid JSON"),
        ('{"path": "a.mp4"}\n[1]', "line 2: not an object"),
        ('{"path": "a.mp4", "id": "\\ud800"}', "line 1: not valid Unicode"),
        ('{"path": 3}', "line 1: the path is empty"),
        ('{"path": "a.mp4", "labels": [1]}', "line 1: labels"),
        ('{"path": "a.mp4", "start": true}', "line 1: start True"),
        ('{"path": "a.mp4", "caption": "x"}', "perhaps you meant 'captions'"),
    ],
)
def test_wrong_json_lines(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_clips(str(tmp_path / "list.jsonl"))


def test_folders_globs_and_files(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.webm", "a/y.MP4", "a/y.mkv", ".hidden.mp4", "n.txt", "s.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/loop").symlink_to(tmp_path)
    found = read_clips(str(tmp_path))
    assert [clip.id for clip in found] == ["a/y.MP4", "a/y.mkv", "a/z", "b"]
    assert [clip.source for clip in found] == ["a/y.MP4", "a/y.mkv", "a/z.webm", "b.mp4"]
    assert [clip.id for clip in read_clips(f"{tmp_path}/*/*.m*")] == ["a/y"]
    assert [clip.id for clip in read_clips(str(tmp_path / "b.mp4"))] == ["b"]
    assert [clip.id for clip in read_clips(str(tmp_path), AUDIO)] == ["s"]
    (tmp_path / "empty").mkdir()
    for source, message in (
        (tmp_path / "empty", "holds no video file"),
        (tmp_path / "nowhere", "does not exist"),
        (f"{tmp_path}/*.mov", "matches no file"),
    ):
        with pytest.raises(UserError, match=message):
            read_clips(str(source))
    (tmp_path / "s.wav").unlink()
    with pytest.raises(UserError, match="holds videos but no audio files"):
        read_clips(str(tmp_path), AUDIO)


def test_prepare_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    wave = (tone(0.5, 44100, 2) * 32000).astype(np.int16)
    for name in ("a.wav", "b.flac", "c.ogg", "d.mp3"):
        soundfile.write(source / name, wave.T, 44100)
    write_video(source / "e.m4a", 0, sound=tone(0.5, 44100, 2))
    soundfile.write(source / "many.wav", np.zeros((800, 10), np.int16), 8000)
    (source / "bad.wav").write_bytes(b"RIFF")
    given = PrepareAudio(source=str(source), out=str(tmp_path / "out"), audio_rate="native")
    assert run_audio(given) == 0
    assert "prepared 6 of 7 clips" in capsys.readouterr().out
    shards = ShardFolder(tmp_path / "out")
    assert shards.num_frames == 0
    assert np.array_equal(shards.sound(shards.index_of("a"))[0], wave)
    assert np.array_equal(shards.sound(shards.index_of("b"))[0], wave)
    for name in ("c", "d", "e"):
        got, rate = shards.sound(shards.index_of(name))
        assert (len(got), rate) == (2, 44100)
        assert got.shape[1] == pytest.approx(22050, abs=2500)
    assert shards.sound(shards.index_of("many"))[0].shape == (10, 800)
    assert shards.facts(shards.index_of("many"))["flags"] == ["silent_audio"]
    with pytest.raises(UserError, match="has 0 frames a clip"):
        shards.frame(0, 0)


def test_settings_are_checked() -> None:
    for wrong in ({"num_frames": 0}, {"audio_rate": 0}, {"quality": 101}, {"timeout": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            settings("in", Path("out"), **wrong)


def test_real_videos(realdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings(realdata / "video", tmp_path / "out")) == 0
    assert "prepared 9 of 9 clips" in capsys.readouterr().out
    silent = [row["id"] for row in rows(tmp_path / "out/clips.jsonl") if "no_audio" in row["flags"]]
    assert silent == ["languagebind_assets/0"]


def test_urls_are_for_reading(videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["prepare-frames", str(videos), "--out"], ["prepare-frames", "verify"]):
        assert cli.main([*argv, "s3://bucket/x"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("pivot: s3://bucket/x is a URL") and said.count("\n") == 1
