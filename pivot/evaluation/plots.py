"""Figures of `pivot evaluate`: classes side by side, pivotability over k, numbers over epochs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pivot.data.benchmarks import tidy
from pivot.errors import DataError
from pivot.evaluation.checkpoints import scores_of, spoken
from pivot.evaluation.figures import (
    COLOURS,
    INK,
    MUTED,
    OTHERS,
    STYLE,
    WIDTH,
    canvas,
    percent_axis,
    save,
    short,
)
from pivot.evaluation.retrieval import PIVOTABLE

PALETTE = ("#0077bb", "#ee7733", "#009988", *OTHERS)
ORACLE = COLOURS["clip_image"]
FEW = 24  # classes that fit into one column
MOST_ROWS = 88  # classes in a column of a long list


def read_beside(paths: Sequence[str], own_name: str) -> dict[str, dict[str, Any]]:
    """`zero_shot` of the results.json of other runs of evaluate, by the name of their folder.

    Raises DataError for what is no such file, has no zero-shot classes, or is named twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in paths:
        path = Path(name) / "results.json" if Path(name).is_dir() else Path(name)
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            zero_shot = results["zero_shot"]
            zero_shot["per_class"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"--beside {name} holds no zero-shot classes ({type(error).__name__}); name the "
                "folder of another pivot evaluate on the same data set"
            ) from None
        key = path.absolute().parent.name
        if key in found or key == own_name:
            raise DataError(f"--beside: two folders are called {key}; give them different names")
        found[key] = zero_shot
    return found


def check_beside(
    others: Mapping[str, Mapping[str, Any]], labels: Sequence[str], several: bool
) -> None:
    """Refuse runs that cannot stand beside one on these labels, before anything is computed.

    Raises DataError where another run measured another number (accuracy, or map where clips have
    several labels), or on none of these classes.
    """
    key, known = "map" if several else "accuracy", {tidy(label).casefold() for label in labels}
    for name, other in others.items():
        if not labels or key not in other:
            raise DataError(f"--beside {name} measured another number than these clips allow")
        if not known & {tidy(label).casefold() for label in other["per_class"]}:
            raise DataError(f"--beside {name} has none of these classes: another data set?")


