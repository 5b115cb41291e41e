"""Mean and deviation of FBANK: exact sums in any order, and the file that names its front end.

Sums are kept as whole numbers of 2^-20, so that adding them up is exact: any order of clips, any
number of shards and of workers gives the same result to the last bit. Frames weigh equally.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pivot.errors import DataError, SettingsError
from pivot.settings import AudioSettings, FrontEndSettings
from pivot.settings.front_ends import HtkDbSettings

SCALE = 1 << 20
KIND = "pivot fbank norms"

# Settings that do not change the value of an FBANK frame, or of a frame of log-mel.
FREE = {"kind", "num_frames", "crop", "pad", "norms", "backend"}
MEL_FREE = {"num_frames", "windows", "fill", "views", "antialias", "jitter"}
# Part of the fingerprint: bump it when fbank.py or mel.py computes other values from the same
# settings.
DEFINITION = "kaldi hanning power log 1; soxr HQ"
MEL_DEFINITION = "mel 1; soxr HQ"


@dataclass(frozen=True)
class Norm:
    """What FBANK is normalised with: (x - mean) / std, and where the two come from."""

    mean: float
    std: float
    source: str


# VIP-ANT measured at each file's own rate, padding rows counted (its code).
# AST divides by twice its deviation; the factor is in the number here.
NAMED = {
    "vip_ant": Norm(-4.93839311, 5.75751113, "vip_ant"),
    "ast": Norm(-4.2677393, 2 * 4.5689974, "ast"),
}
NO_NORM = Norm(0.0, 1.0, "none")  # of log-mel, whose definitions have their own range


def front_end(settings: FrontEndSettings) -> dict[str, Any]:
    """The settings that decide the value of a frame of FBANK or log-mel."""
    free = FREE if isinstance(settings, AudioSettings) else MEL_FREE
    return {k: v for k, v in settings.model_dump(mode="json").items() if k not in free}


def fingerprint(settings: FrontEndSettings) -> str:
    """Hash of everything that changes a frame's values, and of nothing that only chooses frames.

    So crop, pad, num_frames, windows, fill and views are not in it: see `input_facts`.
    """
    definition = DEFINITION if isinstance(settings, AudioSettings) else MEL_DEFINITION
    text = json.dumps([definition, front_end(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def input_facts(settings: FrontEndSettings) -> dict[str, Any]:
    """What decides an encoder input besides `fingerprint` and the norm: which frames, how filled.

    Not what only training does (`jitter`), nor who computes (`backend`).
    """
    if isinstance(settings, AudioSettings):
        return {"window": [settings.num_frames, settings.crop, settings.pad]}
    facts: dict[str, Any] = {"window": [settings.num_frames, settings.windows, settings.fill]}
    if isinstance(settings, HtkDbSettings):
        facts["views"] = [settings.views, settings.antialias]
    return facts


@dataclass
class FbankStats:
    """Exact sums over FBANK frames, per mel bin, in units of 1 / SCALE."""

    frames: int = 0
    clips: int = 0
    sums: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)

    def add(self, rows: np.ndarray) -> None:
        """Count the frames (T, M) of one clip; its sums are rounded once, to 1 / SCALE."""
        x = np.asarray(rows, np.float64)
        sums = [round(v * SCALE) for v in x.sum(axis=0).tolist()]
        squares = [round(v * SCALE) for v in np.square(x).sum(axis=0).tolist()]
        self.merge(FbankStats(len(x), 1, sums, squares))

    def merge(self, other: FbankStats) -> None:
        """Add the sums of another part; exact, so the order does not matter."""
        if not other.sums:
            return
        if self.sums and len(self.sums) != len(other.sums):
            raise DataError(
                f"sums over {len(self.sums)} and {len(other.sums)} mel bins cannot be added; "
                "measure both with the same audio settings"
            )
        zeros = [0] * len(other.sums)
        self.frames += other.frames
        self.clips += other.clips
        self.sums = [a + b for a, b in zip(self.sums or zeros, other.sums, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares or zeros, other.squares, strict=True)]

    def moments(self) -> tuple[float, float]:
        """Mean and deviation over all frames and bins."""
        return _moments(sum(self.sums), sum(self.squares), self.frames * len(self.sums))

    def bin_moments(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each mel bin."""
        pairs = [_moments(s, q, self.frames) for s, q in zip(self.sums, self.squares, strict=True)]
        return [mean for mean, _ in pairs], [std for _, std in pairs]

    def to_json(self) -> dict[str, Any]:
        """The sums as JSON (whole numbers, kept exactly)."""
        return {
            "frames": self.frames,
            "clips": self.clips,
            "scale": SCALE,
            "sums": self.sums,
            "squares": self.squares,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FbankStats:
        """Sums that `to_json` wrote."""
        if value.get("scale") != SCALE:
            raise DataError(f"FBANK sums in units of 1/{value.get('scale')}, not 1/{SCALE}")
        return cls(value["frames"], value["clips"], list(value["sums"]), list(value["squares"]))


def _moments(total: int, squares: int, count: int) -> tuple[float, float]:
    """Mean and population deviation from whole numbers of 1 / SCALE, without cancellation."""
    if count == 0:
        raise DataError("no FBANK frame was measured; is every sound shorter than one window?")
    mean = Fraction(total, SCALE * count)
    variance = Fraction(squares, SCALE * count) - mean * mean
    # Rounding the sums can leave a constant bin a hair below 0.
    return float(mean), math.sqrt(max(variance, Fraction(0)))


def read_norm(path: str | Path, settings: AudioSettings) -> Norm:
    """Norm in a file of `measure-fbank`; refused for another front end."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        data = None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); run pivot measure-fbank again") from None
    return parse_norm(data, path, settings)[0]


def parse_norm(
    data: bytes | None, path: str | Path, settings: AudioSettings
) -> tuple[Norm, dict[str, Any]]:
    """Norm in the content of the file `path` (None: it is not there), and all that it says."""
    if data is None:
        raise DataError(
            f"{path} does not exist; run pivot measure-fbank SHARDS, or set --audio.norms vip_ant"
        )
    try:
        found = json.loads(data)
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}); run pivot measure-fbank again") from None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise DataError(f"{path} is not a file of pivot measure-fbank; name another --audio.norms")
    _check_front_end(path, found, settings)
    mean: Any = found.get("mean")
    std: Any = found.get("std")
    if not (_is_number(mean) and _is_number(std) and std > 0):
        raise DataError(f"{path}: mean {mean} and std {std} cannot normalise; measure again")
    return Norm(float(mean), float(std), str(path)), found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_front_end(path: str | Path, found: dict[str, Any], settings: AudioSettings) -> None:
    """Refuse a file of another front end, naming each setting that differs."""
    written = found.get("front_end")
    written = written if isinstance(written, dict) else {}
    if written.get("fingerprint") == fingerprint(settings):
        return
    raise SettingsError(
        f"{path} was measured with another front end "
        f"({differences(written.get('settings'), front_end(settings))}); "
        "use the same audio settings, or run pivot measure-fbank again"
    )


def differences(theirs: Any, ours: dict[str, Any]) -> str:
    """Each audio setting that differs between a file of FBANK and this command, in one line."""
    theirs = theirs if isinstance(theirs, dict) else {}
    differs = [
        f"audio.{k} {theirs.get(k)} there, {ours.get(k)} here"
        for k in sorted(ours.keys() | theirs.keys())
        if theirs.get(k) != ours.get(k)
    ]
    return "; ".join(differs) or "another version of the FBANK code"
