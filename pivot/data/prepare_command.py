"""`pivot prepare-frames` and `prepare-audio`: video_prep's, which can leave listed clips out."""

from __future__ import annotations

from video_prep import prepare
from video_prep.index import Clip
from video_prep.settings import PrepareAudio, PrepareFrames


def frames(settings: PrepareFrames) -> int:
    """Prepare videos; returns the exit status."""
    return prepare.run(settings, _without)


def sounds(settings: PrepareAudio) -> int:
    """Prepare audio-only files; returns the exit status."""
    return prepare.run_audio(settings, _without)


def _without(source: str, clips: list[Clip], lists: tuple[str, ...]) -> list[Clip]:
    from pivot.data.exclude import clips_without  # what a run without lists need not load

    return clips_without(source, clips, lists)
