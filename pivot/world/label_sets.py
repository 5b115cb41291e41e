"""Three label sets over held-out clips, and the part of the training clips that has captions.

One for each fact of a sound that captions of the world tell: what sounds (things: 24 kinds, clips
of one sound), how high (pitches: "low bell", "high bell", ..., 48 names, clips of one big or small
thing), and where (places: 6, every held-out clip whose air can be heard). They were chosen on a
world of another seed than those reported. Truths are the scenes': no caption and no model has a
part in them.

    SIBLINGS/sets/things.jsonl      clips and labels, for prepare-audio; things.txt: the labels
    SIBLINGS/gold.jsonl             captions of the part, with their clips: the teacher's pairs
    SIBLINGS/captions.txt           the same captions, each once, for mining
    SIBLINGS/pool.txt               ids of all other training clips, whose captions nobody reads
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pivot.settings import Settings
from pivot.world.clips import scene_of
from pivot.world.scenes import Scene
from pivot.world.things import LABELS, PITCHES, PLACES
from video_prep.files import write_whole

# What is put before a label of each set.
PROMPTS = {"things": "the sound of a", "pitches": "the sound of a", "places": "the sound"}
SETS = tuple(PROMPTS)
EXTREMES = (PITCHES[0], PITCHES[2])  # a plain pitch has no name in captions


class LabelSets(Settings):
    """Write the label sets and the captioned part of a world that stands in `world`."""

    world: str  # folder of the world's clips
    out: str  # folder for the lists
    seed: int  # of the world
    test_single: int  # clips of each held-out split
    test_mixed: int
    part: int  # training clips with captions: the first so many


def label_of(scene: Scene, name: str) -> str | None:
    """The label of a scene in the set `name`, or None for a clip that is not in the set."""
    if name == "places":
        return scene.place.phrase if scene.air else None
    if len(scene.heard) != 1:
        return None
    part = scene.heard[0]
    if name == "things":
        return part.thing.name
    return None if part.size == 1 else f"{PITCHES[part.size]} {part.thing.name}"


def labels_of_set(name: str) -> list[str]:
    """All labels of the set `name`."""
    if name == "places":
        return [place.phrase for place in PLACES]
    if name == "things":
        return list(LABELS)
    return [f"{pitch} {kind}" for kind in LABELS for pitch in EXTREMES]


def run(settings: LabelSets) -> int:
    """Write the lists; returns the exit status."""
    world, out = Path(settings.world), Path(settings.out)
    splits = {"test_single": settings.test_single, "test_mixed": settings.test_mixed}
    for name in SETS:
        rows = []
        for split in ("test_single",) if name != "places" else tuple(splits):
            for index in range(splits[split]):
                label = label_of(scene_of(settings.seed, split, index), name)
                if label is not None:
                    clip = f"{split}-{index:05d}"
                    path = (world / split / f"{clip}.mp4").absolute()
                    rows.append({"path": str(path), "id": clip, "labels": [label]})
        _write(out / "sets" / f"{name}.jsonl", map(json.dumps, rows))
        _write(out / "sets" / f"{name}.txt", labels_of_set(name))
        print(f"{name}: {len(rows)} clips, {len(labels_of_set(name))} labels")
    _write_part(world / "train" / "clips.jsonl", out, settings.part)
    return 0


def _write_part(clips: Path, out: Path, part: int) -> None:
    rows: list[dict[str, Any]] = [json.loads(line) for line in clips.read_text().splitlines()]
    gold = [
        {"id": row["id"], "caption": caption} for row in rows[:part] for caption in row["captions"]
    ]
    _write(out / "gold.jsonl", map(json.dumps, gold))
    _write(out / "captions.txt", dict.fromkeys(row["caption"] for row in gold))
    _write(out / "pool.txt", (row["id"] for row in rows[part:]))


def _write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "\n".join(lines) + "\n")
