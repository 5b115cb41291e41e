"""What a released audio encoder hears: the front end that its file and its family tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from pivot.encoders.cnn14 import BANK, published_front_end
from pivot.errors import ModelError
from pivot.released.families import Family
from pivot.released.files import Released
from pivot.settings.encoders import EncoderSettings, own_front_end
from pivot.settings.front_ends import FrontEndSettings, SlaneyDbSettings
from pivot.settings.parts import HearsSettings

PROCESSOR = "preprocessor_config.json"
# ClapFeatureExtractor's names; its frequency_min is 0 unless the file says otherwise
EXTRACTOR = {
    "sampling_rate": "sample_rate",
    "feature_size": "num_mel_bins",
    "hop_length": "hop",
    "frequency_min": "low_freq",
    "frequency_max": "high_freq",
    "padding": "fill",
}


def front_end_of(
    released: Released,
    family: Family,
    encoder: EncoderSettings,
    weights: Mapping[str, Tensor],
    sample_rate: int | None = None,
) -> FrontEndSettings:
    """Front end of an encoder of these bare weights, as its publisher names them.

    The kind's own, then what the file's mel matrix says, then the family, then the extractor's
    JSON beside the file, then `sample_rate`, under which the mel bank stays that of the file.
    ModelError where these do not go together.
    """
    own = own_front_end(encoder)
    found = own | _bank(weights, own, family.what) | family.hears.get(encoder.kind, {})
    if family.beside:
        found |= _extractor(released, found)
    audio = _checked(released, encoder, found)
    if sample_rate in (None, audio.sample_rate):
        return audio
    if not isinstance(audio, SlaneyDbSettings):
        raise ModelError(
            f"--sample-rate {sample_rate} goes with a Slaney mel bank that stays as it is, not "
            f"with {family.what}'s {audio.kind}; leave it out, sounds are resampled"
        )
    bank = audio.bank_rate or audio.sample_rate
    return _checked(released, encoder, found | {"sample_rate": sample_rate, "bank_rate": bank})


def _checked(
    released: Released, encoder: EncoderSettings, found: dict[str, Any]
) -> FrontEndSettings:
    """Settings that go with the encoder; a bank of the sounds' own rate is not named."""
    if found.get("bank_rate") == found.get("sample_rate"):
        found = {name: value for name, value in found.items() if name != "bank_rate"}
    try:
        return HearsSettings.model_validate({"encoder": encoder, "audio": found}).audio
    except ValidationError as error:
        why = " ".join(error.errors()[0]["msg"].removeprefix("Value error, ").split())
        raise ModelError(f"{released.path}: its front end makes no sense ({why})") from error


def _bank(weights: Mapping[str, Tensor], own: dict[str, Any], what: str) -> dict[str, Any]:
    """What the mel matrix in a file says, where the encoder hears through one."""
    if own["kind"] != "slaney_db" or BANK not in weights:
        return {}
    return published_front_end({n: v for n, v in weights.items() if "_extractor." in n}, what)


def _extractor(released: Released, found: dict[str, Any]) -> dict[str, Any]:
    """What the extractor's JSON of a Hugging Face CLAP says."""
    theirs = released.beside(PROCESSOR)
    if theirs.get("feature_extractor_type") != "ClapFeatureExtractor":
        return {}
    ours = {name: theirs[key] for key, name in EXTRACTOR.items() if key in theirs}
    ours.setdefault("low_freq", 0.0)
    if "fft_window_size" in theirs:
        ours |= dict.fromkeys(("n_fft", "window"), theirs["fft_window_size"])
    if {"nb_max_samples", "hop_length"} <= theirs.keys():
        ours["num_frames"] = theirs["nb_max_samples"] // theirs["hop_length"] + 1
    fused = found.get("views") == "fusion"
    if theirs.get("truncation", "fusion" if fused else "rand_trunc") != (
        "fusion" if fused else "rand_trunc"
    ):
        raise ModelError(
            f"{released.path.parent / PROCESSOR} says truncation {theirs['truncation']}, its model "
            f"{'has' if fused else 'has no'} feature fusion; they do not belong together"
        )
    return ours
