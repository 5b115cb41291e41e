"""The benchmarks of preparing and loading: the promised rows, and peers that are not here."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import av
import pytest

from pivot.bench import ladder, loader, memory, samples, turns
from pivot.bench import prepare as station
from pivot.bench.clips import SMALL, Clip, write_clip
from pivot.bench.run import run
from pivot.settings import Bench
from video_prep.shards import SOUND

FIGURES = ("ms_per_clip", "clips_per_second", "ratio")
TINY = Clip("128x96, keyframe each 4", 128, 96, 4, 60, seconds=2, fps=8)
RUNGS = [rung.name for rung in ladder.LADDER]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "CLIPS", (TINY,))
    monkeypatch.setattr(station, "LEAST_TURNS", 1)
    monkeypatch.setattr(memory, "FEW", 5)
    monkeypatch.setattr(loader, "CLIPS", 5)
    monkeypatch.setattr(samples, "SHARD", 3)
    monkeypatch.setattr(loader, "LEAST_TURNS", 1)
    monkeypatch.setattr(loader, "TURN", 0.001)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any of the peers."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("decord", "torchcodec.transforms", "webdataset"):
        monkeypatch.setitem(sys.modules, name, None)


def small(settings: str) -> Bench:
    return Bench(what=settings, seconds=0.01)  # type: ignore[arg-type]


# ---- the clips -------------------------------------------------------------------------------


def test_clips_are_as_named(tmp_path: Path) -> None:
    clip = Clip("64x48, keyframe each 20", 64, 48, 20, 200, seconds=4, fps=10)
    with av.open(str(write_clip(tmp_path / "clip.mp4", clip))) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.width, video.height, video.average_rate) == (64, 48, 10)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 44100, 2)
        keys = [p.pts * p.time_base for p in file.demux(video) if p.size and p.is_keyframe]
    # the two cuts, and none later than a group of pictures after the last keyframe
    assert {0, 1.5, 2.8} <= {float(key) for key in keys}
    assert all(b - a <= 2 for a, b in zip(keys, [*keys[1:], 4], strict=True))


# ---- preparing -------------------------------------------------------------------------------


def test_every_way_has_a_row(tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = station.bench(small("prepare"))
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == RUNGS and {row["clip"] for row in rows.values()} == {TINY.name}
    assert rows[ladder.OURS]["ratio"] == 1
    for row in rows.values():
        if not row["note"]:
            assert row["clips_per_second"] == pytest.approx(1000 / row["ms_per_clip"])
            # the reference asks for a frame at the very end, and gets none
            assert row["pictures"] == (3 if "reference" in row["name"] else 4)
    assert found["worker"]["opens"] == 5
    printed = capsys.readouterr().out
    assert all(name in printed for name in RUNGS)
    assert "3 of 4 frames" in printed or rows[RUNGS[0]]["note"]
    assert "kB an open" in printed or sys.platform != "linux"
    assert "--seconds 60 opens 5,000" in printed or sys.platform != "linux"


def test_absent_peers_are_rows(
    tiny: None, alone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "measure", lambda *_: {"opens": 0, "mb": None, "kb_per_open": None})
    rows = {row["name"]: row for row in station.bench(small("prepare"))["rows"]}
    absent = {name for name, row in rows.items() if row["note"] == "not installed"}
    assert absent == {rung.name for rung in ladder.LADDER if rung.needs}
    assert len(absent) == 4 and {rows[name][key] for name in absent for key in FIGURES} == {None}
    assert rows[ladder.OURS]["ratio"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("not installed") for line in lines) == 4
    assert any("does not tell" in line for line in lines)


def test_a_peer_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(f"Could not load {name}\nwith a long story")

    monkeypatch.setattr(ladder, "import_module", broken)
    rung = ladder.Rung("peer", lambda *_: 4, "torchcodec")
    assert rung.absent() == "cannot be loaded (Could not load torchcodec)"


def test_a_program_that_fails_is_a_row(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("ffmpeg", "ffprobe"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho banner >&2\necho no encoder >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(station, "LADDER", (ladder.LADDER[1], *ladder.LADDER[5:6]))
    video = write_clip(tmp_path / "clip.mp4", TINY)
    theirs, ours = station._rows(TINY, video, 0)
    assert theirs["note"] == "fails (no encoder)" and theirs["ratio"] is None
    assert ours["ratio"] == 1


def test_children_count(tmp_path: Path) -> None:
    """The time of a process that was waited for is in the figure."""
    import subprocess

    before = turns.cpu_seconds()
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert turns.cpu_seconds() - before >= 0.3


def test_memory_of_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "FEW", 5)
    clip = write_clip(tmp_path / "clip.mp4", SMALL)
    found = memory.measure([clip], clip, 1)
    assert found["opens"] == 5
    if sys.platform == "linux":
        assert 20 < found["mb"] < 150


# ---- loading ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_layout_has_a_row(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "loader.json"
    assert run(Bench(what="loader", seconds=0.01, out=str(out))) == 0
    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert next(iter(rows)) == loader.RAW and rows[loader.NAIVE]["ratio"] == 1
    for row in rows.values():
        assert row["note"] or row["samples_per_second"] == pytest.approx(1e6 / row["us_per_sample"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in rows)
    assert found["station"] == "loader" and found["clips"] == 5
    gc.collect()  # webdataset closes none of its files; let it be said here


def test_absent_webdataset_is_a_row(tiny: None, alone: None) -> None:
    rows = {row["name"]: row for row in loader.bench(small("loader"))["rows"]}
    assert rows.pop(loader.IN_ORDER)["note"] == "not installed"
    assert not any(row["note"] for row in rows.values())


def test_made_up_clips_have_real_sizes(tiny: None, tmp_path: Path) -> None:
    """Four JPEG of about 30 kB and a FLAC of about 210 kB; PCM16 takes 320 kB."""
    flac = samples.write_shards(tmp_path / "flac", 5, "flac")
    pcm = samples.write_shards(tmp_path / "pcm16", 5, "pcm16")
    assert len(flac) == len(pcm) == 5 and flac.num_frames == 4
    assert all(24_000 < len(flac.frame(4, k)) < 36_000 for k in range(4))
    heard, rate = flac.sound(4)
    assert heard.shape == (1, 160_000) and rate == 16000
    assert 190_000 < len(flac.read([(4, SOUND)])[0]) < 230_000
    assert len(pcm.read([(4, SOUND)])[0]) == 320_044
    assert (pcm.sound(4)[0] == heard).all()
