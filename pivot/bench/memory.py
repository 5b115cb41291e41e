"""Memory of a worker of prepare-frames, and how much of it every opened clip leaves behind.

`python -m pivot.bench.memory OPENS SMALL CLIP...` is the worker: a process of its own that loads
what a worker loads, prepares each CLIP twice and then SMALL again and again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MANY, FEW, PATIENCE = 5000, 200, 60  # opens with a budget of PATIENCE seconds or more, and below
_WARM = 50  # opens of SMALL before growth is counted: pools and tables are filled then


def measure(clips: list[Path], small: Path, seconds: float) -> dict[str, Any]:
    """{opens, mb, kb_per_open}: resident memory at the end, growth over `opens` opened clips.

    The figures are None where the system does not tell (only Linux does).
    """
    opens = MANY if seconds >= PATIENCE else FEW
    command = [sys.executable, "-m", "pivot.bench.memory", str(opens), str(small), *map(str, clips)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def sentence(figures: dict[str, Any]) -> str:
    """The figures in words."""
    if figures["mb"] is None:
        return "memory of a worker: this system does not tell it"
    more = "" if figures["opens"] == MANY else f"; --seconds {PATIENCE} opens {MANY:,}"
    return (
        f"a worker takes {figures['mb']:.0f} MB after these clips and {figures['opens']:,} small "
        f"ones, and grew by {figures['kb_per_open']:.2f} kB an open{more}"
    )


def _main(opens: int, small: Path, clips: list[Path]) -> dict[str, Any]:
    import video_prep.running.worker  # noqa: F401  what a worker has loaded
    from video_prep.decode import decode_clip
    from video_prep.recipe import Recipe

    for path in [*clips, *clips, *[small] * _WARM]:
        decode_clip(path, None, None, Recipe())
    before = _resident()
    for _ in range(opens):
        decode_clip(small, None, None, Recipe())
    after = _resident()
    if before is None or after is None:
        return {"opens": opens, "mb": None, "kb_per_open": None}
    return {"opens": opens, "mb": after / 1e6, "kb_per_open": (after - before) / opens / 1e3}


def _resident() -> int | None:
    """Bytes of this process in memory."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), Path(sys.argv[2]), [Path(p) for p in sys.argv[3:]])))
