"""Scale-out: the saved plan, parts of it, runs that share a folder, Slurm's script, Ray."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pivot import config
from tests.test_prepare import ROOT, content, settings
from video_prep import prepare
from video_prep.engines.slurm import arguments
from video_prep.errors import UserError
from video_prep.files import aside, create_once, is_alive, remove_asides, this_host
from video_prep.prepare import redo, run, run_audio
from video_prep.recipe import Recipe
from video_prep.running import claims
from video_prep.running.claims import Claims, Work, remove_dead_claims
from video_prep.running.folder import join
from video_prep.running.plan import load_plan, make_plan
from video_prep.settings import PrepareAudio, PrepareFrames, Verify
from video_prep.shards import ShardFolder
from video_prep.sources.clip import Clip

ORIGIN: dict[str, Any] = {"source": "/nowhere"}


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files of one uninterrupted local run, two clips a shard."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(settings(videos, out, shard_size=2)) == 0
    return content(out)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def put_back(path: Path, seconds: float) -> None:
    """Make a file look as if it had been touched so long ago."""
    os.utime(path, (time.time() - seconds,) * 2)


# ---- the plan on disk ------------------------------------------------------------------------


def test_a_saved_plan_is_the_plan(tmp_path: Path) -> None:
    for name in ("a.mp4", "0.jpg", "1.jpg"):
        (tmp_path / name).write_bytes(b"x" * len(name))
    clips = [
        Clip("-_a", tmp_path / "a.mp4", 0.5, None, ("dog", "/m/0jbk"), ("ein Häuschen",), "a.mp4"),
        Clip("b", tmp_path / "gone\udcff.mp4", source="gone.mp4"),
        Clip("c", tmp_path / "a.mp4", frames=(tmp_path / "0.jpg", tmp_path / "1.jpg")),
        Clip("d", Path(), fault=("missing_file", "no file for d")),
    ]
    plan = make_plan("prepare-frames", Recipe(), 3, clips)
    assert plan.sizes == [(5,), (-1,), (5, 5, 5), (0,)]
    join(tmp_path / "out", plan, ORIGIN)
    saved = load_plan(tmp_path / "out")
    assert list(saved.clips) == clips
    assert list(saved.shard(1)) == clips[3:]
    assert (saved.sizes, saved.fingerprint) == (plan.sizes, plan.fingerprint)
    assert saved.settings() == plan.settings()
    (tmp_path / "1.jpg").write_bytes(b"")
    other = make_plan("prepare-frames", Recipe(), 3, clips)
    with pytest.raises(UserError, match=r"'c': 5 bytes \+ 5 bytes \+ 5 bytes, not 5 .* \+ 0 bytes"):
        join(tmp_path / "out", other, ORIGIN)


def test_damaged_plans_are_refused_and_written_again(tmp_path: Path) -> None:
    clips = [Clip(f"c{k}", tmp_path / "a.mp4", source="a.mp4") for k in range(3)]
    plan = make_plan("prepare-frames", Recipe(), 2, clips)
    out = tmp_path / "out"
    join(out, plan, ORIGIN)
    before = content(out)
    text = (out / "inputs.jsonl").read_text()
    for wrong in (text[:-40], text.replace('"c1"', '"c7"'), "", "[]\n" + text, text + "\n"):
        (out / "inputs.jsonl").write_text(wrong)
        with pytest.raises(UserError, match=r"plan in .* is damaged"):
            load_plan(out)
        join(out, plan, ORIGIN)
        assert content(out) == before
    (out / "inputs.jsonl").unlink()
    with pytest.raises(UserError, match=r"inputs\.jsonl does not exist"):
        load_plan(out)
    (out / "plan.json").write_text(json.dumps({"plan": plan.fingerprint}))
    with pytest.raises(UserError, match="is damaged"):
        load_plan(out)
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"not a folder of shards|plan\.json does not exist"):
            load_plan(folder)


def test_a_damaged_plan_is_mended_where_the_shards_prove_it(
    videos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, data in whole.items():
        (out / name).write_bytes(data)
    (out / "plan.json").write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is damaged, and no shard .* these settings"):
        run(settings(videos, out, shard_size=2, quality=80))
    assert run(settings(videos, out, shard_size=2)) == 0
    assert content(out) == whole


def test_two_that_begin_a_folder_at_once(tmp_path: Path) -> None:
    """Those with the same plan go on, those with another are refused; files are never mixed."""
    clips = [Clip(f"c{k}", tmp_path / "a.mp4") for k in range(50)]
    plans = [make_plan("prepare-frames", Recipe(quality=q), 2, clips) for q in (80, 90) * 4]
    for turn in range(5):
        out, told = tmp_path / f"out{turn}", Counter[str]()
        barrier = threading.Barrier(len(plans))

        def begin(plan: Any, out: Path = out, told: Any = told, barrier: Any = barrier) -> None:
            barrier.wait()
            try:
                join(out, plan, ORIGIN)
                told[plan.fingerprint] += 1
            except UserError as error:
                assert "was begun with quality" in str(error)

        threads = [threading.Thread(target=begin, args=(plan,)) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == {load_plan(out).fingerprint: 4}
        assert sorted(content(out)) == ["inputs.jsonl", "plan.json"]


def test_one_of_many_makes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_once(tmp_path / "a", "one")
    assert not create_once(tmp_path / "a", "two")

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)  # a file system without links
    assert create_once(tmp_path / "b", "one")
    assert not create_once(tmp_path / "b", "two")
    assert content(tmp_path) == {"a": b"one", "b": b"one"}


# ---- parts -----------------------------------------------------------------------------------


def test_parts_make_the_whole(
    videos: Path,
    tmp_path: Path,
    whole: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    assert run(settings(videos, out, shard_size=2, shards="3:5")) == 0
    said = capsys.readouterr().out.strip()
    assert said.startswith(f"prepared 4 of 4 clips into {out} (shards 3:5) in ")
    assert said.endswith("; 3 of 5 shards are left in all")
    assert not (out / "manifest.json").exists()

    def scan(*_: Any, **__: Any) -> None:
        raise AssertionError("the source is scanned again")

    monkeypatch.setattr(prepare, "find_clips", scan)
    assert run(settings(videos, out, shard_size=2, shards="0:2")) == 0
    assert capsys.readouterr().out.endswith("; 1 of 5 shards are left in all\n")
    assert run(settings(videos, out, shard_size=2, shards="1:3")) == 0
    assert "prepared 10 of 10 clips" in capsys.readouterr().out
    assert content(out) == whole
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert run(settings(videos, out, shard_size=2, shards="1:3")) == 0
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(AssertionError, match="scanned again"):  # other settings, other plan
        run(settings(videos, out, shard_size=2, shards="0:2", quality=80))
    with pytest.raises(AssertionError, match="scanned again"):
        run(settings(videos.parent, out, shard_size=2, shards="0:2"))


def test_wrong_parts(videos: Path, tmp_path: Path) -> None:
    for wrong in ("3", "3:3", "4:2", "-1:2", "1:", ":2", "a:b", "1:2:3", "", "0x1:2", "١:٢"):
        with pytest.raises(UserError, match="is not FIRST:END, two numbers such as 0:4"):
            run(settings(videos, tmp_path / "out", shards=wrong))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="--shards 0:6: the plan has 5 shards; END can be 5"):
        run(settings(videos, tmp_path / "out", shard_size=2, shards="0:6"))
    assert not (tmp_path / "out").exists()


def test_a_changed_list_is_read_again(videos: Path, tmp_path: Path) -> None:
    listed = videos / "list.csv"
    listed.write_text("path\n" + "".join(f"c{k}.mp4\n" for k in range(6)))
    try:
        run(settings(listed, tmp_path / "out", shard_size=2, shards="0:1"))
        listed.write_text("path\n" + "".join(f"c{k}.mp4\n" for k in range(7)))
        with pytest.raises(UserError, match="begun with 6 input clips, not 7"):
            run(settings(listed, tmp_path / "out", shard_size=2, shards="0:1"))
    finally:
        listed.unlink()


# ---- several runs on one folder --------------------------------------------------------------

DRIVER = """
import functools, sys
import video_prep.prepare as station
from tests.test_prepare import settings
station.prepare = functools.partial(station.prepare, decode="tests.faults:slow")
sys.exit(station.run(settings(sys.argv[1], sys.argv[2], shard_size=2, workers=1)))
"""


def test_two_runs_share_a_folder(videos: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    out, noted = tmp_path / "out", tmp_path / "noted"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(videos), str(out)],
            cwd=ROOT,
            env={**os.environ, "NOTED": str(noted)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for each in runs:
        said, wrong = each.communicate(timeout=120)
        assert each.returncode == 0, wrong
        assert "prepared 10 of 10 clips" in said
    assert content(out) == whole
    done = [line.split() for line in noted.read_text().splitlines()]
    assert sorted(name for *_, name in done) == [f"c{k}" for k in range(10)]  # each once
    assert len({supervisor for _, supervisor, _ in done}) == 2


def test_claims(tmp_path: Path) -> None:
    one = Claims(tmp_path)
    assert one.take(7)
    path = tmp_path / ".claim-00007"
    claim = json.loads(path.read_text())
    assert (claim["host"], claim["pid"]) == (this_host(), os.getpid())

    def claimed_by(host: str, pid: int) -> bool:
        path.write_text(json.dumps({"host": host, "pid": pid}))
        return Claims(tmp_path).take(7)

    assert not claimed_by(this_host(), os.getppid())  # lives
    assert claimed_by(this_host(), dead_pid())
    assert claimed_by(this_host(), os.getpid())  # ours by its number only: we hold none
    assert not claimed_by("far away", 1)
    put_back(path, claims.STALE + 60)
    remove_dead_claims(tmp_path)
    assert not path.exists()
    assert not claimed_by("far away", 1)
    put_back(path, claims.STALE + 60)
    assert Claims(tmp_path).take(7)
    path.write_text("")  # its writer died in the middle, or is about to go on
    assert not Claims(tmp_path).take(7)
    put_back(path, claims.STALE + 60)
    assert Claims(tmp_path).take(7)
    assert [file.name for file in tmp_path.iterdir()] == [".claim-00007"]


def test_claims_are_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Claims(tmp_path)
    mine.take(1)
    put_back(tmp_path / ".claim-00001", 100)
    mine.beat()
    assert time.time() - (tmp_path / ".claim-00001").stat().st_mtime > 50  # not yet due
    monkeypatch.setattr(claims, "_BEAT", 0.0)
    mine.beat()
    assert time.time() - (tmp_path / ".claim-00001").stat().st_mtime < 50
    (tmp_path / ".claim-00001").unlink()  # taken over while we were suspended
    mine.beat()
    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_work_leaves_to_others_what_is_theirs(tmp_path: Path) -> None:
    done: set[int] = set()
    told: list[int] = []
    (tmp_path / ".claim-00001").write_text(json.dumps({"host": "far away", "pid": 1}))
    (tmp_path / ".claim-00002").write_text(json.dumps({"host": "far away", "pid": 1}))
    work = Work(tmp_path, [0, 1, 2, 3], done.__contains__, told.append)
    assert [work.next(), work.next(), work.next()] == [0, 3, None]
    work.back(0)
    assert work.next() == 0
    for number in (0, 3):
        done.add(number)
        work.done(number)
    assert work and len(work) == 2
    done.add(1)
    put_back(tmp_path / ".claim-00002", claims.STALE + 60)
    work._looked = 0
    assert work.next() == 2  # taken over
    assert told == [1]
    work.done(2)
    assert not work


def test_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    shard = tmp_path / "shard-00000.tar"
    dead, alive = aside(shard, dead_pid()), aside(shard, os.getppid())
    far, long_ago = tmp_path / ".tmp-0a0a0a0a-7-x.tar", tmp_path / ".tmp-0a0a0a0a-8-x.tar"
    odd = tmp_path / ".tmp-thing"
    for path in (dead, alive, far, long_ago, odd):
        path.write_bytes(b"x")
    put_back(long_ago, 86400)
    remove_asides(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, far, odd}
    remove_asides(tmp_path, os.getppid())
    assert set(tmp_path.iterdir()) == {far, odd}
    assert is_alive("0a0a0a0a", 7) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_nobody_has_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # ends when the process does
    end = time.monotonic() + 10
    while is_alive(this_host(), process.pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert is_alive(this_host(), process.pid) is False
    process.wait()
    process.stdout.close()


# ---- redo ------------------------------------------------------------------------------------


def test_redo(videos: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    run(settings(videos, out, shard_size=2))
    with (out / "shard-00001.tar").open("r+b") as file:  # sizes stay
        file.seek(600)
        file.write(b"damage")
    (out / "clips.jsonl").write_bytes(b"?" * len(whole["clips.jsonl"]))
    (out / "shard-00003.json").unlink()
    counts = redo(out, Verify(out=str(out), workers=1), [1])
    assert counts["prepared"] == 10
    assert content(out) == whole
    (out / "failures.jsonl").write_text("what")
    assert redo(out, Verify(out=str(out)), []) == counts
    assert content(out) == whole


def test_another_run_may_redo_while_we_wait(
    videos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A shard that is to be made again is left to the run that is at it, and seen when new."""
    out = tmp_path / "out"
    run(settings(videos, out, shard_size=2))
    claim = out / ".claim-00002"
    claim.write_text(json.dumps({"host": "far away", "pid": 1}))

    def other() -> None:
        copy = out / "copy"
        shutil.copy(out / "shard-00002.tar", copy)
        copy.replace(out / "shard-00002.tar")
        claim.unlink()

    timer = threading.Timer(1.5, other)
    timer.start()
    noted = tmp_path / "noted"
    os.environ["NOTED"] = str(noted)
    try:
        redo(out, Verify(out=str(out), workers=1), [2], decode="tests.faults:noted")
    finally:
        del os.environ["NOTED"]
        timer.join()
    assert content(out) == whole
    assert not noted.exists()


