"""Files and folders that appear whole or not at all: write aside, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from video_prep.errors import UserError


def aside(path: Path) -> Path:
    """Name beside `path` under which this process writes before the rename."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


def _cannot_write(path: Path, error: OSError) -> UserError:
    why = error.strerror or str(error)
    return UserError(f"cannot write {path}: {why}; free some space or choose another folder")


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes its name only when the block ends without an error.

    Raises UserError when the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if temporary.exists():
            temporary.unlink()
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        raise


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write `data` to `path`, whole or not at all."""
    with whole_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted-as-given keys, whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a folder aside that takes the name `path` (replacing one) when the block ends well."""
    path = Path(path)
    temporary = aside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            old = path.with_name(f".old-{os.getpid()}-{path.name}")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
