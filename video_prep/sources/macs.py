"""MACS as it is published: MACS.yaml, with the sentences and tags that people gave to each file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.sources.rows import first_row
from video_prep.sources.table_row import Row

# Martin-Morato and Mesaros, Diversity and Bias in Audio Captioning Datasets, 2021;
# zenodo.org/records/5114771: sounds of TAU Urban Acoustic Scenes 2019 (development)
NAME = "MACS"
SUFFIXES = (".yaml", ".yml")


def is_table(path: Path) -> bool:
    """Whether a file is MACS.yaml: it begins with the list of its files."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    try:
        return first_row(path).rstrip() == "files:"
    except UserError:
        return False  # no text


def read(path: Path) -> Iterator[Row]:
    """Files with the sentence of each annotator, and the tags of all of them, each once.

    Raises UserError for what is no YAML, or an entry without its file, a sentence or tags.
    """
    entries = _load(path)
    for number, entry in enumerate(entries, 1):
        where = f"{path} entry {number}"
        file = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not file.strip():
            raise UserError(f"{where} has no filename; mend it, or download MACS.yaml again")
        given = entry.get("annotations")
        if not isinstance(given, list) or not given:
            raise UserError(f"{where}: {file} has no annotations; mend it")
        captions, labels = [], dict[str, None]()
        for one in given:
            sentence, tags = (
                (one.get(key) for key in ("sentence", "tags"))
                if isinstance(one, dict)
                else (None, None)
            )
            if not isinstance(sentence, str):
                raise UserError(f"{where}: an annotation of {file} has no sentence; mend it")
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise UserError(f"{where}: tags {tags!r} of {file} are not a list of texts")
            captions += [sentence.strip()] * bool(sentence.strip())
            labels |= dict.fromkeys(tag.strip() for tag in tags if tag.strip())
        yield Row(number, file.strip(), tuple(labels), tuple(captions))


def _load(path: Path) -> list[Any]:
    import yaml  # read here alone

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes seconds, not minutes
    try:
        value = yaml.load(path.read_bytes(), loader)
    except (yaml.YAMLError, OSError, UnicodeError) as error:
        raise UserError(
            f"{path} is not YAML ({' '.join(str(error).split())}); download it again"
        ) from None
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, list):
        raise UserError(f"{path} holds no list `files`; download MACS.yaml again")
    return files
