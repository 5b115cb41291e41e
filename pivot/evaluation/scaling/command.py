"""`pivot scaling-curve`: what true pairs are worth, from trainings on nested subsets of them.

Each seed has one order of the pairs and every size is a prefix of it, so a larger set holds the
smaller ones. All trainings start from the same model and share FBANK and caption embeddings. Each
finished one is a file in OUT/trainings, and nothing else is shared between processes, machines
(--part K/N) and resumptions: whoever finds all of them there fits the line and draws it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pivot.data.batches import PairTable
from pivot.data.held_out import refuse_overlap
from pivot.embeddings.parts import Part
from pivot.errors import RunError
from pivot.evaluation.figures import save
from pivot.evaluation.scaling.exam import SCORES
from pivot.evaluation.scaling.figure import DRAWN_BEYOND, scaling_figure
from pivot.evaluation.scaling.line import Line, fit_line
from pivot.evaluation.scaling.plan import keep_plan, read_rows
from pivot.evaluation.scaling.work import CAPTIONS, Trainings, train_all
from pivot.runs import Run, finished
from pivot.settings import ScalingCurve

COMMAND = "scaling-curve"
PATIENCE = 10.0  # seconds that another part may take between making a folder and its files

Rows = Sequence[Mapping[str, Any]]


def run(settings: ScalingCurve) -> int:
    """Train at every size and seed, score on the test shards, fit the line, draw it."""
    part = Part.read(settings.part)
    shared = settings.model_copy(update={"jobs": 1, "part": None})  # how, not what
    if _is_finished(shared, part):
        return 0
    trainings = Trainings(settings)
    clips = PairTable.of(trainings.sounds, trainings.pairs).clips
    tests = (settings.test, *settings.more_tests)
    held_out = refuse_overlap(trainings.shards, clips, settings, tests)
    folder = _open(shared, part)
    keep_plan(folder.path, trainings.plan())
    done = read_rows(folder.path, trainings.keys)
    mine = trainings.keys[part.number - 1 :: part.of]
    missing = [key for key in mine if key not in done]
    if done:
        folder.note(f"{len(done)} of {len(trainings.keys)} trainings are done already")
    for number, row in enumerate(train_all(trainings, missing, folder.path), 1):
        folder.note(
            f"{number}/{len(missing)}: {row['pairs']} pairs, seed {row['seed']}: "
            f"{100 * row['zero_shot']:.1f} %"
        )
    done = read_rows(folder.path, trainings.keys)
    left = [key for key in trainings.keys if key not in done]
    if left:
        names = ", ".join(f"{size} pairs of seed {seed}" for size, seed in left[:4])
        print(f"{part} is done; {len(left)} trainings of other parts are left: {names}")
        return 0
    rows = [done[key] for key in trainings.keys]
    facts = trainings.facts() | ({"held_out": held_out} if held_out else {})
    return _finish(folder, settings, rows, facts, trainings.before())


def _is_finished(settings: ScalingCurve, part: Part) -> bool:
    """Whether --out holds this very curve; a used folder is refused, but not to another part."""
    if part.of == 1:
        return finished(settings.out, COMMAND, settings, settings.resume)
    there = (Path(settings.out) / "results.json").is_file()
    return there and finished(settings.out, COMMAND, settings, True)


def _open(settings: ScalingCurve, part: Part) -> Run:
    """Open the run folder; parts that begin at the same moment make it together."""
    out, start = Path(settings.out), time.monotonic()
    while True:
        try:
            return Run.create(out, COMMAND, settings, settings.resume or part.of > 1)
        except RunError:
            whole = (out / "settings.yaml").is_file() and (out / "run.json").is_file()
            if part.of == 1 or whole or time.monotonic() - start > PATIENCE:
                raise
            time.sleep(0.1)


def _finish(
    folder: Run,
    settings: ScalingCurve,
    rows: Rows,
    data: dict[str, Any],
    before: dict[str, dict[str, float]],
) -> int:
    """Lines, figures, results.json, and what they say in words."""
    curves: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    for test, score in [(test, score) for test, scores in before.items() for score in scores]:
        values = [(int(row["pairs"]), float(row["scores"][test][score])) for row in rows]
        curve = _curve(values, before[test][score], None if curves else settings.target, settings)
        file = f"curve-{test}-{score}.png".replace("/", "-") if curves else "curve.png"
        curves.setdefault(test, {})[score] = curve
        _draw(values, curve, SCORES[score], folder.path / file)
        lines += _table(f"{test}: {SCORES[score]}", curve, folder.path / file)
    first = next(iter(next(iter(curves.values())).values()))
    main = {name: first[name] for name in ("fit", "reach", "before")}
    folder.finish({"scaling": list(rows), **main, "curves": curves}, data)
    (folder.path / CAPTIONS).unlink(missing_ok=True)
    print("\n".join(lines))
    return 0


def _curve(
    values: Sequence[tuple[int, float]], before: float, target: float | None, settings: ScalingCurve
) -> dict[str, Any]:
    """Line, target, spread and warnings of one score of one test set."""
    pairs, scores = [size for size, _ in values], [score for _, score in values]
    line = fit_line(pairs, scores, resamples=settings.resamples, seed=settings.seed)
    reach = line.reach(target) if target is not None else None
    until = None
    if reach and reach["pairs"] and 0 < reach["beyond"] <= DRAWN_BEYOND:
        until = 2 ** reach["log2_pairs"]
    interval = [reach["low"], reach["high"]] if reach else None
    return {
        "fit": line.facts(until) | {"target": target, "target_interval": interval},
        "reach": reach,
        "before": before,
        "spread": [_spread(size, values) for size in sorted(set(pairs))],
        "warnings": _warnings(line, before, target, reach),
    }


def _spread(size: int, values: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Mean and spread of the trainings of one size; `deviation` divides by n - 1."""
    own = [score for other, score in values if other == size]
    deviation = float(np.std(own, ddof=1)) if len(own) > 1 else None
    return {
        "pairs": size,
        "trainings": len(own),
        "mean": float(np.mean(own)),
        "deviation": deviation,
        "low": min(own),
        "high": max(own),
    }


