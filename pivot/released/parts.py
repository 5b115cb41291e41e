"""The parts of a released model, each from the weights that its family keeps under a prefix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, RobertaConfig

from pivot.audio.frontend import make_front_end
from pivot.encoders import encoder_class
from pivot.encoders.find_text import FAULTS, empty_text, find_tokenizer, local_folder
from pivot.encoders.hf_text import HfText
from pivot.encoders.projection import ProjectedAudio, Projection
from pivot.encoders.sentence import TextEncoder
from pivot.encoders.table import ENCODERS
from pivot.encoders.weights import UnknownWeights, few, misfit
from pivot.errors import ModelError, SettingsError
from pivot.model import Pivot
from pivot.released.families import Family, Joint, prefix_of
from pivot.released.files import Released, State
from pivot.released.hearing import front_end_of
from pivot.settings import ImportCheckpoint
from pivot.settings.parts import ProjectionSettings, TextSettings

WORDS = "embeddings.word_embeddings.weight"  # every BERT and RoBERTa has it
BUFFERS = ("position_ids", "token_type_ids")  # what older transformers kept beside weights
# signs of text encoders that Pivot does not have
OTHER_TEXTS = {"wte.weight": "GPT-2", "resblocks.0.": "CLIP's text transformer",
               "shared.weight": "BART"}  # fmt: skip
HEAVY = 2**14  # logit scales above ln of this make no sense


@dataclass
class Report:
    """Which tensors of a file went where, by their names there."""

    loaded: dict[str, int] = field(default_factory=dict)  # tensors of each part
    left_out: list[str] = field(default_factory=list)  # of known parts that are not used
    unknown: list[str] = field(default_factory=list)  # dropped by --ignore-unknown


class Import:
    """One file of a known family on its way to a model."""

    def __init__(self, released: Released, family: Family, asked: ImportCheckpoint) -> None:
        self.path, self.released = released.path, released
        self.family, self.asked = family, asked
        self.weights, self.report = _numbers(released), Report()

    def model(self) -> Pivot:
        """The whole model. ModelError names what is missing, misshapen, unknown or not finite."""
        kind, prefix = prefix_of(self.family, self.weights, self.path)
        groups = self._sorted(prefix)
        encoder, audio = self._audio(kind, prefix, groups["audio"])
        front_end = make_front_end(audio)
        joint = self.family.joint
        if joint is None:
            self._drop_unknown(groups["unknown"])
            return Pivot(None, encoder, front_end)
        self._refuse_other_activation()
        sound = self._projection(joint, 0, encoder.dim, groups["audio_projection"])
        projected = ProjectedAudio(
            encoder, sound, ProjectionSettings(kind=joint.kind, dim=sound.dim)
        )
        scale = self._scale(joint, groups["scale"])
        text = None
        if self.asked.audio_only:
            self.report.left_out += [*groups["text"], *groups["text_projection"]]
        else:
            text = self._text(joint, groups)
        self._drop_unknown(groups["unknown"])
        return Pivot(None, projected, front_end, scale, text)

    def _sorted(self, prefix: str) -> dict[str, State]:
        """Weights by the part that they belong to, under their whole names."""
        joint = self.family.joint
        starts = {"left": self.family.left}
        if joint:
            starts["audio_projection"], starts["text_projection"] = ((s,) for s in joint.sides)
            starts |= {"scale": (joint.scale,), "text": (joint.text,)}
        starts["audio"] = (prefix,)
        groups: dict[str, State] = {name: {} for name in (*starts, "unknown", "text")}
        for name, value in self.weights.items():
            part = next((p for p, begins in starts.items() if name.startswith(begins)), "unknown")
            groups[part][name] = value
        self.report.left_out += groups["left"]
        return groups

    def _audio(self, kind: str, prefix: str, weights: State) -> tuple[Any, Any]:
        """The audio encoder of the weights below `prefix`, and the settings of its front end."""
        found = {name.removeprefix(prefix): value for name, value in weights.items()}
        try:
            settings, own, left = self._published(kind, prefix, found)
            audio = front_end_of(
                self.released, self.family, settings, found, self.asked.sample_rate
            )
            encoder = encoder_class(kind).from_weights(own, {}, settings, audio)
        except ModelError as error:
            if str(error).startswith(str(self.path)):
                raise
            raise ModelError(f"{self.path}: {error}") from error
        self.report.left_out += [prefix + name for name in left]
        self.report.loaded["audio"] = len(found) - len(left)
        return encoder, audio

    def _published(self, kind: str, prefix: str, weights: State) -> Any:
        """What the encoder's module makes of its publisher's weights, unknown ones dropped."""
        published = import_module(ENCODERS[kind].split(":")[0]).published
        while True:
            try:
                return published(weights)
            except UnknownWeights as error:
                self._drop_unknown(prefix + name for name in error.names)
                before = len(weights)
                for name in error.names:
                    weights.pop(name, None)
                if len(weights) == before:
                    raise

    def _projection(self, joint: Joint, side: int, width: int, weights: State) -> Projection:
        """Projection of the sounds (side 0) or texts (side 1)."""
        first = f"{joint.sides[side]}{next(iter(joint.modules.values()))}.weight"
        if first not in weights or weights[first].ndim != 2:
            raise ModelError(f"{self.path} lacks {first}, of {self.family.what}'s projection")
        projection = Projection(joint.kind, width, len(weights[first]))
        theirs = {name: _theirs(joint, side, name) for name in projection.state_dict()}
        if missing := [name for name in theirs.values() if name not in weights]:
            raise ModelError(f"{self.path} lacks {few(missing)}")
        own = {name: weights[there] for name, there in theirs.items()}
        if wrong := misfit(projection, own):
            raise ModelError(f"{self.path}: {joint.sides[side]} does not fit: {wrong}")
        projection.load_state_dict(own)
        self._drop_unknown(sorted(weights.keys() - set(theirs.values())))
        self.report.loaded[("audio", "text")[side] + "_projection"] = len(own)
        return projection

    def _scale(self, joint: Joint, weights: State) -> float:
        """The scale of the loss."""
        found = weights.get(joint.scale)
        if found is None or found.numel() != 1:
            raise ModelError(f"{self.path} has no {joint.scale}, one number; is it whole?")
        number = float(found)
        value = 1 / abs(number) if joint.scale == "tau" and number else math.exp(min(number, 99))
        if not 0 < value < HEAVY:
            raise ModelError(f"{self.path}: {joint.scale} {number:g} makes no sense as a scale")
        self._drop_unknown(sorted(weights.keys() - {joint.scale}))
        self.report.loaded["scale"] = 1
        return value

    def _text(self, joint: Joint, groups: Mapping[str, State]) -> TextEncoder:
        """The text encoder and its projection, of the shape and tokenizer that --text.model has."""
        weights = groups["text"]
        inner = next((n.removesuffix(WORDS) for n in weights if n.endswith(WORDS)), None)
        if inner is None:
            some = " ".join(weights)
            other = next((what for sign, what in OTHER_TEXTS.items() if sign in some), "another")
            raise ModelError(
                f"{self.path} has a text encoder that Pivot does not have ({other}); --audio-only "
                "imports its audio encoder and projection"
            )
        settings = TextSettings(
            kind="hf",
            model=self._text_model(joint),
            pooling=joint.pooling,
            max_tokens=joint.max_tokens,
            too_long="cut",
            normalise=joint.normalise,
            projection=ProjectionSettings(kind=joint.kind),
        )
        body = HfText(*_empty_text(settings.model), settings)
        own = body.model.state_dict()
        names = {name.removeprefix(inner): name for name in weights}
        known = {own_name: weights[name] for own_name, name in names.items() if own_name in own}
        known |= {n: v for n, v in own.items() if n not in known and n.endswith(BUFFERS)}
        if wrong := misfit(body.model, known):
            raise ModelError(
                f"{self.path} does not fit the text model {settings.model}: {wrong}; name the one "
                "that it started from with --text.model"
            )
        body.model.load_state_dict(known)
        unused = (*BUFFERS, "pooler.dense.weight", "pooler.dense.bias")
        over = [name for own_name, name in names.items() if own_name not in own]
        self.report.left_out += [name for name in over if name.endswith(unused)]
        self._drop_unknown(name for name in over if not name.endswith(unused))
        self.report.loaded["text"] = len(names) - len(over)
        projection = self._projection(joint, 1, body.width, groups["text_projection"])
        return TextEncoder(body, projection, settings)

    def _text_model(self, joint: Joint) -> str:
        """What --text.model names, or the folder of a Hugging Face CLAP."""
        if self.asked.text.model:
            return self.asked.text.model
        if self.family.beside and (self.path.parent / "config.json").is_file():
            return str(self.path.parent)
        raise SettingsError(
            f"--text.model is missing: the folder or hub id that the shape and tokenizer of "
            f"{self.family.what}'s text encoder come from (published ones: {joint.text_model}), or "
            "--audio-only"
        )

    def _refuse_other_activation(self) -> None:
        """ModelError for a config beside the file whose projections do not have a ReLU."""
        about = self.released.beside("config.json") if self.family.beside else {}
        for side in ("audio_config", "text_config"):
            found = (about.get(side) or {}).get("projection_hidden_act", "relu")
            if found != "relu":
                raise ModelError(
                    f"{self.path.parent / 'config.json'} has {side}.projection_hidden_act {found}; "
                    "Pivot's projection of this family has relu"
                )

    def _drop_unknown(self, names: Iterable[str]) -> None:
        """Note names that no part has; ModelError without --ignore-unknown."""
        names = list(names)
        if names and not self.asked.ignore_unknown:
            raise ModelError(
                f"{self.path} has weights that {self.family.what} does not have: {few(names)}; "
                "--ignore-unknown leaves them out"
            )
        self.report.unknown += names


def _empty_text(name: str) -> tuple[Any, Any]:
    """Model with weights yet to be loaded, and tokenizer; a CLAP's text model is a RoBERTa."""
    folder = local_folder(name)
    try:
        config: Any = AutoConfig.from_pretrained(
            str(folder or name), local_files_only=folder is not None, trust_remote_code=False
        )
    except FAULTS:
        return empty_text(name)  # which says what is wrong
    if config.model_type != "clap":
        return empty_text(name)
    theirs = config.text_config.to_dict() | {"model_type": RobertaConfig.model_type}
    shape = {key: theirs[key] for key in RobertaConfig().to_dict() if key in theirs}
    model = AutoModel.from_config(RobertaConfig(**shape), dtype=torch.float32)
    return model, find_tokenizer(name, folder, model)


def _numbers(released: Released) -> State:
    """Weights in single precision; ModelError for NaN and infinite values."""
    found = {n: v.float() if v.is_floating_point() else v for n, v in released.weights.items()}
    if broken := [name for name, value in found.items() if not bool(torch.isfinite(value).all())]:
        raise ModelError(f"{released.path}: NaN or infinite values in {few(broken)}")
    return found


def _theirs(joint: Joint, side: int, name: str) -> str:
    """A name of Projection's as the file has it."""
    module, _, rest = name.partition(".")
    return f"{joint.sides[side]}{joint.modules[module]}.{rest}"
