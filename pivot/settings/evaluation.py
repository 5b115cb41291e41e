"""Settings of the commands that measure a model or use it: evaluate, search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, RunFolder, Settings, Shards, Share


class Evaluate(Settings):
    """Measure a model: zero-shot classification, audio-text and image-audio retrieval."""

    model: RunFolder  # run or model folder
    shards: Shards  # folder with the held-out clips
    out: str  # folder for results.json
    labels: str | None = None  # label list (txt, csv, json); default: the labels in the shards
    ids: str | None = None  # only the clips in this list of ids (txt, csv, json)
    captions: str | None = None  # caption file with clip ids; default: the captions in the shards
    prompt: str = "the sound of"  # before a label, or a template with {}
    caption_prompt: str = ""  # before a caption, or a template with {}
    # store of frame embeddings, for image-audio retrieval and pivotability
    images: str | None = None
    # FBANK frames the encoder sees, where other than it was trained with (Clotho at 18 s: 1800);
    # positions are resized from the trained grid
    num_frames: Positive | None = None
    # vip_ant: what the reference does, said in the result: dot product for one label a clip, ...
    compat: Literal["none", "vip_ant"] = "none"
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

    @model_validator(mode="after")
    def _gap_is_of_unit_vectors(self) -> Evaluate:
        if self.gap_from and self.gap == "none":
            raise ValueError("--gap-from goes with --gap centre or --gap whiten")
        if self.gap != "none" and (self.score == "dot" or self.compat != "none"):
            raise ValueError(
                f"--gap {self.gap} is measured by cosine and is not the reference's; leave out "
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