def _warnings(
    line: Line, before: float, target: float | None, reach: Mapping[str, Any] | None
) -> list[str]:
    """What a reader must know before believing the line."""
    found = [str(reach["warning"])] if reach and reach.get("warning") else []
    if target is not None and target <= before:
        found.append(f"the model has {100 * before:.1f} % without any pair, which is no less")
    small = line.sizes[0]
    at = float(line.at(small))
    if at < before:
        found.append(
            f"the line puts {small:,} pairs at {100 * at:.1f} %, below the {100 * before:.1f} % "
            "without any: it is rough there"
        )
    return found


def _draw(
    values: Sequence[tuple[int, float]], curve: Mapping[str, Any], words: str, path: Path
) -> None:
    points = [{"pairs": size, "zero_shot": score} for size, score in values]
    fit = curve["fit"]
    save(scaling_figure(points, fit, fit["target"], start=curve["before"], score=words), path)


def _table(title: str, curve: Mapping[str, Any], path: Path) -> list[str]:
    """One score in words: a row a size, the slope, the target."""
    lines = [f"{title} ({100 * curve['before']:.1f} % without pairs)"]
    for row in curve["spread"]:
        around = f" +- {100 * row['deviation']:.1f}" if row["deviation"] is not None else ""
        lines.append(
            f"{row['pairs']:>9,} pairs  {100 * row['mean']:5.1f} %{around}  "
            f"({row['trainings']} trainings: {100 * row['low']:.1f} to {100 * row['high']:.1f})"
        )
    fit, reach = curve["fit"], curve["reach"]
    if reach is not None:
        lines.append(_say(reach))
    lines += [f"warning: {text}" for text in curve["warnings"]]
    slopes = [100 * fit[name] for name in ("slope", "slope_low", "slope_high")]
    lines.append(
        f"each doubling of the pairs: {slopes[0]:+.2f} points (95 %: {slopes[1]:+.2f} to "
        f"{slopes[2]:+.2f}) -> {path}"
    )
    return lines


def _say(reach: Mapping[str, Any]) -> str:
    """The answer to --target in one line."""
    target = f"{100 * reach['score']:.0f} %"
    if reach["pairs"] is None:
        return f"{target}: the line does not get there"
    bounds = [f"{n:,}" if n is not None else "no bound" for n in (reach["low"], reach["high"])]
    power = math.log2(reach["pairs"])
    return (
        f"{target}: about {reach['pairs']:,} = 2^{power:.1f} pairs "
        f"(95 %: {bounds[0]} to {bounds[1]})"
    )
