"""Rows of a text file that somebody made: CSV, TSV, JSON, JSON lines or plain lines.

Readers of captions and of labels find their columns by name, so that the field's own files read
without editing. Text is UTF-8, or UTF-16 as spreadsheets save it (with its byte-order mark).
Raises DataError that names the file (and the line) for anything unreadable.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from pivot.errors import DataError

csv.field_size_limit(2**24)
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """The file as text, line ends as they are; what goes wrong while reading is a DataError."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    encoding = "utf-8"
    try:
        with path.open("rb") as raw:
            marked = raw.read(2) in UTF16_MARKS
            raw.seek(0)
            encoding = "utf-16" if marked else "utf-8-sig"
            with io.TextIOWrapper(raw, encoding=encoding, newline="") as file:
                yield file
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except UnicodeError as error:
        name = encoding.removesuffix("-sig").upper()
        why = getattr(error, "reason", str(error))
        raise DataError(f"{path} is not {name} text ({why}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _checked(lines: Iterable[str], path: Path) -> Iterator[str]:
    """The lines; an error for binary data, and after the last where all were blank."""
    empty = True
    for line in lines:
        if "\0" in line:
            raise DataError(
                f"{path} holds binary data, or UTF-16 without its mark; name a text file in UTF-8"
            )
        empty = empty and not line.strip()
        yield line
    if empty:
        raise DataError(f"{path} is empty")


def read_text(path: str | Path) -> str:
    """Content of a text file, without its byte-order mark."""
    path = Path(path)
    with _opened(path) as file:
        return "".join(_checked([file.read()], path))


def read_lines(path: str | Path) -> Iterator[str]:
    """Lines of a text file without their ends, one after the other as they are asked for."""
    path = Path(path)
    with _opened(path) as file:
        for line in _checked(file, path):
            yield line.rstrip("\r\n")


def read_json(path: str | Path) -> Any:
    """Content of a JSON file; a key that stands twice in an object is an error."""
    try:
        return json.loads(read_text(path), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON (line {error.lineno}: {error.msg})") from error
    except KeyError as error:
        raise DataError(f"{path}: {error} stands twice; keep one") from None
    except RecursionError:
        raise DataError(f"{path} is not JSON (too many brackets)") from None


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; python's reader keeps the last value of a key without a word."""
    found = dict(items)
    if len(found) < len(items):
        raise KeyError(next(key for i, (key, _) in enumerate(items) if key in dict(items[:i])))
    return found


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) of every line that is not blank, as they are asked for."""
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path} line {number} is not JSON ({error.msg})") from error
            except RecursionError:
                raise DataError(f"{path} line {number} is not JSON (too many brackets)") from None


def read_json_lines(path: str | Path) -> list[Any]:
    """One value per line that is not blank."""
    return [value for _, value in json_lines(path)]


def csv_rows(path: str | Path) -> Iterator[list[str]]:
    """Cells of each row of a CSV (or tab-separated .tsv) file, as they are asked for.

    Blank rows are left out, and # comments above the first row.
    """
    path = Path(path)
    with _opened(path) as file:
        lines = _checked(file, path)
        rows = iter(_tabbed(lines) if path.suffix.lower() == ".tsv" else _comma(lines, path))
        first = next((row for row in rows if any(row) and not row[0].startswith("#")), None)
        if first is not None:
            yield from (row for row in chain([first], rows) if any(row))


def _tabbed(lines: Iterable[str]) -> Iterator[list[str]]:
    """Quotes in a TSV are part of the text."""
    return (line.rstrip("\r\n").split("\t") for line in lines)


def _comma(lines: Iterator[str], path: Path) -> Iterator[list[str]]:
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        yield from reader
    except csv.Error as error:
        why = f"line {reader.line_num}: {error}"
        raise DataError(f"{path} is not a CSV file ({why})") from error


def read_csv(path: str | Path) -> list[list[str]]:
    """All rows of `csv_rows`."""
    return list(csv_rows(path))


def begins_with(path: str | Path, marks: str) -> bool:
    """Whether the first character that is not blank is one of `marks`: "[{" tells JSON lines."""
    first = next((line for line in read_lines(path) if line.strip()), "")
    return first.lstrip()[:1] in set(marks)


def column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Position of the first of `names` that the header has, whatever its case."""
    cells = [cell.strip().lower() for cell in header]
    return next((cells.index(name) for name in names if name in cells), None)
