"""FILE.about.json: what made a file that cannot say so itself, and that file's hash."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pivot.data.tables import read_json
from video_prep.files import write_json


def about_of(path: Path) -> Path:
    """The file that tells what made `path`."""
    return path.with_name(f"{path.name}.about.json")


def write_about(path: Path, facts: dict[str, Any]) -> None:
    """Note what made the file `path`, which is there already."""
    write_json(about_of(path), {"file": path.name, "sha256": _hash(path), **facts})


def read_about(path: Path) -> dict[str, Any]:
    """What was noted; nothing where the file has changed since."""
    if not about_of(path).is_file():
        return {}
    facts = read_json(about_of(path))
    if not isinstance(facts, dict) or facts.get("sha256") != _hash(path):
        return {}
    return facts


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
