"""Files and folders that appear whole or not at all: write aside, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from video_prep.errors import UserError

_ASIDES = count()  # so that two threads do not write the same file
_OLD = 6 * 3600.0  # seconds after which another machine's aside file is taken for left over


@cache
def this_host() -> str:
    """Short name of the space in which a process id means one process: machine, boot, container."""
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    with suppress(OSError):  # Linux only; elsewhere the machine's name has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return sha256("|".join(parts).encode()).hexdigest()[:8]


def is_alive(host: str, pid: int) -> bool | None:
    """Whether a process runs; None where it belongs to another host, so that nobody can tell."""
    if host != this_host() or sys.platform == "win32":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    with suppress(OSError):  # Linux: a dead process that nobody has waited for is no longer alive
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def aside(path: Path, pid: int | None = None) -> Path:
    """A new name beside `path`, under which this process (or `pid`) writes before the rename."""
    return path.with_name(f".tmp-{this_host()}-{pid or os.getpid()}-{next(_ASIDES)}-{path.name}")


def remove_asides(folder: Path, pid: int | None = None) -> None:
    """Remove what the process `pid` had begun to write in `folder`.

    Without a pid: that of all dead processes of this host, and what another host left hours ago.
    """
    if pid is not None:
        for path in folder.glob(f".tmp-{this_host()}-{pid}-*"):
            path.unlink(missing_ok=True)
        return
    for path in list(folder.glob(".tmp-*")):
        _, host, number, *_ = [*path.name.split("-", 3), "", ""]
        alive = is_alive(host, int(number)) if number.isdigit() else None
        if alive is False or (alive is None and age(path) > _OLD):
            with suppress(IsADirectoryError, PermissionError):
                path.unlink(missing_ok=True)


def age(path: Path) -> float:
    """Seconds since a file was written or touched, by its own file system's clock; 0 if gone."""
    clock = aside(path.with_name("clock"))
    try:
        with clock.open("w"):
            now = clock.stat().st_mtime
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        clock.unlink(missing_ok=True)


def create_once(path: Path, data: str) -> bool:
    """Make a whole file unless there is one of that name; True where this call made it.

    Of several machines that try at once exactly one is told True. Raises OSError.
    """
    temporary = aside(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(data)
            except FileExistsError:
                return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


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
    write_whole(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """`value` as indented JSON with sorted-as-given keys."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


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
