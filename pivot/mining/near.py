"""DU, DS and ADS: pairs that a teacher chooses by likeness, without labels of the sounds.

du: every (sound, caption) whose cosine reaches a threshold, many to many. ds: the rows of a pairs
or captions file whose caption is near a label of the downstream task ("this is a sound of dog").
ads: du with such captions alone. "Unsupervised Improvement of Audio-Text Cross-Modal
Representations" (du at 0.75; ds and ads at 0.6 to 0.75).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pivot.data.captions import Caption
from pivot.data.pairs import Pair, read_meta, stream_pairs, write_pairs
from pivot.embeddings.sources import hash_texts
from pivot.embeddings.store import EmbeddingStore, UnitRows, is_store
from pivot.errors import DataError, SettingsError
from pivot.mining.hits import Hits
from pivot.mining.nearness import Limits, near_labels, near_pairs
from pivot.mining.pool import caption_pool, chosen_clips
from pivot.mining.summary import Summary
from pivot.mining.teacher import Teacher, check_ids, check_rows, store_facts
from pivot.runs import resolve_device, versions
from pivot.settings import MineCaptions

RULES = ("du", "ds", "ads")
LIMITS = ("threshold", "quantile", "wanted", "top_k", "max_per_caption", "max_per_audio", "most")
NO_LABELS = ("labels", "label_threshold")


class ChosenRows(UnitRows):
    """Some rows of a store as float32 of unit length, (n, d), read when asked for: for `match`."""

    def __init__(self, store: EmbeddingStore, rows: NDArray[np.int64]) -> None:
        super().__init__(store.vectors)
        self.rows = rows
        self.shape = (len(rows), store.dim)
        self.nbytes = 4 * len(rows) * store.dim  # once they are all in memory

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.rows)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Some of them, by slice or by index."""
        return super().__getitem__(self.rows[rows])


def run(settings: MineCaptions) -> int:
    """Make the pairs file of rule du, ds or ads and say what is in it."""
    _check(settings)
    store = EmbeddingStore.open(settings.images)
    check_rows(store)
    teacher = Teacher(settings, store)
    return _labelled_rows(settings, teacher) if settings.rule == "ds" else _near(settings, teacher)


def _check(settings: MineCaptions) -> None:
    """Raise SettingsError for settings that another rule has, or that lack one another."""
    ds, du = settings.rule == "ds", settings.rule == "du"
    strange = [*LIMITS, "ids"] if ds else [*NO_LABELS] if du else []
    for name in [*strange, "audio", "joined"]:
        if getattr(settings, name) != type(settings).model_fields[name].default:
            option = name.replace("_", "-")
            raise SettingsError(f"--{option} is not for --rule {settings.rule}")
    if not du and (settings.labels is None or settings.label_threshold is None):
        raise SettingsError(
            f"--rule {settings.rule} needs --labels, the names of the downstream task, and "
            "--label-threshold, the least cosine of a caption with one of them"
        )
    if not ds:
        _limits(settings).check()


def _limits(settings: MineCaptions) -> Limits:
    return Limits(**{name: getattr(settings, name) for name in LIMITS})


# ---- du, ads --------------------------------------------------------------------------------


def _near(settings: MineCaptions, teacher: Teacher) -> int:
    store = teacher.store.require(what="audio")
    check_ids(store)
    clips, only = chosen_clips(settings, store)
    skipped: list[str] = []
    captions = caption_pool(settings, skipped)
    path = settings.captions if is_store(settings.captions) else settings.texts
    vectors = teacher.captions([caption.text for caption in captions], path)
    facts: dict[str, Any] = {}
    if settings.rule == "ads":
        kept, facts = _near_the_labels(settings, teacher, vectors)
        captions, vectors = [captions[i] for i in kept], vectors[kept]
    facts["captions"] = {"count": len(captions), "sha256": hash_texts([c.text for c in captions])}
    whole = len(clips) == len(store)
    sounds = store.unit_rows() if whole else ChosenRows(store, clips)
    out, device = Path(settings.out), resolve_device(settings.device)
    with tqdm(total=len(clips), unit=" sounds", desc=settings.rule, disable=None) as bar:
        near = near_pairs(sounds, vectors, _limits(settings), out.parent, device, bar.update)
    facts |= {"threshold": near.threshold, "pairs": len(near.hits), "before_caps": near.before_caps}
    if only:
        facts["only"] = only
    summary = Summary()
    print(_found(near.threshold, near.before_caps, len(clips) * len(captions)))
    rows = _rows(near.hits, [store.ids[i] for i in clips], captions, settings.rule)
    write_pairs(out, summary.watch(rows), _meta(settings, teacher, facts))
    summary.tell(settings.out, f" of {len(clips):,}", f" of {len(captions):,}")
    if skipped:
        print(f"{len(skipped)} empty captions left out, the first: {skipped[0]}")
    summary.show()
    return 0


