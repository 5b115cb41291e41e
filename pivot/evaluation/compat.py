"""How numbers are taken: the project's rules, or VIP-ANT's or LAION-CLAP's where they differ."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pivot.data.benchmarks import tidy
from pivot.data.prompts import apply
from pivot.errors import SettingsError
from pivot.settings import Evaluate

# VIP-ANT's code scores retrieval by label set on the first 12 batches of 432 clips.
FIRST_CLIPS = 5184
# The key of results.json that each item is about.
_NEEDS = {
    "zero_shot": "zero_shot",
    "labels": "zero_shot",
    "folds": "folds",
    "label_sets": "image_audio",
    "image_audio": "image_audio",
    "audio_to_text": "retrieval",
    "text_to_audio": "retrieval",
    "median": "retrieval",
    "ranks": "zero_shot",
    "caption_prompt": "retrieval",
}


@dataclass(frozen=True)
class Rules:
    """What the numbers follow; `said` tells it in words, item by item, for results.json."""

    name: Literal["none", "vip_ant", "laion"]
    score: Literal["cosine", "dot"]
    lower: bool  # labels in lower case
    first: int | None  # clips that image-audio retrieval is measured on, None: all
    said: dict[str, str] = field(default_factory=dict)
    slashes: bool = False  # "/" in a label as a space

    def facts(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """For results.json: what applies to these results."""
        said = {key: words for key, words in self.said.items() if _NEEDS[key] in results}
        return {"name": self.name, "score": self.score, **said}

    def words(self, labels: Sequence[str]) -> list[str]:
        """Labels as they are put into the prompt."""
        said = [label.lower() if self.lower else label for label in labels]
        return [tidy(label.replace("/", " ")) for label in said] if self.slashes else said

    def label_set(self, classes: Sequence[int]) -> Hashable:
        """What two clips must share to have the same labels; "" for a clip without labels."""
        order = classes if self.name == "vip_ant" else sorted(classes)
        return ",".join(map(str, order))


def rules_of(settings: Evaluate, several: bool, dataset: str | None) -> Rules:
    """The rules for clips of one label or of `several`, of a data set that may be known.

    compat vip_ant and laion are what the papers' code does, also where the paper says otherwise.
    Raises SettingsError where another setting contradicts it, and for a prompt with wrong braces.
    """
    for prompt in (settings.prompt, settings.caption_prompt):
        apply(prompt, "")
    if settings.compat == "none":
        lower = (dataset or "").startswith("AudioSet")
        said = {"labels": "names in lower case"} if lower else {}
        # as the curation paper asks for "cafe/restaurant" and "city_center"
        slashes = (dataset or "").startswith("TUT")
        said |= {"labels": "names as they are, _ and / as a space"} if slashes else {}
        return Rules("none", settings.score, lower, None, said, slashes)
    return _laion(settings) if settings.compat == "laion" else _vip_ant(settings, several)


def _vip_ant(settings: Evaluate, several: bool) -> Rules:
    if settings.pool != "all":
        raise SettingsError(
            "--compat vip_ant pools all folds as the reference; leave out --pool per_fold "
            "(results.json holds the folds anyway)"
        )
    if several and settings.score == "dot":
        raise SettingsError(
            "--compat vip_ant takes the cosine where clips have several labels, as the reference "
            "does for AudioSet; leave out --score dot"
        )
    said = {
        "zero_shot": "cosine, because clips have several labels"
        if several
        else "dot product; texts are not normalised, so their lengths count (the sounds' lengths "
        "cannot change which label is nearest); the paper says cosine",
        "labels": "names in lower case" if several else "names as they are, _ as a space",
        "folds": "pooled: one number over the clips of all folds",
        "label_sets": "labels joined in the order of the file, so that another order is another "
        "set",
        "image_audio": f"the first {FIRST_CLIPS} clips only, as queries and as candidates",
        "audio_to_text": "precision_at_1 and precision_at_5 are what the reference prints as t1 "
        "and t5",
        "caption_prompt": "as given: the reference does not record the one of its tables",
    }
    return Rules("vip_ant", "cosine" if several else "dot", several, FIRST_CLIPS, said)


def _laion(settings: Evaluate) -> Rules:
    """What LAION-CLAP's evaluation does (laion_clap/training, of 2023)."""
    if settings.score == "dot":
        raise SettingsError("--compat laion takes the cosine; leave out --score dot")
    said = {
        "zero_shot": 'cosine; a label is asked for as "This is a sound of LABEL." unless a '
        "--prompt is given",
        "labels": "names as they are, _ as a space",
        "ranks": "where each clip has one label, its rank among the labels: r1 is the accuracy, "
        "medr the floor of the median + 1, map10 the mean of 1 / rank within ten",
        "folds": "pooled: one number over the clips of all folds (its README: fold 1 of ESC-50)",
        "audio_to_text": "map10 takes the captions of a sound in the order of the file, not by "
        "rank, so that a perfect result may score above 1 and none scores below the right value; "
        "r1, r5, r10 are of the best caption",
        "text_to_audio": "each caption is a query; all captions together",
        "median": "medr is the floor of the median + 1, of an even number of queries the middle "
        "of the two",
    }
    return Rules("laion", "cosine", False, None, said)
