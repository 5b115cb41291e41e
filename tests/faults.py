"""Decoders with faults, for workers in tests: the name of a clip says what happens to it."""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from video_prep.decode import DecodedClip, decode_clip


def decode(path: str, start: float | None, end: float | None, recipe: Any) -> DecodedClip:
    """Crash, hang, die, eat memory or fill the disk where the file's name says so."""
    name = Path(path).stem
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    if name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("memory"):  # never touched: it fails only where a limit says so
        np.zeros(8 << 30, np.uint8)
    if name.startswith("bug"):
        raise ZeroDivisionError("division\nby zero")
    if name.startswith("disk"):  # every later write of this worker fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return decode_clip(path, start, end, recipe)


def slow(path: str, start: float | None, end: float | None, recipe: Any) -> DecodedClip:
    """Take time over each clip (SLOW seconds), so that a test can stop a run in the middle."""
    time.sleep(float(os.environ.get("SLOW", "0.15")))
    return noted(path, start, end, recipe)


def noted(path: str, start: float | None, end: float | None, recipe: Any) -> DecodedClip:
    """Write down who decoded what, where the environment names a file for it."""
    if "NOTED" in os.environ:
        with Path(os.environ["NOTED"]).open("a") as file:
            file.write(f"{os.getpid()} {os.getppid()} {Path(path).stem}\n")
    return decode_clip(path, start, end, recipe)


def cheap(path: str, start: float | None, end: float | None, recipe: Any) -> DecodedClip:
    """Decode nothing, but take as long as the environment says (seconds)."""
    time.sleep(float(os.environ.get("CHEAP", "0")))
    facts = {"frame_times": [0.0], "samples": 160}
    return DecodedClip([b"jpeg"], np.zeros((1, 160), np.int16), 16000, facts=facts, flags=[])
