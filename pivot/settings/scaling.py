"""Settings of scaling-curve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pivot.settings.base import Positive, Shards, Share, TestShards
from pivot.settings.training import FitSettings


class ScalingCurve(FitSettings):
    """Train on nested subsets of gold pairs and fit the score against log2(pairs)."""

    shards: Shards  # folder whose sounds the pairs name
    # folder with the held-out clips, labelled: the target speaks of these
    test: TestShards
    model: str  # run or model folder to start from
    pairs: str  # gold pairs (mine-captions --rule gold, or CSV / JSON lines)
    # more held-out clips: each is scored by its labels, its captions, or both
    more_tests: tuple[str, ...] = ()
    sizes: tuple[Positive, ...] = ()  # numbers of pairs; default: doubling from 1/128 of all
    # shares of all pairs instead of sizes, each rounded down as the reference does (0.01 of 44118
    # is 441)
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)  # one nested order of the pairs and one training each
    # own: numpy's generators, an order a seed; vip_ant: the reference's double permutation with
    # numpy seed 1213, which all seeds share
    order: Literal["own", "vip_ant"] = "own"
    # trainings side by side, each in a process with one thread and its share of --cache-mb
    jobs: Positive = 1
    # K/N: do the K-th of N shares; N processes or machines share --out, the last one draws the
    # curve. As a Slurm array: sbatch --array=1-8 --wrap
    # 'pivot scaling-curve ... --part $SLURM_ARRAY_TASK_ID/8'
    part: str | None = None
    labels: str | None = None  # label list; default: the labels in the test shards
    prompt: str = "the sound of"  # before a label
    caption_prompt: str = ""  # before a test clip's caption
    target: Share | None = None  # say how many pairs reach this accuracy
    resamples: Positive = 2000  # of the trainings, for the intervals (bootstrap)
