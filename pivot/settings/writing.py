"""Settings of write-captions: new sentences from a language model.

VIP-ANT names GPT-J and MSCOCO's captions and nothing else: how many captions prime it, in which
form, and how it samples are in neither the paper nor the code. The defaults here are ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings, Share


class WriteCaptions(Settings):
    """Write new captions with a language model that is shown some of yours (VIP-ANT's FC)."""

    # captions that prime the model: COCO's annotation json, txt, csv, jsonl, shards
    primes: Positional[Annotated[str, arg(metavar="CAPTIONS")]]
    out: str  # run folder; the captions are OUT/captions.jsonl
    resume: bool = False  # go on with an interrupted run in --out
    writer: Literal["gpt-j"] = "gpt-j"  # who writes; gpt-j: any causal model of transformers
    model: str = "EleutherAI/gpt-j-6b"  # hub id (downloads) or local folder (never does)
    revision: str | None = None  # branch, tag or commit of a hub id
    count: Positive = 10000  # captions wanted
    num_primes: Positive = 10  # captions shown before each new one, drawn anew for every row
    header: str = ""  # line before the primes
    # how each caption stands on its line; the line to be written begins with what is before {}
    prime_format: str = "{}"
    temperature: Annotated[float, Field(gt=0)] = 1.0  # of sampling: below 1 plainer, above 1 wilder
    top_p: Annotated[Share, Field(gt=0)] = 0.9  # nucleus: likeliest tokens with this share of it
    max_tokens: Positive = 40  # most tokens of a caption; one without its line's end is dropped
    min_words: Positive = 3  # fewest words of a caption
    max_words: Positive = 30  # most words of a caption
    batch_size: Positive = 16  # captions written at a time
    seed: Annotated[int, Field(ge=0)] = 1213  # seed of primes and sampling
    device: str = "auto"  # auto, cpu, cuda, mps
    # of the language model's weights; auto: bf16 (or fp16) on a GPU, fp32 elsewhere
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"

    @model_validator(mode="after")
    def _one_line_a_caption(self) -> WriteCaptions:
        form = self.prime_format
        if form.count("{}") != 1 or "\n" in form:
            raise ValueError(f'--prime-format "{form}" must hold {{}} once, on one line')
        if self.min_words > self.max_words:
            raise ValueError(
                f"--min-words {self.min_words} is more than --max-words {self.max_words}"
            )
        return self
