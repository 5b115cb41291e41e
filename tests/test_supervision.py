"""Workers under supervision: limits, deaths from outside, failed clips again, what is told."""

import itertools
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import simplejpeg
import soundfile

from tests.media import barcoded, number_on, tone
from tests.test_prepare import content, plan_of, rows, settings, wait_for
from video_prep.engines import local
from video_prep.errors import UserError
from video_prep.index import read_clips
from video_prep.prepare import prepare, run
from video_prep.recipe import Recipe
from video_prep.running import pool, progress
from video_prep.running.folder import join
from video_prep.running.job import Job
from video_prep.running.plan import make_plan
from video_prep.running.poison import append_poison
from video_prep.running.progress import Bar
from video_prep.shards import ShardFolder
from video_prep.sources.clip import Clip
from video_prep.storage.shard_writer import read_index


def copies(videos: Path, folder: Path, *names: str) -> Path:
    """A folder with one good clip under several names."""
    folder.mkdir()
    for name in names:
        shutil.copy(videos / "c0.mp4", folder / f"{name}.mp4")
    return folder


# ---- workers -------------------------------------------------------------------------------


def test_memory_has_no_limit_by_default(videos: Path, tmp_path: Path) -> None:
    """The same clip fails under --memory-mb (test_faults_cost_one_clip_each)."""
    given = settings(copies(videos, tmp_path / "in", "memory"), tmp_path / "out")
    assert prepare(plan_of(given), given, decode="tests.faults:decode")["prepared"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="kills as Linux does")
