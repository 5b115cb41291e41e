"""A store being made by several processes: each does one range, whoever is last joins them all.

Inputs 0..n-1 are cut into N ranges at multiples of `step`, the inputs of one batch, so a batch
holds the same inputs however many processes there are. What is done is in the folder as whole files

    unfinished.json       what decides the store, and N
    part-START-END.npz    what inputs START..END-1 came to

and nothing else is shared: no lock, no server. A process goes on after the last file of its range.
Who finds that the files reach from 0 to n joins them. Two may find that at once: both write the
same bytes, each file takes its name whole, the manifest comes last, and the slower one finds the
store finished. On a network folder whose listing lags, the last process may miss a file of
another machine; then any part, run again, joins.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pivot.embeddings.part_files import PART, chain, listed, reached
from pivot.embeddings.store import FAILURES, MANIFEST, UNFINISHED
from pivot.errors import NothingUsableError, SettingsError, StoreError, UserError
from video_prep.files import create_once, remove_asides, write_whole

NAMED = 8  # parts that one line names


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of `of`."""

    number: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str | None) -> Part:
        """The part that `--part K/N` names; None is the whole."""
        if text is None:
            return cls()
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise SettingsError(f"--part {text} is not K/N with K from 1 to N, such as 2/8")
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"part {self.number}/{self.of}"

    def inputs(self, count: int, step: int) -> range:
        """Its inputs; parts differ by one batch of `step` inputs at most, and may be empty."""
        batches = -(-count // step)
        first, last = (batches * k // self.of * step for k in (self.number - 1, self.number))
        return range(min(first, count), min(last, count))


class PartFolder:
    """The folder of a store that is being made. `next` is the first input of the part to do.

    `identity` (JSON) is everything that decides the store, `format` first; a folder with another
    one is refused, as is one that was begun with another N or another `step`.
    """

    def __init__(
        self,
        path: str | Path,
        identity: dict[str, Any],
        ids: Sequence[str],
        part: Part | None = None,
        step: int = 1,
    ) -> None:
        """Begin, or go on with, one part of the store `path` of the inputs `ids`."""
        self.path, self.ids, self.part, self.step = Path(path), list(ids), part or Part(), step
        names = hashlib.sha256("\n".join(self.ids).encode()).hexdigest()
        self.identity = {**identity, "inputs": len(self.ids), "ids_sha256": names}
        self.inputs = self.part.inputs(len(self.ids), step)
        self.left: dict[int, int] = {}
        self.finished = self._finished()
        if not self.finished:
            self._begin()
            remove_asides(self.path)  # of killed processes
        self.next = self.inputs.stop if self.finished else reached(self.inputs, listed(self.path))

    def _parts_left(self, names: list[str]) -> dict[int, int]:
        left = {}
        for number in range(1, self.part.of + 1):
            inputs = Part(number, self.part.of).inputs(len(self.ids), self.step)
            rest = inputs.stop - reached(inputs, names)
            if rest:
                left[number] = rest
        return left

    def join(self) -> bool:
        """Make the store if every part is done; True when it is finished, by whomever.

        Else `left` says how many inputs of which parts are to do. Raises NothingUsableError when
        no input could be used.
        """
        names = listed(self.path)  # once: another process may be removing them after its join
        try:
            self.left = {} if self.finished else self._parts_left(names)
            if not self.finished and not self.left:
                self._join([self.path / name for name in chain(range(len(self.ids)), names)])
                self.finished = True
        except UserError:  # perhaps somebody has joined, and removed the parts under our hands
            if not self._finished():
                raise
        self.finished = self.finished or self._finished()
        if self.finished:
            self._clean()
        return self.finished

    def _join(self, parts: list[Path]) -> None:
        """Write the store's files from all parts, the manifest last."""
        raise NotImplementedError

    # ---- begin or go on ---------------------------------------------------------------------

    def _finished(self) -> bool:
        """Whether the store is finished; one of another identity is refused."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        if not isinstance(manifest, dict) or manifest.get("format") != self.identity["format"]:
            return False
        self._check_same(manifest, self.identity, "holds a store")
        return True

    def _begin(self) -> None:
        if self.path.is_file():
            raise StoreError(f"--out {self.path} is a file; name a folder")
        begun = self.path / UNFINISHED
        mine = {**self.identity, "parts": self.part.of, "step": self.step}
        names = listed(self.path)
        if UNFINISHED not in names:
            if any(name != FAILURES and not name.startswith(".tmp-") for name in names):
                raise StoreError(f"--out {self.path} is in use; name another folder")
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                create_once(begun, json.dumps(mine, indent=1, ensure_ascii=False))
            except OSError as error:
                raise StoreError(f"cannot write {begun}: {error.strerror}") from error
        try:
            earlier = json.loads(begun.read_text("utf-8"))
        except FileNotFoundError:  # joined by another process since we looked
            self.finished = True
            return
        except ValueError as error:
            raise StoreError(f"{begun} is damaged ({error}); delete {self.path}") from None
        self._check_same(earlier, mine, "holds an unfinished store")
        self.identity["data"] = earlier["data"]  # all parts write the same manifest

    def _check_same(self, earlier: dict[str, Any], mine: dict[str, Any], holds: str) -> None:
        if earlier.get("parts", 1) != mine.get("parts", 1):
            raise StoreError(
                f"--out {self.path} was begun in {earlier['parts']} parts, not {mine['parts']}; "
                f"use --part K/{earlier['parts']}, or delete it"
            )
        for key, value in mine.items():
            before = earlier.get(key)
            if key == "data":  # may have moved; its content counts
                before, value = _fingerprint(before), _fingerprint(value)
            if before != value:
                raise StoreError(
                    f"--out {self.path} {holds} with another {_said(key, before, value)}; "
                    "name another folder, or delete it"
                )

    # ---- parts ------------------------------------------------------------------------------

    def _write_failures(self, failures: list[dict[str, str]]) -> None:
        path = self.path / FAILURES
        if failures:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in failures)
            write_whole(path, "".join(lines))
        else:
            path.unlink(missing_ok=True)

    def _nothing_usable(self) -> NothingUsableError:
        """Leave the failures alone behind, so that the folder can be used again."""
        self._clean()
        return NothingUsableError(
            f"none of {len(self.ids)} inputs could be embedded; see {self.path / FAILURES}"
        )

    def _clean(self) -> None:
        """Remove what only an unfinished store needs, `unfinished.json` last."""
        remove_asides(self.path)
        names = [name for name in listed(self.path) if PART.match(name) or name == UNFINISHED]
        for name in sorted(names):
            (self.path / name).unlink(missing_ok=True)


def progress(folder: PartFolder, unit: str) -> tqdm[Any]:
    """A bar over the inputs of the part; what was done before is said first, on stderr."""
    done, count, part = folder.next - folder.inputs.start, len(folder.inputs), folder.part
    said = f"going on after {done} of {count} inputs" if done else ""
    if folder.finished:
        said = f"{folder.path} is complete already"
    elif part.of > 1 and done == count:
        why = "done already" if count else "empty: there are fewer batches than parts"
        said = f"{part} of {folder.path} is {why}"
    if said:
        print(said, file=sys.stderr)
    name = f"embed {unit}" + (f", {part}" if part.of > 1 else "")
    return tqdm(total=count, initial=done, unit=f" {unit}", desc=name, disable=None)


def tell_left(folder: PartFolder) -> None:
    """Say which parts are to do until the store can be joined."""
    left = [f"part {number} ({count} inputs)" for number, count in folder.left.items()]
    more = f" and {len(left) - NAMED} more parts" if len(left) > NAMED else ""
    print(f"{folder.path}: {folder.part} is done; left: {', '.join(left[:NAMED])}{more}")


def tell_failed(folder: PartFolder, failed: int) -> None:
    """Say how many inputs could not be used, and where they are named."""
    if failed:
        where = folder.path / FAILURES
        print(f"{failed} of {len(folder.ids)} could not be used; see {where}")


def _fingerprint(data: Any) -> Any:
    return data.get("fingerprint") if isinstance(data, dict) else data


def _said(key: str, before: Any, value: Any) -> str:
    """What differs, in words; of a group of settings the first that does."""
    if isinstance(before, dict) and isinstance(value, dict):
        inner = next(name for name in value if before.get(name) != value[name])
        return f"{key}.{inner} ({before.get(inner)}, not {value[inner]})"
    return _SAID.get(key, key)


_SAID = {
    "what": "kind of data",
    "weights_hash": "encoder",
    "data": "content of the data",
    "ids_sha256": "list of ids",
    "inputs": "number of inputs",
    "dim": "dimension",
    "rows": "number of frames",
    "step": "batch size",
}
