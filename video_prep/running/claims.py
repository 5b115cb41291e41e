"""Who does which shard of a folder now, so that several runs on one folder share the work.

A claim is a small file beside the shards, touched while its run lives. It only saves work: names
aside carry host and process, a shard's bytes depend on plan and number alone, and it appears by a
rename, so a shard that two runs do is the same shard.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from video_prep.errors import UserError
from video_prep.files import age, is_alive, this_host

_BEAT = 20.0  # seconds between two touches of a claim
STALE = 180.0  # seconds without a touch after which another machine's claim is taken over
_LOOK = 0.5  # seconds between two looks at the shards that other runs do


class Claims:
    """The claims of this process on shards of the folder `out`."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._held: set[int] = set()
        self._beat = time.monotonic()

    def _path(self, number: int) -> Path:
        return self._out / f".claim-{number:05d}"

    def take(self, number: int) -> bool:
        """Claim a shard; False where a living run has it. Raises UserError if nothing can be."""
        path = self._path(number)
        mine = json.dumps({"host": this_host(), "name": _name(), "pid": os.getpid()})
        for _ in range(2):
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(mine)
            except FileExistsError:
                if _lives(path):
                    return False
                path.unlink(missing_ok=True)  # of a run that died: taken over
            except OSError as error:
                path.unlink(missing_ok=True)  # it may be there, but empty
                raise UserError(
                    f"cannot write {path}: {error.strerror}; free some space or choose another "
                    "folder"
                ) from error
            else:
                self._held.add(number)
                return True
        return False

    def release(self, number: int) -> None:
        """Give a shard back, done or not."""
        if number in self._held:
            self._held.discard(number)
            with suppress(OSError):  # it expires by itself
                self._path(number).unlink(missing_ok=True)

    def beat(self) -> None:
        """Touch the claims when it is time; call it at least every few seconds."""
        if time.monotonic() - self._beat < _BEAT:
            return
        self._beat = time.monotonic()
        for number in self._held:
            with suppress(OSError):  # taken over while this process was suspended
                os.utime(self._path(number))

    def close(self) -> None:
        """Give everything back."""
        for number in list(self._held):
            self.release(number)


def _lives(path: Path) -> bool:
    """Whether the run that made a claim still works."""
    try:
        claim = json.loads(path.read_text(encoding="utf-8"))
        host, pid = str(claim["host"]), int(claim["pid"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return age(path) < STALE  # it is being written, or its writer died at that moment
    if (host, pid) == (this_host(), os.getpid()):
        return False  # of an earlier process that had our number
    return is_alive(host, pid) is not False and age(path) < STALE


def remove_dead_claims(out: Path) -> None:
    """Remove the claims that runs left when they died."""
    for path in list(out.glob(".claim-*")):
        if not _lives(path):
            path.unlink(missing_ok=True)


def _name() -> str:
    return os.uname().nodename if hasattr(os, "uname") else ""


class Work:
    """The shards that a run has to do, in order; what other runs on the folder do is left to them.

    `is_done` tells of a shard whether it is there by now, whoever made it; `on_other` is called
    with the number of each that another run did.
    """

    def __init__(
        self,
        out: Path,
        numbers: Collection[int],
        is_done: Callable[[int], bool],
        on_other: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._claims = Claims(out)
        self._todo = deque(numbers)
        self._others: deque[int] = deque()  # with another run
        self._given: set[int] = set()
        self._is_done = is_done
        self._on_other = on_other
        self._looked = float("-inf")

    def __bool__(self) -> bool:
        """Whether a shard is still to be done, by this run or another."""
        return bool(self._todo or self._others or self._given)

    def __len__(self) -> int:
        return len(self._todo) + len(self._others) + len(self._given)

    def next(self) -> int | None:
        """A shard to do now; None where other runs have all that is left, or nothing is."""
        while self._todo:
            number = self._todo.popleft()
            if number in self._given or self._free(number):
                self._given.add(number)
                return number
        pause = _LOOK * max(1, len(self._others) / 4)
        if self._others and time.monotonic() - self._looked > pause:
            self._looked = time.monotonic()
            for _ in range(len(self._others)):
                number = self._others.popleft()
                if self._free(number):
                    self._given.add(number)
                    return number
        return None

    def _free(self, number: int) -> bool:
        """Claim a shard that is not done; what another run does is kept in mind."""
        claimed = self._claims.take(number)
        if self._is_done(number):
            if claimed:
                self._claims.release(number)
            self._on_other(number)
            return False
        if not claimed:
            self._others.append(number)
        return claimed

    def back(self, number: int) -> None:
        """Its worker died: the shard is the next to be done, still by this run."""
        self._todo.appendleft(number)

    def done(self, number: int) -> None:
        """The shard is written."""
        self._given.discard(number)
        self._claims.release(number)

    def beat(self) -> None:
        """Tell other runs that this one lives."""
        self._claims.beat()

    def close(self) -> None:
        """Give back what was not done."""
        self._claims.close()
