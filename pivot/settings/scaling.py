"""Settings of scaling-curve."""

from __future__ import annotations

from typing import Literal

from pivot.settings.base import Positive, Shards, Share, TestShards
from pivot.settings.training import FitSettings


class ScalingCurve(FitSettings):
    """Train on nested subsets of gold pairs and fit the score against log2(pairs)."""

    shards: Shards  # folder whose sounds the pairs name
    test: TestShards  # folder with the held-out clips
    model: str  # run or model folder to start from
    pairs: str  # gold pairs (mine-captions --rule gold, or CSV / JSON lines)
    sizes: tuple[Positive, ...] = ()  # numbers of pairs; default: doubling from 1/128 of all
    seeds: tuple[int, ...] = (1, 2, 3)  # one nested order of the pairs and one training each
    # own: numpy's generators; vip_ant: the reference's double permutation with numpy seed 1213
    order: Literal["own", "vip_ant"] = "own"
    jobs: Positive = 1  # trainings side by side, each in a process
    labels: str | None = None  # label list; default: the labels in the test shards
    prompt: str = "the sound of"  # before a label
    target: Share | None = None  # say how many pairs reach this accuracy
