"""Trainings that tests share: their settings on the toy shards, and what a run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pivot.settings import MuonSettings, PretrainVa, TrainAt
from pivot.training import module as module_file
from tests import toy

FREE = {"clips_per_second"}  # what may differ between two runs of the same training


def toy_world(folder: Path) -> Path:
    """Write shards, a tiny CLIP and gold pairs into `folder`."""
    toy.toy_shards(folder / "shards")
    toy.toy_clip(folder / "clip")
    toy.write_gold(folder / "gold.jsonl", range(20))
    return folder


def va_settings(world: Path, out: Path, **values: Any) -> PretrainVa:
    """Ten steps of pretrain-va on the shards of `world`."""
    common: dict[str, Any] = {
        "shards": str(world / "shards"),
        "out": str(out),
        "clip": {"model": str(world / "clip")},
        "audio": toy.AUDIO,
        "encoder": toy.ENCODER,
        "mask": toy.MASK,
        "batch_size": 6,
        "max_steps": 10,
        "optim": MuonSettings(),
        "precision": "fp32",
        "device": "cpu",
        "log_every": 2,
        "checkpoint_every": 3,
    }
    return PretrainVa(**(common | values))


def at_settings(world: Path, out: Path, **values: Any) -> TrainAt:
    """Ten steps of train-at on the gold pairs of `world`, from its model va."""
    common = va_settings(world, out).model_dump()
    for name in ("clips", "validation", "clip", "audio", "encoder"):
        common.pop(name)
    more = {"model": str(world / "va"), "pairs": str(world / "gold.jsonl")}
    return TrainAt(**(common | more | values))


def rows_of(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Rows of a run, less what may differ from one time to the next."""
    lines = (run / name).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in FREE} for line in lines]


def caption_rows(run: Path) -> list[dict[str, Any]]:
    """Rows of captions.jsonl of a run of write-captions."""
    return [json.loads(line) for line in (run / "captions.jsonl").read_text().splitlines()]


def column(run: Path, name: str = "loss") -> list[float]:
    """One column of metrics.jsonl."""
    return [row[name] for row in rows_of(run)]


def weights_of(run: Path) -> bytes:
    """The bytes of the weights of a run's model."""
    return (run / "model" / "model.safetensors").read_bytes()


def far_apart(one: Path, other: Path) -> float:
    """Largest difference between the weights of the models of two runs."""
    a, b = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    return float(max(torch.max((a[name] - b[name]).abs()) for name in a))


def results_of(run: Path) -> dict[str, Any]:
    """What results.json of a run holds."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


class Stop(Exception):
    """Stands for whatever may end a process."""


def stop_at(call: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] = Stop) -> None:
    """Let the loss fail at its `call`-th call."""
    calls, real = [0], module_file.contrastive

    def failing(*arguments: Any, **named: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == call:
            raise error
        return real(*arguments, **named)

    monkeypatch.setattr(module_file, "contrastive", failing)
