"""The world as a user's data: mp4 clips (H.264 + AAC), lists of them, captions and labels.

    FOLDER/train/train-00000.mp4 ...      clips.jsonl: path, id, labels, captions
    FOLDER/test_single/  test_mixed/      held-out clips, five captions each
    FOLDER/captions_{audio,vision}.txt        pools without clip ids, for mining
    FOLDER/labels.txt                     the sounding kinds

Every file is a function of (seed, split, index) alone, whatever the number of processes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np

from pivot.world.captions import heard, pool
from pivot.world.draw import FPS, frames, sound
from pivot.world.scenes import Scene, draw_scene, generator
from pivot.world.synthesis import RATE
from pivot.world.things import LABELS
from video_prep.errors import UserError
from video_prep.files import whole_folder, write_whole

CAPTIONS = {"train": 2, "test_single": 5, "test_mixed": 5}  # gold captions a clip
POOLS = {"audio": 1500, "vision": 1500}  # captions of each


def write_world(
    folder: str | Path,
    seed: int,
    *,
    train: int = 1500,
    test_single: int = 480,
    test_mixed: int = 400,
    pool_share: float = 1.0,
    workers: int = 2,
    progress: Callable[[int], object] | None = None,
) -> dict[str, int]:
    """Write the world of a seed into `folder`; returns the number of clips of each split.

    `progress` is called with 1 after each clip. Existing files are written anew, the same.
    """
    folder = Path(folder)
    sizes = {"train": train, "test_single": test_single, "test_mixed": test_mixed}
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"a world needs at least 1 {name} clip, not {size}; ask for more")
    with processes(workers) as each:
        for split, size in sizes.items():
            with whole_folder(folder / split) as aside:
                lines = []
                for row in each(partial(write_clip, aside, seed, split), range(size)):
                    lines.append(json.dumps(row))
                    if progress:
                        progress(1)
                (aside / "clips.jsonl").write_text("\n".join(lines) + "\n")
    write_pools(folder, seed, pool_share)
    return sizes


def write_pools(folder: Path, seed: int, share: float = 1.0) -> None:
    """Write the caption pools and the label list."""
    for manner, count in POOLS.items():
        text = "\n".join(pool(seed, manner, round(count * share)))
        write_whole(folder / f"captions_{manner}.txt", text + "\n")
    write_whole(folder / "labels.txt", "\n".join(LABELS) + "\n")


def scene_of(seed: int, split: str, index: int) -> Scene:
    """The scene of a clip."""
    return draw_scene(generator(seed, split, index), split)


def write_clip(folder: Path, seed: int, split: str, index: int) -> dict[str, object]:
    """Write one clip's mp4; returns its row of clips.jsonl (path relative to the list)."""
    scene = scene_of(seed, split, index)
    film = frames(scene, generator(seed, split, index, "frames"))
    wave = sound(scene, generator(seed, split, index, "sound"))
    rng = generator(seed, split, index, "captions")
    name = f"{split}-{index:05d}"
    (folder / f"{name}.mp4").write_bytes(encode(film, wave))
    return {
        "path": f"{name}.mp4",
        "id": name,
        "labels": [part.thing.name for part in scene.heard],
        "captions": [heard(rng, scene) for _ in range(CAPTIONS[split])],
    }


def encode(film: np.ndarray, wave: np.ndarray) -> bytes:
    """An mp4 of uint8 frames (n, h, w, 3) at FPS and an int16 sound (samples,) at RATE."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        picture = container.add_stream("libx264", rate=FPS)
        picture.height, picture.width = film.shape[1:3]
        picture.pix_fmt = "yuv420p"
        picture.options = {"preset": "superfast", "crf": "20"}
        picture.thread_count = 1
        tune = container.add_stream("aac", rate=RATE, layout="mono")
        tune.bit_rate = 64_000
        tune.options = {"aac_coder": "fast"}  # the default search costs as much as all the rest
        for image in film:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        chunk = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(tune.encode(chunk))
        container.mux(tune.encode())
    return buffer.getvalue()


@contextmanager
def processes(workers: int) -> Iterator[Callable[..., Iterator[dict[str, object]]]]:
    """An ordered map over processes; spawned ones, as a fork could inherit torch's locks."""
    if workers < 2:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield partial(executor.map, chunksize=16)
