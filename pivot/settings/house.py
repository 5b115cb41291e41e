"""Settings of the commands about Pivot itself: demo, bench."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional

from pivot.settings.base import Positive, Settings


class Demo(Settings):
    """Make a small world and run the whole journey on it, from videos to a report."""

    out: str = "demo"  # folder for everything; holds results.json and report.html at the end
    fast: bool = False  # fewer clips and steps: a check that everything works, in under two minutes
    seed: int = 1  # seed of the world's clips and of every training
    clips: int | None = None  # training clips; default 1500 (--fast: fewer)
    # also measure what a teacher chooses and softens (DU, DS, ADS, soft labels, distillation) and
    # the ideas beyond the papers, each beside its absence: about ten minutes more on two cores
    siblings: bool = False
    open: bool = False  # open the report in a browser at the end
    resume: bool = False  # keep the finished stages of an interrupted demo in --out


class Bench(Settings):
    """Measure what a station costs here, beside its peers, as ratios of one run."""

    what: Positional[Literal["fbank", "train", "match", "prepare", "loader"]]  # station
    out: str | None = None  # also write the figures to this JSON file
    threads: Positive = 1  # threads used by every candidate
    seconds: Annotated[float, Field(gt=0)] = 20.0  # time budget
