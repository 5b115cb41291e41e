"""Proof that a file is whole: JSON carries a hash of itself, other files are hashed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_PART = 1 << 20  # bytes read at a time


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The object with `check`, the sha256 of all the rest of it, as its last key."""
    return {**value, "check": _check(value)}


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The object in a sealed JSON file, without its `check`; None where it is not whole.

    Not whole: missing, unreadable, no JSON object, or its content is not what `check` says.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(value, dict) and value.pop("check", None) == _check(value)
    except (OSError, ValueError, RecursionError):
        return None
    return value if whole else None


def _check(value: dict[str, Any]) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of a file, read in parts; raises OSError where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while part := file.read(_PART):
            digest.update(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}
