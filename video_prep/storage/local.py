"""Reads the files of a local folder of shards: whole ones, and ranges of bytes at random."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from video_prep.errors import UserError

MOST_OPEN = 256  # files kept open by a process; further ones are opened for each read
REDO = "run the same prepare command again, which redoes what is missing or damaged"
_DEPTHS = ("", "*/", "*/*/")


def is_tar(name: str) -> bool:
    """Whether a file is called a tar, packed or not; hidden and deeper ones are left out."""
    parts = name.split("/")
    packed = name.endswith((".tar", ".tar.gz", ".tgz"))
    return packed and len(parts) <= len(_DEPTHS) and not any(p.startswith(".") for p in parts)


class LocalFiles:
    """Files of a folder by name. Safe in threads, after fork and through pickle.

    Every range is a `pread` on a file that is opened where it is needed.
    """

    def __init__(self, folder: str, mend: str = REDO) -> None:
        self.place, self.mend = folder, mend
        self._open: dict[str, int] = {}

    def find(self, name: str) -> bytes | None:
        """Content of a file, None where there is no such file."""
        path = Path(self.place, name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); {self.mend}") from error

    def whole(self, names: Sequence[str]) -> Iterator[bytes]:
        """Content of each file, in their order; a missing one is a UserError."""
        for name in names:
            data = self.find(name)
            if data is None:
                raise UserError(f"{Path(self.place, name)} does not exist; {self.mend}")
            yield data

    def tars(self) -> list[str]:
        """Names of the tars in the folder, and in folders of it and theirs; hidden ones are not."""
        found = (path for depth in _DEPTHS for path in Path(self.place).glob(f"{depth}*.t*"))
        names = (path.relative_to(self.place).as_posix() for path in found)
        return [name for name in names if is_tar(name)]

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Bytes of each file; a missing one is a UserError."""
        paths = [Path(self.place, name) for name in names]
        try:
            return [path.stat().st_size for path in paths]
        except OSError as error:
            raise UserError(
                f"{error.filename} is missing ({error.strerror}); {self.mend}"
            ) from None

    def ranges(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes of each (file, offset, length), fewer where the file ends before."""
        return [self._pread(*one) for one in wanted]

    def _pread(self, name: str, offset: int, length: int) -> bytes:
        file = self._open.get(name)
        if file is not None:
            return os.pread(file, length, offset)
        path = Path(self.place, name)
        try:
            file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise UserError(f"{path} cannot be opened: {error.strerror}; {self.mend}") from error
        try:
            return os.pread(file, length, offset)
        finally:
            # never close a file that another thread may be reading: keep it, or it is only ours
            if len(self._open) >= MOST_OPEN or self._open.setdefault(name, file) != file:
                os.close(file)

    def close(self) -> None:
        """Close the open files; the next read opens what it needs."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}