# ---- Slurm -----------------------------------------------------------------------------------


def printed(given: PrepareFrames, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(given) == 0
    return capsys.readouterr().out


def test_slurm_script(
    videos: Path, tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "an out's $HOME %j"
    slurm: dict[str, Any] = {"engine": "slurm", "print": True, "slurm_tasks": 2}
    given = settings(videos, out, shard_size=2, slurm_options="--partition=cpu --mem=4G", **slurm)
    text = printed(given, capsys)
    assert "#SBATCH --array=0-1\n" in text
    assert "#SBATCH --partition=cpu --mem=4G\n" in text
    assert "#SBATCH --cpus-per-task=2\n" in text
    logs = next(line for line in text.splitlines() if line.startswith("#SBATCH --output="))
    (log,) = shlex.split(logs.removeprefix("#SBATCH --output="))
    assert log == f"{out}.slurm/%A_%a.log".replace("%j", "%%j")
    assert Path(log.replace("%%", "%")).parent.is_dir()
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0
    (tmp_path / "script.sh").write_text(text)
    told = []
    for task in ("1", "0"):
        done = subprocess.run(
            ["bash", tmp_path / "script.sh"],
            env={**os.environ, "SLURM_ARRAY_TASK_ID": task, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        told.append(done.stdout.strip().splitlines()[-1])
    assert "(shards 2:5)" in told[0] and told[0].endswith("2 of 5 shards are left in all")
    assert "prepared 10 of 10 clips" in told[1]
    assert content(out) == whole
    done = subprocess.run(["bash", tmp_path / "script.sh"], capture_output=True, text=True)
    assert done.returncode and "SLURM_ARRAY_TASK_ID" in done.stderr  # not outside of Slurm


def test_slurm_tasks_get_all_settings(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "num_frames": 3,
        "short_side": 0,
        "snap_seconds": 0.25,
        "audio_rate": "native",
        "channel": "mean",
        "sound": "pcm16",
        "timeout": 7.5,
        "memory_mb": 4000,
        "max_fail": 0.125,
        "frame_policy": "endpoints",
    }
    given = settings(videos, tmp_path / "out", engine="slurm", print=True, **more)
    text = printed(given, capsys)
    assert "#SBATCH --array=0-0\n" in text  # one shard, so one task
    command = text[text.index("exec ") :].replace("\\\n", " ")
    words = shlex.split(command)
    assert words[1:5] == [sys.executable, "-m", "pivot", "prepare-frames"]
    got = config.load(PrepareFrames, words[5:-2], "prepare-frames")
    assert got == given.model_copy(update={"engine": "local", "print": False})
    again = PrepareAudio(
        source=f"{videos}/*.mp4", out=str(tmp_path / "sound"), retry_failed=("a", "b")
    )
    assert config.load(PrepareAudio, arguments(again), "prepare-audio") == again


def test_slurm_hands_in(
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = settings(videos, tmp_path / "out", shard_size=2, engine="slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="sbatch is not on the PATH; add --print"):
        run(given)
    assert not (tmp_path / "out").exists()
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text('#!/bin/sh\n/bin/cat "$1" > "$0.got"; echo Submitted batch job 7\n')
    sbatch.chmod(0o755)
    assert run(given) == 0
    said = capsys.readouterr().out
    assert said.startswith("Submitted batch job 7\nhanded in 5 shards of 10 clips; logs are in ")
    script = (tmp_path / "out.slurm/array.sh").read_text()
    assert (tmp_path / "bin/sbatch.got").read_text() == script
    assert "--array=0-4" in script
    sbatch.write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    with pytest.raises(UserError, match=r"sbatch refused .*array\.sh: no such partition"):
        run(given)
    with pytest.raises(UserError, match="--slurm-options holds a line break"):
        run(given.model_copy(update={"slurm_options": "--mem=1G\nrm -r /"}))


def test_slurm_of_sounds(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    given = PrepareAudio(source=f"{videos}/*.mp4", out=str(out), engine="slurm", print=True)
    assert run_audio(given) == 0
    assert "-m pivot prepare-audio" in capsys.readouterr().out
    assert load_plan(out).command == "prepare-audio"


# ---- Ray -------------------------------------------------------------------------------------

KILLER = """
import os, signal, sys, time
import video_prep.prepare as station
from tests.test_prepare import plan_of, settings
given = settings(sys.argv[1], sys.argv[2], shard_size=2, engine="ray", ray_address="local")
print(station.prepare(plan_of(given), given, decode="tests.faults:slow")["prepared"])
"""


def test_ray_with_workers_killed(videos: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Ray's own worker killed in the middle costs a repetition, nothing else."""
    pytest.importorskip("ray", reason="needs the extra ray")
    out, noted = tmp_path / "out", tmp_path / "noted"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLER, str(videos), str(out)],
        cwd=ROOT,
        env={**os.environ, "NOTED": str(noted)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 200  # Ray takes its time to start on a busy machine
    while not (noted.exists() and noted.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    _, ray_worker, _ = noted.read_text().splitlines()[2].split()
    os.kill(int(ray_worker), 9)
    said, wrong = process.communicate(timeout=120)
    assert process.returncode == 0, wrong
    assert said.strip().splitlines()[-1] == "10"  # Ray itself tells of the death before
    assert content(out) == whole
    supervisors = {line.split()[1] for line in noted.read_text().splitlines()}
    assert len(supervisors) >= 2
    assert len(ShardFolder(out)) == 10


def test_ray_that_is_not_there(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    given = settings(videos, tmp_path / "out", engine="ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    for noted in ("", "127.0.0.1:1"):  # none; one that is gone
        (tmp_path / "ray/ray_current_cluster").write_text(noted)
        with pytest.raises(UserError, match=r"no Ray cluster can be joined .*--ray-address local"):
            run(given)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1: no Ray cluster .*refused"):
        run(given.model_copy(update={"ray_address": "127.0.0.1:1"}))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray; install it with pip install 'pivot-audio"):
        run(given)
