"""Clips that two data sets share: compared by Freesound id, YouTube id, content, and name.

What cannot be compared is said, and is never taken for "no overlap": an id that one side lacks, and
sounds that are kept at another rate or with other channels. A name counts where nothing else tells
two clips of that name apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pivot.data.captions import SUFFIX
from pivot.data.recordings import KINDS, Recordings, form_of_shards, recordings
from pivot.data.sound_hash import form_of, is_silence
from video_prep.shards import ShardFolder
from video_prep.storage.remote import is_url

NAME = "name"  # a kind by itself: of clips that share nothing but their name


@dataclass(frozen=True)
class Shared:
    """What one kind of id said: how many clips have it, and how many of them are on both sides."""

    known_a: int
    known_b: int
    a: int  # clips of A with a partner in B
    b: int
    ids: int  # different ids among them

    def facts(self) -> dict[str, int]:
        """For JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Overlap:
    """The clips of A that are in B; see `overlap`."""

    a: Recordings
    b: Recordings
    kinds: dict[str, Shared]  # kinds that both sides have, and NAME where it says something
    partners: dict[str, NDArray[np.int32]]  # kind -> for each clip of A its first one in B, or -1
    of_b: NDArray[np.bool_]  # clips of B with a partner in A
    lone_a: int  # clips that nothing could be compared of
    lone_b: int

    @property
    def compared(self) -> bool:
        """Whether anything could be compared; without it no overlap may be told."""
        return bool(self.kinds)

    @property
    def of_a(self) -> NDArray[np.bool_]:
        """Clips of A with a partner in B (len(A),)."""
        hits = [partner >= 0 for partner in self.partners.values()]
        return np.any(hits, axis=0) if hits else np.zeros(len(self.a), np.bool_)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(name in A, name of its first partner in B, kinds such as "freesound content")."""
        for i in np.flatnonzero(self.of_a):
            places = {kind: int(partner[i]) for kind, partner in self.partners.items()}
            hits = {kind: place for kind, place in places.items() if place >= 0}
            yield self.a.names[i], self.b.names[next(iter(hits.values()))], " ".join(hits)

    def facts(self) -> dict[str, Any]:
        """Counts, for JSON."""
        return {
            "a": self.a.path,
            "b": self.b.path,
            "clips": [len(self.a), len(self.b)],
            "shared": [int(self.of_a.sum()), int(self.of_b.sum())],
            "not_compared": [self.lone_a, self.lone_b],
            "kinds": {kind: shared.facts() for kind, shared in self.kinds.items()},
            "lacking": lacking(self.a, self.b),
        }


def overlap(a: str | Path | Recordings, b: str | Path | Recordings) -> Overlap:
    """The clips that two data sets share, by every kind of id that both have.

    A file or folder is read as `recordings` does; a folder of sounds is heard in the form that the
    other side's shards keep. Zeros alone are no shared content.
    """
    a, b = _opened(a, b)
    kinds: dict[str, Shared] = {}
    partners: dict[str, NDArray[np.int32]] = {}
    of_b, seen_a, seen_b = (np.zeros(n, np.bool_) for n in (len(b), len(a), len(b)))
    for kind in KINDS:
        own, other = _comparable(kind, a.ids[kind], b.ids[kind])
        known_a, known_b = _known(own), _known(other)
        if not known_a.any() or not known_b.any():
            continue
        partners[kind], hits_b, keys = _join(own, other, silence=kind == "content")
        kinds[kind] = _shared(known_a, known_b, partners[kind], hits_b, keys)
        of_b, seen_a, seen_b = of_b | hits_b, seen_a | known_a, seen_b | known_b
    by_name, hits_b, keys = _by_name(a, b, [partner >= 0 for partner in partners.values()])
    if keys:
        partners[NAME] = by_name
        all_a, all_b = np.ones(len(a), np.bool_), np.ones(len(b), np.bool_)
        kinds[NAME] = _shared(all_a, all_b, by_name, hits_b, keys)
        of_b, seen_a, seen_b = of_b | hits_b, seen_a | (by_name >= 0), seen_b | hits_b
    return Overlap(a, b, kinds, partners, of_b, int((~seen_a).sum()), int((~seen_b).sum()))


def lacking(a: Recordings, b: Recordings) -> dict[str, str]:
    """Kind -> why it could not be compared: which side has none, or the forms of the sounds."""
    found = {}
    for kind in KINDS:
        sides = [(name, side.known(kind)) for name, side in (("A", a), ("B", b))]
        without = [name for name, known in sides if not known]
        if len(without) == 2:
            found[kind] = "neither A nor B has one"
        elif without:
            found[kind] = f"{without[0]} has none"
        elif kind == "content" and not _forms(a.ids[kind]) & _forms(b.ids[kind]):
            forms = (", ".join(sorted(_forms(side.ids[kind]))[:3]) for side in (a, b))
            found[kind] = "kept in other forms (Hz/channels): A {}, B {}".format(*forms)
    return found


def counts_of(found: Overlap) -> str:
    """How many clips of A each kind found, such as "94 by Freesound id, 3 by sound"."""
    kinds = ((KINDS.get(kind, "name alone"), one.a) for kind, one in found.kinds.items() if one.a)
    return ", ".join(f"{number:,} by {words}" for words, number in kinds)


def nothing_compared(found: Overlap) -> str:
    """The line that refuses to tell an overlap of what cannot be compared."""
    why = "; ".join(f"{KINDS[kind]}: {text}" for kind, text in lacking(found.a, found.b).items())
    return (
        f"nothing of {found.a.path} (A) and {found.b.path} (B) can be compared ({why}); give the "
        "one the ids of the other, or say what its names are (freesound:FILE, youtube:FILE)"
    )


# ---- comparing ------------------------------------------------------------------------------


def _opened(
    a: str | Path | Recordings, b: str | Path | Recordings
) -> tuple[Recordings, Recordings]:
    """Both sides; shards first, since they say in which form a folder of sounds is heard."""
    if isinstance(a, Recordings):
        return a, b if isinstance(b, Recordings) else recordings(b)
    if isinstance(b, Recordings):
        return recordings(a), b
    forms = [_form(side) for side in (a, b)]
    return recordings(a, forms[1]), recordings(b, forms[0])


def _form(source: str | Path) -> Any:
    is_shards = is_url(source) or Path(source, "manifest.json").is_file()
    return form_of_shards(ShardFolder(source)) if is_shards else None


def _comparable(
    kind: str, a: list[str | None], b: list[str | None]
) -> tuple[list[str | None], list[str | None]]:
    """The ids; of the sounds only those of a form that both sides have."""
    if kind != "content":
        return a, b
    forms = _forms(a) & _forms(b)
    a, b = ([one if one and form_of(one) in forms else None for one in side] for side in (a, b))
    return a, b


def _forms(sounds: list[str | None]) -> set[str]:
    return {form_of(sound) for sound in sounds if sound}


def _known(ids: list[str | None]) -> NDArray[np.bool_]:
    return np.fromiter((one is not None for one in ids), np.bool_, len(ids))


def _join(
    a: Sequence[str | None], b: Sequence[str | None], silence: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.bool_], set[str]]:
    """First place in b of each of a or -1, which of b are in a, and the shared ids."""
    first: dict[str, int] = {}
    for j, key in enumerate(b):
        if key is not None:
            first.setdefault(key, j)
    keys = {key for key in a if key is not None and key in first}
    if silence:
        keys = {key for key in keys if not is_silence(key)}
    partner = (first[key] if key in keys else -1 for key in a)
    hits = (key in keys for key in b)
    return np.fromiter(partner, np.int32, len(a)), np.fromiter(hits, np.bool_, len(b)), keys


def _shared(
    known_a: NDArray[np.bool_],
    known_b: NDArray[np.bool_],
    partner: NDArray[np.int32],
    hits_b: NDArray[np.bool_],
    keys: set[str],
) -> Shared:
    counts = (known_a.sum(), known_b.sum(), (partner >= 0).sum(), hits_b.sum(), len(keys))
    return Shared(*map(int, counts))


def _by_name(
    a: Recordings, b: Recordings, known: list[NDArray[np.bool_]]
) -> tuple[NDArray[np.int32], NDArray[np.bool_], set[str]]:
    """As `_join`, for clips of one name whose ids say neither that they are one nor that not."""
    folders = [any("/" in name for name in side.names) for side in (a, b)]
    alone = folders[0] != folders[1]  # the folders are known of one side only
    names_a, names_b = bare(a.names, alone), bare(b.names, alone)
    partner, _, _ = _join(names_a, names_b)
    for hits_a in known:
        partner[hits_a] = -1
    hits, keys = np.zeros(len(b), np.bool_), set()
    for i in np.flatnonzero(partner >= 0):
        j = int(partner[i])
        if any(_differ(kind, a.ids[kind][i], b.ids[kind][j]) for kind in KINDS):
            partner[i] = -1
        else:
            hits[j] = True
            keys.add(names_a[i])
    return partner, hits, keys


def _differ(kind: str, one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return False
    return kind != "content" or form_of(one) == form_of(other)


def bare(names: Sequence[str], alone: bool = True) -> list[str]:
    """Names without the suffix of a file, and without folders where they stand `alone`."""
    return [SUFFIX.sub("", name.rpartition("/")[2] if alone else name) for name in names]
