"""The scaling curve: nested subsets, the line and its band, resumption, and its mistakes."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.embeddings.parts import Part
from pivot.errors import DataError, RunError, SettingsError
from pivot.evaluation.evaluate import run as evaluate
from pivot.evaluation.scaling import command as scaling
from pivot.evaluation.scaling import work as scaling_work
from pivot.evaluation.scaling.figure import label_places, scaling_figure, short_number
from pivot.evaluation.scaling.line import fit_line
from pivot.evaluation.scaling.plan import Key, choose_sizes, nested_order
from pivot.evaluation.scaling.work import Trainings
from pivot.runs import Run
from pivot.settings import AdamWSettings, Evaluate, PretrainVa, ScalingCurve
from pivot.training.commands import pretrain_va
from tests import toy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with training and test shards, gold pairs and a model to start from."""
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards")
    toy.toy_shards(folder / "test", clips=8, first=40)
    toy.toy_shards(folder / "said", clips=6, first=60)
    for path in (folder / "said").glob("shard-*.tar"):
        unlabelled = re.sub(  # as long as before, so that the tar's places hold
            rb'"labels": (\[.*?\])', lambda m: b'"labels": []'.ljust(len(m[0])), path.read_bytes()
        )
        path.write_bytes(unlabelled)
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


def test_a_perfect_line_is_found_with_no_band() -> None:
    line = fit_line([2, 2, 8, 8, 32, 32], [0.2, 0.2, 0.4, 0.4, 0.6, 0.6])
    assert (line.slope, line.intercept) == (pytest.approx(0.1), pytest.approx(0.1))
    low, high = line.band([2, 500])
    assert float(np.abs(high - low).max()) < 1e-12 and line.residual < 1e-12
    reach = line.reach(0.8)
    assert (reach["low"], reach["pairs"], reach["high"]) == (128, 128, 128)
    assert line.reach(40.0)["pairs"] is None and line.reach(40.0)["log2_pairs"] == pytest.approx(
        399
    )


def test_the_papers_line() -> None:
    """Through (2^15.43, 69.5 %) and (2^21, 81 %): 2.06 points a doubling, 55.8 % at 442 pairs."""
    b = (0.81 - 0.695) / (21 - 15.43)
    sizes = [442, 4418, 44118]
    line = fit_line(sizes, [0.695 + b * (math.log2(n) - 15.43) for n in sizes])
    assert 100 * line.slope == pytest.approx(2.06, abs=0.005)
    assert 100 * float(line.at(442)) == pytest.approx(55.8, abs=0.05)
    reach = line.reach(0.81)
    assert reach["pairs"] == 2**21
    assert reach["warning"] == "extrapolated 2^5.6 times beyond the largest subset (44,118 pairs)"
    assert scaling._warnings(line, 0.571, 0.81, reach)[1].startswith(
        "the line puts 442 pairs at 55.8 %, below the 57.1 % without any"
    )