def draw(
    folder: Path, results: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Draw what the results hold into a folder; the names of the files."""
    figures: dict[str, Figure] = {}
    if "zero_shot" in results:
        figures["per_class.png"] = compare_classes(folder.name, results, others)
    if "pivotability" in results:
        figures["pivotability.png"] = pivotability_figure(
            results["pivotability"], results["pivotable"]["share"]
        )
    if len(results.get("checkpoints") or ()) > 1:
        figures["checkpoints.png"] = checkpoints_figure(results["checkpoints"])
    for name, figure in figures.items():
        save(figure, folder / name)
    return list(figures)


# ---- classes ---------------------------------------------------------------------------------


def compare_classes(
    own_name: str, results: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> Figure:
    """Classes of these results beside those of others, else beside the Oracle's where there is one.

    results: a results.json; others: its `zero_shot` of other runs, by name, that `check_beside` let
    pass. Classes that the others have beyond these are not drawn.
    """
    own = results["zero_shot"]
    tables = {own_name: own["per_class"]}
    names = {tidy(label).casefold(): label for label in own["per_class"]}
    for name, other in others.items():
        values = {names.get(tidy(x).casefold()): v for x, v in other["per_class"].items()}
        tables[name] = {label: v for label, v in values.items() if label is not None}
    if not others and "clip_image_zero_shot" in results:
        tables["Oracle (CLIP on frames)"] = results["clip_image_zero_shot"]["per_class"]
    what = "zero-shot accuracy" if "accuracy" in own else "average precision"
    return classes_figure(tables, what, own["chance"])


@matplotlib.rc_context(STYLE)
def classes_figure(
    tables: Mapping[str, Mapping[str, float]], what: str, chance: float | None = None
) -> Figure:
    """A bar for each class and model, the classes by falling score of the first model.

    tables: model -> class -> score (0..1). A long list goes into several columns, read downwards
    and then to the right.
    """
    first = next(iter(tables.values()))
    labels = sorted(first, key=lambda label: (-first[label], label))
    columns = _columns(len(labels))
    rows = -(-len(labels) // columns)
    small = columns > 2
    wide, size = (2.6, 6.0) if small else (WIDTH, 9.0)
    each = 0.06 + 0.055 * len(tables) if small else 0.1 + 0.11 * len(tables)
    figure = Figure(figsize=(wide * columns, 1.0 + rows * each), layout="constrained")
    top = max(max(values.values(), default=0) for values in tables.values())
    said = what if chance is None or small else f"{what}; dotted: chance, {100 * chance:.1f} %"
    for number in range(columns):
        ax = figure.add_subplot(1, columns, number + 1)
        _bars(ax, labels[number * rows : (number + 1) * rows], tables, rows, size)
        if chance is not None:
            ax.axvline(chance, color=INK, lw=0.8, ls=":")
        # At least a twentieth, so that a model that knows nothing still gives a picture.
        right = min(max(1.05 * top, 0.05), 1.02)
        ax.set_xlim(-0.008 * right, right)
        percent_axis(ax.xaxis)
        if small:
            ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            ax.tick_params(axis="x", labelsize=size)
        ax.set_xlabel(said, size=size)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=min(len(tables), 2 * columns),
                  handlelength=1, columnspacing=1)  # fmt: skip
    return figure


def _columns(classes: int) -> int:
    if classes <= FEW:
        return 1
    return 2 if classes <= 3 * FEW else -(-classes // MOST_ROWS) + (classes <= MOST_ROWS)


def _bars(
    ax: Axes, labels: list[str], tables: Mapping[str, Mapping[str, float]], rows: int, size: float
) -> None:
    thick = 0.84 / len(tables)
    places = np.arange(len(labels))
    for number, (name, values) in enumerate(tables.items()):
        tint = ORACLE if name.startswith("Oracle") else PALETTE[number % len(PALETTE)]
        value = [values.get(label, math.nan) for label in labels]
        shift = (number - (len(tables) - 1) / 2) * thick
        # A thin stub at zero tells a bar of nothing from a class that is not there.
        ax.barh(places + shift, value, 0.88 * thick, color=tint, edgecolor=tint, lw=0.5,
                label=short(name, 24))  # fmt: skip
    ax.set_yticks(places, labels=[short(label, 24) for label in labels], size=size)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set_ylim(rows - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


# ---- curves ----------------------------------------------------------------------------------


@matplotlib.rc_context(STYLE)
def pivotability_figure(curve: Mapping[str, float], share: Mapping[str, float]) -> Figure:
    """Pivotability over the number k of nearest images, and the share of pivotable clips."""
    figure, ax = canvas(2.8)
    k = [int(n) for n in curve]
    ax.plot(k, list(curve.values()), "o-", ms=3.5, color=PALETTE[0], label="captions reached")
    ax.plot(k, list(share.values()), "s--", ms=3.5, color=PALETTE[1],
            label=f"clips with {100 * PIVOTABLE:.0f} % or more")  # fmt: skip
    ax.axvline(5, color=MUTED, lw=1, ls=":")
    ax.set_xscale("log")
    shown = [n for n in (1, 2, 3, 5, 10, 20, 50) if n in k]
    ax.set_xticks(shown, labels=[str(n) for n in shown])
    ax.minorticks_off()
    ax.set_ylim(0, max(*curve.values(), *share.values(), 0.05) * 1.05)
    percent_axis(ax.yaxis)
    ax.set_xlabel("nearest images k of a sound, five captions each")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    return figure


@matplotlib.rc_context(STYLE)
def checkpoints_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Scores (above) and geometry (below) of the kept models over the epochs."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in rows]
    for number, (name, values) in enumerate(scores_of(rows).items()):
        tint = PALETTE[number % len(PALETTE)]
        above.plot(epochs, values, "o-", ms=3, color=tint, label=spoken(name))
    percent_axis(above.yaxis)
    handles, names = above.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", fontsize=7, ncols=2, handlelength=1.4)
    spaces = [row["geometry"] for row in rows]
    if all(spaces):
        lines = {
            f"gap {k}": [s["gap"][k] for s in spaces] for k in spaces[0]["gap"] if "audio" in k
        }
        lines["cosine within audio"] = [s["spread"]["audio"] for s in spaces]
        for number, (name, values) in enumerate(lines.items()):
            tint = PALETTE[number % len(PALETTE)]
            below.plot(epochs, values, "s--", ms=3, color=tint, label=name.replace("_", "-"))
        below.legend(fontsize=7, handlelength=1.4, loc="best")
    below.set(xlabel="epoch", ylabel="geometry")
    below.xaxis.get_major_locator().set_params(integer=True)
    return figure
