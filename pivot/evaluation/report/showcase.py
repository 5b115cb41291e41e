"""Chapters of the report page to look at and listen to: the shared space, test clips."""

from __future__ import annotations

import re

import numpy as np

from pivot.evaluation.figures import svg
from pivot.evaluation.report.chapters import chapter, figure
from pivot.evaluation.report.exhibits import ClipExhibit, Exhibits
from pivot.evaluation.report.markup import Safe, data_uri, tag
from pivot.evaluation.report.similarity import (
    centred,
    cosines,
    heat_figure,
    map_figure,
    named_right,
    seriate,
)


def chapter_space(exhibits: Exhibits) -> Safe | None:
    """Where images, sounds and words lie: a map, and heat maps before and after training."""
    order = _order(exhibits)
    maps = _heat_maps(exhibits, order)
    drawings = [drawing for drawing in (_map(exhibits), *maps) if drawing]
    if not drawings:
        return None
    what = (
        "Training moves the sounds to where CLIP keeps the pictures, and so to the words, while "
        "images and words stay where they are. Each class is the mean of its held-out clips. From "
        "each modality its own mean is taken away, or the gap between modalities would be all that "
        "one sees. In the heat maps classes that look alike stand side by side, so blocks off the "
        "diagonal are looks that several sounds share; all are coloured by one scale."
    )
    return chapter("Where images, sounds and words lie", tag("p", what),
                   tag("div", *drawings, class_="pairs"))  # fmt: skip


def _order(exhibits: Exhibits) -> list[int]:
    """Classes in the order of their looks (or of whatever is known of them)."""
    for x in (exhibits.image, exhibits.text, exhibits.audio):
        if len(x):
            return seriate(x)
    return []


def _map(exhibits: Exhibits) -> Safe | None:
    known = {name: getattr(exhibits, name) for name in ("image", "audio", "text")}
    if not all(len(x) for x in known.values()):
        return None
    drawn = map_figure(known, exhibits.labels, exhibits.points, exhibits.point_labels)
    said = (
        "A map after training. A square is the mean image of a class, a dot its mean sound, its "
        "name the word; a line joins the three, and small marks are single clips. The axes are "
        "the two principal ones of the class means, so much of the space stays hidden."
    )
    return figure(svg(drawn, said), said)


def _heat_maps(exhibits: Exhibits, order: list[int]) -> list[Safe]:
    """Heat maps of each two modalities, the sounds before and after training, in one scale."""
    before, after = "untrained encoder", "after training"
    wanted = (
        ("image", exhibits.image, "word", exhibits.text, "frozen CLIP, which nothing here trains"),
        ("sound", exhibits.audio_before, "word", exhibits.text, before),
        ("sound", exhibits.audio, "word", exhibits.text, after),
        ("sound", exhibits.audio_before, "image", exhibits.image, before),
        ("sound", exhibits.audio, "image", exhibits.image, after),
    )
    known = [
        (rows, a[order], columns, b[order], stage)
        for rows, a, columns, b, stage in wanted
        if len(a) and len(b) and a.shape[1] == b.shape[1]
    ]
    tables = [cosines(centred(a), centred(b)) for _, a, _, b, _ in known]
    every = np.array(tables) if tables else np.zeros(1)
    limits = (float(every.min()), float(every.max()))
    labels = [exhibits.labels[i] for i in order]
    drawings = []
    for (rows, _, columns, _, stage), table in zip(known, tables, strict=True):
        said = (
            f"{rows.capitalize()} and {columns}, {stage}. The brightest {columns} of a row is that "
            f"of its own class for {named_right(table)} of {len(labels)} classes."
        )
        drawn = heat_figure(table, labels, f"{rows} of", f"{columns} (cosine)", limits)
        drawings.append(figure(svg(drawn, f"Heat map of cosines. {said}"), said))
    return drawings


def chapter_clips(exhibits: Exhibits) -> Safe | None:
    """Test clips with frames, player, true captions and those nearest to the sound."""
    if not exhibits.clips:
        return None
    what = (
        "Clips kept aside from all training. Beside the true captions stand those that lie nearest "
        "to the sound, with their cosines: with VA alone, and after fine-tuning on mined captions "
        "(AT). Marked are the clip's own captions, and others that name its class."
    )
    shown = [_clip(clip) for clip in exhibits.clips]
    return chapter("Listen for yourself", tag("p", what), *shown)


def _clip(clip: ClipExhibit) -> Safe:
    frames = [
        tag("img", src=data_uri(frame, "image/jpeg"), loading="lazy",
            alt=f"frame {number} of {len(clip.frames)} of {clip.label}")
        for number, frame in enumerate(clip.frames, 1)
    ]  # fmt: skip
    player = tag("audio", controls="", preload="metadata", src=data_uri(clip.sound, "audio/wav"),
                 aria_label=f"sound of {clip.label}")  # fmt: skip
    true = tag("ul", *(tag("li", caption) for caption in clip.captions))
    lists = (
        tag("div", tag("h4", "True captions"), true) if clip.captions else None,
        _nearest("Nearest before AT (VA)", clip.before, clip),
        _nearest("Nearest after AT", clip.after, clip),
    )
    return tag(
        "article",
        tag("h3", clip.label or "clip", tag("span", clip.id)),
        tag("div", *frames, class_="frames") if frames else None,
        player if clip.sound else tag("p", "No sound recorded.", class_="quiet"),
        tag("div", *lists, class_="lists"),
        class_="clip",
    )


def _nearest(title: str, found: tuple[tuple[float, str], ...], clip: ClipExhibit) -> Safe | None:
    if not found:
        return None
    items = []
    for score, caption in found:
        kind = _hit(caption, clip)
        badge = {"own": "its own", "kind": "names it"}.get(kind)
        words = tag("span", caption, tag("span", badge, class_="badge") if badge else None)
        items.append(tag("li", tag("span", f"{score:.2f}"), words, class_=kind))
    return tag("div", tag("h4", title), tag("ol", *items))


def _hit(caption: str, clip: ClipExhibit) -> str:
    """own: one of the clip's captions; kind: its class is named in the caption; other."""
    if caption in clip.captions:
        return "own"
    named = clip.label and re.search(rf"\b{re.escape(clip.label)}\b", caption, re.I)
    return "kind" if named else "other"
