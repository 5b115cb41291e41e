"""Errors that a user can mend; the command line prints each as one line and never a traceback.

UserError               any mistake of the user's (exit status 2)
├── SettingsError       a setting that is unknown, missing, of the wrong type or in conflict
├── DataError           a file, shard, caption or label that cannot be used as it is
├── RunError            a run folder in use, of another command, or without what is asked of it
├── StoreError          an embedding store that is stale, foreign or damaged
├── ModelError          weights that do not fit the settings, or an encoder that is not there
└── NothingUsableError  every input failed (exit status 1)
"""

from video_prep.errors import NothingUsableError, UserError

__all__ = [
    "DataError",
    "ModelError",
    "NothingUsableError",
    "RunError",
    "SettingsError",
    "StoreError",
    "UserError",
]


class SettingsError(UserError):
    """A setting is unknown, missing, of the wrong type, or contradicts another."""


class DataError(UserError):
    """A file, shard, caption or label cannot be used as it is."""


class RunError(UserError):
    """A run folder is in use, belongs to another command, or lacks what is asked of it."""


class StoreError(UserError):
    """An embedding store is stale, foreign or damaged."""


class ModelError(UserError):
    """Weights do not fit the settings, or an encoder is not there."""
