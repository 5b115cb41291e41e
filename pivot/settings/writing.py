"""Settings of write-captions and lint-captions: new sentences, and a look through old ones.

VIP-ANT names GPT-J and MSCOCO's captions and nothing else: how many captions prime it, in which
form, and how it samples are in neither the paper nor the code. The defaults here are ours.
LAION-CLAP names no model for its keyword-to-caption either: the default is the one that its data
scripts kept, and the decoding is that of the keytotext package that they call.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings, Share
from pivot.settings.parts import ClipSettings

WRITER_MODELS = {
    "gpt-j": "EleutherAI/gpt-j-6b",
    "keywords": "mrm8488/t5-base-finetuned-common_gen",
}


class BeamSettings(Settings):
    """How a keyword-to-text model decodes: beam search, the same caption every time."""

    size: Positive = 4  # beams
    length_penalty: float = 1.5  # above 0 favours long captions, below 0 short ones
    # no run of this many tokens stands twice in a caption; 0: it may
    no_repeat: Annotated[int, Field(ge=0)] = 3
    early_stopping: bool = True  # end with as many whole captions as beams
    max_length: Positive = 1024  # most tokens of a caption; one that goes on longer is dropped


class WriteCaptions(Settings):
    """Write captions: new ones primed with yours (VIP-ANT's FC), or of clips' keywords (LAION)."""

    # gpt-j: captions that prime the model: COCO's annotation json, txt, csv, jsonl, shards.
    # keywords, template: clips with their labels: shards, or a table with the columns id and labels
    primes: Positional[Annotated[str, arg(metavar="CAPTIONS")]]
    out: str  # run folder; the captions are OUT/captions.jsonl
    resume: bool = False  # go on with an interrupted run in --out
    # who writes; gpt-j: any causal model of transformers; keywords: a T5 (any encoder-decoder) that
    # makes a sentence of a clip's keywords; template: "The sounds of A, B and C", without a model
    writer: Literal["gpt-j", "keywords", "template"] = "gpt-j"
    # hub id (downloads) or local folder (never does); default: EleutherAI/gpt-j-6b, keywords:
    # mrm8488/t5-base-finetuned-common_gen
    model: str | None = None
    revision: str | None = None  # branch, tag or commit of a hub id
    # replace words, by a YAML file of words and what stands for them, or by the list that comes
    # with Pivot (default: woman -> person, her -> their, ...); the caption as it was is kept as raw
    debias: str | None = None
    # keywords, template: labels of the clips, or captions: what their captions name, separated by
    # commas or semicolons
    keywords: Literal["labels", "captions"] = "labels"
    separator: str = " "  # keywords: between two of them; keytotext's k2t models take "|"
    beam: BeamSettings = BeamSettings()  # keywords: decoding
    count: Positive = 10000  # gpt-j: captions wanted
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


class LintCaptions(Settings):
    """Look through a caption file for what a model should not learn from; counts by rule."""

    captions: Positional[Annotated[str, arg(metavar="CAPTIONS")]]  # any caption or pairs file
    # write what no rule drops to this file: .jsonl; of a pairs file any layout of pairs
    out: str | None = None
    # whose tokenizer says what is too long: CLIP's own, or that of --clip.model (no weights are
    # read), or of a transformers model
    clip: ClipSettings = ClipSettings()
    tokenizer: str | None = None  # hub id (downloads) or folder of a transformers tokenizer
    max_tokens: Positive | None = None  # most tokens; default: what the tokenizer's model reads
    skip: tuple[str, ...] = ()  # rules that do not count, such as near_duplicate
    examples: Positive = 3  # captions shown for each rule
