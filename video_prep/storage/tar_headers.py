"""Walks the headers of a plain tar without reading what lies between: names, places, sizes.

Python's tarfile takes ten times as long, and ends at a damaged header without a word. Formats:
POSIX.1-2017, pax (ustar and extended headers), and GNU tar's long names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

BLOCK = 512
Read = Callable[[int, int], bytes]  # (offset, length) -> bytes, fewer where the file ends before
_EMPTY = bytes(BLOCK)
_FILES, _LINKS = b"\x0007", b"12"  # types of a header
_EXTENDED, _LONG_NAME, _FOR_ALL = b"x", b"L", b"gK"
_LONGEST = 1 << 20  # bytes of an extended header, which holds a name


class Member(NamedTuple):
    """A file in a tar: its name, where its bytes begin, how many they are, a sum of its header."""

    name: str
    offset: int
    size: int
    checksum: int


class DamagedTar(Exception):
    """What is wrong with a tar, as the end of a sentence that begins with its name."""


def members(read: Read, size: int | None, ahead: int) -> Iterator[Member]:
    """The files of a tar in their order; folders and hidden files are left out.

    `size` is the tar's, None where nobody knows; `ahead` bytes are read at a time. Raises
    DamagedTar for one that is compressed, cut short or damaged, with the member where it is.
    """
    window = _Window(read, size, ahead)
    if window.at(0, 2) == b"\x1f\x8b":
        raise DamagedTar(
            "is compressed (gzip), and clips are read from anywhere in a tar: unpack it to a "
            "plain one"
        )
    at, last, name = 0, "no member", ""
    while block := _header(window, at, last):
        kind, length, start = block[156:157], _number(block[124:136]), at + BLOCK
        name = name or _name(block)
        last = f"member {name!r}"
        if size is not None and start + length > size:
            raise DamagedTar(
                f"ends inside its {last}, after {max(size - start, 0)} of {length} bytes"
            )
        at = start + -(-length // BLOCK) * BLOCK
        if kind in _EXTENDED + _LONG_NAME:
            if length > _LONGEST:
                raise DamagedTar(f"has a damaged header at byte {start - BLOCK}, before {last}")
            data = window.at(start, length)
            name = _pax_name(data) if kind == _EXTENDED else _text(data)
            continue
        if kind in _LINKS or kind == b"S":
            raise DamagedTar(f"holds {name!r} as a link or in pieces, not as a file")
        if kind in _FILES and not name.rpartition("/")[2].startswith("."):
            yield Member(name.removeprefix("./"), start, length, _number(block[148:156]))
        name = "" if kind not in _FOR_ALL else name


def _header(window: _Window, at: int, last: str) -> bytes:
    """The header at a byte, empty at the end of the tar; DamagedTar where it is neither."""
    block = window.at(at, BLOCK)
    if not block:
        raise DamagedTar(f"ends after {last} without the empty blocks that close a tar")
    if len(block) < BLOCK:
        raise DamagedTar(f"ends inside a header, after {last}")
    if block == _EMPTY:
        return b""
    try:
        whole = sum(block) - sum(block[148:156]) + 8 * 32 == _number(block[148:156])
        _number(block[124:136])
    except ValueError:
        whole = False
    if not whole:
        raise DamagedTar(f"has a damaged header at byte {at}, after {last}")
    return block


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 where the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _name(block: bytes) -> str:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (folder := _text(block[345:500])):
        return f"{folder}/{name}"
    return name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _pax_name(data: bytes) -> str:
    """The path among records "LENGTH KEY=VALUE\\n", or nothing."""
    at = 0
    while at < len(data):
        length, _, _ = data[at : at + 20].partition(b" ")
        if not length.isdigit() or not int(length):
            raise DamagedTar("has a damaged extended header")
        key, _, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        if key == b"path":
            return value.decode("utf-8", "backslashreplace")
        at += int(length)
    return ""


class _Window:
    """Bytes of a file by place; a few more than were asked for are kept for the next time."""

    def __init__(self, read: Read, size: int | None, ahead: int) -> None:
        self._read, self._size, self._ahead = read, size, ahead
        self._start, self._data = 0, b""

    def at(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, fewer where the file ends before."""
        first = offset - self._start
        if first < 0 or first + length > len(self._data):
            wanted = max(length, self._ahead)
            if self._size is not None:
                wanted = min(wanted, max(self._size - offset, 0))
            self._start, first = offset, 0
            self._data = self._read(offset, wanted) if wanted else b""
        return self._data[first : first + length]
