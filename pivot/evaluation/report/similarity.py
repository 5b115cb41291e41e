"""Pictures of where images, sounds and words lie: heat maps of cosines, and a map in two axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pivot.evaluation.figures import INK, MUTED, PAPER, STYLE, canvas, short

Floats = NDArray[np.floating]

# Mid-bright, so that they stand on white and on black; neighbours in the list differ most.
CLASS_COLOURS = (
    "#0077bb", "#ee7733", "#009988", "#cc3399", "#997700", "#6666cc", "#cc3311", "#3399cc",
    "#669933", "#aa4499", "#b8860b", "#44aa99", "#dd5566", "#5588dd", "#888822", "#9966bb",
    "#cc7755", "#338866", "#bb5588", "#7788aa",
)  # fmt: skip
MOST_NAMES = 45  # beyond so many classes names would lie on each other and are left out


def cosines(a: Floats, b: Floats) -> Floats:
    """Cosine of each row of a (n, d) with each row of b (m, d): (n, m). A zero row gives zeros."""
    return _unit(a) @ _unit(b).T


def _unit(x: Floats) -> Floats:
    x = np.nan_to_num(np.asarray(x, dtype=np.float64))
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length > 0, length, 1)


def centred(x: Floats) -> Floats:
    """Unit rows of x (n, d) less their mean: the gap between modalities is gone."""
    return _unit(x) - _unit(x).mean(axis=0)


def named_right(similarity: Floats) -> int:
    """Rows of a square similarity whose largest value lies on the diagonal."""
    return int((np.argmax(similarity, axis=1) == np.arange(len(similarity))).sum())


def seriate(x: Floats) -> list[int]:
    """Order of the rows of x (n, d) in which neighbours look alike: always on to the nearest."""
    near = cosines(centred(x), centred(x))
    left = set(range(len(x)))
    order: list[int] = []
    while left:
        here = min(left) if not order else max(left, key=lambda i: (near[order[-1], i], -i))
        order.append(here)
        left.remove(here)
    return order


@matplotlib.rc_context(STYLE)
def heat_figure(
    similarity: Floats,
    labels: Sequence[str],
    rows: str,
    columns: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Cosines (n, n) of the class means of two modalities; `rows` and `columns` name the axes.

    limits: the values at the ends of the colours, so that two maps can be compared.
    """
    figure, ax = canvas(4.15)
    low, high = limits or (float(similarity.min()), float(similarity.max()))
    picture = ax.imshow(similarity, cmap="cividis", vmin=low, vmax=high, interpolation="none")
    size = min(9.0, 215 / max(len(labels), 1))
    if len(labels) <= MOST_NAMES:
        ticks, names = np.arange(len(labels)), [short(label, 16) for label in labels]
        ax.set_xticks(ticks, labels=names, rotation=90, size=size)
        ax.set_yticks(ticks, labels=names, size=size)
    else:
        ax.set(xticks=[], yticks=[])
    ax.tick_params(labelcolor=INK)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(xlabel=columns, ylabel=rows)
    bar = figure.colorbar(picture, ax=ax, orientation="horizontal", location="top", aspect=45,
                          pad=0.02)  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def map_figure(
    means: Mapping[str, Floats],
    labels: Sequence[str],
    points: Mapping[str, Floats] | None = None,
    point_labels: NDArray[np.integer] | None = None,
) -> Figure:
    """A map of the space: a colour for each class, a square, a dot and a word for its modalities.

    means: {"image", "audio", "text"} -> (classes, d). points: {"image", "audio"} -> (n, d), one a
    clip, of class point_labels (n,). From each modality its own mean is taken away (the gap between
    modalities would else be all that one sees); the axes are the principal ones of the class means.
    """
    figure, ax = canvas(4.2)
    homes = {what: _unit(x).mean(axis=0) for what, x in means.items()}
    middle = {what: centred(x) for what, x in means.items()}
    axes, share = principal_axes(np.concatenate(list(middle.values())))
    flat = {what: x @ axes for what, x in middle.items()}
    tints = [CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(len(labels))]
    for what, mark in (("image", "s"), ("audio", "o")):
        if points and point_labels is not None and len(points.get(what, ())):
            xy = (_unit(points[what]) - homes[what]) @ axes
            ax.scatter(xy[:, 0], xy[:, 1], s=7, marker=mark, alpha=0.22, lw=0,
                       c=[tints[int(i)] for i in point_labels])  # fmt: skip
    for i, tint in enumerate(tints):
        ax.plot(*np.stack([flat[what][i] for what in ("image", "text", "audio")]).T, color=tint,
                lw=0.8, alpha=0.6)  # fmt: skip
        ax.plot(*flat["image"][i], "s", color=tint, ms=6, mec=PAPER, mew=0.7)
        ax.plot(*flat["audio"][i], "o", color=tint, ms=6.5, mec=PAPER, mew=0.7)
    _name_words(ax, flat["text"], labels, tints)
    for mark, name in (("s", "image"), ("o", "sound"), ("", "and the class's name: the word")):
        ax.plot([], [], ls="", marker=mark, color=MUTED, ms=6, label=name)
    ax.set_xlabel(f"first axis ({100 * share[0]:.0f} % of the spread)")
    ax.set_ylabel(f"second axis ({100 * share[1]:.0f} %)")
    ax.set(xticklabels=[], yticklabels=[])
    figure.legend(
        loc="outside upper left", ncols=3, handlelength=0.8, handletextpad=0.4, columnspacing=1
    )
    return figure


