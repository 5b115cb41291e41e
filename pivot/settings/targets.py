"""Settings of what a batch should be like: targets of its similarities, replay of other pairs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pivot.settings.base import Settings, Share


class TargetSettings(Settings):
    """What the similarities of a batch should be: who belongs with whom, and how much."""

    # diagonal: an item's own partner alone; same_recording: all partners of its recording (SALSA,
    # stage 1); soft: as alike as a teacher finds sounds, and captions, among themselves (CLAP
    # curation); estimated: a teacher's softmax over all partners (SALSA, stage 2)
    kind: Literal["diagonal", "same_recording", "soft", "estimated"] = "diagonal"
    # share of the teacher, the rest being the pairs': soft beta (0.3 if not set), estimated (1.0)
    weight: Share | None = None
    # of the teacher's softmax (estimated, or soft with target softmax); none: that of the model, so
    # one over its scale, and learnt with it as in SALSA's code
    temperature: Annotated[float, Field(gt=0)] | None = 0.05
    # soft: raw cosines, negative ones as 0 (the paper), with rows that sum to 1, or their softmax
    target: Literal["raw", "row_normalised", "softmax"] = "raw"
    # AUDIO_STORE:TEXT_STORE of one model each, their cosines averaged; none: a frozen copy of the
    # model at the start
    teachers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fields_go_with_the_kind(self) -> TargetSettings:
        taught = self.kind in ("soft", "estimated")
        for name, default in (("weight", None), ("teachers", ())):
            if getattr(self, name) != default and not taught:
                raise ValueError(f"--targets.{name} is for --targets.kind soft or estimated")
        if self.target != "raw" and self.kind != "soft":
            raise ValueError("--targets.target is for --targets.kind soft")
        wrong = [teacher for teacher in self.teachers if len(_stores_of(teacher)) != 2]
        if wrong:
            raise ValueError(
                f"--targets.teachers {wrong[0]!r} is not AUDIO_STORE:TEXT_STORE, two store folders"
            )
        return self

    @property
    def share(self) -> float:
        """The weight in use."""
        return self.weight if self.weight is not None else {"soft": 0.3}.get(self.kind, 1.0)

    def stores(self) -> list[tuple[str, str]]:
        """Audio store and text store of each teacher."""
        return [(audio, text) for audio, text in map(_stores_of, self.teachers)]


def _stores_of(teacher: str) -> list[str]:
    return [part for part in teacher.split(":") if part]


class ReplaySettings(Settings):
    """A second stream of pairs, beside --pairs; an epoch stays a pass over --pairs.

    With a probability a batch of --pairs is dropped and one of these taken instead (the paper's
    replay: its clap_curation draws curated batches so, 0.5); with a ratio every batch has its share
    of these. CLAP curation counts the teacher's pairs as --pairs and the curated ones here; the
    other way round the length of an epoch is that of the curated pairs.
    """

    pairs: str | None = None  # pairs file of the second stream
    shards: str | None = None  # folder whose sounds they name; default: the same shards
    probability: Share = 0.0  # that a whole batch is replaced
    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of these in every batch

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> ReplaySettings:
        ways = (self.probability > 0) + (self.ratio > 0)
        if self.pairs is None and (ways or self.shards):
            raise ValueError("--replay needs --replay.pairs, the pairs of the second stream")
        if self.pairs is not None and ways != 1:
            raise ValueError("--replay.pairs needs one of --replay.probability and --replay.ratio")
        return self
