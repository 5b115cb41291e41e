"""The one exception a user may see: one line that names the thing, its value and the next step."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend; shown as one line without a traceback, exit status 2."""


class NothingUsableError(UserError):
    """Every input failed, so there is no result at all; shown as one line, exit status 1."""


class ClipError(UserError):
    """One clip or sound file cannot be used; `reason` is the word that its row is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, str]]:
        """Keep `reason` when the error crosses a process."""
        return type(self), (self.reason, str(self))
