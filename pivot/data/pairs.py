"""Pairs files: which sound goes with which caption, in every layout that is in use.

    .parquet            audio_id, caption_id, caption, score, rule; the settings in its metadata
    .csv .jsonl         the same columns; the settings in FILE.about.json beside it
    X_cap.csv, X.json   VIP-ANT's lists of caption ids with X_map.csv beside (see pair_lists)
    a caption file      with clip and caption: the clips' own, gold pairs
    shards              prepared ones or LAION's tars, local or by URL: the clips' own captions

Whatever is written comes back as it was, but for the scores that lists do not keep.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pivot.data import pair_lists, pair_tables
from pivot.data.about import read_about, write_about
from pivot.data.captions import read_captions
from pivot.data.pair_tables import Pair as Pair
from pivot.errors import DataError, SettingsError
from video_prep.files import whole_file
from video_prep.shards import SelectText, ShardFolder, is_shards

LAYOUTS = ".parquet, .csv, .jsonl, _cap.csv or .json"
UNKNOWN = "listed"  # rule of lists that do not say how they were made


@dataclass(frozen=True)
class Pairs:
    """The columns of a pairs file, all of one length, and the settings behind them.

    Equal strings are one object, so that a million pairs take about 80 MB.
    """

    audio_ids: list[str]
    captions: list[str]
    scores: list[float]
    meta: dict[str, Any] = field(default_factory=dict)
    caption_ids: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.audio_ids)


# ---- writing --------------------------------------------------------------------------------


def check_out(path: str | Path) -> None:
    """Raise SettingsError for a name whose layout is not known."""
    if Path(path).suffix.lower() not in (".parquet", ".csv", ".json", *pair_tables.JSON_LINES):
        raise SettingsError(f"--out {path} must end in {LAYOUTS}")


def write_pairs(path: str | Path, rows: Iterable[Pair], meta: dict[str, Any]) -> int:
    """Stream pairs into a file that appears whole, in the layout of its name; return how many.

    Lists (X_cap.csv, X.json) hold a clip's captions together, so the ids are gathered first.
    Raises DataError when there is no pair: a file without pairs would only fail later.
    """
    path = Path(path)
    check_out(path)
    with whole_file(path) as file:
        if path.suffix.lower() == ".parquet":
            count = pair_tables.write_parquet(file, rows, meta)
        elif path.suffix.lower() in pair_tables.JSON_LINES:
            count = pair_tables.write_json_lines(file, rows)
        elif path.suffix.lower() == ".csv" and not path.name.endswith(pair_lists.CAP):
            count = pair_tables.write_csv(file, rows)
        else:
            count = pair_lists.write_lists(file, path, rows)
        if not count:
            raise DataError(f"no pair to write to {path}; nothing matched")
    if path.suffix.lower() != ".parquet":
        write_about(path, {"pairs": count, "meta": meta})
    return count


def write_frames(
    path: Path, lines: Iterable[tuple[str, list[str]]], texts: dict[str, str], meta: dict[str, Any]
) -> None:
    """Write X_cap.csv with a line a frame, (name, caption ids), and X_map.csv with all `texts`."""
    pair_lists.check_map(path, texts)
    with whole_file(path) as file:
        pair_lists.write_cap(file, lines)
        pair_lists.write_map(path, texts)
    write_about(path, {"meta": meta})


# ---- reading --------------------------------------------------------------------------------


def read_pairs(
    path: str | Path, captions: str | None = None, select_text: SelectText = "none"
) -> Pairs:
    """Pairs of a file of any layout (see above), in its order.

    `captions` names the captions of lists of ids: X_map.csv, or any caption file with such ids.
    `select_text` chooses among the captions in LAION's tars: none, all or augment_only.
    Raises DataError for a missing, damaged or empty file, for a pair without id or caption, and for
    a caption id that the map does not have.
    """
    same: dict[str, str] = {}
    audio_ids, texts, scores, caption_ids, rules = [], [], [], [], []
    for pair in stream_pairs(path, captions, select_text):
        audio_ids.append(same.setdefault(pair.audio_id, pair.audio_id))
        caption_ids.append(same.setdefault(pair.caption_id, pair.caption_id))
        texts.append(same.setdefault(pair.caption, pair.caption))
        rules.append(same.setdefault(pair.rule, pair.rule))
        scores.append(pair.score)
    meta = read_meta(path, captions)
    if select_text != "none":
        meta = {**meta, "select_text": select_text}
    return Pairs(audio_ids, texts, scores, meta, caption_ids, rules)


def stream_pairs(
    path: str | Path, captions: str | None = None, select_text: SelectText = "none"
) -> Iterator[Pair]:
    """The pairs of `read_pairs` one by one; a file with a row a pair is never all in memory."""
    number = -1
    for number, pair in enumerate(_rows(path, captions, select_text)):
        if not pair.audio_id or not pair.caption or not pair.caption.strip():
            raise DataError(f"{path} pair {number} lacks its sound or its caption")
        yield pair
    if number < 0:
        raise DataError(f"{path} holds no pair")


def read_meta(path: str | Path, captions: str | None = None) -> dict[str, Any]:
    """The settings that made a pairs file, where it tells them; else its source alone."""
    if is_shards(path):
        return {"rule": "gold", "source": str(path)}
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        return pair_tables.parquet_meta(path)
    meta = read_about(path).get("meta")
    if isinstance(meta, dict):
        return meta
    return {"rule": UNKNOWN if pair_lists.is_lists(path, captions) else "gold", "source": str(path)}


def _rows(
    source: str | Path, captions: str | None, select_text: SelectText = "none"
) -> Iterator[Pair]:
    path = Path(source)
    if captions is None and (select_text != "none" or is_shards(source)):
        return _gold_of_shards(source, select_text)
    suffix = path.suffix.lower()
    if pair_lists.is_lists(path, captions):
        return pair_lists.read_lists(path, captions, read_meta(path, captions).get("rule", ""))
    if captions is not None:
        raise SettingsError(f"--captions {captions} is for lists of caption ids, not for {path}")
    if suffix == ".parquet":
        return pair_tables.read_parquet(path)
    if suffix in (".csv", ".tsv", *pair_tables.JSON_LINES) and pair_tables.is_table(path):
        return pair_tables.read_table(path)
    return _gold(path)


def _gold(path: Path) -> Iterator[Pair]:
    if path.suffix.lower() == ".json" and pair_lists.has_ids(path):
        raise pair_lists.no_map(path)
    for caption in read_captions(path):
        if caption.clip is None:
            raise DataError(f"{path}: pairs need the clip of each caption; add a column `id`")
        yield Pair(caption.clip, caption.id, caption.text)


def _gold_of_shards(source: str | Path, select_text: SelectText) -> Iterator[Pair]:
    """The clips' own captions; blank ones are counted on stderr, for tars cannot be mended."""
    skipped: list[str] = []
    for caption in read_captions(source, skipped, select_text):
        if caption.clip is None:
            raise DataError(f"{source}: pairs need the clip of each caption; add a column `id`")
        yield Pair(caption.clip, caption.id, caption.text)
    if skipped:
        print(f"left out: {len(skipped):,} captions, the first {skipped[0]}", file=sys.stderr)


