"""The scaling curve: nested subsets, the line and its band, resumption, and its mistakes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.errors import DataError, SettingsError
from pivot.evaluation import scaling
from pivot.evaluation.evaluate import run as evaluate
from pivot.evaluation.line import fit_line, student_t
from pivot.settings import AdamWSettings, Evaluate, PretrainVa, ScalingCurve
from pivot.training.commands import pretrain_va
from tests import toy


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Steps this small are slower on more threads, by far on a busy machine."""
    with toy.one_thread():
        yield


@pytest.fixture(scope="module")
def world(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with training and test shards, gold pairs and a model to start from."""
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards")
    toy.toy_shards(folder / "test", clips=8, first=40)
    toy.toy_clip(folder / "clip")
    toy.write_gold(folder / "gold.jsonl", range(20))
    pretrain_va(
        PretrainVa(
            shards=str(folder / "shards"),
            out=str(folder / "va"),
            clip={"model": str(folder / "clip")},
            audio=toy.AUDIO,
            encoder=toy.ENCODER,
            max_steps=1,
            batch_size=6,
            device="cpu",
        )
    )
    return folder


def settings_of(world: Path, out: Path, **values: Any) -> ScalingCurve:
    common: dict[str, Any] = {
        "shards": str(world / "shards"),
        "test": str(world / "test"),
        "model": str(world / "va"),
        "pairs": str(world / "gold.jsonl"),
        "out": str(out),
        "sizes": (4, 12, 40),
        "seeds": (1, 2),
        "batch_size": 6,
        "max_steps": 6,
        "optim": AdamWSettings(lr=3e-3),
        "mask": toy.MASK,
        "precision": "fp32",
        "device": "cpu",
    }
    return ScalingCurve(**(common | values))


# ---- the line ----------------------------------------------------------------------------------


def test_student_t_is_the_tables() -> None:
    for free, wanted in ((1, 12.7062), (2, 4.3027), (5, 2.5706), (10, 2.2281), (100, 1.9840)):
        assert student_t(0.95, free) == pytest.approx(wanted, abs=2e-4)
    assert student_t(0.99, 5) == pytest.approx(4.0321, abs=2e-4)


def test_a_perfect_line_is_found_with_no_band() -> None:
    line = fit_line([2, 8, 32], [0.2, 0.4, 0.6])
    assert (line.slope, line.intercept) == (pytest.approx(0.1), pytest.approx(0.1))
    assert line.margin([2, 500]).max() < 1e-12
    reach = line.reach(0.8)
    assert (reach["low"], reach["pairs"], reach["high"]) == (128, 128, 128)
    assert line.reach(40.0)["pairs"] is None and line.reach(40.0)["log2_pairs"] == pytest.approx(
        399
    )


def test_band_and_target_are_the_textbooks() -> None:
    """Against the normal equations written out with matrices, and the band's own crossings."""
    pairs, scores = [2, 2, 4, 8, 8, 16, 64], [0.1, 0.14, 0.2, 0.22, 0.3, 0.33, 0.5]
    line = fit_line(pairs, scores)
    x = np.stack([np.ones(7), np.log2(pairs)], axis=1)
    wanted, squares, *_ = np.linalg.lstsq(x, np.array(scores), rcond=None)
    np.testing.assert_allclose([line.intercept, line.slope], wanted)
    covariance = np.linalg.inv(x.T @ x) * squares[0] / 5
    at = np.array([1, math.log2(100)])
    np.testing.assert_allclose(
        line.margin(100), 2.570582 * math.sqrt(at @ covariance @ at), rtol=1e-5
    )
    np.testing.assert_allclose(line.slope_margin, 2.570582 * math.sqrt(covariance[1, 1]), rtol=1e-5)
    reach = line.reach(0.7)
    assert reach["low"] < reach["pairs"] < reach["high"]
    for name, sign in (("low", 1), ("high", -1)):  # rounding to whole pairs moves it a little
        edge = line.at(reach[name]) + sign * line.margin(reach[name])
        assert edge == pytest.approx(0.7, abs=2e-3)


def test_a_line_that_may_be_flat_promises_nothing() -> None:
    noisy = fit_line([2, 4, 8, 16], [0.3, 0.1, 0.4, 0.2])
    assert noisy.slope > 0 and noisy.reach(0.9)["high"] is None and noisy.reach(0.9)["low"] is None
    falling = fit_line([2, 4, 8], [0.3, 0.2, 0.1])
    assert falling.reach(0.9) == {"score": 0.9, "pairs": None, "low": None, "high": None}


def test_no_line_without_three_sizes_or_with_nan() -> None:
    with pytest.raises(DataError, match="2 sizes make no line"):
        fit_line([2, 2, 4, 4], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(DataError, match="not a number"):
        fit_line([2, 4, 8], [0.1, math.nan, 0.3])


# ---- sizes and subsets -------------------------------------------------------------------------


def test_sizes_double_up_to_all_pairs() -> None:
    assert scaling.choose_sizes((), 1500) == [11, 23, 46, 93, 187, 375, 750, 1500]
    assert scaling.choose_sizes((), 20) == [2, 5, 10, 20]
    assert scaling.choose_sizes((8, 2, 4, 4), 10) == [2, 4, 8]
    for asked, message in (
        ((1, 2, 4), "--sizes 1 "),
        ((2, 4, 11), "--sizes 11 "),
        ((2, 4), "2 sizes"),
    ):
        with pytest.raises(SettingsError, match=message):
            scaling.choose_sizes(asked, 10)
    with pytest.raises(SettingsError, match="there are 3 pairs"):
        scaling.choose_sizes((), 3)


def test_subsets_are_prefixes_of_one_order_a_seed() -> None:
    first, again, other = (scaling.nested_order(50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert sorted(first) == list(range(50)) and not np.array_equal(first, other)


# ---- the command -------------------------------------------------------------------------------


def test_the_curve_is_trained_fitted_drawn_and_resumed(
    world, tmp_path, capsys, monkeypatch
) -> None:
    out = tmp_path / "curve"
    settings = settings_of(world, out, target=0.9)
    real, trained = scaling._train, []

    def failing(*arguments: Any) -> dict[str, Any]:
        trained.append(arguments[2].size)
        if len(trained) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(scaling, "_train", failing)
    with pytest.raises(KeyboardInterrupt):
        scaling.run(settings)
    assert not (out / "results.json").exists()
    kept = (out / "metrics.jsonl").read_text()
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"pairs": 40')
    assert scaling.run(settings.model_copy(update={"resume": True})) == 0
    assert trained == [4, 4, 12, 12, 40, 40, 40]  # the finished four were not trained again
    assert (out / "metrics.jsonl").read_text().startswith(kept)
    results = json.loads((out / "results.json").read_text())
    assert [(row["pairs"], row["seed"]) for row in results["scaling"]] == [
        (size, seed) for size in (4, 12, 40) for seed in (1, 2)
    ]
    assert all(0 <= row["zero_shot"] <= 1 for row in results["scaling"])
    assert results["scaling"][0]["batch_size"] == results["scaling"][0]["clips"] <= 4
    assert results["fit"]["band"]["pairs"][-1] == pytest.approx(40)
    assert results["reach"]["score"] == 0.9
    assert results["data"]["labels"] == sorted(toy.KINDS) and results["data"]["test_clips"] == 8
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert said.count(" pairs  ") == 3 and "90 %: " in said and "each doubling" in said
    assert scaling.run(settings.model_copy(update={"resume": True})) == 0  # finished: nothing to do


def test_a_point_of_the_curve_is_a_training_by_itself(world, tmp_path) -> None:
    """One size twice, in other company, and the start of the curve as `evaluate` measures it."""
    for name, sizes in (("a", (4, 6, 8)), ("b", (6, 7, 8))):
        scaling.run(settings_of(world, tmp_path / name, sizes=sizes, seeds=(3,), max_steps=3))
    a, b = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("a", "b"))
    of = {name: {r["pairs"]: r for r in found["scaling"]} for name, found in (("a", a), ("b", b))}
    for size in (6, 8):
        assert of["a"][size]["loss"] == of["b"][size]["loss"]
        assert of["a"][size]["zero_shot"] == of["b"][size]["zero_shot"]
    out = tmp_path / "numbers"
    evaluate(
        Evaluate(model=str(world / "va"), shards=str(world / "test"), out=str(out), device="cpu")
    )
    measured = json.loads((out / "results.json").read_text())["zero_shot"]["accuracy"]
    assert a["before"] == pytest.approx(measured)


@pytest.mark.parametrize(("values", "message"), [
    ({"sizes": (4, 12)}, "2 sizes make no line"),
    ({"sizes": (4, 12, 41)}, "--sizes 41 is not between 2 and the 40 pairs"),
    ({"seeds": (1, 1)}, "--seeds 1 1 must be different"),
    ({"seeds": ()}, "--seeds"),
    ({"labels": "no/labels.txt"}, "no/labels.txt"),
    ({"test": "no/shards"}, "no/shards"),
    ({"model": "no/model"}, "no/model"),
])  # fmt: skip
def test_mistakes_leave_no_folder(world, tmp_path, values, message) -> None:
    from pivot.errors import UserError

    with pytest.raises(UserError, match=message) as caught:
        scaling.run(settings_of(world, tmp_path / "out", **values))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
