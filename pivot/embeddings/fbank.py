"""`pivot embed fbank`: FBANK of the sounds in shards as uint8 files that training reads.

A file of codes holds the sounds of FILE_SOUNDS inputs and is what a killed process does again. Its
bounds do not depend on the parts, so neither do its bytes; nothing is copied when parts are joined.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pivot.audio.frontend import real_frames
from pivot.audio.norms import fingerprint
from pivot.data.fbank_cache import (
    FORMAT,
    IDS,
    MANIFEST,
    SOUNDS,
    STEP,
    TOP,
    ZERO,
    code_file,
    deciding,
    to_codes,
)
from pivot.embeddings.part_files import read_part, write_part
from pivot.embeddings.parts import Part, PartFolder, progress, tell_failed, tell_left
from pivot.embeddings.sources import ShardSounds, through
from pivot.errors import DataError, NothingUsableError, SettingsError
from pivot.runs import versions
from pivot.settings import AudioSettings, ClipSettings, Embed
from video_prep.files import whole_file, write_json
from video_prep.shards import ShardFolder, content_fingerprint

FILE_SOUNDS = 1024  # 128 MB of codes for sounds of 10 s


class FbankWriter(PartFolder):
    """An FBANK cache being written; see PartFolder."""

    def __init__(
        self, path: str | Path, shards: ShardFolder, audio: AudioSettings, part: Part | None = None
    ) -> None:
        """Begin, or go on with, one part of the cache of these shards."""
        identity = {
            "format": FORMAT,
            "what": "fbank",
            "audio": deciding(audio),
            "definition": fingerprint(audio),
            "bins": audio.num_mel_bins,
            "code": {"dtype": "uint8", "step": STEP, "zero": ZERO},
            "data": {"path": str(shards.path), "fingerprint": shards.fingerprint},
        }
        super().__init__(path, identity, shards.ids, part, FILE_SOUNDS)
        self.sounds, self.audio = ShardSounds(shards), audio

    def write_file(self) -> range:
        """Compute the next file of codes; return its inputs."""
        inputs = range(self.next, min(self.next + self.step, self.inputs.stop))
        number, digest = self.next // self.step, hashlib.sha256()
        rows: list[int] = []
        places: list[int] = []
        failures: list[dict[str, str]] = []
        clamped = 0
        with whole_file(self.path / code_file(number)) as file:
            for i, found in through(self.sounds, inputs, self._real_frames):
                if isinstance(found, DataError):
                    failures.append({"id": self.ids[i], "error": str(found)})
                    continue
                clamped += int((found > TOP + STEP / 2).sum()) if found.max() > TOP else 0
                data = to_codes(found).tobytes()
                digest.update(data)
                file.write(data)
                places.append(i)
                rows.append(len(found))
        write_part(
            self.path,
            inputs.start,
            inputs.stop,
            places=np.array(places, np.int64),
            rows=np.array(rows, np.int64),
            failures=np.array(json.dumps(failures)),
            clamped=np.array(clamped),
            digest=np.array(digest.hexdigest()),
        )
        self.next = inputs.stop
        return inputs

    def _real_frames(self, wave: NDArray, rate: int) -> NDArray[np.float32]:
        frames: NDArray[np.float32] = real_frames(wave, rate, self.audio).numpy()
        return frames

    def _join(self, parts: list[Path]) -> None:
        places, failures, clamped, digests = [], [], 0, []
        sounds = [np.empty((0, 3), np.int64)]
        for part in parts:
            kept, rows, failed, lost, digest = read_part(
                part, "places", "rows", "failures", "clamped", "digest"
            )
            places += kept.tolist()
            sounds.append(np.stack([kept // self.step, np.cumsum(rows) - rows, rows], axis=1))
            failures += json.loads(str(failed))
            clamped += int(lost)
            digests.append(str(digest))
        self._write_failures(failures)
        if not places:
            raise self._nothing_usable()
        table = np.concatenate(sounds)
        with whole_file(self.path / SOUNDS) as file:
            np.save(file, table)
        write_json(self.path / IDS, [self.ids[place] for place in places])
        facts = {
            "count": len(places),
            "failed": len(failures),
            "frames": int(table[:, 2].sum()),
            "clamped": clamped,
            "codes_sha256": content_fingerprint(digests),
            "versions": versions(),
        }
        write_json(self.path / MANIFEST, {**self.identity, **facts})

    def _nothing_usable(self) -> NothingUsableError:
        for file in self.path.glob("codes-*.u8"):
            file.unlink(missing_ok=True)
        return super()._nothing_usable()


def run(settings: Embed, part: Part) -> int:
    """Write the FBANK cache of some shards, or one part of it; say what was made."""
    if settings.model or settings.clip != ClipSettings() or settings.prompt:
        raise SettingsError("pivot embed fbank takes no --model, --clip or --prompt")
    writer = FbankWriter(settings.out, ShardFolder(settings.data), settings.audio, part)
    with progress(writer, "sounds") as bar:
        while writer.next < writer.inputs.stop:
            bar.update(len(writer.write_file()))
    if not writer.join():
        tell_left(writer)
        return 0
    manifest = json.loads((writer.path / MANIFEST).read_text("utf-8"))
    size = manifest["frames"] * manifest["bins"] / 1e6
    print(
        f"{writer.path}: FBANK of {manifest['count']} sounds, {manifest['frames']} frames, "
        f"{size:.1f} MB"
    )
    if manifest["clamped"]:
        print(f"{manifest['clamped']} values above {TOP:.2f} nats were clamped to it")
    tell_failed(writer, manifest["failed"])
    return 0
