"""CPU time of one clip to frames and sound: ours beside the usual ways; a worker's memory.

Everyone takes four frames at 256 pixels as JPEG and the sound at 16 kHz, but for the reference,
which keeps its own sizes and rates. The clips are made here. All ways take turns over one clip, so
that a busy machine slows all of them alike; the figure is the median turn of user and system time,
that of child processes included.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pivot.bench import memory
from pivot.bench.clips import CLIPS, SMALL, Clip, write_clip
from pivot.bench.ladder import FRAMES, LADDER, OURS, Rung
from pivot.bench.turns import cpu_seconds, median_turns
from pivot.settings import Bench

LEAST_TURNS = 3


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {name, clip, ms_per_clip, clips_per_second, ratio, pictures, note}, worker's memory.

    ratio: times our time. Where a peer cannot run its figures are None and `note` says why.
    """
    rows = []
    print("one clip to 4 frames and its sound, one core, CPU time, median of all turns")
    with tempfile.TemporaryDirectory() as folder:
        videos = []
        for number, clip in enumerate(CLIPS):
            videos.append(write_clip(Path(folder, f"{number}.mp4"), clip))
            new = _rows(clip, videos[-1], settings.seconds / len(CLIPS))
            print(_table(clip, new))
            rows += new
        small = write_clip(Path(folder, "small.mp4"), SMALL)
        worker = memory.measure(videos, small, settings.seconds)
    print(memory.sentence(worker))
    print("pivot bench loader measures how fast shards are read again")
    return {"clock": "CPU", "rows": rows, "worker": worker}


def _rows(clip: Clip, video: Path, seconds: float) -> list[dict[str, Any]]:
    notes = {rung.name: rung.absent() for rung in LADDER}
    pictures: dict[str, int] = {}
    for rung in LADDER:  # not timed: loads what each way needs
        if not notes[rung.name]:
            try:
                pictures[rung.name] = _turn(rung, clip, video)[1]
            except subprocess.CalledProcessError as error:
                notes[rung.name] = f"fails ({_last_line(error.stderr)})"
    able = {rung.name: _timed(rung, clip, video) for rung in LADDER if not notes[rung.name]}
    took = median_turns(able, seconds, LEAST_TURNS)
    return [
        {"name": rung.name, "clip": clip.name}
        | _figures(took.get(rung.name), took[OURS])
        | {"pictures": pictures.get(rung.name), "note": notes[rung.name]}
        for rung in LADDER
    ]


def _timed(rung: Rung, clip: Clip, video: Path) -> Callable[[], float]:
    return lambda: _turn(rung, clip, video)[0]


def _turn(rung: Rung, clip: Clip, video: Path) -> tuple[float, int]:
    """CPU seconds of one clip, and how many pictures came of it."""
    with tempfile.TemporaryDirectory() as folder:
        start = cpu_seconds()
        made = rung.take(video, clip.seconds, Path(folder))
        return cpu_seconds() - start, made


def _last_line(words: bytes) -> str:
    return (words.decode(errors="replace").strip().splitlines() or ["without a word"])[-1][:80]


def _figures(took: float | None, ours: float) -> dict[str, float | None]:
    if took is None:
        return dict.fromkeys(("ms_per_clip", "clips_per_second", "ratio"))
    return {"ms_per_clip": 1e3 * took, "clips_per_second": 1 / took, "ratio": took / ours}


def _table(clip: Clip, rows: list[dict[str, Any]]) -> str:
    lines = [f"{clip.seconds} s {clip.name}"]
    for row in rows:
        if row["ratio"] is None:
            lines.append(f"  {row['name']:<32} {row['note']}")
            continue
        few = "" if row["pictures"] == FRAMES else f", {row['pictures']} of {FRAMES} frames"
        lines.append(
            "  {name:<32}{ms_per_clip:8.1f} ms {clips_per_second:6.1f} clips/s/core "
            "{ratio:6.2f} x ours".format(**row)
            + few
        )
    return "\n".join(lines)