def test_bootstrap_against_every_possible_drawing() -> None:
    """Two trainings a size: 4 drawings a size, so 64 lines in all, each as likely as the other."""
    pairs, scores = [2, 2, 8, 8, 32, 32], [0.10, 0.14, 0.22, 0.30, 0.33, 0.50]
    line = fit_line(pairs, scores, confidence=0.8, resamples=40_000, seed=5)
    wanted = np.polyfit(np.log2(pairs), scores, 1)
    np.testing.assert_allclose([line.slope, line.intercept], wanted)
    groups = [np.array(scores[i : i + 2]) for i in (0, 2, 4)]
    drawings = []
    for picks in itertools.product([0, 1], repeat=6):
        y = [
            group.mean() + math.sqrt(2) * (group[pick] - group.mean())
            for group, two in zip(groups, (picks[:2], picks[2:4], picks[4:]), strict=True)
            for pick in two
        ]
        drawings.append(np.polyfit(np.log2(pairs), y, 1))
    slopes, intercepts = np.array(drawings).T
    ends = np.quantile(slopes, [0.1, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(line.slope_interval, ends, atol=1e-9)
    at = np.quantile(intercepts + slopes * math.log2(100), [0.1, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(np.ravel(line.band(100)), at, atol=1e-9)
    reached = np.quantile((0.7 - intercepts) / slopes, [0.1, 0.9], method="inverted_cdf")
    reach = line.reach(0.7)
    assert [reach["low"], reach["high"]] == [math.ceil(2**end * (1 - 1e-9)) for end in reached]
    again = fit_line(pairs, scores, confidence=0.8, resamples=40_000, seed=5)
    assert np.array_equal(again.draws, line.draws)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int) -> None:
    """300 made-up curves with a known slope; percentiles of so few trainings are a bit narrow."""
    sizes = [size for size in (8, 16, 32, 64, 128, 256) for _ in range(seeds)]
    rng, hits = np.random.default_rng(3), 0
    for number in range(300):
        scores = 0.2 + 0.03 * np.log2(sizes) + 0.02 * rng.standard_normal(len(sizes))
        low, high = fit_line(sizes, scores.tolist(), resamples=400, seed=number).slope_interval
        hits += low <= 0.03 <= high
    assert 0.85 <= hits / 300 <= 0.98


def test_one_training_a_size_draws_deviations_from_the_line() -> None:
    line = fit_line([2, 4, 8, 16, 32], [0.1, 0.22, 0.28, 0.42, 0.5])
    assert line.drawn.startswith("the deviations from the line")
    low, high = line.slope_interval
    assert low < line.slope < high
    error = line.residual / math.sqrt(10)  # of the slope; 10 is the sum of squares of log2(pairs)
    assert float(line.draws[:, 1].std()) == pytest.approx(error, rel=0.05)


def test_a_line_that_may_be_flat_promises_nothing() -> None:
    noisy = fit_line([2, 4, 8, 16], [0.3, 0.1, 0.4, 0.2])
    assert noisy.slope > 0 and noisy.reach(0.9)["high"] is None
    falling = fit_line([2, 4, 8], [0.3, 0.2, 0.1]).reach(0.9)
    assert (falling["pairs"], falling["low"], falling["high"]) == (None, None, None)
    assert "does not rise" in falling["warning"]


def test_a_target_below_or_within_the_data_is_called_so() -> None:
    line = fit_line([16, 64, 256], [0.4, 0.5, 0.6])
    below = line.reach(0.3)
    assert below["pairs"] == 4 and below["beyond"] == pytest.approx(-2)
    assert "2^2.0 times below the smallest subset (16 pairs)" in below["warning"]
    within = line.reach(0.55)
    assert within["pairs"] == 128 and within["beyond"] == 0 and within["warning"] is None
    assert "without any pair" in scaling._warnings(line, 0.35, 0.3, below)[1]
    assert "leaves the data" in fit_line([16, 64, 256], [0.4, 0.56, 0.6]).reach(0.58)["warning"]


def test_no_line_without_three_sizes_or_with_nan() -> None:
    with pytest.raises(DataError, match="2 sizes make no line"):
        fit_line([2, 2, 4, 4], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(DataError, match="not a number"):
        fit_line([2, 4, 8], [0.1, math.nan, 0.3])


def test_the_picture_goes_to_a_near_target_and_no_further() -> None:
    points = [{"pairs": n, "zero_shot": 0.1 * math.log2(n)} for n in (4, 8, 16, 32)]
    line = fit_line([4, 8, 16, 32], [0.2, 0.3, 0.4, 0.5])
    for target, words in ((0.9, "target: 512 pairs"), (1.2, None)):  # 2^4 and 2^7 beyond
        figure = scaling_figure(points, line.facts(), target, score="R@1")
        axes = figure.axes[0]
        found = [str(item.get_label()) for item in axes.lines]
        assert (words in found) == (words is not None) and axes.get_ylabel() == "R@1"
        assert any(item.get_linestyle() == "--" and len(item.get_xdata()) == 2
                   and item.get_xdata()[-1] == pytest.approx(512) for item in axes.lines) == (
            words is not None
        )  # fmt: skip
    assert label_places([442, 882, 28235, 44118]) == [442, 882, 44118]
    assert label_places([]) == [] and label_places([5]) == [5]
    assert [short_number(n) for n in (442, 1500, 9999, 44118, 2**21)] == [
        "442", "1,500", "9,999", "44k", "2.1M"
    ]  # fmt: skip


# ---- sizes and subsets -------------------------------------------------------------------------


def test_sizes_double_up_to_all_pairs() -> None:
    assert choose_sizes((), 1500) == [11, 23, 46, 93, 187, 375, 750, 1500]
    assert choose_sizes((), 20) == [2, 5, 10, 20]
    assert choose_sizes((8, 2, 4, 4), 10) == [2, 4, 8]
    assert choose_sizes((), 44118, (0.01, 0.5, 1.0)) == [441, 22059, 44118]  # the paper says 442
    for asked, shares, message in (
        ((1, 2, 4), (), "--sizes 1 "),
        ((2, 4, 11), (), "--sizes 11 "),
        ((2, 4), (), "2 sizes"),
        ((), (0.1, 0.2, 0.3), "--fractions 1 "),
        ((2, 4, 8), (0.5,), "leave one out"),
    ):
        with pytest.raises(SettingsError, match=message):
            choose_sizes(asked, 10, shares)
    with pytest.raises(SettingsError, match="there are 3 pairs"):
        choose_sizes((), 3)


def test_subsets_are_prefixes_of_one_order_a_seed() -> None:
    first, again, other = (nested_order(50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert sorted(first) == list(range(50)) and not np.array_equal(first, other)


def test_the_references_order() -> None:
    """As its code draws it: numpy's global generator, seeded 1213, one permutation of another."""
    before = np.random.get_state()
    np.random.seed(1213)
    wanted = np.random.permutation(np.random.permutation(44118))
    np.random.set_state(before)
    for seed in (1, 1213):
        np.testing.assert_array_equal(nested_order(44118, seed, "vip_ant"), wanted)
    assert np.array_equal(np.sort(wanted), np.arange(44118))


# ---- the command -------------------------------------------------------------------------------


def test_the_curve_is_trained_fitted_drawn_and_resumed(
    world, tmp_path, capsys, monkeypatch
) -> None:
    out = tmp_path / "curve"
    settings = settings_of(world, out, target=0.9, more_tests=(str(world / "said"),))
    real, trained = Trainings.train, []

    def failing(self: Trainings, key: Key) -> dict[str, Any]:
        trained.append(key)
        if len(trained) == 5:
            raise KeyboardInterrupt
        return real(self, key)

    monkeypatch.setattr(Trainings, "train", failing)
    with pytest.raises(KeyboardInterrupt):
        scaling.run(settings)
    assert not (out / "results.json").exists()
    kept = {path.name: path.read_bytes() for path in (out / "trainings").iterdir()}
    assert len(kept) == 4
    with pytest.raises(RunError, match="is in use"):
        scaling.run(settings)
    resumed = settings.model_copy(update={"resume": True, "jobs": 1})
    assert scaling.run(resumed) == 0
    assert [size for size, _ in trained] == [4, 4, 12, 12, 40, 40, 40]  # four are not done again
    assert all((out / "trainings" / name).read_bytes() == data for name, data in kept.items())
    results = json.loads((out / "results.json").read_text())
    assert [(row["pairs"], row["seed"]) for row in results["scaling"]] == [
        (size, seed) for size in (4, 12, 40) for seed in (1, 2)
    ]
    assert all(0 <= row["zero_shot"] <= 1 for row in results["scaling"])
    assert results["scaling"][0]["batch_size"] == results["scaling"][0]["clips"] <= 4
    assert results["reach"]["score"] == results["fit"]["target"] == 0.9
    assert results["fit"]["band"]["pairs"][0] == pytest.approx(4)
    assert results["data"]["labels"] == sorted(toy.KINDS) and results["data"]["test_clips"] == 8
    assert not (out / "captions.npy").exists()
    check_every_score(out, results)
    said = capsys.readouterr().out
    assert said.count(" pairs  ") == 3 * 5 and "90 %: " in said and "each doubling" in said
    assert scaling.run(resumed) == 0  # finished: nothing to do


def check_every_score(out: Path, results: dict[str, Any]) -> None:
    """Two test sets: labels and captions of the first, captions alone of the second."""
    curves = results["curves"]
    assert {test: set(found) for test, found in curves.items()} == {
        "test": {"zero_shot", "text_to_audio_r1", "audio_to_text_r1"},
        "said": {"text_to_audio_r1", "audio_to_text_r1"},
    }
    assert curves["test"]["zero_shot"]["fit"] == results["fit"]
    for test, found in curves.items():
        for score, curve in found.items():
            values = [row["scores"][test][score] for row in results["scaling"]]
            for place, spread in enumerate(curve["spread"]):
                own = values[2 * place : 2 * place + 2]
                assert spread["mean"] == pytest.approx(np.mean(own))
                assert spread["deviation"] == pytest.approx(np.std(own, ddof=1))
                assert (spread["low"], spread["high"]) == (min(own), max(own))
            main = test == "test" and score == "zero_shot"
            file = out / ("curve.png" if main else f"curve-{test}-{score}.png")
            assert file.read_bytes().startswith(b"\x89PNG")
            assert (curve["reach"] is None) == (not main)


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_processes_and_parts_give_the_same_numbers(world, tmp_path, capsys) -> None:
    """One process, two side by side, and two shares of a common folder: bit for bit the same."""
    few = {"sizes": (4, 6, 8), "seeds": (3,), "max_steps": 2, "order": "vip_ant"}
    scaling.run(settings_of(world, tmp_path / "one", **few))
    scaling.run(settings_of(world, tmp_path / "two", jobs=2, **few))
    capsys.readouterr()
    scaling.run(settings_of(world, tmp_path / "parts", part="2/2", **few))
    assert "part 2/2 is done; 2 trainings of other parts are left" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "results.json").exists()
    scaling.run(settings_of(world, tmp_path / "parts", part="1/2", **few))
    scaling.run(settings_of(world, tmp_path / "parts", part="2/2", **few))  # nothing to do
    one, two, parts = (
        json.loads((tmp_path / name / "results.json").read_text())
        for name in ("one", "two", "parts")
    )
    assert without_time(one["scaling"]) == without_time(two["scaling"])
    assert without_time(one["scaling"]) == without_time(parts["scaling"])
    assert one["curves"] == two["curves"] == parts["curves"]
    with pytest.raises(SettingsError, match="--part 3/2 is not K/N"):
        scaling.run(settings_of(world, tmp_path / "parts", part="3/2", **few))


def test_a_killed_process_is_named(world, tmp_path, monkeypatch) -> None:
    """What is finished stays; the pool here breaks as it does when a process is killed."""

    @contextmanager
    def broken(*_: Any) -> Iterator[Any]:
        class Pool:
            def submit(self, *_: Any) -> Future[Any]:
                future: Future[Any] = Future()
                future.set_exception(BrokenProcessPool("gone"))
                return future

        yield Pool()

    monkeypatch.setattr(scaling_work, "_pool", broken)
    with pytest.raises(RunError, match=r"was killed .*lower --jobs and go on with --resume"):
        scaling.run(settings_of(world, tmp_path / "out", jobs=2))


def test_parts_that_begin_together_make_one_folder(tmp_path, monkeypatch) -> None:
    settings = settings_of(tmp_path, tmp_path / "out", part="1/2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json.part").write_text("another part is at it")

    def other(_: float) -> None:
        Run.create(tmp_path / "other", "scaling-curve", settings)
        for path in (tmp_path / "other").iterdir():
            shutil.copy(path, tmp_path / "out")

    monkeypatch.setattr(scaling.time, "sleep", other)
    assert scaling._open(settings, Part(1, 2)).path == tmp_path / "out"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    monkeypatch.setattr(scaling, "PATIENCE", 0.0)
    foreign = settings.model_copy(update={"out": str(tmp_path / "foreign")})
    with pytest.raises(RunError, match="not a run folder"):
        scaling._open(foreign, Part(1, 2))
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["notes.txt"]


def test_other_files_than_at_the_start_are_refused(world, tmp_path, monkeypatch) -> None:
    """The settings are the same; what they name is not."""
    pairs = toy.write_gold(tmp_path / "gold.jsonl", range(20))
    few = {"sizes": (4, 6, 8), "seeds": (3,), "max_steps": 1, "pairs": str(pairs)}
    settings = settings_of(world, tmp_path / "out", **few)
    monkeypatch.setattr(Trainings, "train", lambda self, key: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scaling.run(settings)
    monkeypatch.undo()
    resumed = settings.model_copy(update={"resume": True})
    toy.write_gold(pairs, [*range(1, 20), 0])
    with pytest.raises(RunError, match="was begun with other pairs than now"):
        scaling.run(resumed)
    toy.write_gold(pairs, range(20))
    row = tmp_path / "out" / "trainings" / "0000006-3.json"
    row.parent.mkdir()
    for text, message in (
        ('{"pairs": 6, "seed"', "is damaged"),
        ('{"pairs": 6, "seed": 3, "zero_shot": NaN}', "not a number; delete it"),
        ('{"pairs": 5, "seed": 3, "zero_shot": 0.5}', "is no row of that training"),
    ):
        row.write_text(text)
        with pytest.raises(RunError, match=message):
            scaling.run(resumed)
    row.unlink()
    assert scaling.run(resumed) == 0


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
    ({"more_tests": ("no/shards",)}, "no/shards"),
    ({"fractions": (0.1, 0.5, 1.0)}, "leave one out"),
    ({"part": "0/4"}, "--part 0/4 is not K/N"),
    ({"model": "no/model"}, "no/model"),
])  # fmt: skip
def test_mistakes_leave_no_folder(world, tmp_path, values, message) -> None:
    from pivot.errors import UserError

    with pytest.raises(UserError, match=message) as caught:
        scaling.run(settings_of(world, tmp_path / "out", **values))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
