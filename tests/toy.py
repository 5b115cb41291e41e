"""A toy data set that tests of training share: four kinds of tones with pictures and captions."""

from __future__ import annotations

import io
import json
from collections.abc import Container
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from pivot.audio.fbank import one_thread as one_thread
from pivot.audio.frontend import FrontEnd, Norm
from pivot.data import measure
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.model import Pivot
from pivot.settings import AudioSettings, ClipSettings, MaskSettings, MeasureFbank, VitSettings
from tests.tiny import tiny_clip_folder
from video_prep.shards import FORMAT, content_fingerprint
from video_prep.storage.shard_writer import write_shard

AUDIO = AudioSettings(sample_rate=8000, num_mel_bins=32, num_frames=32)
ENCODER = VitSettings(stride=(8, 8), kernel="load_mean")
MASK = MaskSettings(time=6, freq=4)
KINDS = {"dog": 300.0, "cat": 700.0, "bell": 1500.0, "car": 3000.0}  # Hz
COLOURS = {"dog": (200, 30, 30), "cat": (30, 200, 30), "bell": (30, 30, 200), "car": (90, 90, 0)}
FRAMES = 2


def tone(kind: str, number: int, seconds: float) -> np.ndarray:
    """Int16 tone of a kind, out of tune and noisy in its own way."""
    rng = np.random.default_rng([number, 5])
    t = np.arange(int(seconds * 8000)) / 8000
    wave = np.sin(2 * np.pi * KINDS[kind] * (1 + 0.05 * rng.standard_normal()) * t)
    return ((wave + 0.1 * rng.standard_normal(len(t))) * 5000).astype(np.int16)


def picture(kind: str, number: int, k: int) -> bytes:
    """JPEG in the colour of a kind, noisy."""
    rng = np.random.default_rng([number, k])
    pixels = np.array(COLOURS[kind]) + rng.integers(-25, 25, (32, 32, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def toy_shards(
    path: Path,
    clips: int = 20,
    first: int = 0,
    frames: int = FRAMES,
    silent: Container[int] = (),
) -> Path:
    """Write shards of `clips` clips; every fifth sound is longer than the encoder's window.

    The clips with a number in `silent` have no sound.
    """
    path.mkdir(parents=True)
    with write_shard(path, 0, "plan") as shard:
        for number in range(first, first + clips):
            kind = list(KINDS)[number % len(KINDS)]
            sound = io.BytesIO()
            wave = tone(kind, number, 0.6 if number % 5 == 0 else 0.33)
            soundfile.write(sound, wave, 8000, format="FLAC")
            facts = {
                "id": f"clip{number}",
                "labels": [kind],
                "captions": [f"a {kind}", f"the sound of a {kind}"],
            }
            members = {f"{k}.jpg": picture(kind, number, k) for k in range(frames)}
            if number not in silent:
                members["flac"] = sound.getvalue()
            members["json"] = json.dumps(facts).encode()
            flags = ["no_audio"] if number in silent else []
            shard.add({"id": f"clip{number}", "key": f"clip{number}", "flags": flags}, members)
    index = json.loads((path / "shard-00000.json").read_text())
    manifest = {
        "format": FORMAT,
        "plan": "plan",
        "num_frames": frames,
        "fingerprint": content_fingerprint([index["sha256"]]),
        "shards": [{"name": "shard-00000", "sha256": index["sha256"], "clips": clips}],
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    measure.run(MeasureFbank(shards=str(path), audio=AUDIO))
    return path


def toy_clip(path: Path) -> ClipSettings:
    """Write a random tiny CLIP and return the settings that load it."""
    return ClipSettings(model=str(tiny_clip_folder(path)))


def write_gold(path: Path, ids: range | list[int]) -> Path:
    """Write gold pairs of clips as JSON lines."""
    kinds = list(KINDS)
    rows = [
        {"id": f"clip{i}", "caption": f"{words} {kinds[i % len(kinds)]}"}
        for i in ids
        for words in ("a", "the sound of a")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def toy_model(folder: Path, init: str = "clip") -> Path:
    """Write an untrained model of the toy CLIP (FOLDER/clip) into FOLDER/model."""
    clip = load_clip(toy_clip(folder / "clip"))
    norm = Norm(mean=-5.0, std=4.0, source="toy")
    audio = build_audio(clip, ENCODER.model_copy(update={"init": init}), AUDIO, 1)
    Pivot(clip, audio, FrontEnd(AUDIO, norm)).save(folder / "model")
    return folder / "model"
