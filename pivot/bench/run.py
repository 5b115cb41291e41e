"""`pivot bench STATION`: what a station costs here, beside its peers, as ratios of one run."""

from __future__ import annotations

from importlib import import_module

from pivot.runs import versions
from pivot.settings import Bench
from video_prep.files import write_json


def run(settings: Bench) -> int:
    """Run the benchmark of one station, which prints its table; write the figures with --out."""
    figures = import_module(f"pivot.bench.{settings.what}").bench(settings)
    if settings.out:
        write_json(settings.out, {"station": settings.what, **figures, "versions": versions()})
    return 0
