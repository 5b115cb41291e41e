"""Time of FBANK for a 10 s clip: ours beside kaldi-native-fbank and torchaudio.

Candidates take turns, so that a busy machine slows all of them alike; each reports its best turn.
With one thread the clock is the process's CPU time, with more it is the wall's (ours and
kaldi-native-fbank take one thread in any case).
kaldi-native-fbank is timed on one pass over the mel bins that it can compute safely (the upper 124
of 128 at 16 kHz), not on the two passes that our backend makes of it there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pivot.audio.backends import compute, knf_rows, safe_runs
from pivot.audio.fbank import Fbank, fbank_module
from pivot.errors import SettingsError
from pivot.settings import AudioSettings, Bench

RATES = (16000, 44100)
SECONDS = 10  # of one clip
Candidate = Callable[[], object]


def bench(settings: Bench) -> dict[str, Any]:
    """Rows {name, sample_rate, ms_per_clip, clips_per_second, ratio}; ratio: times our time."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        rows = [
            row
            for rate in RATES
            for row in _rows(rate, settings.threads, settings.seconds / len(RATES))
        ]
    finally:
        torch.set_num_threads(before)
    clock = "CPU" if settings.threads == 1 else "wall"
    print(_table(rows, clock, settings.threads))
    return {"threads": settings.threads, "clock": clock, "clip_seconds": SECONDS, "rows": rows}


def _rows(rate: int, threads: int, seconds: float) -> list[dict[str, Any]]:
    best = _best(_candidates(rate), threads, seconds)
    ours = best["torch (pivot)"]
    return [
        {
            "name": name,
            "sample_rate": rate,
            "ms_per_clip": 1e3 * took,
            "clips_per_second": 1 / took,
            "ratio": took / ours,
        }
        for name, took in best.items()
    ]


def _candidates(rate: int) -> dict[str, Candidate]:
    """Name -> FBANK of one clip; a backend that cannot be loaded is left out and named."""
    noise = 0.1 * np.random.default_rng([1, rate]).standard_normal(SECONDS * rate)
    wave = torch.from_numpy(noise.astype(np.float32))
    ours = fbank_module(AudioSettings(), rate)
    candidates: dict[str, Candidate] = {
        "torch (pivot)": lambda: ours(wave),
        "kaldi-native-fbank": lambda: _knf_once(wave, ours),
        "torchaudio": lambda: compute(wave, Fbank(AudioSettings(backend="torchaudio"), rate)),
    }
    for name, candidate in list(candidates.items()):
        try:
            candidate()
        except SettingsError as error:
            print(f"{name} is left out: {error}")
            del candidates[name]
    return candidates


def _knf_once(wave: torch.Tensor, module: Fbank) -> np.ndarray:
    """The longest safe run of mel bins in one pass, from the wave as users hold it."""
    runs = safe_runs(module.sample_rate, module.settings)
    return knf_rows(wave.tolist(), module, max(runs, key=lambda run: run[1] - run[0]))


def _best(candidates: dict[str, Candidate], threads: int, seconds: float) -> dict[str, float]:
    """Best time of each candidate, in seconds, over turns within the budget (at least three)."""
    clock = time.process_time if threads == 1 else time.perf_counter
    best = dict.fromkeys(candidates, float("inf"))
    end, turns = time.perf_counter() + seconds, 0
    while turns < 3 or time.perf_counter() < end:
        for name, candidate in candidates.items():
            start = clock()
            candidate()
            best[name] = min(best[name], clock() - start)
        turns += 1
    return best


def _table(rows: list[dict[str, Any]], clock: str, threads: int) -> str:
    title = f"FBANK of a {SECONDS} s clip, {threads} thread(s), {clock} time, best of all turns"
    lines = [
        f"{row['sample_rate']:>7} Hz  {row['name']:<20} {row['ms_per_clip']:8.2f} ms "
        f"{row['clips_per_second']:7.0f} clips/s {row['ratio']:6.1f} x ours"
        for row in rows
    ]
    return "\n".join([title, *lines])
