"""What an output folder is to hold: which clip goes into which shard, under which settings.

The plan is saved in the folder as plan.json (settings and fingerprints, the same wherever the files
lie) and inputs.jsonl (where they lie: a line about the source, then one line for each clip).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, overload

from video_prep.errors import UserError
from video_prep.index import Clip
from video_prep.recipe import Recipe
from video_prep.shards import FORMAT, REDO, read_json

_LARGEST, _SMALLEST, _SHARDS = 256, 16, 16
PLAN, INPUTS = "plan.json", "inputs.jsonl"
_THREADS = 32  # that ask for the sizes of files: a network file system answers many at once
_PART = 1000  # files that a thread asks for in a row
Sizes = tuple[int, ...]  # bytes of a clip's file and of its pictures, -1 where there is none


@dataclass(frozen=True)
class Plan:
    """Clips in order, cut into shards of `shard_size`; a shard depends on nothing else."""

    command: str
    recipe: Recipe
    shard_size: int
    clips: Sequence[Clip]
    sizes: Sequence[Sizes]  # beside `clips`
    inputs: str  # sha256 over all clips: ids, sources, bounds, labels, captions, sizes of the files
    fingerprint: str  # sha256 over settings and inputs
    origin: dict[str, Any] | None = None  # what the clips were read from, where it was saved
    dataset: dict[str, Any] | None = None  # name, split and official size of a published set

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.clips) // self.shard_size)

    def shard(self, number: int) -> Sequence[Clip]:
        """Clips of one shard."""
        return self.clips[number * self.shard_size : (number + 1) * self.shard_size]

    def settings(self) -> dict[str, Any]:
        """Settings that change the content, as they are recorded and compared."""
        return _settings(self.command, self.recipe, self.shard_size)


def make_plan(
    command: str,
    recipe: Recipe,
    shard_size: int | None,
    clips: Sequence[Clip],
    dataset: dict[str, Any] | None = None,
) -> Plan:
    """Plan of a run; asks for the size of every file, since a changed file is another input."""
    size = shard_size or default_size(len(clips))
    sizes = sizes_of(clips)
    inputs = _digest(clips, sizes)
    fingerprint = _fingerprint(_settings(command, recipe, size), inputs)
    return Plan(command, recipe, size, clips, sizes, inputs, fingerprint, dataset=dataset)


def default_size(clips: int) -> int:
    """Clips a shard without a setting: small sets get shards enough for every core."""
    return min(_LARGEST, max(_SMALLEST, -(-clips // _SHARDS)))


def _settings(command: str, recipe: Recipe, shard_size: int) -> dict[str, Any]:
    return {"command": command, **asdict(recipe), "shard_size": shard_size}


def _fingerprint(settings: dict[str, Any], inputs: str) -> str:
    return hashlib.sha256(
        json.dumps([FORMAT, settings, inputs], sort_keys=True).encode()
    ).hexdigest()


def _digest(clips: Iterable[Clip], sizes: Iterable[Sizes]) -> str:
    digest = hashlib.sha256()
    for clip, size in zip(clips, sizes, strict=True):
        _add_to(digest, clip, size)
    return digest.hexdigest()


def _add_to(digest: Any, clip: Clip, sizes: Sizes) -> None:
    """Hash all that makes a clip what it is, but not where its files lie."""
    row = [clip.id, clip.source, clip.start, clip.end, clip.labels, clip.captions, sizes]
    pictures = [path.name for path in clip.frames]
    fold = [] if clip.fold is None else [clip.fold]  # folders without folds keep their plans
    known = _recording(clip) | ({"split": clip.split} if clip.split else {})
    about = [*row, pictures, clip.fault, *fold, *([known] if known else [])]
    digest.update(json.dumps(about).encode() + b"\n")


def _recording(clip: Clip) -> dict[str, str]:
    """Ids of the recording that the list tells; clips without them keep their plans."""
    found = {"freesound": clip.freesound, "youtube": clip.youtube}
    return {kind: value for kind, value in found.items() if value}


def sizes_of(clips: Sequence[Clip]) -> list[Sizes]:
    """Bytes of the files of each clip, -1 where there is none; asked for many at once."""

    def part(start: int) -> list[Sizes]:
        return [
            (0,) if clip.fault else tuple(map(_size, (clip.path, *clip.frames)))
            for clip in clips[start : start + _PART]
        ]

    with ThreadPoolExecutor(_THREADS) as threads:
        return list(chain.from_iterable(threads.map(part, range(0, len(clips), _PART))))


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116, half the time of Path.stat
    except (OSError, ValueError):
        return -1


# ---- clips as lines --------------------------------------------------------------------------


def clip_row(clip: Clip) -> dict[str, Any]:
    """A clip as JSON can hold it."""
    row: dict[str, Any] = {
        "id": clip.id,
        "path": str(clip.path),
        "source": clip.source,
        "start": clip.start,
        "end": clip.end,
        "labels": clip.labels,
        "captions": clip.captions,
    }
    if clip.frames:
        row["frames"] = [str(path) for path in clip.frames]
    if clip.fault:
        row["fault"] = clip.fault
    if clip.fold is not None:
        row["fold"] = clip.fold
    if clip.split is not None:
        row["split"] = clip.split
    return row | _recording(clip)


def _clip(row: dict[str, Any]) -> Clip:
    fault = row.get("fault")
    return Clip(
        id=row["id"],
        path=Path(row["path"]),
        source=row["source"],
        start=row["start"],
        end=row["end"],
        labels=tuple(row["labels"]),
        captions=tuple(row["captions"]),
        frames=tuple(map(Path, row.get("frames", ()))),
        fault=(fault[0], fault[1]) if fault else None,
        fold=row.get("fold"),
        split=row.get("split"),
        freesound=row.get("freesound"),
        youtube=row.get("youtube"),
    )


class _SavedClips(Sequence[Clip]):
    """Clips from the lines of inputs.jsonl, made when asked for: two million fit into memory."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, i: int) -> Clip: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Clip]: ...
    def __getitem__(self, i: int | slice) -> Clip | Sequence[Clip]:
        if isinstance(i, slice):
            return [_clip(json.loads(line)) for line in self.lines[i]]
        return _clip(json.loads(self.lines[i]))


