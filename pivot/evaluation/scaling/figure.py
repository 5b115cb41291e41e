"""The scaling curve as a picture: trainings as dots, their line with its band, the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pivot.evaluation.figures import MUTED, STYLE, canvas, colour, percent_axis

# Doublings beyond the largest set up to which a target is drawn; farther out, the picture would be
# nothing but a guess.
DRAWN_BEYOND = 6


@matplotlib.rc_context(STYLE)
def scaling_figure(
    points: Sequence[Mapping[str, Any]],
    fit: Mapping[str, Any] | None,
    target: float | None = None,
    *,
    chance: float | None = None,
    start: float | None = None,
    score: str = "zero-shot accuracy",
) -> Figure:
    """Accuracy against the number of gold pairs on a log2 axis, every seed a dot.

    points: {pairs, zero_shot (0..1), seed}. fit: {intercept, slope} of zero_shot = intercept +
    slope * log2(pairs), and, where known, band {pairs, low, high} and target_interval (low, high).
    target: accuracy (0..1) to mark, with the pairs at which the line reaches it. Beyond the data
    the line is dashed. chance, start: levels without any pair. score: what the dots are, in words.
    """
    figure, ax = canvas(3.1)
    pairs = np.array([float(point["pairs"]) for point in points])
    values = np.array([float(point["zero_shot"]) for point in points])
    ax.scatter(
        pairs, values, s=16, color=colour("at_gc"), alpha=0.75, label="one training", zorder=3
    )
    ends = _draw_fit(ax, fit or {}, pairs, target)
    for level, name in ((chance, "chance"), (start, "no pairs (VA)"), (target, "target")):
        if level is not None:
            # The line reaches its target at the right end, so that name stands at the left.
            left = name == "target"
            ax.axhline(level, color=MUTED, lw=1, ls="--" if left else ":")
            ax.annotate(name, (0 if left else 1, level), (2 if left else -2, 3), color=MUTED,
                        xycoords=("axes fraction", "data"), textcoords="offset points",
                        ha="left" if left else "right", size=8.5)  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(label_places(sorted({*pairs, *ends}))))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    percent_axis(ax.yaxis)
    ax.set(xlabel="true audio-text pairs", ylabel=score)
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.2)
    return figure


def _draw_fit(
    ax: Axes, fit: Mapping[str, Any], pairs: np.ndarray, target: float | None
) -> list[float]:
    """Draw line and band; returns the pairs at which the line reaches the target, if near."""
    if not len(pairs) or not _finite(fit.get("intercept")) or not _finite(fit.get("slope")):
        return []
    intercept, slope = float(fit["intercept"]), float(fit["slope"])
    end, crossing = float(pairs.max()), []
    if target is not None and slope > 0:
        power = (target - intercept) / slope
        if math.log2(pairs.min()) <= power <= math.log2(end) + DRAWN_BEYOND:
            crossing = [2.0**power]
    for first, last, style in ((pairs.min(), end, "-"), (end, max([end, *crossing]), "--")):
        x = np.array([first, last])
        ax.plot(x, intercept + slope * np.log2(x), style, color=colour("at_gc"), zorder=2,
                label="fit" if style == "-" else None)  # fmt: skip
    band = fit.get("band") or {}
    if band.get("pairs"):
        ax.fill_between(band["pairs"], band["low"], band["high"], color=colour("at_gc"), alpha=0.25,
                        lw=0, label=band.get("name", "its 95 % band"))  # fmt: skip
    low, high = fit.get("target_interval") or (None, None)
    for value in crossing:
        level = intercept + slope * math.log2(value)
        if low and high and high <= 2**DRAWN_BEYOND * value:
            ax.plot([low, high], [level, level], color=colour("at_ac"), lw=2.5, zorder=3)
        ax.plot([value], [level], "D", color=colour("at_ac"), ms=6, zorder=4,
                label=f"target: {short_number(value)} pairs")  # fmt: skip
    return crossing


def label_places(values: Sequence[float], share: float = 0.13) -> list[float]:
    """Of rising values those with room for a label on a log axis: both ends, others between.

    `share` is the least distance of two labels, of the whole axis.
    """
    kept = [*dict.fromkeys([*values[:1], *values[-1:]])]
    least = share * math.log2(values[-1] / values[0]) if values else 0.0
    for value in reversed(values[1:-1]):
        if all(abs(math.log2(other / value)) >= least for other in kept):
            kept.append(value)
    return sorted(kept)


def short_number(value: float) -> str:
    """1500 as 1,500, 44118 as 44k, 2000000 as 2.0M."""
    if value >= 999_500:
        return f"{value / 1e6:.2g}M"
    return f"{value / 1000:.0f}k" if value >= 9_999.5 else f"{value:,.0f}"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
