"""`pivot measure-fbank`: mean and deviation of FBANK over the real frames of shards, exactly.

Whole sounds are measured, without crop, padding or masks, and every frame weighs the same. (The
reference counts padding rows, which moves its mean by up to 2.5 on half-filled clips.) The result
is the same to the last bit for any order of the shards and any number of workers; it names the
front end and the shards it belongs to, and is refused with others.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from pivot import __version__
from pivot.audio.frontend import real_frames
from pivot.audio.norms import KIND, FbankStats, fingerprint, front_end
from pivot.data.stream import open_with_sound
from pivot.errors import DataError, NothingUsableError, SettingsError
from pivot.settings import AudioSettings, MeasureFbank
from video_prep.files import write_json
from video_prep.shards import ShardFolder
from video_prep.storage.remote import is_url

CLIPS_A_TASK = 64
CONSTANT = 1e-3  # deviation in nats under which nothing was heard; the sums' rounding leaves 1e-4


class Part(NamedTuple):
    """What one range of clips came to: exact sums, and the clips that have no frame."""

    stats: FbankStats
    skipped: list[tuple[int, str]]  # clip number, reason


def run(settings: MeasureFbank) -> int:
    """Measure the shards, write the JSON file, print one line."""
    if is_url(settings.shards) and not settings.out:
        raise SettingsError(
            f"{settings.shards} cannot be written to; name the file with --out, and give it to a "
            "training as --audio.norms, or upload it as fbank.json beside the shards"
        )
    shards = open_with_sound(settings.shards)
    out = Path(settings.out or Path(shards.path, "fbank.json"))
    part = measure(shards, settings.audio, settings.workers)
    for number, reason in part.skipped[:10]:
        print(f"skipped {shards.ids[number]!r}: {reason}", file=sys.stderr)
    if not part.stats.clips:
        raise NothingUsableError(
            f"none of the {len(shards)} sounds in {shards.path} could be measured: "
            f"{part.skipped[0][1]}"
        )
    result = report(shards, settings, part)
    write_json(out, result)
    skipped = f", {len(part.skipped)} skipped (listed there)" if part.skipped else ""
    print(
        f"FBANK mean {result['mean']:.4f}, deviation {result['std']:.4f} "
        f"over {part.stats.clips} clips, {part.stats.frames} frames{skipped} -> {out}"
    )
    return 0


def measure(shards: ShardFolder, audio: AudioSettings, workers: int = 0) -> Part:
    """Exact sums over every sound of the shards; 0 workers measures in this process."""
    total = Part(FbankStats(), [])
    with tqdm(total=len(shards), desc="measure FBANK", unit="clip", disable=None) as bar:
        for part, clips in _parts(shards, audio, workers):
            total.stats.merge(part.stats)
            total.skipped.extend(part.skipped)
            bar.update(clips)
    total.skipped.sort()
    return total


def report(shards: ShardFolder, settings: MeasureFbank, part: Part) -> dict[str, Any]:
    """Content of the JSON file."""
    mean, std = part.stats.moments()
    if std < CONSTANT:
        raise DataError(
            f"every FBANK value in {shards.path} is {mean:.4f} (silence): it cannot be normalised; "
            "check the sounds"
        )
    bin_means, bin_stds = part.stats.bin_moments()
    return {
        "kind": KIND,
        "mean": mean,
        "std": std,
        "clips": part.stats.clips,
        "frames": part.stats.frames,
        "without_sound": len(shards.ids_without_sound),
        "skipped": [{"id": shards.ids[i], "reason": reason} for i, reason in part.skipped],
        "front_end": {
            "fingerprint": fingerprint(settings.audio),
            "settings": front_end(settings.audio),
        },
        "shards": {"path": shards.path, "fingerprint": shards.fingerprint},
        "settings": settings.model_dump(mode="json"),
        "versions": {"pivot": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "per_bin": {"mean": bin_means, "std": bin_stds},
        "sums": part.stats.to_json(),
    }


def measure_range(shards: ShardFolder, audio: AudioSettings, clips: range) -> Part:
    """Exact sums over some clips. A sound without a whole window is skipped and named."""
    stats, skipped = FbankStats(), []
    for i in clips:
        wave, rate = shards.sound(i)
        try:
            rows = real_frames(wave, rate, audio)
        except DataError as error:
            skipped.append((i, str(error)))
            continue
        stats.add(rows.numpy())
    return Part(stats, skipped)


def _parts(shards: ShardFolder, audio: AudioSettings, workers: int) -> Iterator[tuple[Part, int]]:
    """Sums of each task as it is done, in any order, and its number of clips."""
    tasks = [
        range(start, min(start + CLIPS_A_TASK, len(shards)))
        for start in range(0, len(shards), CLIPS_A_TASK)
    ]
    if workers == 0:
        for task in tasks:
            yield measure_range(shards, audio, task), len(task)
        return
    # spawn: a fork of a process in which torch has run threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _keep, (shards, audio)) as pool:
        futures: dict[Future[Part], int] = {pool.submit(_in_worker, t): len(t) for t in tasks}
        try:
            for future in as_completed(futures):
                yield future.result(), futures[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_mine: tuple[ShardFolder, AudioSettings]  # of a worker process


def _keep(shards: ShardFolder, audio: AudioSettings) -> None:
    global _mine
    _mine = shards, audio


def _in_worker(clips: range) -> Part:
    return measure_range(*_mine, clips)
