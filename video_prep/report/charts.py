"""Bars for summary.html, in plain HTML: a histogram of lengths and the commonest rates."""

from __future__ import annotations

import math
from collections import Counter

_MOST_BARS = 24  # bars of a histogram
_MOST_VALUES = 8  # rates listed by themselves
_USUAL = 0.99  # share of the clips that the axis is made for, where the rest is far longer
_NEAR = 1e-9  # of a bar; 0.3 / 0.1 is a little less than 3


def lengths(seconds: Counter[float]) -> str:
    """Histogram of seconds -> clips: equal bars from 0 on, and one for what is far longer."""
    if not seconds:
        return ""
    top = _top(seconds)
    step = _nice(top / (_MOST_BARS - 2)) if top > 0 else 1.0
    count = math.floor(top / step + _NEAR) + 1
    bars = [0] * (count + 1)  # the last one for all that is longer
    for value, number in seconds.items():
        bars[min(math.floor(value / step + _NEAR), count)] += number
    titles = [f"{k * step:g} to {(k + 1) * step:g} s" for k in range(count)]
    end = f"{count * step:g}"
    beyond = bars[count] > 0
    titles.append(f"{end} s or longer")
    shown = count + beyond
    columns = "".join(
        f'<i style="height:{100 * bars[k] / max(bars):.2f}%" title="{titles[k]}: {bars[k]:,}"'
        f"{' class=over' * (k == count)}></i>"
        if bars[k]
        else "<i></i>"
        for k in range(shown)
    )
    marks = [(0.0, "0")]
    mark = _nice(count * step / 5)
    marks += [(k * mark, f"{k * mark:g}") for k in range(1, math.floor(top / mark + _NEAR) + 1)]
    ticks = "".join(
        f'<span style="left:{100 * value / (step * shown):.2f}%">{text}</span>'
        for value, text in marks
        if value <= (count - 2 * beyond) * step  # room for the mark of the last bar
    )
    if beyond:
        ticks += f'<span style="left:{100 * (shown - 0.5) / shown:.2f}%">≥ {end}</span>'
    return _chart(
        "Length of the clips",
        f"clips by seconds, {step:g} s a bar; shortest {min(seconds):g} s, "
        f"longest {max(seconds):g} s",
        f'<div class="hist"><div class="y"><span>{max(bars):,}</span><span>0</span></div>'
        f'<div class="plot">{columns}</div><div class="x">{ticks}</div></div>',
    )


def rates(title: str, unit: str, values: Counter[float]) -> str:
    """The commonest values in rising order, each with its number of clips, then all others."""
    if not values:
        return ""
    common = sorted(sorted(values, key=lambda value: (-values[value], value))[:_MOST_VALUES])
    rows = [(f"{value:,g}", values[value]) for value in common]
    if left := values.total() - sum(number for _, number in rows):
        others = len(values) - len(common)
        rows.append((f"{others:,} other{'s' * (others != 1)}", left))
    largest = max(number for _, number in rows)
    bars = "".join(
        f'<span>{name}</span><u><i style="width:{100 * number / largest:.2f}%"></i></u>'
        f"<span>{number:,}</span>"
        for name, number in rows
    )
    return _chart(title, f"clips by {unit}", f'<div class="rows">{bars}</div>')


def _chart(title: str, note: str, body: str) -> str:
    return f'<div class="chart"><h3>{title}</h3><p>{note}</p>{body}</div>'


def _top(seconds: Counter[float]) -> float:
    """Where the axis ends: the longest, unless nearly all are less than half as long."""
    total, seen = seconds.total(), 0
    for value in sorted(seconds):
        seen += seconds[value]
        if seen >= _USUAL * total:
            return value if max(seconds) > 2 * value > 0 else max(seconds)
    return max(seconds)


def _nice(width: float) -> float:
    """The first of ..., 0.5, 1, 2, 5, 10, 20, ... that is not smaller."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= width * (1 - _NEAR))