def test_a_worker_killed_from_outside_costs_one_clip(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out; what the worker had begun to write goes at once."""
    noted, out = tmp_path / "noted", tmp_path / "out"
    monkeypatch.setenv("NOTED", str(noted))
    given = settings(videos, out, shard_size=5, workers=1)
    asides: list[list[str]] = []

    def kill() -> None:
        wait_for(noted)
        while noted.read_text().count("\n") < 3:
            time.sleep(0.01)
        pid = int(noted.read_text().split()[0])
        asides.append([path.name for path in out.glob(f".tmp-*-{pid}-*.tar")])
        os.kill(pid, signal.SIGKILL)
        while len({line.split()[0] for line in noted.read_text().splitlines()}) < 2:
            time.sleep(0.01)
        asides.append([path.name for path in out.glob(f".tmp-*-{pid}-*")])

    killer = threading.Thread(target=kill)
    killer.start()
    counts = prepare(plan_of(given), given, decode="tests.faults:slow")
    killer.join()
    assert len(asides[0]) == 1 and asides[1] == []
    assert counts["reasons"] == {"killed": 1}
    (failed,) = rows(out / "failures.jsonl")
    assert failed["error"] == "its worker was killed; perhaps memory ran out"
    again = settings(videos, out, shard_size=5, retry_failed=("killed",))
    assert prepare(plan_of(given), again)["prepared"] == 10
    run(settings(videos, tmp_path / "whole", shard_size=5))
    assert content(out) == content(tmp_path / "whole")


def test_workers_are_recycled(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_RECYCLE", 4)
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    given = settings(videos, tmp_path / "out", shard_size=2, workers=1)
    prepare(plan_of(given), given, decode="tests.faults:noted")
    pids = [line.split()[0] for line in (tmp_path / "noted").read_text().splitlines()]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [4, 4, 2]


def test_what_a_worker_died_of_is_not_touched_again(videos: Path, tmp_path: Path) -> None:
    source, out = copies(videos, tmp_path / "in", "a", "crash", "z"), tmp_path / "out"
    out.mkdir()
    append_poison(out, "crash", {"reason": "crashed", "error": "earlier"})
    job = Job(out, "plan", settings(source, out).recipe(), decode="tests.faults:decode")
    clips = read_clips(str(source))
    local.make_shards(job, lambda _: clips, [0], Bar(3, 3), count=1)
    index = read_index(out, 0, "plan")
    assert index is not None
    assert [row.get("error") for row in index["rows"]] == [None, "earlier", None]


def test_clips_without_a_video_of_their_own(tmp_path: Path) -> None:
    """A clip that no file can be is a row with its reason; pictures cut before are taken."""
    pictures = []
    for k in range(4):
        jpeg = simplejpeg.encode_jpeg(barcoded(k), colorsubsampling="420")
        pictures.append(tmp_path / f"x.p{k}.4_0k.jpg")
        pictures[-1].write_bytes(jpeg)
    soundfile.write(tmp_path / "x.wav", tone(1.0, 16000)[0], 16000)
    clips = [
        Clip("a", Path(), fault=("missing_file", "no file is named a")),
        Clip("x", tmp_path / "x.wav", 30, 40, frames=tuple(pictures), source="x"),
    ]
    out = tmp_path / "out"
    plan = make_plan("prepare-frames", Recipe(), 2, clips)
    counts = prepare(plan, settings(tmp_path, out))
    assert counts["reasons"] == {"missing_file": 1}
    (failed,) = rows(out / "failures.jsonl")
    assert (failed["id"], failed["error"]) == ("a", "no file is named a")
    shards = ShardFolder(out)
    assert [number_on(shards.frame(0, k)) for k in range(4)] == [0, 1, 2, 3]
    assert shards.sound(0)[0].shape == (1, 16000)


# ---- failed clips again --------------------------------------------------------------------


def test_retry(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, noted = tmp_path / "in", tmp_path / "out", tmp_path / "noted"
    shutil.copytree(videos, source)
    for name in ("crash", "hang"):
        shutil.copy(videos / "c0.mp4", source / f"{name}.mp4")
    (source / "empty.mp4").touch()
    given = settings(source, out, shard_size=3, timeout=1.5)
    plan = plan_of(given)
    assert prepare(plan, given, decode="tests.faults:decode")["failed"] == 3
    before = content(out)
    with pytest.raises(UserError) as caught:
        run(given.model_copy(update={"retry_failed": ("timout",)}))
    assert "--retry-failed timout: no failed clip in" in str(caught.value)
    assert str(caught.value).endswith("there are: crashed (1), empty_file (1), timeout (1)")
    assert content(out) == before
    monkeypatch.setenv("NOTED", str(noted))
    again = given.model_copy(update={"retry_failed": ("timeout",)})
    counts = prepare(plan, again, decode="tests.faults:noted")
    assert counts["reasons"] == {"crashed": 1, "empty_file": 1}
    assert [line.split()[2] for line in noted.read_text().splitlines()] == ["hang"]
    assert {name for name in before if before[name] != (out / name).read_bytes()} == {
        "shard-00004.tar",
        "shard-00004.json",
        "clips.jsonl",
        "failures.jsonl",
        "summary.html",
        "manifest.json",
    }
    every = given.model_copy(update={"retry_failed": ("all",), "workers": 1})
    assert prepare(plan, every, decode="tests.faults:noted")["reasons"] == {"empty_file": 1}
    tried = [line.split()[2] for line in noted.read_text().splitlines()]
    assert tried == ["hang", "crash", "empty"]
    run(settings(source, tmp_path / "whole", shard_size=3))
    assert content(out) == content(tmp_path / "whole")


def test_retry_after_a_run_that_was_stopped(videos: Path, tmp_path: Path) -> None:
    """What workers died of is forgotten where its reason is retried, and kept where not."""
    source, out = copies(videos, tmp_path / "in", "a", "b", "crash"), tmp_path / "out"
    given = settings(source, out)
    plan = plan_of(given)
    join(out, plan, {})
    append_poison(out, "crash", {"reason": "crashed", "error": "earlier"})
    append_poison(out, "b", {"reason": "timeout", "error": "earlier"})
    torn = out / ".poison" / "0a0a0a0a-1.jsonl"  # another machine's, killed while it wrote
    torn.write_text('{"id": "a", "rea')
    retry = given.model_copy(update={"retry_failed": ("timeout",)})
    assert prepare(plan, retry)["reasons"] == {"crashed": 1}
    assert rows(out / "failures.jsonl")[0]["error"] == "earlier"
    assert not (out / ".poison").exists()


# ---- what is told --------------------------------------------------------------------------


def test_max_fail(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    shutil.copytree(videos, source)
    (source / "c9.mp4").write_bytes(b"")
    given = settings(source, tmp_path / "out", max_fail=0.09)
    for _ in range(2):  # also where nothing is left to do
        assert run(given) == 1
        told = capsys.readouterr()
        assert told.err == (
            "1 of 10 clips failed (10 %), more than --max-fail 0.09 allows; "
            f"see failures.jsonl in {tmp_path / 'out'}\n"
        )
        assert "empty_file" in told.out.splitlines()[1]
        assert told.out.splitlines()[-1].startswith("prepared 9 of 10 clips into ")
    assert len(ShardFolder(tmp_path / "out")) == 9
    assert run(given.model_copy(update={"max_fail": 0.1})) == 0
    assert capsys.readouterr().err == ""


def test_progress_in_a_log_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Bar(total=1000, left=800) as bar:
        bar.other(100)  # another run's say nothing of our speed
        for ok, failed in ((30, 10), (0, 1)):
            clock[0] += 10
            bar.clips(ok, failed)
        bar.again(20, 1)
        clock[0] += 50
        bar.clips(0, 10)
    assert capsys.readouterr().err.splitlines() == [
        "prepare: 340 of 1000 clips, 4.0 clips/s, 10 failed so far, 02:45 left",
        "prepare: 330 of 1000 clips, 0.4 clips/s, 20 failed so far, 26:03 left",
    ]