def plan_lines(plan: Plan, origin: dict[str, Any]) -> Iterator[bytes]:
    """Lines of inputs.jsonl."""
    yield json.dumps({**origin, "plan": plan.fingerprint, "clips": len(plan.clips)}).encode()
    for clip, size in zip(plan.clips, plan.sizes, strict=True):
        yield json.dumps({**clip_row(clip), "sizes": size}).encode()


# ---- the plan in its folder ------------------------------------------------------------------


def load_plan(out: Path) -> Plan:
    """The plan that a folder was begun with; no source is scanned and no file looked at.

    Raises UserError where the folder holds none, or a damaged one.
    """
    if not out.is_dir():
        raise UserError(f"{out} is not a folder of shards; make one with pivot prepare-frames")
    facts = read_json(out / PLAN)
    try:
        settings = dict(facts["settings"])
        command, size = settings.pop("command"), int(settings.pop("shard_size"))
        recipe = Recipe(**settings)
        with (out / INPUTS).open("rb") as file:
            origin = json.loads(next(file))
            clips = _SavedClips(file.readlines())
        digest = hashlib.sha256()
        sizes: list[Sizes] = []
        for row in map(json.loads, clips.lines):
            sizes.append(tuple(row["sizes"]))
            _add_to(digest, _clip(row), sizes[-1])
        inputs = digest.hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; {REDO}") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        raise UserError(f"the plan in {out} is damaged ({error!r}); {REDO}") from None
    fingerprint = _fingerprint(_settings(command, recipe, size), inputs)
    if not fingerprint == facts.get("plan") == origin.get("plan"):
        raise UserError(f"the plan in {out} is damaged (another fingerprint); {REDO}")
    dataset = facts.get("dataset")
    return Plan(command, recipe, size, clips, sizes, inputs, fingerprint, origin, dataset)


def saved_plan(
    out: Path, command: str, recipe: Recipe, shard_size: int | None, origin: dict[str, Any]
) -> Plan | None:
    """The plan in `out` where it is of these settings and this source; None where it is not."""
    try:
        plan = load_plan(out)
    except UserError:
        return None
    same = plan.settings() == _settings(
        command, recipe, shard_size or default_size(len(plan.clips))
    )
    known = plan.origin or {}
    same = same and known.get("exclude") == origin.get("exclude")
    return plan if same and origin.items() <= known.items() else None


def origin_of(
    source: str,
    media: str | None,
    ontology: str | None,
    already_cut: bool,
    exclude: Sequence[str] = (),
) -> dict[str, Any]:
    """What clips are read from, in words that tell another source and a changed list."""
    places = {"source": source, "media": media, "ontology": ontology}
    whole = {key: place and os.path.abspath(place) for key, place in places.items()}  # noqa: PTH100
    stamps = [_stamp(path) for path in whole.values()]
    found: dict[str, Any] = {**whole, "already_cut": already_cut, "stamps": stamps}
    if exclude:  # a run without lists is told as it always was
        found["exclude"] = [[path, _stamp(path.partition(":")[2] or path)] for path in exclude]
    return found


def _stamp(place: str | None) -> list[int] | None:
    """Size and time of a list; None for a folder, which is not looked through again."""
    if place is None or not Path(place).is_file():
        return None
    facts = Path(place).stat()
    return [facts.st_size, facts.st_mtime_ns]