def _found(threshold: float | None, before: int, of: int) -> str:
    reach = "are looked at" if threshold is None else f"reach a cosine of {threshold:.6g}"
    return f"{before:,} of {of:,} pairs {reach}"


def _rows(hits: Hits, ids: list[str], captions: list[Caption], rule: str) -> Iterator[Pair]:
    for block in hits:
        columns = (block[name].tolist() for name in ("sound", "caption", "score"))
        for i, j, score in zip(*columns, strict=True):
            caption = captions[j]
            yield Pair(ids[i], caption.id, caption.text, score, rule)


# ---- labels ---------------------------------------------------------------------------------


def _near_the_labels(
    settings: MineCaptions, teacher: Teacher, vectors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Numbers of the captions that are near a label, and what is to be noted of it."""
    kept, _, facts = _label_test(settings, teacher, vectors)
    return kept, facts


def _label_test(
    settings: MineCaptions, teacher: Teacher, vectors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, Any]]:
    threshold = settings.label_threshold
    assert threshold is not None
    labels, prompted = teacher.labels()
    device = resolve_device(settings.device)
    kept, score = near_labels(vectors, prompted, threshold, device)
    if not len(kept):
        raise DataError(
            f"--label-threshold {threshold} keeps none of {len(score):,} captions; the nearest has "
            f"a cosine of {score.max():.4f} with a label of {settings.labels}"
        )
    print(f"{len(kept):,} of {len(score):,} captions are near one of {len(labels):,} labels")
    facts = {"labels": {"names": labels, "prompt": settings.label_prompt, "threshold": threshold,
                        "captions_before": len(score), "captions_kept": len(kept)}}  # fmt: skip
    return kept, score, facts


def _labelled_rows(settings: MineCaptions, teacher: Teacher) -> int:
    """ds: the rows of a pairs file, or of captions that name their clips, near the labels."""
    texts: dict[str, int] = {}
    count = 0
    for pair in stream_pairs(settings.captions):
        texts.setdefault(pair.caption, len(texts))
        count += 1
    vectors = teacher.captions(list(texts), settings.texts)
    kept, score, facts = _label_test(settings, teacher, vectors)
    wanted = np.zeros(len(texts), np.bool_)
    wanted[kept] = True
    facts["captions"] = {"count": len(texts), "sha256": hash_texts(list(texts))}
    facts["rows"] = count
    facts["source"] = read_meta(settings.captions)

    def rows() -> Iterator[Pair]:
        for pair in stream_pairs(settings.captions):
            number = texts[pair.caption]
            if wanted[number]:
                yield pair._replace(score=float(score[number]), rule="ds")

    summary = Summary()
    write_pairs(settings.out, summary.watch(rows()), _meta(settings, teacher, facts))
    summary.tell(settings.out, "", f" of {len(texts):,}")
    summary.show()
    return 0


def _meta(settings: MineCaptions, teacher: Teacher, facts: dict[str, Any]) -> dict[str, Any]:
    """What made the pairs, for the file itself."""
    stores = {"store": teacher.store, **teacher.used}
    return {
        "rule": settings.rule,
        # without the name of the file: equal inputs give equal bytes
        "settings": settings.model_dump(mode="json", exclude={"out"}),
        "teacher": {name: store_facts(store) for name, store in stores.items()},
        **facts,
        "versions": versions(),
    }
