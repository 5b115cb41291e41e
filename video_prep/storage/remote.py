"""Reads the files of a folder of shards behind a URL (s3, gs, http, memory ...) through fsspec."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from video_prep.errors import UserError
from video_prep.storage.local import is_tar

MEND = "upload the whole folder again"
FILES_A_CALL = 64  # whole files that are fetched at once, and held in memory until they are used
NEEDS = {
    "s3": "pivot-audio[s3]",
    "s3a": "pivot-audio[s3]",
    "gs": "pivot-audio[gcs]",
    "gcs": "pivot-audio[gcs]",
    "http": "aiohttp",
    "https": "aiohttp",
}


def is_url(path: object) -> bool:
    """Whether a path names a place that fsspec reads, such as s3://bucket/folder."""
    return "://" in str(path)


def refuse_url(out: str) -> None:
    """Raise UserError where a folder that is to be written into is a URL."""
    if is_url(out):
        raise UserError(
            f"{out} is a URL, and shards are written into a local or mounted folder; give one, and "
            "copy it to the URL when it is finished"
        )


class RemoteFiles:
    """Files of a folder behind a URL, by name; what is asked for together is fetched together.

    Credentials and endpoints are fsspec's business (its environment variables and configuration),
    and so is trying again after a passing fault. Safe in threads, after fork and through pickle:
    every process makes its own connection.
    """

    mend = MEND

    def __init__(self, url: str) -> None:
        self.place = url
        self._connection: tuple[int, Any, str] | None = None  # process, file system, folder in it
        self._connect()  # an unknown protocol or a missing package is found at once

    def find(self, name: str) -> bytes | None:
        """Content of a small file, None where there is no such file.

        Raises UserError also where the server cannot send a part of it.
        """
        first, data = self._fetch([(name, 0, 1), (name, None, None)])
        if isinstance(data, FileNotFoundError):
            return None
        self._checked(name, first, 1)
        return self._checked(name, data)

    def whole(self, names: Sequence[str]) -> Iterator[bytes]:
        """Content of each file, in their order; a missing one is a UserError."""
        for start in range(0, len(names), FILES_A_CALL):
            part = names[start : start + FILES_A_CALL]
            found = self._fetch([(name, None, None) for name in part])
            for name, data in zip(part, found, strict=True):
                yield self._checked(name, data)

    def tars(self) -> list[str]:
        """Names of the tars in the folder and below; none where the server lists nothing."""
        fs, root = self._connect()
        try:
            found = fs.find(root)
        except (FileNotFoundError, NotImplementedError):
            return []
        except Exception as error:
            raise self._unreadable("", error) from error
        bare = root.lstrip("/")
        return [
            name
            for path in found
            if is_tar(name := path.lstrip("/").removeprefix(bare).lstrip("/"))
        ]

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Bytes of each file, None where the server does not say; a missing one is a UserError."""
        fs, root = self._connect()
        try:
            found: list[int | None] = fs.sizes([f"{root}/{name}" for name in names])
        except FileNotFoundError as error:
            raise UserError(f"{_one_line(error)} is missing; {MEND}") from None
        except Exception as error:
            raise self._unreadable(f"{len(names)} files", error) from error
        return found

    def ranges(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes of each (file, offset, length), fewer where the file ends before."""
        found = self._fetch([(name, offset, offset + length) for name, offset, length in wanted])
        return [
            self._checked(name, data, length)
            for (name, _, length), data in zip(wanted, found, strict=True)
        ]

    def close(self) -> None:
        """Nothing is kept open but fsspec's own connections."""

    def _connect(self) -> tuple[Any, str]:
        """File system and folder in it; a fork needs new ones, fsspec's own do not survive it."""
        if self._connection is None or self._connection[0] != os.getpid():
            self._connection = (os.getpid(), *_file_system(self.place))
        return self._connection[1:]

    def _fetch(self, wanted: Sequence[tuple[str, int | None, int | None]]) -> list[Any]:
        """Bytes of each (file, first byte, end), or the error that came instead."""
        fs, root = self._connect()
        names, starts, ends = map(list, zip(*wanted, strict=True))
        paths = [f"{root}/{name}" for name in names]
        found: list[Any] = fs.cat_ranges(paths, starts, ends, on_error="return")
        return found

    def _checked(self, name: str, data: Any, length: int | None = None) -> bytes:
        if isinstance(data, FileNotFoundError):
            raise UserError(f"{self.place}/{name} does not exist; {MEND}") from None
        if getattr(data, "status", None) == 416:  # HTTP: the range begins after the end
            return b""
        if isinstance(data, Exception):
            raise self._unreadable(name, data) from data
        if isinstance(data, BaseException):
            raise data
        if length is not None and len(data) > length:
            raise UserError(
                f"{self.place}/{name}: the server sends whole files where a range of bytes was "
                "asked for; copy the folder to a disk, or serve it by one that honours Range"
            )
        return bytes(data)

    def _unreadable(self, name: str, error: Exception) -> UserError:
        reason = f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")
        return UserError(
            f"{self.place}/{name} cannot be read ({reason}); check the URL, the network and "
            "your credentials, and try again"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}


def _file_system(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        from fsspec.core import url_to_fs

        fs, root = url_to_fs(url)
    except ImportError as error:
        package = NEEDS.get(protocol)
        how = f"pip install '{package}'" if package else _one_line(error)
        raise UserError(f"{url}: {protocol} needs a package that is missing; {how}") from error
    except ValueError as error:
        raise UserError(
            f"{url} is of a protocol that is not known ({_one_line(error)}); give a local folder, "
            "or a URL of s3, gs, http, https or another file system of fsspec"
        ) from error
    except Exception as error:
        raise UserError(f"{url} cannot be opened ({_one_line(error)})") from error
    return fs, root.rstrip("/")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
