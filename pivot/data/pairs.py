"""Pairs files: which sound goes with which caption, as Parquet with the settings that made them.

Columns audio_id, caption_id, caption, score, rule; the settings are JSON in the schema's metadata.
CSV and JSON lines with a clip and a caption are read as gold pairs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pivot.data.captions import read_captions
from pivot.errors import DataError
from video_prep.files import whole_file
from video_prep.shards import ShardFolder

ROWS = 65536  # rows a group when writing
META = b"pivot"
SCHEMA = pa.schema(
    [
        ("audio_id", pa.string()),
        ("caption_id", pa.string()),
        ("caption", pa.string()),
        ("score", pa.float32()),
        ("rule", pa.string()),
    ]
)


@dataclass(frozen=True)
class Pair:
    """A sound and a caption for it; score is NaN where nothing was compared."""

    audio_id: str
    caption_id: str
    caption: str
    score: float = float("nan")
    rule: str = "gold"


@dataclass(frozen=True)
class Pairs:
    """The columns of a pairs file and the settings behind them."""

    audio_ids: list[str]
    captions: list[str]
    scores: list[float]
    meta: dict[str, Any] = field(default_factory=dict)
    caption_ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.audio_ids)


def write_pairs(path: str | Path, rows: Iterable[Pair], meta: dict[str, Any]) -> int:
    """Stream pairs into a Parquet file that appears whole; return how many.

    Raises DataError when there is none: a file without pairs would only fail later.
    """
    schema = SCHEMA.with_metadata({META: json.dumps(meta).encode()})
    count = 0
    with whole_file(path) as file, pq.ParquetWriter(file, schema) as writer:
        for chunk in _chunks(rows):
            columns = {name: [getattr(pair, name) for pair in chunk] for name in SCHEMA.names}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(chunk)
        if not count:
            raise DataError(f"no pair to write to {path}; nothing matched")
    return count


def _chunks(rows: Iterable[Pair]) -> Iterator[list[Pair]]:
    chunk: list[Pair] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def read_pairs(path: str | Path) -> Pairs:
    """Pairs of a Parquet file, or of a CSV / JSON lines file with clip and caption.

    Raises DataError for a missing, damaged or empty file, and for a pair without id or caption.
    """
    path = Path(path)
    pairs = _of_parquet(path) if path.suffix.lower() == ".parquet" else _of_captions(path)
    if not len(pairs):
        raise DataError(f"{path} holds no pair")
    for number, (audio, caption) in enumerate(zip(pairs.audio_ids, pairs.captions, strict=True)):
        if not audio or not caption or not caption.strip():
            raise DataError(f"{path} pair {number} lacks its sound or its caption")
    return pairs


def pairs_with_sound(pairs: Pairs, shards: ShardFolder) -> Pairs:
    """The pairs whose clip is not known to lack a sound; one line on stderr counts the others.

    Pairs are mined from frames too, so they may name such clips. Raises DataError where no pair
    is left.
    """
    silent = set(shards.ids_without_sound)
    kept = [i for i, clip in enumerate(pairs.audio_ids) if clip not in silent]
    if len(kept) == len(pairs):
        return pairs
    what = f"{len(pairs) - len(kept)} of {len(pairs)} pairs"
    why = f"of clips of {shards.path} that have no sound (flag no_audio)"
    if not kept:
        raise DataError(f"{what} are {why}; nothing is left to train on")
    print(f"left out: {what}, {why}", file=sys.stderr)
    return Pairs(
        [pairs.audio_ids[i] for i in kept],
        [pairs.captions[i] for i in kept],
        [pairs.scores[i] for i in kept],
        pairs.meta,
        [pairs.caption_ids[i] for i in kept] if pairs.caption_ids else [],
    )


def _of_parquet(path: Path) -> Pairs:
    if not path.is_file():
        raise DataError(f"pairs file {path} does not exist; make it with pivot mine-captions")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not a readable Parquet file ({reason})") from error
    missing = {"audio_id", "caption"} - set(table.column_names)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; is it a pairs file?")
    names = table.column_names
    ids = [str(i) for i in range(len(table))]
    return Pairs(
        table["audio_id"].to_pylist(),
        table["caption"].to_pylist(),
        table["score"].to_pylist() if "score" in names else [float("nan")] * len(table),
        json.loads((table.schema.metadata or {}).get(META, b"{}")),
        table["caption_id"].to_pylist() if "caption_id" in names else ids,
    )


def _of_captions(path: Path) -> Pairs:
    captions = read_captions(path)
    if any(caption.clip is None for caption in captions):
        raise DataError(f"{path}: pairs need the clip of each caption; add a column `id`")
    return Pairs(
        [caption.clip or "" for caption in captions],
        [caption.text for caption in captions],
        [float("nan")] * len(captions),
        {"rule": "gold", "source": str(path)},
        [caption.id for caption in captions],
    )
