"""Modality geometry by hand and by two loops over all pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pivot import metrics
from pivot.errors import DataError
from pivot.evaluation.geometry import geometry, space_of

EYE = np.eye(3, dtype=np.float32)


def rows(count: int, seed: int, dim: int = 8) -> np.ndarray:
    found = np.random.default_rng([seed, 4]).standard_normal((count, dim)) + 0.5
    return found.astype(np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)


def test_by_hand() -> None:
    # means (1/2, 1/2, 0) and (0, 0, 1): 1/4 + 1/4 + 1
    assert metrics.modality_gap(EYE[:2], 7 * EYE[2:]) == pytest.approx(math.sqrt(1.5))
    assert metrics.modality_gap(EYE, EYE) == 0
    assert metrics.spread(EYE) == pytest.approx(0)
    assert metrics.spread(EYE[[0, 0, 0]] * 3) == pytest.approx(1)
    assert metrics.spread(EYE[[0, 0, 1]]) == pytest.approx(1 / 3)
    assert metrics.alignment(EYE, EYE[[0, 2, 1]]) == pytest.approx(4 / 3)
    assert metrics.alignment(EYE, -EYE) == pytest.approx(4)
    assert metrics.uniformity(EYE) == pytest.approx(-4)  # all pairs at squared distance 2
    assert metrics.uniformity(EYE[[1, 1]]) == pytest.approx(0)


def test_against_loops_over_all_pairs() -> None:
    x, a = rows(40, 1), rows(40, 2)
    pairs = [(i, j) for i in range(40) for j in range(40) if i != j]
    u, v = unit(x), unit(a)
    assert metrics.spread(x) == pytest.approx(np.mean([u[i] @ u[j] for i, j in pairs]))
    near = [math.exp(-2 * ((u[i] - u[j]) ** 2).sum()) for i, j in pairs]
    assert metrics.uniformity(x) == pytest.approx(math.log(np.mean(near)))
    assert metrics.alignment(x, a) == pytest.approx(
        np.mean([((u[i] - v[i]) ** 2).sum() for i in range(40)])
    )
    gap = math.sqrt(sum((u[:, d].mean() - v[:, d].mean()) ** 2 for d in range(8)))
    assert metrics.modality_gap(x, a) == pytest.approx(gap)


def test_uniformity_does_not_depend_on_its_blocks() -> None:
    x = rows(2100, 3)
    u = unit(x)
    whole = np.exp(-2 * (2 - 2 * u @ u.T))
    mean = (whole.sum() - np.trace(whole)) / (2100 * 2099)
    assert metrics.uniformity(x) == pytest.approx(math.log(mean), abs=1e-9)


def test_captions_are_partners_of_their_clips() -> None:
    audio, image, text = rows(6, 5), rows(6, 6), rows(9, 7)
    owners = [0, 0, 1, 2, 3, 4, 5, 5, 5]
    found = space_of(audio, image, text, owners)
    assert found is not None and found["text"] == "captions"
    assert set(found["gap"]) == {"audio_image", "audio_text", "image_text"}
    assert found["alignment"]["audio_text"] == metrics.alignment(audio[owners], text)
    assert found["alignment"]["image_text"] == metrics.alignment(image[owners], text)
    cosine = (unit(audio) * unit(image)).sum(axis=1).mean()
    assert found["partner_cosine"]["audio_image"] == pytest.approx(cosine)
    assert found["spread"]["text"] == metrics.spread(text)
    assert found["rows"] == {"audio": 6, "image": 6, "text": 9}


def test_labels_stand_for_the_text_where_there_are_no_captions() -> None:
    found = space_of(rows(6, 5), None, None, [], words=3 * rows(4, 6))
    assert found is not None and found["text"] == "labels"
    gap = metrics.modality_gap(rows(6, 5), rows(4, 6))
    assert found["gap"] == {"audio_text": pytest.approx(gap, abs=1e-6)}
    assert found["alignment"] == {}
    alone = space_of(rows(6, 5), None, None, [])
    assert alone is not None and "text" not in alone and alone["gap"] == {}
    assert space_of(rows(1, 5), None, None, []) is None


def test_large_tables_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(100, 8)
    monkeypatch.setattr("pivot.evaluation.geometry.MOST", 10)
    found = geometry({"audio": x}, {})
    assert found is not None and found["rows"] == {"audio": 10}
    assert found["spread"]["audio"] == metrics.spread(x[::11])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.spread(EYE * np.nan), "NaN"),
        (lambda: metrics.spread(EYE[:1]), "at least 2 rows"),
        (lambda: metrics.spread(EYE * [[1], [0], [1]]), "length 0"),
        (lambda: metrics.alignment(EYE, EYE[:2]), "not partners"),
        (lambda: metrics.modality_gap(EYE[0], EYE), "at least 1 rows"),
        (lambda: metrics.uniformity(np.empty((0, 3))), "empty"),
    ],
)
def test_bad_vectors_are_named(call: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()
