"""Rows of CSV, TSV and JSON-lines files, streamed; every mistake is named with its line."""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from video_prep.errors import UserError

# a spreadsheet turns an id such as -NAME into #NAME?: that is a damaged row, not a comment
_COMMENT = re.compile(r"\s*#(?!NAME\?)")

_UTF_16 = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a text file with their ends, without a BOM; UserError where it is not one.

    UTF-8, or UTF-16 where it begins with the BOM that spreadsheets write.
    """
    try:
        with path.open("rb") as file:
            encoding = "utf-16" if file.read(2) in _UTF_16 else "utf-8-sig"
        with path.open(encoding=encoding, newline="") as file:
            for line in file:
                if "\0" in line:
                    raise UserError(f"{path} holds NUL bytes and is no text; save it as UTF-8")
                yield line
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from None


def csv_cells(path: Path, *, after_comma: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of a list; comments before the first row and blank lines are left out.

    Tabs separate the cells where the first row holds one. `after_comma`: blanks after a comma
    belong to no cell, as AudioSet writes its lists.
    """
    reader = csv.reader(
        _after_comments(read_lines(path)),
        delimiter=delimiter_of(first_row(path)),
        skipinitialspace=after_comma,
        strict=True,
    )
    try:
        for cells in reader:
            if cells and (cells[0] or any(cell.strip() for cell in cells)):
                yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not valid CSV ({error})") from None


def table_cells(
    path: Path, name: str, needed: Iterable[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> cell without blanks at its end) of a table with these columns."""
    rows = csv_cells(path)
    _, header = next(rows)
    columns = [cell.strip() for cell in header]
    for column in needed:
        if column not in columns:
            raise UserError(f"{path}: {name}'s column {column!r} is missing from {columns}")
    for line, cells in rows:
        where = f"{path} line {line}"
        if len(cells) > len(columns):
            raise UserError(
                f"{where}: {len(cells)} cells for {len(columns)} columns; put quotes around a "
                "cell with a comma"
            )
        row = dict(zip(columns, cells, strict=False))
        for column in needed:
            if not row.get(column, "").strip():
                raise UserError(f"{where}: {column} is empty; mend the row")
        if any("\n" in cell or "\r" in cell for cell in cells):
            raise UserError(f"{where}: a quote is not closed before this line")
        yield line, row


def _after_comments(lines: Iterable[str]) -> Iterator[str]:
    """The lines; comments before the first row are blanked, so that line numbers stay right."""
    lines = iter(lines)
    for line in lines:
        if is_comment(line):
            yield "\n"
        else:
            yield line
            if line.strip():
                break
    yield from lines


def is_comment(line: str) -> bool:
    """True where a line says something about the list instead of listing something."""
    return _COMMENT.match(line) is not None


def comments(path: Path) -> list[str]:
    """Comment lines (`# ...`) before the first row."""
    found = []
    for line in read_lines(path):
        if is_comment(line):
            found.append(line.strip())
        elif line.strip():
            break
    return found


def first_row(path: Path) -> str:
    """The first line that is neither blank nor a comment, or nothing."""
    for line in _after_comments(read_lines(path)):
        if line.strip():
            return line.strip("\r\n")
    return ""


def delimiter_of(line: str) -> str:
    """What separates the cells of a list whose first row is `line`."""
    return "\t" if "\t" in line else ","


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file with one JSON object a line."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f'{path} line {number}: not an object such as {{"path": "a.mp4"}}')
        if "\\u" in line:
            _refuse_surrogates(f"{path} line {number}", row)
        yield number, row


def _refuse_surrogates(where: str, row: dict[str, Any]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: not valid Unicode ({error})") from None


def seconds(where: str, key: str, value: Any) -> float | None:
    """A time of a row in seconds, None where the cell is empty; UserError where it is no time."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise UserError(f"{where}: {key} {value!r} is not a number of seconds, 0 or more")
    return number


def check_bounds(where: str, start: float | None, end: float | None) -> None:
    """Refuse a segment that ends before it starts, or holds nothing."""
    if start is not None and end is not None and start >= end:
        raise UserError(f"{where}: start {start:g} is not before end {end:g}")
    if start is None and end == 0:
        raise UserError(f"{where}: end 0 leaves nothing of the clip")
