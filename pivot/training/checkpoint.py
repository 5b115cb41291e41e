"""Checkpoints of a training: everything an exact resume needs, written whole or not at all.

Batch order, crops, masks and partners are functions of (seed, step), so a checkpoint is the step,
the weights, the optimiser's state, the scale of fp16, and the losses not yet in a row.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from pivot.errors import RunError
from video_prep.files import whole_file, write_whole

FORMAT = 2
KEYS = {"format", "data", "step", "weights", "optimizer", "precision"}
KEYS |= {"recent", "row", "seconds", "clips"}


def checkpoint_path(run_folder: Path) -> Path:
    """Where a run keeps its last checkpoint."""
    return run_folder / "checkpoints" / "last.ckpt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; an earlier one stays until this one is whole."""
    with whole_file(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path, data: str) -> dict[str, Any] | None:
    """Read a checkpoint of the batches with fingerprint `data` onto the CPU; None if there is none.

    Raises RunError for one that is damaged, of another version, or of other data.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(
            f"{path} is damaged ({_first_line(error)}); delete it to start this run again from "
            "the beginning"
        ) from error
    if not isinstance(state, dict) or set(state) != KEYS or state["format"] != FORMAT:
        raise RunError(f"{path} is not a checkpoint of this version; start again in another folder")
    if state["data"] != data:
        raise RunError(
            f"the clips or pairs have changed since {path} was written; restore them to resume, "
            "or start again in another folder"
        )
    return state


def cut_metrics(path: Path, step: int) -> None:
    """Drop the rows of metrics.jsonl after `step`, and one that was cut off in the middle.

    The steps after the checkpoint are trained again, so the file ends up as if nothing happened.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (row := _row(line)) and row.get("step", 0) <= step]
    write_whole(path, "".join(f"{line}\n" for line in kept))


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
