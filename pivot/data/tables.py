"""Rows of a text file that somebody made: CSV, TSV, JSON, JSON lines or plain lines.

Readers of captions and of labels find their columns by name, so that the field's own files read
without editing. Raises DataError that names the file (and the line) for anything unreadable.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pivot.errors import DataError

csv.field_size_limit(2**24)


def read_text(path: str | Path) -> str:
    """Content of a UTF-8 text file (with or without a byte-order mark)."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise DataError(f"{path} holds binary data; name a text file")
    if not text.strip():
        raise DataError(f"{path} is empty")
    return text


def read_json(path: str | Path) -> Any:
    """Content of a JSON file."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON (line {error.lineno}: {error.msg})") from error


def read_json_lines(path: str | Path) -> list[Any]:
    """One value per line that is not blank."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{path} line {number} is not JSON ({error.msg})") from error
    return rows


def read_csv(path: str | Path) -> list[list[str]]:
    """Cells of a CSV (or tab-separated .tsv) file, without blank lines and # comments."""
    text = read_text(path)
    if Path(path).suffix.lower() == ".tsv":
        # quotes in a TSV are part of the text
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return [line.split("\t") for line in lines]
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error})") from error
    return [row for row in rows if any(row) and not row[0].startswith("#")]


def column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Position of the first of `names` that the header has, whatever its case."""
    cells = [cell.strip().lower() for cell in header]
    return next((cells.index(name) for name in names if name in cells), None)
