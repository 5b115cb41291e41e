"""Parts that several commands have: CLIP, front ends, encoders of sound and text, projections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pivot.settings.base import Positive, Settings
from pivot.settings.encoders import RATES, own_front_end
from pivot.settings.encoders import EncoderSettings as EncoderSettings
from pivot.settings.encoders import VitSettings as VitSettings
from pivot.settings.front_ends import AudioSettings as AudioSettings
from pivot.settings.front_ends import FrontEndSettings as FrontEndSettings


class ClipSettings(Settings):
    """The frozen CLIP (open_clip) that joins images and text."""

    # open_clip name, hf-hub:ORG/NAME, a folder with open_clip_config.json, or tiny-world (ships
    # with Pivot)
    model: str = ""
    pretrained: str = ""  # weights tag or file for an open_clip name, e.g. openai (a tag downloads)


class ProjectionSettings(Settings):
    """What brings an encoder's features into the joint space of a model."""

    # none: the features as they are; linear; residual: the block of CLAP, LN(Wx + drop(V
    # gelu(Wx))); mlp: V relu(Wx), that of LAION-CLAP
    kind: Literal["none", "linear", "residual", "mlp"] = "none"
    # size of the joint space; default: the features' own for sound, that of sound for text
    dim: Positive | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of the residual block, while it trains

    @model_validator(mode="after")
    def _none_has_no_size(self) -> ProjectionSettings:
        if self.kind == "none" and self.dim is not None:
            raise ValueError(f"dim {self.dim} needs a projection; take kind linear or mlp")
        return self


TEXT_TRAINING = ("dropout", "freeze")  # of TextSettings: what concerns its training alone


class TextSettings(Settings):
    """Text encoder of a model: the frozen CLIP's, or one of its own that trains with the sounds."""

    # frozen: CLIP's as it is; clip: a copy of it that trains; hf: a transformers model that trains
    kind: Literal["frozen", "clip", "hf"] = "frozen"
    model: str = ""  # for hf: a folder, or a hub id (downloads what is not cached)
    # for hf, how a text's features come about: first token, mean of its tokens, the model's pooler
    # (LAION-CLAP; the weights of roberta-base have none, which then starts at random)
    pooling: Literal["cls", "mean", "pooler"] = "cls"
    # for hf: most tokens of a text, [CLS] and [SEP] included
    max_tokens: Annotated[int, Field(gt=2)] = 77
    # for hf: what becomes of a text of more tokens
    too_long: Literal["refuse", "cut"] = "refuse"
    # before tokenising; salsa: lower case, without ASCII punctuation
    normalise: Literal["none", "lower", "salsa"] = "none"
    projection: ProjectionSettings = ProjectionSettings()  # after the text encoder
    # for hf: dropout of its layers and attention while it trains (SALSA: 0.2); none: the model's
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    freeze: bool = False  # train the projection alone, the model in front of it stays as it is

    @model_validator(mode="after")
    def _model_is_of_hf(self) -> TextSettings:
        if self.kind == "hf" and not self.model:
            raise ValueError("text kind hf needs text.model, a folder or a hub id")
        if self.kind != "hf" and self.model:
            raise ValueError(f"text.model {self.model} goes with text kind hf, not {self.kind}")
        if self.kind != "hf" and self.dropout is not None:
            raise ValueError(f"text.dropout {self.dropout} goes with text kind hf, not {self.kind}")
        if self.freeze and (self.kind == "frozen" or self.projection.kind == "none"):
            raise ValueError(
                "text.freeze leaves a text.projection to train; take text kind clip or hf and "
                "text.projection.kind linear, residual or mlp"
            )
        if self.kind == "frozen" and self.projection.kind != "none":
            raise ValueError("the frozen text encoder has no projection; take text kind clip or hf")
        return self


class HearsSettings(Settings):
    """What commands with an audio encoder share: it and its front end, which go together."""

    # what the encoder sees; default: what the kind of encoder was published with
    audio: FrontEndSettings = AudioSettings()
    encoder: EncoderSettings = VitSettings()  # --encoder.kind vit | ast | htsat | passt | ...
    # dotted keys that the command line or its file names beside a --model; see `named`
    _named: frozenset[str] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _front_end_of_the_encoder(cls, values: Any) -> Any:
        """Without `audio`, or without its kind, it is the encoder's own; what is said stays."""
        if not isinstance(values, dict) or not {"audio", "encoder"} & values.keys():
            return values
        encoder, audio = values.get("encoder", {}), values.get("audio", {})
        if isinstance(encoder, dict):
            encoder = {"kind": "vit", **encoder}
        if isinstance(audio, dict) and isinstance(encoder, dict | Settings):
            own = own_front_end(encoder)
            if audio.get("kind", own["kind"]) == own["kind"]:
                audio = {**own, **audio}
        return {**values, "encoder": encoder, "audio": audio}

    def named(self, part: str) -> set[str]:
        """Fields of `part` that the command line or its file names, where there is a --model.

        Empty for settings that were not read from a command line.
        """
        return {name.partition(".")[2] for name in self._named if name.startswith(f"{part}.")}

    @model_validator(mode="after")
    def _what_the_encoder_hears(self) -> HearsSettings:
        views, fusion = getattr(self.audio, "views", "one"), getattr(self.encoder, "fusion", "none")
        if (fusion == "none") != (views == "one"):
            raise ValueError(
                f"--encoder.fusion {fusion} does not go with audio.views {views}; fusion needs "
                "audio.kind htk_db with audio.views fusion"
            )
        own = own_front_end(self.encoder)["kind"]
        if self.encoder.kind != "vit" and self.audio.kind != own:
            raise ValueError(
                f"--encoder.kind {self.encoder.kind} hears audio.kind {own}, not "
                f"{self.audio.kind}; leave --audio.kind out"
            )
        rates = RATES.get(self.encoder.kind, ())
        if rates and self.audio.sample_rate not in rates:
            raise ValueError(
                f"--encoder.kind {self.encoder.kind} hears {' or '.join(map(str, rates))} Hz, not "
                f"audio.sample_rate {self.audio.sample_rate}; leave it out, sounds are resampled"
            )
        return self


def front_end_settings(encoder: EncoderSettings) -> FrontEndSettings:
    """What an encoder sees where nothing is said: the front end it was published with."""
    return HearsSettings(encoder=encoder).audio
