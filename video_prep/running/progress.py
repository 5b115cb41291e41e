"""Progress of a run: a bar on a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

_FIRST, _NEXT = 10.0, 60.0  # seconds to the first line in a log, and between two


class Bar:
    """Clips, clips/s, time left and failures so far, on stderr."""

    def __init__(self, total: int, left: int) -> None:
        self._shown = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=total - left, unit="clip", desc="prepare", disable=not self._shown
        )
        self._total, self._done, self._failed = total, total - left, 0
        self._own = 0  # clips that this run has done
        self._begun = time.monotonic()
        self._due = self._begun + _FIRST

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def clips(self, ok: int, failed: int) -> None:
        """So many clips are through."""
        self._failed += failed
        self._own += ok + failed
        self._done += ok + failed
        if failed and self._shown:
            self._bar.set_postfix(failed=self._failed, refresh=False)
        self._bar.update(ok + failed)
        if not self._shown and time.monotonic() >= self._due:
            self._due = time.monotonic() + _NEXT
            print(self.line(), file=sys.stderr, flush=True)

    def again(self, ok: int, failed: int) -> None:
        """These clips are done again."""
        self.clips(-ok, -failed)

    def other(self, clips: int) -> None:
        """So many clips were done by another run: they are done, but say nothing of our speed."""
        self._done += clips
        if self._shown:
            self._bar.initial += clips
            self._bar.n += clips
            self._bar.last_print_n += clips

    def line(self) -> str:
        """Where the run stands, in one line."""
        rate = self._own / max(time.monotonic() - self._begun, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate > 0 else "?"
        return (
            f"prepare: {self._done} of {self._total} clips, {rate:.1f} clips/s, "
            f"{self._failed} failed so far, {left} left"
        )
