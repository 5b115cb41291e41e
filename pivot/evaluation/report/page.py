"""The report page: the numbers, figures and sounds of a whole journey in one HTML file.

`write_report(path, results, exhibits)`: `results` is results.json (contract 2 of the design),
`exhibits` what a page needs beyond numbers. Whatever is missing is left out of the page; only
`chance` and `zero_shot` must be there. Read where present, beside contract 2:
counts {zero_shot, retrieval_clips, retrieval_captions} (standard errors, chance of retrieval),
retrieval.clip_image (CLIP's own row), fit {intercept, slope, band, target}, settings, versions,
notes (sentences to print below the table).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pivot.errors import DataError
from pivot.evaluation.report.chapters import (
    chapter_classes,
    chapter_headline,
    chapter_own_videos,
    chapter_scaling,
    chapter_seconds,
    chapter_settings,
    chapter_table,
    chapter_training,
)
from pivot.evaluation.report.exhibits import ClipExhibit, Exhibits
from pivot.evaluation.report.layers import chapter_layers
from pivot.evaluation.report.markup import Safe, page, tag
from pivot.evaluation.report.showcase import chapter_clips, chapter_space
from pivot.evaluation.report.wording import number
from video_prep.files import write_whole

__all__ = ["ClipExhibit", "Exhibits", "write_report"]

TITLE = "Pivot: sound and words, joined by pictures"
WHAT = (
    "An audio encoder learned to put a sound where a frozen CLIP puts the video frame beside it, "
    "so that text finds sound although no pair of text and sound was ever shown (VIP-ANT). Then it "
    "found captions for its own sounds through the pictures and learned from them; the numbers "
    "below are from clips that were kept aside."
)


def write_report(path: str | Path, results: Mapping[str, Any], exhibits: Exhibits) -> None:
    """Write the page, whole or not at all.

    Raises DataError when `results` lacks `zero_shot` or `chance`, without which it says nothing.
    """
    if not isinstance(results.get("zero_shot"), Mapping) or number(results.get("chance")) is None:
        raise DataError(
            f"cannot make {path}: results have no zero_shot or no chance; run the demo or "
            "`pivot evaluate` again"
        )
    chapters = (
        chapter_headline(results),
        chapter_table(results),
        chapter_clips(exhibits),
        chapter_space(exhibits),
        chapter_classes(results, exhibits),
        chapter_scaling(results),
        chapter_layers(results),
        chapter_training(exhibits),
        chapter_seconds(results),
        chapter_own_videos(),
    )
    head = tag("header", tag("h1", TITLE), tag("p", WHAT, class_="lead"), _made(results))
    foot = tag("footer", chapter_settings(results))
    write_whole(path, page(TITLE, head, tag("main", *chapters), foot))


def _made(results: Mapping[str, Any]) -> Safe | None:
    """How many clips went in, and how many failed."""
    clips = results.get("clips")
    if not isinstance(clips, Mapping):
        return None
    made, prepared, failed = (number(clips.get(key)) for key in ("made", "prepared", "failed"))
    parts = [
        f"{value:,.0f} {what}"
        for value, what in ((made, "videos made"), (prepared, "prepared"), (failed, "failed"))
        if value is not None
    ]
    return tag("p", f"{', '.join(parts)}.", class_="quiet") if parts else None
