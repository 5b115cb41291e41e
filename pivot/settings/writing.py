"""Settings of write-captions: new sentences from a language model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings, Share


class WriteCaptions(Settings):
    """Write new captions with a language model that is shown some of yours (VIP-ANT's FC)."""

    # captions that prime the model: COCO's annotation json, txt, csv, jsonl, shards
    primes: Positional[Annotated[str, arg(metavar="CAPTIONS")]]
    out: str  # run folder; the captions are OUT/captions.jsonl
    resume: bool = False  # go on with an interrupted run in --out
    writer: Literal["gpt-j"] = "gpt-j"  # who writes; gpt-j: any causal model of transformers
    model: str = "EleutherAI/gpt-j-6b"  # hub id (downloads) or local folder
    revision: str | None = None  # branch, tag or commit of a hub id
    count: Positive = 10000  # captions wanted
    num_primes: Positive = 10  # captions shown before each new one, drawn anew for every row
    header: str = ""  # text before the primes
    prime_format: str = "{}"  # how each prime is written on its line
    temperature: Annotated[float, Field(gt=0)] = 1.0  # of sampling
    top_p: Annotated[Share, Field(gt=0)] = 0.9  # nucleus of sampling
    max_tokens: Positive = 40  # most tokens of a caption
    min_words: Positive = 3  # fewest words of a caption
    max_words: Positive = 30  # most words of a caption
    batch_size: Positive = 16  # captions written at a time
    seed: Annotated[int, Field(ge=0)] = 1213  # seed of primes and sampling
    device: str = "auto"  # auto, cpu, cuda, mps
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # of the language model's weights
