"""Settings of the commands that measure a model or use it: evaluate, search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, RunFolder, Settings, Shards, Share

LAION_PROMPT = "This is a sound of {}."  # of LAION-CLAP's zero-shot script; its README has no dot


class Evaluate(Settings):
    """Measure a model: zero-shot classification, audio-text and image-audio retrieval."""

    model: RunFolder  # run or model folder
    shards: Shards  # folder with the held-out clips
    out: str  # folder for results.json
    labels: str | None = None  # label list (txt, csv, json); default: the labels in the shards
    ids: str | None = None  # only the clips in this list of ids (txt, csv, json)
    # only the clips that the data set's own list names so (VGGSound: test)
    split: str | None = None
    captions: str | None = None  # caption file with clip ids; default: the captions in the shards
    # before a label, or a template with {}; with compat laion "This is a sound of {}."
    prompt: str = "the sound of"
    caption_prompt: str = ""  # before a caption, or a template with {}
    # store of frame embeddings, for image-audio retrieval and pivotability
    images: str | None = None
    # frames of a window that the encoder sees, where other than it was trained with (Clotho at
    # 18 s: 1800); positions are resized from the trained grid, or cut (passt, atst)
    num_frames: Positive | None = None
    # what a paper's code does, said in the result; vip_ant: dot product for one label a clip, ...;
    # laion: audio to text mAP@10 by the order of the captions, median rank, prompt
    compat: Literal["none", "vip_ant", "laion"] = "none"
    pool: Literal["all", "per_fold"] = "all"  # clips with folds: one number, or mean and deviation
    checkpoints: bool = False  # measure every model that the run kept (--keep-epochs), too
    figures: bool = True  # per_class.png, pivotability.png, checkpoints.png beside results.json
    # other runs of evaluate (folder or results.json) to draw beside this one in per_class.png
    beside: tuple[str, ...] = ()
    # zero-shot score; dot: texts not normalised (as the reference)
    score: Literal["cosine", "dot"] = "cosine"
    # window of a longer sound: its middle, the mean over windows that cover it, one at random
    crop: Literal["middle", "mean", "random"] = "middle"
    # seconds of a window (the curation paper: 5); default: what the encoder sees
    crop_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    # shorter sounds: padded as in training, or repeated to fill the window (the curation paper)
    short: Literal["pad", "tile"] = "pad"
    seed: Annotated[int, Field(ge=0)] = 0  # of --crop random
    # close the gap between modalities: subtract each one's mean, or whiten what is left as well
    gap: Literal["none", "centre", "whiten"] = "none"
    # for whiten: 0 makes all directions equally long, 1 none (as centre)
    gap_shrink: Share = 0.5
    # stores or shards that the means are taken of (of the training, say); default: the clips
    # measured and their captions, or the label names; never which clip has which label
    gap_from: tuple[str, ...] = ()
    batch_size: Positive = 64  # items a batch
    device: str = "auto"  # auto, cpu, cuda, mps

    @model_validator(mode="before")
    @classmethod
    def _prompt_of_laion(cls, values: Any) -> Any:
        """Unless another one is given."""
        own = cls.model_fields["prompt"].default
        if not isinstance(values, dict) or values.get("compat") != "laion":
            return values
        return values | ({"prompt": LAION_PROMPT} if values.get("prompt", own) == own else {})

    @model_validator(mode="after")
    def _gap_is_of_unit_vectors(self) -> Evaluate:
        if self.gap_from and self.gap == "none":
            raise ValueError("--gap-from goes with --gap centre or --gap whiten")
        if self.gap != "none" and (self.score == "dot" or self.compat != "none"):
            raise ValueError(
                f"--gap {self.gap} is measured by cosine and is no paper's; leave out "
                "--score dot and --compat"
            )
        return self


class Search(Settings):
    """Find the sounds that a sentence describes, or the captions and sounds nearest to a sound."""

    model: RunFolder  # run or model folder
    text: Positional[Annotated[str, arg(metavar="TEXT")]]  # the sentence; "" with --audio
    # folder of sound files, shards, an audio store, or (with --audio) a caption file
    where: Positional[Annotated[str, arg(metavar="FOLDER_OR_STORE")]]
    k: Annotated[Positive, arg(aliases=("-k",))] = 10  # results
    audio: str | None = None  # sound file to search with instead of the text
    prompt: str = ""  # put before the text, or a template with {}
    out: str | None = None  # also write the results to this JSON file
    device: str = "auto"  # auto, cpu, cuda, mps
