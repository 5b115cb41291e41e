"""The families of released checkpoints: how each is known by its names, and what its parts are.

One row a family. `signs` are regular expressions; a file is of the first family for which each of
them begins the name of a weight. What a row cannot say is in `parts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from pivot.errors import ModelError

# A name by which an encoder is found below its prefix; more where files name it differently.
ANCHORS: dict[str, tuple[str, ...]] = {
    "cnn14": ("conv_block1.conv1.weight",),
    "passt": ("time_new_pos_embed",),
    "atst": ("mask_embed",),
    "mobilenet": ("features.0.0.weight",),
    "htsat": (
        "layers.0.blocks.0.norm1.weight",
        "audio_encoder.layers.0.blocks.0.layernorm_before.weight",
    ),
    "ast": ("audio_spectrogram_transformer.embeddings.cls_token", "embeddings.cls_token"),
}


@dataclass(frozen=True)
class Joint:
    """What a model of sound and text has beside its audio encoder."""

    text: str  # prefix of the text encoder
    sides: tuple[str, str]  # prefixes of the projections of sound and of text
    kind: str  # of the projections
    modules: dict[str, str]  # modules of Projection -> theirs
    scale: str  # the parameter that gives the scale: its exponential, or 1 / |tau|
    pooling: str
    max_tokens: int
    normalise: str = "none"
    text_model: str = ""  # what the published ones started from


@dataclass(frozen=True)
class Family:
    """A family of checkpoints."""

    what: str  # in messages
    signs: tuple[str, ...]
    kinds: tuple[str, ...] = ()  # of audio encoders
    audio: tuple[str, ...] = ("",)  # prefixes of the audio encoder: the first that is there
    joint: Joint | None = None  # None: an audio encoder alone
    left: tuple[str, ...] = ()  # prefixes of known parts that are not used
    # what an encoder of a kind hears, where it is not its own front end
    hears: dict[str, dict[str, Any]] = field(default_factory=dict)
    beside: bool = False  # whether config, tokenizer and the extractor's JSON lie beside its files
    refusal: str = ""  # why a family that is known cannot be imported


LAION = Joint(
    text="text_branch.",
    sides=("audio_projection.", "text_projection."),
    kind="mlp",
    modules={"first": "0", "second": "2"},
    scale="logit_scale_a",  # logit_scale_t only moves under the loss of the transforms
    pooling="pooler",
    max_tokens=77,
    text_model="roberta-base",
)
HUGGING_FACE = Joint(
    text="text_model.",
    sides=LAION.sides,
    kind="mlp",
    modules={"first": "linear1", "second": "linear2"},
    scale="logit_scale_a",
    pooling="pooler",
    max_tokens=77,
    text_model="roberta-base",
)
MICROSOFT = Joint(
    text="caption_encoder.base.",
    sides=("audio_encoder.projection.", "caption_encoder.projection."),
    kind="residual",
    modules={"first": "linear1", "second": "linear2", "norm": "layer_norm"},
    scale="logit_scale",
    pooling="cls",
    max_tokens=100,
    text_model="bert-base-uncased",
)
SALSA = Joint(
    text="sentence_embedding_model.",
    sides=("project_audio.", "project_sentence."),
    kind="linear",
    modules={"linear": "0"},
    scale="tau",
    pooling="cls",
    max_tokens=32,
    normalise="salsa",
    text_model="roberta-large",
)
# seconds of sound: 5 in 2022, 7 in 2023, repeated where it is shorter (microsoft/CLAP's configs)
MS_RATE = {"sample_rate": 44100, "hop": 320, "fill": "repeat"}

FAMILIES: dict[str, Family] = {
    "laion-clap": Family(
        "LAION-CLAP",
        (r"audio_branch\.", r"audio_projection\.0\."),
        kinds=("htsat", "cnn14"),
        audio=("audio_branch.",),
        joint=LAION,
        left=("audio_transform.", "text_transform.", "logit_scale_t", "token_embedding.",
              "positional_embedding", "ln_final."),
        hears={"cnn14": {"sample_rate": 48000, "hop": 480, "fill": "repeatpad"}},
    ),
    "hf-clap": Family(
        "Hugging Face CLAP",
        (r"audio_model\.audio_encoder\.", r"audio_projection\.linear1\."),
        kinds=("htsat",),
        audio=("audio_model.",),
        joint=HUGGING_FACE,
        beside=True,
        left=("logit_scale_t",),
    ),
    "ms-clap": Family(
        "Microsoft CLAP",
        (r"audio_encoder\.base\.", r"audio_encoder\.projection\."),
        kinds=("cnn14", "htsat"),
        audio=("audio_encoder.base.",),
        joint=MICROSOFT,
        hears={
            "cnn14": MS_RATE | {"num_frames": 690},
            "htsat": MS_RATE | {"num_frames": 965, "high_freq": 8000.0},
        },
    ),
    "salsa": Family(
        "SALSA",
        (r"audio_embedding_model\.", r"project_audio\.0\."),
        kinds=("passt", "atst", "mobilenet"),
        audio=("audio_embedding_model.",),
        joint=SALSA,
        left=("timing_tau", "audio_token", "posencode.", "audio_output_projection."),
    ),
    "wav2clip": Family(
        "Wav2CLIP",
        (r"audio_encoder\.conv1\.weight", r"audio_encoder\.layer1\."),
        refusal="its encoder is a ResNet-18 over a linear spectrogram that is normalised over the "
        "batch, which Pivot does not have",
    ),
    "audioclip": Family(
        "AudioCLIP",
        (r"(audio\.)?fbsp\.",),
        refusal="its encoder is ESResNeXt-FBSP, which Pivot does not have",
    ),
    "passt": Family(
        "PaSST", (r"time_new_pos_embed$", r"freq_new_pos_embed$"), kinds=("passt",)
    ),
    "atst": Family(
        "ATST-Frame",
        (r"((model\.teacher|encoder\.encoder|encoder)\.)?(encoder\.|frame_encoder\.)?mask_embed$",),
        kinds=("atst",),
        audio=("model.teacher.encoder.", "encoder.encoder.frame_encoder.", "encoder.encoder.", ""),
        left=("model.student.", "model.teacher.projector.", "model.teacher.predictor.",
              "encoder.encoder.teacher_module.", "encoder.encoder.clip_encoder.", "head."),
    ),
    "efficientat": Family(
        "EfficientAT", (r"features\.\d+\.block\.\d+\.conc_se_layers\.",), kinds=("mobilenet",)
    ),
    "panns": Family(
        "PANNs", (r"conv_block1\.conv1\.weight", r"fc1\.weight"), kinds=("cnn14",)
    ),
    "htsat": Family(
        "HTS-AT", (r"(sed_model\.)?layers\.0\.blocks\.0\.norm1\.",), kinds=("htsat",),
        audio=("sed_model.", ""),
        hears={"htsat": {"sample_rate": 32000, "hop": 320, "fill": "repeat"}},
    ),
    "ast": Family(
        "AST", (r"(audio_spectrogram_transformer\.)?embeddings\.(cls_token|distillation_token)",),
        kinds=("ast",),
    ),
}  # fmt: skip


def lacks(family: Family, names: Collection[str]) -> str | None:
    """The first sign of a family that no name bears, as a name; None where they all are there."""
    lost = (s for s in family.signs if not any(re.match(s, name) for name in names))
    return next(map(_spelt, lost), None)


def _spelt(sign: str) -> str:
    """A sign as a reader expects a name: without what may be left out, first of what may be."""
    group = re.compile(r"\(([^()|]*)[^()]*\)(\??)")
    while found := group.search(sign):
        sign = sign.replace(found[0], "" if found[2] else found[1])
    return sign.replace(r"\d+", "N").replace("\\", "").rstrip("$")


def prefix_of(family: Family, names: Collection[str], path: object) -> tuple[str, str]:
    """Kind of the audio encoder, and the prefix of its names; ModelError where none is found."""
    for prefix in family.audio:
        for kind in family.kinds:
            for anchor in ANCHORS[kind]:
                below = [n.removesuffix(anchor) for n in names if n.endswith(anchor)]
                if not prefix:
                    below = [found for found in below if not found]
                whole = [p for p in below if p.startswith(prefix) and (not p or p.endswith("."))]
                if whole:
                    return kind, min(whole, key=len)
    raise ModelError(
        f"{path} has no audio encoder that Pivot knows for {family.what} "
        f"({', '.join(family.kinds)})"
    )
