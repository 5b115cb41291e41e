"""The report's chapter on supervised classification: accuracy by the number of layers trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from pivot.evaluation.figures import MUTED, STYLE, canvas, colour, percent_axis, svg
from pivot.evaluation.report.chapters import chapter, figure
from pivot.evaluation.report.markup import Safe, tag
from pivot.evaluation.report.wording import NAMES, number, percent, scores

LEVELS = ("va", "at_gc")  # zero-shot accuracies beside which the curve is drawn


def chapter_layers(results: Mapping[str, Any]) -> Safe | None:
    """Accuracy against the number of the encoder's last layers that were trained (last-k)."""
    points = [
        point
        for point in results.get("last_layers") or ()
        if number(point.get("accuracy")) is not None and number(point.get("layers")) is not None
    ]
    if len(points) < 2:
        return None
    levels = {key: value for key, value in scores(results).items() if key in LEVELS}
    ends = [percent(points[place]["accuracy"]) for place in (0, -1)]
    alt = f"Accuracy {ends[0]} with {points[0]['layers']} layers trained, {ends[1]} with all."
    what = (
        "With labels for the training clips, a classifier on VA's encoder: a new head, and more "
        "and more of the encoder's last layers trained with it, all for the same few steps. "
        "Dashed: what VA, and VA with true captions, name through text alone."
    )
    words = tag("div", tag("p", what), tag("p", alt))
    drawn = figure(svg(layers_figure(points, levels), alt), "Supervised classification, last-k.")
    return chapter("With labels: how many layers to train", tag("div", words, drawn,
                                                                class_="glance"))  # fmt: skip


@matplotlib.rc_context(STYLE)
def layers_figure(points: Sequence[Mapping[str, Any]], levels: Mapping[str, float]) -> Figure:
    """points: {layers, accuracy (0..1)} in rising order; levels: zero-shot accuracy by model."""
    drawn, ax = canvas(2.7)
    layers = [float(point["layers"]) for point in points]
    ax.plot(layers, [point["accuracy"] for point in points], "o-", color=colour("at_ac"), ms=5)
    for key, level in levels.items():
        ax.axhline(level, color=colour(key), lw=1.2, ls="--")
        ax.annotate(NAMES.get(key, key), (1, level), (-2, 3), color=MUTED, ha="right", size=8.5,
                    xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip
    ax.set_xticks(layers, labels=[f"{n:g}" for n in layers])
    percent_axis(ax.yaxis)
    ax.set(xlabel="layers trained with the head, from the last", ylabel="accuracy")
    return drawn
