"""Every model that a run kept, measured on the same clips: how the numbers went over the epochs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pivot.errors import ModelError, RunError
from pivot.evaluation.exam import Exam, measure
from pivot.evaluation.gap_sources import close_gap
from pivot.evaluation.windows import embed_measured
from pivot.model import Pivot, load, model_folder
from pivot.settings import Evaluate

EPOCH = re.compile(r"epoch-(\d+)")
CHOICE = (
    "the best epoch by the score on these very clips, as the paper's tables (a checkpoint a task); "
    "optimistic: a fair choice is made on validation clips"
)
SHOWN = ("r1", "r5", "r10", "medr", "map10")


def kept_models(path: str | Path) -> list[tuple[int, Path]]:
    """Epoch and folder of every model in RUN/models, by rising epoch; path: the run or its model.

    Raises RunError for a run that kept none.
    """
    folder = model_folder(path)
    for home in (Path(path) / "models", folder.parent / "models"):
        found = [
            (int(match[1]), child)
            for child in (home.iterdir() if home.is_dir() else ())
            if (match := EPOCH.fullmatch(child.name))
        ]
        if found:
            return sorted(found)
    raise RunError(
        f"{path} kept no models; train it with --keep-epochs 1, or leave out --checkpoints"
    )


def measure_kept(
    kept: list[tuple[int, Path]],
    exam_of: Callable[[Pivot], Exam],
    settings: Evaluate,
    device: str,
) -> list[dict[str, Any]]:
    """One row a model: epoch, audio_hash, zero_shot, zero_shot_without_prompt, retrieval, ...

    exam_of: the exam of a model, texts and frames embedded by it; models of one CLIP share one. The
    numbers are `main_numbers`. Raises ModelError for a model of another CLIP or a damaged one.
    """
    rows: list[dict[str, Any]] = []
    for epoch, folder in kept:
        model = load(folder, device, num_frames=settings.num_frames)
        hashes = hashes_of(model)
        if rows and hashes["clip_hash"] != rows[0]["clip_hash"]:
            raise ModelError(f"{folder} is of another CLIP than the other models of its run")
        exam = exam_of(model)
        audio = embed_measured(settings, model, exam.clips.shards)
        if settings.gap != "none":
            exam, audio, _ = close_gap(settings, model, exam, audio)
        rows.append({"epoch": epoch, **main_numbers(measure(exam, audio)), **hashes})
    return rows


def hashes_of(model: Pivot) -> dict[str, Any]:
    """What a row says of its model: audio_hash, clip_hash (None without a CLIP), text_hash.

    text_hash stands there where the model has a text encoder of its own.
    """
    own = {} if model.text is None else {"text_hash": model.text_hash}
    return {"audio_hash": model.audio_hash, "clip_hash": model.clip_hash} | own


def main_numbers(found: dict[str, Any]) -> dict[str, Any]:
    """The numbers that tell two models apart, of what `measure` found.

    zero_shot is the accuracy or map; of retrieval and image_audio the main numbers are kept;
    geometry is whole.
    """
    row: dict[str, Any] = {}
    for key in ("zero_shot", "zero_shot_without_prompt"):
        if key in found:
            row[key] = found[key].get("accuracy", found[key].get("map"))
    for key in ("retrieval", "image_audio"):
        if key in found:
            row[key] = {
                way: {name: numbers[name] for name in SHOWN}
                for way, numbers in found[key].items()
                if isinstance(numbers, dict) and "r1" in numbers
            }
    if "image_by_labels" in found.get("image_audio", {}):
        for way in ("image_by_labels", "audio_by_labels"):
            row["image_audio"][way] = found["image_audio"][way]
    if "pivotability" in found:
        row["pivotability"] = found["pivotability"]["5"]
    return row | {"geometry": found["geometry"]}


def best_epochs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Epoch and value of the best row by each score, and what that choice is worth."""
    best: dict[str, Any] = {"chosen_on": CHOICE}
    for name, value in scores_of(rows).items():
        i = value.index(max(value))
        best[name] = {"epoch": rows[i]["epoch"], "score": value[i]}
    return best


def scores_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Score by name -> its value in every row."""
    found: dict[str, list[float]] = {}
    for key in ("zero_shot", "zero_shot_without_prompt"):
        if all(key in row for row in rows):
            found[key] = [float(row[key]) for row in rows]
    for key in ("retrieval", "image_audio"):
        ways = [way for way, n in rows[0].get(key, {}).items() if "r1" in n]
        found |= {f"{way}_r1": [float(row[key][way]["r1"]) for row in rows] for way in ways}
    return found


def spoken(name: str) -> str:
    """A score's key in words: zero_shot -> zero-shot, audio_to_text_r1 -> audio to text R@1."""
    return name.replace("zero_shot", "zero-shot").replace("_r1", " R@1").replace("_", " ")
