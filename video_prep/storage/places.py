"""Where in the tars of a folder each clip's members lie: what opening a folder comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SOUND, FACTS = -2, -1  # members of a clip as `read` names them, beside its frames 0, 1, ...
NO_SOUND = (0, 0)  # place of a sound that is not there; every member begins after a header


@dataclass(frozen=True)
class Places:
    """Ids of the clips and the places of their members, in the order of the tars."""

    tars: list[str]  # names in the folder
    ids: list[str]
    shards: np.ndarray  # (clips,) int32: number of the clip's tar
    members: np.ndarray  # (clips, frames + 2, 2) int64: offset and length of each member
    fingerprint: str  # of the content
    ids_without_sound: list[str]
    manifest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_tars(
        cls,
        tars: list[str],
        found: list[tuple[list[str], np.ndarray]],
        fingerprint: str,
        sound: bool,
        manifest: dict[str, Any],
    ) -> Places:
        """One after the other what the tars hold: (ids, members); with `sound` what has one."""
        ids: list[str] = []
        without: list[str] = []
        shards, members = [], []
        for number, (own, places) in enumerate(found):
            heard = places[:, SOUND, 1] > 0
            without += [own[i] for i in np.flatnonzero(~heard)]
            if sound and not heard.all():
                own, places = [own[i] for i in np.flatnonzero(heard)], places[heard]
            ids += own
            shards.append(np.full(len(own), number, np.int32))
            members.append(places)
        whole = np.concatenate(members), np.concatenate(shards)
        return cls(tars, ids, whole[1], whole[0], fingerprint, without, manifest)
