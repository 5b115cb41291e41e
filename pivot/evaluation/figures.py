"""Figures of the report, and the look of all figures: one, legible at the width of a phone.

Every function returns a matplotlib `Figure` (no pyplot, no global state) that is 4 inches wide, so
that its letters stay readable on a phone. `save(figure, path)` writes it by its suffix (.png, .svg,
.pdf); `svg(figure, alt)` makes the text for a page, where ink and paper follow the page's theme.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from video_prep.files import write_whole

INK, MUTED, LINE, PAPER = "#1d2433", "#5c6575", "#d5dae2", "#fefefe"
# In a page these four become CSS variables; all other colours work on light and on dark.
THEME = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--paper)"}

# One colour a model in every figure; from Paul Tol's vibrant scheme, safe for colour-blind readers.
COLOURS = {
    "clip_image": "#8a93a3",
    "untrained": "#8a93a3",
    "va_random_init": "#66a9d9",
    "va": "#0077bb",
    "at_rc": "#8a93a3",
    "at_vc": "#c25fa8",
    "at_fc": "#b59a2c",
    "at_ac": "#ee7733",
    "at_gc": "#009988",
}
OTHERS = ("#cc3311", "#7b68c9", "#5a8f3c", "#a0643c")

WIDTH = 4.0  # inches
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 200,
    "svg.fonttype": "none",  # letters stay letters: small, searchable, in the page's own font
    "svg.hashsalt": "pivot",  # the same figure is the same bytes
    "text.parse_math": False,  # a label may hold a dollar sign
}


def colour(key: str) -> str:
    """Colour of a model or run, the same in every figure."""
    spare = OTHERS[int(hashlib.sha256(key.encode()).hexdigest(), 16) % len(OTHERS)]
    return COLOURS.get(key, spare)


def canvas(height: float) -> tuple[Figure, Axes]:
    """An empty figure of the house's width and `height` inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def short(text: str, most: int = 20) -> str:
    """A label that leaves room for the figure: cut with an ellipsis where it is too long."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def percent_axis(axis: Any) -> None:
    """Write shares between 0 and 1 as percent along an axis."""
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


@matplotlib.rc_context(STYLE)
def curves_figure(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, str], field: str = "loss"
) -> Figure:
    """One line a run: `field` (loss or scale) against the optimiser step; gaps where unknown."""
    figure, ax = canvas(2.7)
    for run, rows in curves.items():
        x = [row.get("step", number) for number, row in enumerate(rows)]
        y = [math.nan if row.get(field) is None else float(row[field]) for row in rows]
        mark = "o" if len(rows) == 1 else ""
        style = "--" if run in {"at_rc", "va_random_init"} else "-"
        ax.plot(
            x, y, style, marker=mark, color=colour(run), lw=1.6, label=short(names.get(run, run))
        )
    ax.set(xlabel="optimiser step", ylabel=field)
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6, columnspacing=1.2)
    return figure


@matplotlib.rc_context(STYLE)
def overview_figure(
    scores: Mapping[str, float],
    names: Mapping[str, str],
    chance: float,
    errors: Mapping[str, float | None],
) -> Figure:
    """A bar for each model's zero-shot accuracy; CLIP's own (the ceiling) hatched; chance a line.

    Each model's name stands above its bar, so that a phone shows both.
    """
    figure, ax = canvas(0.55 + 0.43 * len(scores))
    top = max([*scores.values(), 0.2])
    for row, (key, value) in enumerate(scores.items()):
        error = errors.get(key)
        outline: dict[str, Any] = {"facecolor": "none", "edgecolor": colour(key), "hatch": "////"}
        fill = outline if key == "clip_image" else {"color": colour(key)}
        ax.barh(row, value, 0.42, xerr=error, error_kw={"ecolor": MUTED, "lw": 1}, **fill)
        ax.text(0, row - 0.3, short(names.get(key, key), 36), va="bottom", color=INK)
        ax.text(value + (error or 0) + 0.012 * top, row, f"{100 * value:.1f} %", va="center",
                color=INK)  # fmt: skip
        ax.plot([chance, chance], [row - 0.25, row + 0.25], ":", color=INK, lw=1)
    ax.set(xlim=(0, min(1.18 * top, 1.2)), ylim=(len(scores) - 0.6, -0.95), yticks=[])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    percent_axis(ax.xaxis)
    ax.set_xlabel(f"zero-shot accuracy; dotted: chance, {100 * chance:.1f} %")
    return figure


@matplotlib.rc_context(STYLE)
def per_class_figure(
    per_class: Mapping[str, Mapping[str, float]],
    labels: Sequence[str],
    names: Mapping[str, str],
    chance: float | None = None,
) -> Figure:
    """Accuracy of each class, one bar a model side by side; a class without clips has no bar."""
    figure, ax = canvas(0.75 + len(labels) * (0.1 + 0.13 * len(per_class)))
    thick = 0.84 / max(len(per_class), 1)
    rows = np.arange(len(labels))
    for number, (key, accuracy) in enumerate(per_class.items()):
        value = [accuracy.get(label, math.nan) for label in labels]
        place = rows + (number - (len(per_class) - 1) / 2) * thick
        # A thin stub at zero tells a bar of nothing from a class that is not there.
        ax.barh(place, value, 0.9 * thick, color=colour(key), label=short(names.get(key, key)),
                edgecolor=colour(key), lw=0.6)  # fmt: skip
    if chance is not None:
        ax.axvline(chance, color=MUTED, lw=1, ls=":")
    ax.set_yticks(rows, labels=[short(label) for label in labels])
    ax.tick_params(axis="y", labelcolor=INK)
    ax.set(xlim=(0, 1.02), ylim=(len(labels) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)
    percent_axis(ax.xaxis)
    figure.legend(loc="outside upper left", ncols=len(per_class), handlelength=1, columnspacing=1)
    return figure


@matplotlib.rc_context(STYLE)
def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as .png, .svg or .pdf (by the suffix), whole or not at all."""
    write_whole(path, _drawn(figure, Path(path).suffix.lstrip(".").lower() or "png"))


def _drawn(figure: Figure, kind: str, transparent: bool = False) -> bytes:
    """The file's bytes, without a date, so that the same figure is the same bytes."""
    buffer = io.BytesIO()
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with warnings.catch_warnings():
        if kind == "svg":  # the reader's browser draws the letters and has them
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format=kind, metadata=dated, transparent=transparent)
    return buffer.getvalue()


@matplotlib.rc_context(STYLE)
def svg(figure: Figure, alt: str) -> str:
    """A figure as an <svg> element for a page; `alt` tells its content to who cannot see it."""
    text = _drawn(figure, "svg", transparent=True).decode()
    mark = hashlib.sha256((text + alt).encode()).hexdigest()[:8]
    body = text[text.index(">", text.index("<svg")) + 1 :]
    # Its metadata and its rule for `*` would reach the whole page; ids must be unique there.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{mark}-", body)
    body = re.sub("|".join(THEME), lambda found: THEME[found.group()], body)
    width, height = (72 * inches for inches in figure.get_size_inches())
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width:g} {height:g}" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body.strip()}'
    )