def principal_axes(x: Floats) -> tuple[Floats, Floats]:
    """The two principal axes of centred rows x (n, d) as (d, 2), and their shares of the spread.

    Signs are fixed (the largest entry is positive) so that the same numbers give the same map.
    """
    _, s, axes = np.linalg.svd(x, full_matrices=False)
    axes, spread = axes[:2], s**2
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))  # one dimension has but one axis
    largest = axes[np.arange(2), np.abs(axes).argmax(axis=1)]
    share = np.pad(spread, (0, 2))[:2] / max(float(spread.sum()), 1e-12)
    return (axes * np.where(largest < 0, -1, 1)[:, None]).T, share


def _name_words(ax: Axes, places: Floats, labels: Sequence[str], tints: Sequence[str]) -> None:
    """Write each word where its embedding lies; words that would collide give way up or down."""
    names = [short(label, 16) for label in labels]
    if len(names) > MOST_NAMES:
        ax.scatter(places[:, 0], places[:, 1], marker="x", s=12, c=tints)
        return
    ax.margins(0.12, 0.08)
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    inches = np.array([3.6, 3.6]) / np.maximum(high - low, 1e-12)
    spots = spread_out((places - low) * inches, [0.085 * len(name) for name in names], 0.14)
    for i, name in enumerate(names):
        ax.annotate(name, places[i], spots[i] / inches + low, ha="center", va="center", size=8.5,
                    color=tints[i], weight="bold", zorder=5,
                    arrowprops={"arrowstyle": "-", "color": tints[i], "lw": 0.6, "shrinkB": 0,
                                "shrinkA": 0, "alpha": 0.7},
                    bbox={"fc": PAPER, "ec": "none", "alpha": 0.75, "pad": 0.6})  # fmt: skip


def spread_out(places: Floats, widths: Sequence[float], height: float) -> Floats:
    """Move boxes (centres (n, 2), own widths, one height) vertically until none overlap (nearly).

    A pair that overlaps is pushed apart by half of what is missing, at most 200 rounds.
    """
    places = np.array(places, dtype=np.float64)
    for _ in range(200):
        moved = False
        for i in range(len(places)):
            for j in range(i):
                across, up = np.abs(places[i] - places[j])
                if across < (widths[i] + widths[j]) / 2 and up < height - 1e-6:
                    sign = 1.0 if places[i, 1] >= places[j, 1] else -1.0
                    places[i, 1] += sign * (height - up) / 2
                    places[j, 1] -= sign * (height - up) / 2
                    moved = True
        if not moved:
            break
    return places
