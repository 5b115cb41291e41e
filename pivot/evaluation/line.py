"""A straight line through scores against log2(pairs), its confidence band, and where it arrives.

Ordinary least squares over all trainings; the band is Student's t for the line's mean (95 %, n - 2
degrees of freedom) and takes trainings as independent: their seeds differ, the test clips do not.
Where the band meets a target (Fieller's interval) lie the pairs that the target may need.
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
MOST_LOG2 = 62.0  # more pairs than that are written as none
METHOD = (
    "least squares of the score on log2(pairs) over all trainings; Student's t band of the mean; "
    "target interval by Fieller"
)


@dataclass(frozen=True)
class Line:
    """score = intercept + slope log2(pairs), with what its uncertainty needs."""

    intercept: float
    slope: float
    residual: float  # standard deviation of a training around the line
    count: int
    centre: float  # mean of log2(pairs)
    spread: float  # sum of squares around it
    t: float  # Student's t of the confidence
    confidence: float

    def at(self, pairs: ArrayLike) -> Floats:
        """Score of the line."""
        return self.intercept + self.slope * np.log2(np.asarray(pairs, np.float64))

    def margin(self, pairs: ArrayLike) -> Floats:
        """Half the width of the band."""
        away = np.log2(np.asarray(pairs, np.float64)) - self.centre
        wide = np.sqrt(1 / self.count + away**2 / self.spread)
        return np.asarray(self.t * self.residual * wide)

    @property
    def slope_margin(self) -> float:
        """Half the width of the slope's interval."""
        return self.t * self.residual / math.sqrt(self.spread)

    def reach(self, target: float) -> dict[str, Any]:
        """Pairs at which the line has the score `target`, and the interval where its band has it.

        A number is None where there is none: a line that does not rise, a bound beyond 2^62, or
        no bound at all because the slope might be 0.
        """
        found: dict[str, Any] = {"score": target, "pairs": None, "low": None, "high": None}
        if self.slope <= 0:
            return found
        log2 = (target - self.intercept) / self.slope
        found |= {"pairs": _pairs(log2), "log2_pairs": log2}
        g = self.slope_margin**2
        steep = self.slope**2 - g
        if steep <= 0:
            return found
        gap = self.intercept + self.slope * self.centre - target
        square = g * gap**2 + steep * (self.t * self.residual) ** 2 / self.count
        low, high = ((-self.slope * gap + s * math.sqrt(square)) / steep for s in (-1, 1))
        return found | {"low": _pairs(self.centre + low), "high": _pairs(self.centre + high)}

    def facts(self, smallest: int, largest: int) -> dict[str, Any]:
        """For results.json, with the band drawn from the smallest to the largest set."""
        x = np.geomspace(smallest, largest, 33)
        middle, margin = self.at(x), self.margin(x)
        return {
            "intercept": self.intercept,
            "slope": self.slope,
            "slope_low": self.slope - self.slope_margin,
            "slope_high": self.slope + self.slope_margin,
            "residual": self.residual,
            "trainings": self.count,
            "confidence": self.confidence,
            "method": METHOD,
            "band": {
                "pairs": x.tolist(),
                "low": (middle - margin).tolist(),
                "high": (middle + margin).tolist(),
            },
        }


def fit_line(pairs: Sequence[int], scores: Sequence[float], confidence: float = 0.95) -> Line:
    """Fit the line; raises DataError for fewer than three different sizes or a score of NaN."""
    sizes = len(set(pairs))
    if sizes < LEAST_SIZES:
        raise DataError(
            f"{sizes} sizes make no line with a confidence band; train at {LEAST_SIZES} or more"
        )
    x, y = np.log2(np.asarray(pairs, np.float64)), np.asarray(scores, np.float64)
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise DataError("a score is not a number, or a size is 0; train those sizes again")
    centre, spread = float(x.mean()), float(((x - x.mean()) ** 2).sum())
    slope = float(((x - centre) * (y - y.mean())).sum() / spread)
    intercept = float(y.mean()) - slope * centre
    free = len(x) - 2
    residual = math.sqrt(float(((y - intercept - slope * x) ** 2).sum()) / free)
    t = student_t(confidence, free)
    return Line(intercept, slope, residual, len(x), centre, spread, t, confidence)


def student_t(confidence: float, free: int) -> float:
    """The t that |T| stays below with probability `confidence`, for `free` degrees of freedom.

    With T = sqrt(free) tan(u) the density is cos(u)^(free - 1) on (-pi/2, pi/2): one sum over u.
    """
    u = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(u) ** (free - 1)
    steps = (density[1:] + density[:-1]) / 2
    below = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    return float(math.sqrt(free) * np.tan(np.interp(confidence, below, u)))


def _pairs(log2: float) -> int | None:
    """Whole pairs, upwards, but not for a rounding error."""
    return math.ceil(2**log2 * (1 - 1e-9)) if log2 <= MOST_LOG2 else None
