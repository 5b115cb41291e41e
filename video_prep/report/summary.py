"""What a prepared folder holds, for people: a table of reasons and flags, summary.html."""

from __future__ import annotations

import base64
import io
from bisect import insort
from collections import Counter
from pathlib import Path
from typing import Any

from video_prep.files import write_whole
from video_prep.report.page import Group, Page, Sample, by_count, page, percent
from video_prep.shards import read_json

_EXAMPLES = 3  # clips named for a reason
_SAMPLES = 3  # clips shown for a flag
_FRAMES = 4  # frames shown of a clip
_THUMBNAIL = (160, 120)  # pixels, width and height at most
_QUALITY = 60
_BUDGET = 600_000  # characters of pictures, so that the page stays below 1 MB
NO_FLAG = "no flag"

FLAGS = {
    "black": "every frame is nearly black",
    "corrupt_audio": "a part of the sound could not be decoded and was left out",
    "corrupt_gop": "a frame depends on damaged data, so it may show rubbish",
    "decoder_mismatch": "the chosen decoder gave other frames than the file's own index",
    "duplicate_frames": "two of the frames are the same frame of the video",
    "no_audio": "there is no sound that can be used, so the clip has frames alone",
    "short_video": "the file covers less than 0.9 of the asked seconds",
    "silent_audio": "the sound is silence",
    "still": "the frames hardly differ: a still picture",
    "truncated": "the file ends early: less than 0.9 of what its header promises",
}


def table(counts: dict[str, Any]) -> str:
    """Failed clips by reason and prepared clips by flag, with shares; empty where there is none.

    `counts` are the manifest's. A reason's share is of all clips, a flag's of the prepared ones.
    """
    parts = [
        ("failed, by reason", counts["reasons"], counts["clips"]),
        ("prepared, with flag", counts["flags"], counts["prepared"]),
    ]
    parts = [part for part in parts if part[1]]
    wide = max((len(name) for title, found, _ in parts for name in (title, *found)), default=0)
    lines = []
    for title, found, whole in parts:
        lines.append(f"{title:<{wide}}  {'clips':>9}   share")
        lines += [
            f"{name:<{wide}}  {number:>9,}  {percent(number, whole):>6}"
            for name, number in by_count(found)
        ]
    return "\n".join(lines)


class Summary:
    """Collects what summary.html shows, a row of clips.jsonl at a time, in bounded memory."""

    def __init__(self) -> None:
        self._examples: dict[str, list[Any]] = {}  # reason -> (id, error)
        self._samples: dict[str, list[Any]] = {}  # flag -> (id, shard, times of the frames)
        self._seconds: Counter[float] = Counter()
        self._frame_rates: Counter[float] = Counter()
        self._sound_rates: Counter[float] = Counter()

    def add(self, row: dict[str, Any]) -> None:
        """Take in one row: id, status, reason, error, shard, flags, facts."""
        if row["status"] != "ok":
            _keep(self._examples, row["reason"], (row["id"], row["error"]), _EXAMPLES)
            return
        facts = row["facts"]
        for flag in row["flags"] or (NO_FLAG,):
            new = (row["id"], row["shard"], facts.get("frame_times") or [])
            _keep(self._samples, flag, new, _SAMPLES)
        if (seconds := _seconds(facts)) is not None:
            self._seconds[_rounded(seconds)] += 1
        if rate := (facts.get("video") or {}).get("fps"):
            self._frame_rates[_rounded(rate, 4)] += 1
        if rate := (facts.get("sound") or {}).get("rate"):
            self._sound_rates[_rounded(rate, 5)] += 1

    def write(self, out: Path, manifest: dict[str, Any]) -> None:
        """Write summary.html into the folder whose shards and manifest these are.

        The bytes depend on the shards, the manifest and the versions it names alone.
        """
        groups = self._groups(out, manifest["counts"], manifest["num_frames"])
        meanings = {flag: FLAGS.get(flag, "") for flag in manifest["counts"]["flags"]}
        histograms = (self._seconds, self._frame_rates, self._sound_rates)
        text = page(Page(manifest, meanings, self._examples, groups, *histograms))
        write_whole(out / "summary.html", text)

    def _groups(self, out: Path, counts: dict[str, Any], num_frames: int) -> list[Group]:
        """Sample clips for each flag, as many as the budget of bytes allows; first ones first."""
        if num_frames == 0:
            return []
        names = [NO_FLAG, *(name for name, _ in by_count(counts["flags"]))]
        groups = {name: Group(name, FLAGS.get(name, "")) for name in names if name in self._samples}
        shown = sorted({round(k * (num_frames - 1) / (_FRAMES - 1)) for k in range(_FRAMES)})
        left = _BUDGET
        for turn in range(_SAMPLES):
            for name, group in groups.items():
                if turn < len(self._samples[name]) and left > 0:
                    clip_id, shard, times = self._samples[name][turn]
                    group.samples.append(_sample(out, clip_id, shard, times, shown))
                    left -= sum(len(picture) for _, picture in group.samples[-1].frames)
        return list(groups.values())


def _keep(kept: dict[str, list[Any]], name: str, new: tuple[Any, ...], most: int) -> None:
    """Keep `new` if its id, the first of it, is among the `most` first ids under this name."""
    found = kept.setdefault(name, [])
    if len(found) < most or new < found[-1]:
        insort(found, new)
        del found[most:]


def _seconds(facts: dict[str, Any]) -> float | None:
    """Seconds of a clip: of its pictures, or of its sound where it has no pictures."""
    if bounds := facts.get("bounds"):
        return float(bounds[1] - bounds[0])
    if rate := facts.get("sample_rate"):
        return float(facts["samples"] / rate)
    return None


def _rounded(value: float, digits: int = 3) -> float:
    """To so many significant digits, so that a counter of values stays small."""
    return float(f"{value:.{digits}g}")


def _sample(out: Path, clip_id: str, shard: str, times: list[float], shown: list[int]) -> Sample:
    """Some frames of a clip, small, with the times at which they really are."""
    rows = read_json(out / f"{shard}.json")["rows"]
    row = next(row for row in rows if row["id"] == clip_id)
    frames = []
    with (out / f"{shard}.tar").open("rb") as tar:
        for k in shown:
            offset, length, _ = row["members"][f"{k}.jpg"]
            tar.seek(offset)
            frames.append((times[k] if k < len(times) else None, _thumbnail(tar.read(length))))
    return Sample(clip_id, row["flags"], frames)


def _thumbnail(jpeg: bytes) -> str:
    """The picture, small, as a data URI; empty where it cannot be read."""
    from PIL import Image

    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(jpeg)) as picture:
            picture.draft("RGB", _THUMBNAIL)
            colours = picture.convert("RGB")
        colours.thumbnail(_THUMBNAIL)
        colours.save(small, "JPEG", quality=_QUALITY)
    except (OSError, ValueError):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"
