"""summary.html as text: one page that needs nothing else, from what the summary collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from video_prep.report.charts import lengths, rates
from video_prep.report.style import FRAME, STYLE


@dataclass
class Sample:
    """A clip to show: its frames as (seconds or None, picture as a data URI or empty)."""

    id: str
    flags: list[str]
    frames: list[tuple[float | None, str]]


@dataclass
class Group:
    """Clips to show that share a flag."""

    name: str
    meaning: str
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Page:
    """All that the page shows; rates are in Hz, the counters map a value to a number of clips."""

    manifest: dict[str, Any]
    meanings: dict[str, str]  # of the flags
    examples: dict[str, list[tuple[str, str]]]  # reason -> (id, error) of a few clips
    groups: list[Group]
    seconds: Counter[float]
    frame_rates: Counter[float]
    sound_rates: Counter[float]


def page(found: Page) -> str:
    """The page; equal input gives equal text, and all texts of clips are escaped."""
    manifest, counts = found.manifest, found.manifest["counts"]
    parts = [
        _head(manifest),
        _reasons(counts, found.examples),
        _flags(counts, found.meanings),
        "".join(_group(group) for group in found.groups),
        _section(
            "Lengths and rates",
            '<div class="charts">'
            + lengths(found.seconds)
            + rates("Frame rate of the videos", "frames/s", found.frame_rates)
            + rates("Sound rate of the files", "Hz", found.sound_rates)
            + "</div>",
        ),
        _made(manifest),
    ]
    title = f"{_clips(counts['clips'])}, {manifest['command']}"
    body = "\n".join(filter(None, parts))
    return FRAME.format(title=_text(title), style=STYLE, body=body)


def shown(text: str, most: int = 300) -> str:
    """A text of a clip for people: cut, and what cannot be printed written as \\xNN."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def by_count(found: dict[str, int]) -> list[tuple[str, int]]:
    """Names with their numbers, the largest number first, then by name."""
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def percent(number: int, whole: int) -> str:
    """Share as text; what is neither none nor all is never rounded to it."""
    share = 100 * number / whole if whole else 0.0
    if 0 < share < 0.1:
        return "<0.1 %"
    if 99.9 < share < 100:
        return ">99.9 %"
    return f"{share:.1f} %"


def _text(value: Any) -> str:
    return escape(shown(str(value)))


def _clips(number: int) -> str:
    return f"{number:,} clip{'s' * (number != 1)}"


def size_text(count: int) -> str:
    """Bytes as text: 1.23 MB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


# ---- sections ------------------------------------------------------------------------------


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _table(classes: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{classes}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _head(manifest: dict[str, Any]) -> str:
    counts = manifest["counts"]
    tiles = [
        ("prepared", f"{counts['prepared']:,}", percent(counts["prepared"], counts["clips"])),
        (
            "failed" if counts["failed"] else "none failed",
            f"{counts['failed']:,}",
            percent(counts["failed"], counts["clips"]),
        ),
        (
            "size",
            size_text(counts["bytes"]),
            f"{counts['shards']:,} shard{'s' * (counts['shards'] != 1)}",
        ),
    ]
    if counts["prepared"]:
        mean = size_text(round(counts["bytes"] / counts["prepared"]))
        frames = manifest["num_frames"]
        tiles.append(("a clip", mean, f"{frames} frame{'s' * (frames != 1)} and sound"))
    cells = "".join(
        f'<div class="tile {name.replace(" ", "-")}"><span>{name}</span><b>{value}</b>'
        f"<small>{note}</small></div>"
        for name, value, note in tiles
    )
    return (
        f"<header><h1>{_clips(counts['clips'])} through {_text(manifest['command'])}</h1>"
        f'<div class="tiles">{cells}</div></header>'
    )


def _share(number: int, whole: int) -> str:
    width = 100 * number / whole if whole else 0
    return f'<span class="share"><i style="width:{width:.2f}%"></i></span> {percent(number, whole)}'


def _reasons(counts: dict[str, Any], examples: dict[str, list[tuple[str, str]]]) -> str:
    if not counts["reasons"]:
        return ""
    rows = [
        (
            f"<code>{_text(reason)}</code>",
            f"{number:,}",
            _share(number, counts["clips"]),
            "".join(
                f"<p><b>{_text(clip_id)}</b> {_text(error)}</p>"
                for clip_id, error in examples.get(reason, [])
            ),
        )
        for reason, number in by_count(counts["reasons"])
    ]
    table = _table("reasons", ("Reason", "Clips", "Of all", "For example"), rows)
    return _section(
        "Failed clips by reason",
        f"{table}<p>Every one of them is in <code>failures.jsonl</code>. "
        "Nothing was put in their place.</p>",
    )


def _flags(counts: dict[str, Any], meanings: dict[str, str]) -> str:
    if not counts["flags"]:
        return ""
    rows = [
        (
            f"<code>{_text(flag)}</code>",
            f"{number:,}",
            _share(number, counts["prepared"]),
            _text(meanings.get(flag, "")),
        )
        for flag, number in by_count(counts["flags"])
    ]
    table = _table("flags", ("Flag", "Clips", "Of prepared", "What it says"), rows)
    return _section(
        "Prepared clips by flag",
        f"{table}<p>A flagged clip is kept; a clip may have several flags.</p>",
    )


def _group(group: Group) -> str:
    samples = "".join(_sample(sample, group.name) for sample in group.samples)
    if not samples:
        return ""
    meaning = f"<p>{_text(group.meaning)}</p>" if group.meaning else ""
    return _section(
        f"Frames: <code>{_text(group.name)}</code>", f'{meaning}<div class="clips">{samples}</div>'
    )


def _sample(sample: Sample, group: str) -> str:
    frames = ""
    for seconds, picture in sample.frames:
        time = "" if seconds is None else f"{seconds:.3f} s"
        image = (
            f'<img src="{picture}" alt="frame at {time}">' if picture else "<em>not readable</em>"
        )
        frames += f"<figure>{image}<figcaption>{time}</figcaption></figure>"
    others = "".join(f" <code>{_text(flag)}</code>" for flag in sample.flags if flag != group)
    return f'<div><h3>{_text(sample.id)}{others}</h3><div class="strip">{frames}</div></div>'


def _made(manifest: dict[str, Any]) -> str:
    facts = [("plan", manifest["plan"]), ("fingerprint", manifest["fingerprint"])]
    settings, versions = manifest["settings"].items(), manifest["versions"].items()

    def listed(title: str, rows: Iterable[tuple[str, Any]]) -> str:
        cells = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in rows)
        return f"<h3>{title}</h3><dl>{cells}</dl>"

    body = listed("Settings", settings) + listed("Versions", versions) + listed("Content", facts)
    return _section("How it was made", body)
