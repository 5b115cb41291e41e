"""Names inside a shard: an id becomes a key without dots or slashes, and can be read back."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

LONGEST = 80  # characters; a USTAR name holds 100 bytes, and `.12.jpg` follows the key
_PLAIN = re.compile(rb"[A-Za-z0-9_-]")


def key_of(clip_id: str) -> str:
    """Key of an id: letters, digits, _ and - stay, every other byte becomes %XX.

    A key longer than LONGEST ends in ~ and a hash instead (the full id is in the clip's facts).
    """
    coded = "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) else f"%{byte:02X}"
        for byte in clip_id.encode("utf-8", "surrogateescape")
    )
    if len(coded) <= LONGEST:
        return coded
    digest = hashlib.sha256(clip_id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return f"{coded[: LONGEST - 33]}~{digest}"


def id_of(key: str) -> str | None:
    """Id that a key was made from, or None where the key was too long to hold it."""
    return None if "~" in key else unquote(key, errors="surrogateescape")


def shard_name(number: int) -> str:
    """Name of a shard without its suffix: shard-00007."""
    return f"shard-{number:05d}"
