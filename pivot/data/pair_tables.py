"""Pairs with a row each: Parquet, CSV and JSON lines, some rows at a time.

Columns audio_id, caption_id, caption, score, rule. In Parquet the settings that made the pairs are
JSON in the schema's metadata. A score is a float32; where nothing was compared it is NaN in
Parquet, an empty cell in CSV and null in JSON lines.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pivot.data.tables import begins_with, column, csv_rows, json_lines
from pivot.errors import DataError

ROWS = 65536  # rows that are held at once
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
JSON_LINES = (".jsonl", ".ndjson")


class Pair(NamedTuple):
    """A sound and a caption for it; score is NaN where nothing was compared."""

    audio_id: str
    caption_id: str
    caption: str
    score: float = float("nan")
    rule: str = "gold"


# ---- writing --------------------------------------------------------------------------------


def write_parquet(file: BinaryIO, rows: Iterable[Pair], meta: dict[str, Any]) -> int:
    """Write pairs and the settings that made them; return how many pairs."""
    schema = SCHEMA.with_metadata({META: json.dumps(meta).encode()})
    count = 0
    with pq.ParquetWriter(file, schema) as writer:
        for chunk in _chunks(rows):
            columns = dict(zip(Pair._fields, zip(*chunk, strict=True), strict=True))
            writer.write_table(pa.table(columns, schema=schema))
            count += len(chunk)
    return count


def write_csv(file: BinaryIO, rows: Iterable[Pair]) -> int:
    """Write a header and a row each; texts stand in quotes, so that they come back as they are."""
    return _write(file, rows, _csv_lines, _csv_lines([Pair._fields]))


def write_json_lines(file: BinaryIO, rows: Iterable[Pair]) -> int:
    """Write an object a line."""
    return _write(file, rows, _json_lines, "")


def _write(
    file: BinaryIO, rows: Iterable[Pair], text_of: Callable[[list[Pair]], str], head: str
) -> int:
    file.write(head.encode())
    count = 0
    for chunk in _chunks(rows):
        file.write(text_of(chunk).encode())
        count += len(chunk)
    return count


def _csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerows((*row[:3], _shortest(row[3]), row[4]) for row in rows)
    return text.getvalue()


def _json_lines(rows: list[Pair]) -> str:
    values = (row._replace(score=_shortest(row.score))._asdict() for row in rows)
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _shortest(score: Any) -> Any:
    """A float32 with as few digits as bring it back, None for NaN; a header stays as it is."""
    if isinstance(score, str):
        return score
    return None if score != score else float(str(np.float32(score)))


def _chunks(rows: Iterable[Pair]) -> Iterator[list[Pair]]:
    rows = iter(rows)
    while chunk := list(islice(rows, ROWS)):
        yield chunk


# ---- reading --------------------------------------------------------------------------------


def read_parquet(path: Path) -> Iterator[Pair]:
    """Pairs of a Parquet file; columns other than audio_id and caption may be missing."""
    file = _open(path)
    names = file.schema_arrow.names
    missing = {"audio_id", "caption"} - set(names)
    if missing:
        raise DataError(f"{path} has no column {', '.join(sorted(missing))}; is it a pairs file?")
    start = 0
    try:
        for batch in file.iter_batches(ROWS, columns=[n for n in Pair._fields if n in names]):
            count = len(batch)
            yield from map(
                Pair,
                _strings(batch["audio_id"]),
                _strings(batch["caption_id"])
                if "caption_id" in names
                else map(str, range(start, start + count)),
                _strings(batch["caption"]),
                _floats(batch["score"]) if "score" in names else [float("nan")] * count,
                _strings(batch["rule"]) if "rule" in names else ["gold"] * count,
            )
            start += count
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def parquet_meta(path: Path) -> dict[str, Any]:
    """The settings in a Parquet file; none in one that Pivot did not write."""
    found: dict[str, Any] = json.loads((_open(path).schema_arrow.metadata or {}).get(META, b"{}"))
    return found


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except FileNotFoundError:
        raise DataError(
            f"pairs file {path} does not exist; make it with pivot mine-captions"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0]})")


def _strings(values: pa.Array) -> list[Any]:
    """Strings of a column, equal ones as one object; None where there is none."""
    coded = values.cast(pa.string()).dictionary_encode()
    unique = [*coded.dictionary.to_pylist(), None]
    return [unique[i] for i in coded.indices.fill_null(-1).to_pylist()]


def _floats(values: pa.Array) -> list[float]:
    found: list[float] = values.cast(pa.float32()).fill_null(float("nan")).to_pylist()
    return found


def is_table(path: Path) -> bool:
    """Whether a CSV or JSON-lines file has rows of pairs as they are written here."""
    if path.suffix.lower() in JSON_LINES:
        _, first = next(json_lines(path), (0, None))
        names = list(first) if isinstance(first, dict) else []
    elif begins_with(path, "[{"):
        return False
    else:
        names = next(csv_rows(path), [])
    return all(column(names, [name]) is not None for name in Pair._fields[:3])


def read_table(path: Path) -> Iterator[Pair]:
    """Pairs of a CSV or JSON-lines file that `is_table`; score and rule may be missing."""
    rows = _objects(path) if path.suffix.lower() in JSON_LINES else _cells(path)
    for place, row in rows:
        clip, name, text = (row.get(field) for field in Pair._fields[:3])
        if not (isinstance(clip, str) and isinstance(name, str) and isinstance(text, str)):
            raise DataError(f"{path} {place}: audio_id, caption_id and caption must be texts")
        try:
            score = np.float32("nan" if row.get("score") in (None, "") else row["score"])
        except (TypeError, ValueError):
            raise DataError(f"{path} {place}: score {row['score']!r} is no number") from None
        yield Pair(clip, name, text, float(score), str(row.get("rule") or "gold"))


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, value in json_lines(path):
        if not isinstance(value, dict):
            raise DataError(f"{path} line {number} is not a pair")
        yield f"line {number}", value


def _cells(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv_rows(path)
    header = [cell.strip().lower() for cell in next(rows)]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DataError(f"{path} row {number} has {len(row)} cells instead of {len(header)}")
        yield f"row {number}", dict(zip(header, row, strict=True))
