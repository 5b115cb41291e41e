"""A straight line through scores against log2(pairs), its bootstrap band, and where it arrives.

The line is ordinary least squares over all trainings. Its uncertainty comes from trainings that are
drawn again with replacement, within each size: their deviations from the mean of their size, times
sqrt(m / (m - 1)) for m trainings, as they lie closer to their own mean than to the true one. Where
a size has a single training, the deviations of all from the line are drawn instead (times
sqrt(n / (n - 2))). Intervals are percentiles. They speak of other seeds, not of other test clips,
and take the line for straight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pivot.errors import DataError

Floats = NDArray[np.float64]
LEAST_SIZES = 3
MOST_LOG2 = 40.0  # more pairs than that, 10^12, are written as none
BOOTSTRAP = 7331  # what the generator of resamplings is for


@dataclass(frozen=True)
class Line:
    """score = intercept + slope log2(pairs), and the same of every resampling."""

    intercept: float
    slope: float
    residual: float  # standard deviation of a training around the line
    count: int
    sizes: tuple[int, int]  # smallest and largest
    draws: Floats  # (resamples, 2): intercept, slope
    confidence: float
    drawn: str  # what was drawn again

    def at(self, pairs: ArrayLike) -> Floats:
        """Score of the line."""
        return self.intercept + self.slope * np.log2(np.asarray(pairs, np.float64))

    def band(self, pairs: ArrayLike) -> tuple[Floats, Floats]:
        """Lower and upper end of the interval of the line at each number of pairs."""
        x = np.atleast_1d(np.log2(np.asarray(pairs, np.float64)))
        low, high = self._ends(self.draws[:, :1] + self.draws[:, 1:] * x)
        return low, high

    @property
    def slope_interval(self) -> tuple[float, float]:
        """Lower and upper end of the points a doubling."""
        low, high = self._ends(self.draws[:, 1])
        return float(low), float(high)

    def reach(self, target: float) -> dict[str, Any]:
        """Pairs at which the line has the score `target`, with interval and warning.

        pairs, low, high are None where there is no number: a line that does not rise, or more than
        2^40. `beyond` is the distance from the nearest subset in doublings (0 within the data,
        negative below it), `warning` says it in words.
        """
        found: dict[str, Any] = {"score": target, "pairs": None, "low": None, "high": None}
        if self.slope <= 0:
            return found | {"warning": "the line does not rise: it never gets there"}
        log2 = (target - self.intercept) / self.slope
        rising = self.draws[self.draws[:, 1] > 0]
        crossings = np.full(len(self.draws), np.inf)
        crossings[: len(rising)] = (target - rising[:, 0]) / rising[:, 1]
        low, high = (_pairs(float(end)) for end in self._ends(crossings))
        small, large = (math.log2(size) for size in self.sizes)
        beyond = max(log2 - large, 0.0) or min(log2 - small, 0.0)
        found |= {"pairs": _pairs(log2), "log2_pairs": log2, "low": low, "high": high}
        return found | {"beyond": beyond, "warning": self._warning(beyond, high)}

    def facts(self, until: float | None = None) -> dict[str, Any]:
        """For results.json, with the band from the smallest set to the largest, or to `until`."""
        small, large = self.sizes
        x = np.geomspace(small, max(large, until or large), 33)
        low, high = self.band(x)
        slope_low, slope_high = self.slope_interval
        return {
            "intercept": self.intercept,
            "slope": self.slope,
            "slope_low": slope_low,
            "slope_high": slope_high,
            "residual": self.residual,
            "trainings": self.count,
            "confidence": self.confidence,
            "resamples": len(self.draws),
            "method": f"least squares of the score on log2(pairs); bootstrap over {self.drawn}, "
            "percentile intervals",
            "band": {
                "pairs": x.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "name": f"{100 * self.confidence:g} % (bootstrap)",
            },
        }

    def _ends(self, values: Floats) -> Floats:
        """Lower and upper percentile along the first axis; of values that may be infinite."""
        outside = (1 - self.confidence) / 2
        ends = np.quantile(values, [outside, 1 - outside], axis=0, method="inverted_cdf")
        return np.asarray(ends)

    def _warning(self, beyond: float, high: int | None) -> str | None:
        small, large = self.sizes
        if beyond > 0:
            return f"extrapolated 2^{beyond:.1f} times beyond the largest subset ({large:,} pairs)"
        if beyond < 0:
            return (
                f"extrapolated 2^{-beyond:.1f} times below the smallest subset ({small:,} pairs): "
                "the target is lower than the data"
            )
        if high is None or high > large:
            return f"its interval leaves the data: the largest subset has {large:,} pairs"
        return None


def fit_line(
    pairs: Sequence[int],
    scores: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Line:
    """Fit the line through trainings: pairs (n,) and scores (n,), any number of them a size.

    The same input and seed give the same intervals. Raises DataError for fewer than three
    different sizes, a size below 1 or a score that is not a number.
    """
    sizes = sorted(set(pairs))
    if len(sizes) < LEAST_SIZES:
        raise DataError(
            f"{len(sizes)} sizes make no line with a confidence band; train at {LEAST_SIZES} or "
            "more"
        )
    y = np.asarray(scores, np.float64)
    if sizes[0] < 1 or not np.isfinite(y).all():
        raise DataError("a score is not a number, or a size is 0; train those sizes again")
    x = np.log2(np.asarray(pairs, np.float64))
    intercept, slope = _least_squares(x, y[None])[0].tolist()
    line = intercept + slope * x
    residual = math.sqrt(float(((y - line) ** 2).sum()) / (len(x) - 2))
    groups = [np.flatnonzero(np.asarray(pairs) == size) for size in sizes]
    rng = np.random.default_rng([seed, BOOTSTRAP])
    if min(map(len, groups)) > 1:
        drawn = "trainings within sizes"
        again = np.empty((resamples, len(x)))
        for group in groups:
            mean = y[group].mean()
            off = (y[group] - mean) * math.sqrt(len(group) / (len(group) - 1))
            again[:, group] = mean + off[rng.integers(len(group), size=(resamples, len(group)))]
    else:
        drawn = "the deviations from the line (a size has one training)"
        off = (y - line) * math.sqrt(len(x) / (len(x) - 2))
        again = line + off[rng.integers(len(x), size=(resamples, len(x)))]
    draws = _least_squares(x, again)
    ends = (sizes[0], sizes[-1])
    return Line(intercept, slope, residual, len(x), ends, draws, confidence, drawn)


def _least_squares(x: Floats, y: Floats) -> Floats:
    """Intercept and slope (R, 2) of rows y (R, n) over x (n,)."""
    away = x - x.mean()
    slope = y @ away / float(away @ away)
    return np.stack([y.mean(axis=1) - slope * x.mean(), slope], axis=1)


def _pairs(log2: float) -> int | None:
    """Whole pairs, upwards, but not for a rounding error."""
    return math.ceil(2**log2 * (1 - 1e-9)) if log2 <= MOST_LOG2 else None
