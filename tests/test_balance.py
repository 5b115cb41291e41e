"""`pivot balance`: nearest training sounds of a balanced set, by hand and against plain numpy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.data.ids import read_ids
from pivot.embeddings.store import EmbeddingStore
from pivot.embeddings.writer import StoreWriter
from pivot.errors import StoreError
from pivot.mining import balance
from pivot.settings import Balance
from tests.store_work import IDENTITY


def store(path: Path, vectors: np.ndarray, names: list[str], **values: Any) -> Path:
    made = StoreWriter(path, {**IDENTITY, "dim": vectors.shape[1], **values}, names)
    made.add(vectors[:, None].astype(np.float32), len(vectors))
    made.finish()
    return path


def rotated(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    turn = np.deg2rad(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def job(sounds: Path, balanced: Path, out: Path, **values: Any) -> Balance:
    return Balance(store=str(sounds), queries=str(balanced), out=str(out), device="cpu", **values)


@pytest.fixture
def plane(tmp_path: Path) -> tuple[Path, Path]:
    """Five training sounds and three balanced ones, as angles."""
    sounds = store(tmp_path / "train", rotated(0, 20, 45, 90, 180), ["-a", "b", "c", "d", "e"])
    return sounds, store(tmp_path / "balanced", rotated(2, 18, 80), ["x", "y", "z"])


def test_by_hand(plane: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    # nearest two: of 2 degrees -a and b, of 18 b and -a, of 80 d and c
    out = tmp_path / "ids.txt"
    assert balance.run(job(*plane, out, k=2)) == 0
    assert out.read_text() == "-a\nb\nc\nd\n"
    about = json.loads((tmp_path / "ids.txt.about.json").read_text())
    assert about["times"] == {"-a": 2, "b": 2, "c": 1, "d": 1}
    assert about["clips_by_times"] == {"1": 2, "2": 2}
    assert (about["chosen"], about["lines"], about["neighbours"]) == (4, 4, 6)
    assert about["settings"]["k"] == 2 and about["queries"]["count"] == 3
    assert about["store"]["weights_hash"] == IDENTITY["weights_hash"]
    said = capsys.readouterr().out
    assert "4 of 5 clips are among the 2 nearest of 3 balanced ones" in said
    assert "1.50 times on average, at most 2 (-a)" in said
    first = out.read_bytes(), (tmp_path / "ids.txt.about.json").read_bytes()
    assert balance.run(job(*plane, out, k=2)) == 0
    assert first == (out.read_bytes(), (tmp_path / "ids.txt.about.json").read_bytes())


def test_named_as_often_as_chosen(plane: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "ids.txt"
    assert balance.run(job(*plane, out, k=2, repeat=True)) == 0
    assert read_ids(out) == ["-a", "-a", "b", "b", "c", "d"]
    assert balance.run(job(*plane, out, k=99)) == 0  # all there are
    assert read_ids(out) == ["-a", "b", "c", "d", "e"]


def test_against_plain_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    train, few = (rng.standard_normal((n, 24)) for n in (3000, 40))
    train, few = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, few))
    sounds = store(tmp_path / "train", train, [f"t{i}" for i in range(3000)])
    balanced = store(tmp_path / "balanced", few, [f"b{i}" for i in range(40)])
    assert balance.run(job(sounds, balanced, tmp_path / "ids", k=20)) == 0
    keys, queries = (
        EmbeddingStore.open(path).float32()[:, 0].astype(np.float64) for path in (sounds, balanced)
    )
    near = np.argsort(-(queries @ keys.T), axis=1, kind="stable")[:, :20]
    times = Counter(near.ravel().tolist())
    found = json.loads((tmp_path / "ids.about.json").read_text())["times"]
    assert found == {f"t{i}": times[i] for i in sorted(times)}
    assert (tmp_path / "ids").read_text().split() == list(found)


def test_foreign_stores_are_refused(plane: tuple[Path, Path], tmp_path: Path) -> None:
    sounds, balanced = plane
    other = store(tmp_path / "other", rotated(1, 2), ["x", "y"], weights_hash="def")
    images = store(tmp_path / "images", rotated(1, 2), ["x", "y"], what="image")
    out = tmp_path / "ids.txt"
    for wrong, words in [(other, "another encoder"), (images, "holds frames, not sounds")]:
        with pytest.raises(StoreError, match=words):
            balance.run(job(sounds, wrong, out))
    with pytest.raises(StoreError, match="holds frames, not sounds"):
        balance.run(job(images, balanced, out))
    with pytest.raises(StoreError, match="does not exist"):
        balance.run(job(sounds, tmp_path / "none", out))
    assert not out.exists()
