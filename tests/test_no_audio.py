"""Clips without sound: every command leaves them out, says how many, and uses the rest."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pivot.data import measure
from pivot.data.pairs import Pairs, pairs_with_sound
from pivot.data.stream import open_with_sound
from pivot.embeddings import embed
from pivot.embeddings.store import EmbeddingStore
from pivot.errors import DataError
from pivot.evaluation import evaluate
from pivot.evaluation.scaling import command as scaling
from pivot.settings import (
    AdamWSettings,
    Embed,
    Evaluate,
    MeasureFbank,
    PretrainVa,
    ScalingCurve,
    TrainAt,
)
from pivot.training.commands import pretrain_va, train_at
from tests import toy
from video_prep.errors import UserError
from video_prep.shards import ShardFolder

SILENT = (2, 7, 11)
LINE = "left out: 3 of 16 clips of {}, which have no sound (flag no_audio), such as 'clip2'\n"
STEPS: dict[str, Any] = {
    "max_steps": 2,
    "batch_size": 6,
    "mask": toy.MASK,
    "optim": AdamWSettings(lr=1e-3),
    "precision": "fp32",
    "device": "cpu",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 16 clips of which 3 have no sound, pairs of all of them, a model."""
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=16, silent=SILENT)
    toy.toy_model(folder)
    toy.write_gold(folder / "gold.jsonl", range(16))
    return folder


@pytest.fixture(scope="module", params=["disk", "memory"])
def shards(request: pytest.FixtureRequest, world: Path) -> Iterator[str]:
    """The same shards on a disk and behind a URL."""
    if request.param == "disk":
        yield str(world / "shards")
        return
    fs = fsspec.filesystem("memory")
    fs.put(str(world / "shards"), "/no_audio/shards", recursive=True)
    yield "memory://no_audio/shards"
    fs.rm("/no_audio", recursive=True)


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_pretrain_va(world: Path, shards: str, tmp_path: Path, capsys: Any) -> None:
    settings = {"shards": shards, "clip": {"model": str(world / "clip")}, "audio": toy.AUDIO}
    pretrain_va(PretrainVa(**settings, encoder=toy.ENCODER, out=str(tmp_path / "a"), **STEPS))
    assert capsys.readouterr().err.count(LINE.format(shards)) == 1
    assert results(tmp_path / "a")["clips"] == 13
    store = {"what": "image", "data": shards, "out": str(tmp_path / "frames")}
    embed.run(Embed(**store, model=str(world / "model")))
    assert len(EmbeddingStore.open(tmp_path / "frames")) == 16  # they have frames
    settings["images"] = str(tmp_path / "frames")
    pretrain_va(PretrainVa(**settings, encoder=toy.ENCODER, out=str(tmp_path / "b"), **STEPS))
    losses = [results(tmp_path / name)["loss"] for name in "ab"]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # frames were encoded in other batches


def test_train_at(world: Path, shards: str, tmp_path: Path, capsys: Any) -> None:
    model, pairs = str(world / "model"), str(world / "gold.jsonl")
    train_at(TrainAt(shards=shards, model=model, pairs=pairs, out=str(tmp_path), **STEPS))
    said = capsys.readouterr().err
    assert said.count(LINE.format(shards)) == 1
    assert f"left out: 6 of 32 pairs, of clips of {shards} that have no sound" in said
    assert results(tmp_path)["clips"] == 13
    assert results(tmp_path)["data"]["pairs"] == 26


def test_pairs() -> None:
    class Some:
        path, ids_without_sound = "shards", ["b"]

    pairs = Pairs(["a", "b", "x"], ["1", "2", "3"], [0.1, 0.2, 0.3], {"rule": "r"}, ["p", "q", "s"])
    found = pairs_with_sound(pairs, Some())  # type: ignore[arg-type]
    assert found == Pairs(["a", "x"], ["1", "3"], [0.1, 0.3], {"rule": "r"}, ["p", "s"])
    assert pairs_with_sound(found, Some()) is found  # type: ignore[arg-type]
    with pytest.raises(DataError, match="1 of 1 pairs are of clips of shards that have no sound"):
        pairs_with_sound(Pairs(["b"], ["2"], [0.2]), Some())  # type: ignore[arg-type]


def test_measure_fbank(shards: str, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "fbank.json"
    measure.run(MeasureFbank(shards=shards, audio=toy.AUDIO, out=str(out)))
    assert LINE.format(shards) in capsys.readouterr().err
    found = json.loads(out.read_text())
    assert (found["clips"], found["without_sound"], found["skipped"]) == (13, 3, [])


def test_evaluate(world: Path, shards: str, tmp_path: Path, capsys: Any) -> None:
    evaluate.run(
        Evaluate(model=str(world / "model"), shards=shards, out=str(tmp_path), device="cpu")
    )
    assert LINE.format(shards) in capsys.readouterr().err
    found = results(tmp_path)
    assert found["zero_shot"]["n"] == found["image_audio"]["image_to_audio"]["queries"] == 13
    assert found["data"]["captions"]["left_out"] == 6


def test_scaling_curve(world: Path, tmp_path: Path, capsys: Any) -> None:
    folder = str(world / "shards")
    scaling.run(
        ScalingCurve(
            shards=folder,
            test=folder,
            model=str(world / "model"),
            pairs=str(world / "gold.jsonl"),
            out=str(tmp_path),
            sizes=(8, 16, 26),
            seeds=(1,),
            allow_overlap=(folder,),
            **STEPS,
        )
    )
    said = capsys.readouterr().err
    assert said.count(LINE.format(folder)) == 2
    assert "left out: 6 of 32 pairs" in said
    assert results(tmp_path)["data"]["test_clips"] == 13


def test_no_clip_with_sound(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clip with sound: all 2 are flagged no_audio"):
        toy.toy_shards(tmp_path / "shards", clips=2, silent=(0, 1))  # it measures them
    with pytest.raises(UserError, match="no clip with sound"):
        open_with_sound(tmp_path / "shards")
    assert len(ShardFolder(tmp_path / "shards")) == 2
