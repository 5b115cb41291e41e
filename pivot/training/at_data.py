"""Data of `train-at`: the sounds and captions of a stream of pairs, or of two with replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pivot.audio.frontend import FrontEnd
from pivot.data.batches import Batches, PairTable
from pivot.data.exclude import pairs_without
from pivot.data.fbank_cache import open_cache
from pivot.data.pairs import Pairs, pairs_with_sound, read_pairs
from pivot.data.replay import ReplayBatches, replay_seed, shares
from pivot.data.stream import SoundItems, open_with_sound
from pivot.errors import SettingsError
from pivot.settings import TrainAt
from video_prep.shards import ShardFolder


@dataclass(frozen=True)
class Stream:
    """Pairs and the shards whose clips they name."""

    shards: ShardFolder
    pairs: Pairs


def read_streams(settings: TrainAt) -> list[Stream]:
    """The pairs that train, and those of the replay where there is one."""
    shards = open_with_sound(settings.shards)
    found = [_stream(settings, settings.pairs, shards)]
    replay = settings.replay
    if replay.pairs is None:
        return found
    other = shards
    if replay.shards not in (None, settings.shards):
        if settings.terms.image_audio or settings.terms.image_text:
            raise SettingsError(
                "--replay.shards cannot be used with a term of images; leave it out, or put all "
                "clips into one folder of shards"
            )
        other = open_with_sound(replay.shards)
    return [*found, _stream(settings, replay.pairs, other)]


def _stream(settings: TrainAt, pairs: str, shards: ShardFolder) -> Stream:
    """Pairs of a file whose clips have a sound and are not to be left out."""
    read = read_pairs(pairs, select_text=settings.select_text)
    heard = pairs_with_sound(read, shards)
    return Stream(shards, pairs_without(heard, shards, settings.exclude))


@dataclass(frozen=True)
class AtData:
    """Batches over the pairs, and the tables that their rows count."""

    streams: list[Stream]
    parts: list[Batches]  # of each stream
    batches: Batches | ReplayBatches
    texts: list[str]  # unique captions of all streams
    clips: int  # of the first stream

    @property
    def sounds(self) -> SoundItems:
        """Sounds of the first stream."""
        return self.parts[0].sounds

    @property
    def ids(self) -> list[str]:
        """Ids of the clips by the numbers of `batch.rows["clip"]`."""
        shards = list(dict.fromkeys(stream.shards for stream in self.streams))
        return [clip_id for folder in shards for clip_id in folder.ids]

    @property
    def numbers(self) -> list[int]:
        """Numbers in `ids` of the clips that train."""
        return sorted({clip + first for first, part in self._offsets() for clip in part.clips})

    def _offsets(self) -> list[tuple[int, Batches]]:
        return [(_offset(self.streams, i), part) for i, part in enumerate(self.parts)]

    def facts(self, settings: TrainAt) -> dict[str, Any]:
        """What is not as in a training on one stream of clips, for results.json."""
        found: dict[str, Any] = {}
        if settings.items == "pairs":
            found["items"] = len(self.parts[0].clips)
        if len(self.streams) > 1:
            second = self.streams[1]
            found["replay"] = {
                "pairs": len(second.pairs),
                "pairs_meta": second.pairs.meta,
                "shards": second.shards.path,
                "fingerprint": second.shards.fingerprint,
                "clips": len(set(self.parts[1].clips)),
            }
        return found


def at_data(
    settings: TrainAt, streams: list[Stream], front_end: FrontEnd, sides: set[str]
) -> AtData:
    """Open the sounds and number clips and captions; a clip that is not there is an error."""
    texts: dict[str, int] = {}
    sounds: dict[ShardFolder, SoundItems] = {}
    sizes = shares(settings.replay, settings.batch_size)
    parts, clips = [], []
    for i, stream in enumerate(streams):
        if stream.shards not in sounds:  # the cache on disk is that of --shards
            cache = None if sounds else open_cache(settings.fbank, front_end, stream.shards)
            sounds[stream.shards] = SoundItems(stream.shards, front_end, settings.cache_mb, cache)
        table = PairTable.of(sounds[stream.shards], stream.pairs, texts)
        clips.append(len(table.clips))
        batches = (table.by_pair() if settings.items == "pairs" else table).batches(
            sounds[stream.shards],
            sizes[i] if len(streams) > 1 else settings.batch_size,
            settings.mask,
            replay_seed(settings.seed) if i else settings.seed,
            captions="none" if "text" not in sides else "other" if settings.redraw else "own",
            frames=settings.frames if "image" in sides else None,
            numbered_from=None if settings.targets.kind == "diagonal" else _offset(streams, i),
            short=not i,
        )
        parts.append(batches)
    whole = (
        ReplayBatches(parts[0], parts[1], settings.replay.probability)
        if len(parts) > 1
        else parts[0]
    )
    return AtData(streams, parts, whole, list(texts), clips[0])


def _offset(streams: list[Stream], i: int) -> int:
    """Number of the first clip of stream i; two streams of the same shards share the numbers."""
    return len(streams[0].shards) if streams[i].shards is not streams[0].shards else 0