def pairs_with_sound(pairs: Pairs, shards: ShardFolder) -> Pairs:
    """The pairs whose clip is not known to lack a sound; one line on stderr counts the others.

    Pairs are mined from frames too, so they may name such clips. Raises DataError where no pair
    is left.
    """
    silent = set(shards.ids_without_sound)
    kept = [i for i, clip in enumerate(pairs.audio_ids) if clip not in silent]
    if len(kept) == len(pairs):
        return pairs
    what = f"{len(pairs) - len(kept)} of {len(pairs)} pairs"
    why = f"of clips of {shards.path} that have no sound (flag no_audio)"
    if not kept:
        raise DataError(f"{what} are {why}; nothing is left to train on")
    print(f"left out: {what}, {why}", file=sys.stderr)
    return pairs_of_rows(pairs, kept)


def pairs_of_rows(pairs: Pairs, rows: Sequence[int]) -> Pairs:
    """The pairs of these rows alone, with the settings of all."""
    return Pairs(
        [pairs.audio_ids[i] for i in rows],
        [pairs.captions[i] for i in rows],
        [pairs.scores[i] for i in rows],
        pairs.meta,
        [pairs.caption_ids[i] for i in rows] if pairs.caption_ids else [],
        [pairs.rules[i] for i in rows] if pairs.rules else [],
    )
