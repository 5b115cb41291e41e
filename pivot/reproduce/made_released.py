"""Made-up tiny checkpoints as PANNs, PaSST, ATST, EfficientAT and LAION-CLAP publish theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pivot.audio.mel import mel_bank
from pivot.encoders import build_audio
from pivot.encoders.htsat_names import as_laion
from pivot.encoders.passt import SPELT
from pivot.encoders.projection import Projection
from pivot.settings import EncoderSettings
from pivot.settings.encoders import (
    AtstSettings,
    Cnn14Settings,
    HtsatSettings,
    MobileNetSettings,
    PasstSettings,
)
from pivot.settings.front_ends import SlaneyDbSettings
from pivot.settings.parts import HearsSettings

State = dict[str, Tensor]
CLASSES = 5  # of the heads


def write_cnn14(path: Path) -> None:
    """CNN14 with its extractor and head, in a dictionary with other things."""
    state = _state(Cnn14Settings(channels=(4, 4, 8, 8, 8, 16)))
    bank = mel_bank(SlaneyDbSettings())
    state["logmel_extractor.melW"] = bank
    for part in ("real", "imag"):
        state[f"spectrogram_extractor.stft.conv_{part}.weight"] = torch.zeros(len(bank), 1, 1024)
    state |= _head("fc_audioset", 16)
    _write(path, {"iteration": 1, "model": state, "sampler": {"pointer": 0}})


def write_passt(path: Path) -> None:
    """PaSST with its heads, the bare state dict."""
    state = {
        SPELT.get(name, name): value
        for name, value in _bodies(_state(PasstSettings(width=16, depth=1, heads=1))).items()
    }
    heads = {**_head("head.1", 16), **_head("head_dist", 16)}
    heads |= {f"head.0.{name}": torch.ones(16) for name in ("weight", "bias")}
    _write(path, state | heads)


def write_atst(path: Path) -> None:
    """ATST-Frame in a checkpoint of Lightning."""
    state: State = {"mask_embed": torch.zeros(16)}
    for name, value in _bodies(_state(AtstSettings(width=16, depth=1, heads=1))).items():
        if name == "patch_drop.frames":
            state["pos_embed"] = torch.cat([value[:, :1], value], dim=1)
        else:
            theirs = name.replace("patch_embed.proj", "patch_embed.patch_embed")
            state[re.sub(r"^norm\.", "norm_frame.", theirs)] = value
    kernel = "patch_embed.patch_embed.weight"
    state[kernel] = state[kernel].flatten(1)
    prefix = "encoder.encoder.frame_encoder."
    found = {prefix + name: value for name, value in state.items()}
    _write(path, {"epoch": 1, "state_dict": found})


def write_mobilenet(path: Path) -> None:
    """MobileNetV3 with its classifier, the bare state dict."""
    state = {}
    for name, value in _state(MobileNetSettings(width_mult=0.1)).items():
        squeeze = re.search(r"\.fc[12]\.weight$", name)
        theirs = re.sub(r"\.(fc[12])\.", r".conc_se_layers.0.\1.", name)
        state[theirs] = value.flatten(1) if squeeze else value
    _write(path, state | _head("classifier.5", 16))


def write_clap(path: Path, text: Path, fused: bool) -> None:
    """LAION-CLAP with HTSAT and the RoBERTa in the folder `text`, with DDP's prefix."""
    from transformers import AutoModel  # seconds, which few experiments need

    settings = HtsatSettings(
        width=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), fusion="aff_2d" if fused else "none"
    )
    state: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in _state(settings).items():
        theirs = as_laion(name)
        if found := re.fullmatch(r"(.*) \((query|key|value)\)", theirs):
            parts.setdefault(found[1], {})[found[2]] = value
        else:
            state[f"audio_branch.{theirs}"] = value
    for name, three in parts.items():
        rows = torch.cat([three[part] for part in ("query", "key", "value")])
        state[f"audio_branch.{name}"] = rows
    body = AutoModel.from_pretrained(text)
    state |= {f"text_branch.{name}": value for name, value in body.state_dict().items()}
    for side, width in (("audio", 64), ("text", body.config.hidden_size)):
        made = Projection("mlp", width, 16).state_dict()
        for own, theirs in (("first", "0"), ("second", "2")):
            for part in ("weight", "bias"):
                state[f"{side}_projection.{theirs}.{part}"] = made[f"{own}.{part}"]
    state |= {f"logit_scale_{side}": torch.tensor(2.66) for side in ("a", "t")}
    whole = {f"module.{name}": value for name, value in state.items()}
    _write(path, {"epoch": 1, "name": "made-up", "state_dict": whole})


def _state(settings: EncoderSettings) -> State:
    audio = HearsSettings(encoder=settings).audio
    return dict(build_audio(None, settings, audio, 0).state_dict())


def _bodies(state: State) -> State:
    return {name.removeprefix("body."): value for name, value in state.items()}


def _head(name: str, width: int) -> State:
    return {f"{name}.weight": torch.zeros(CLASSES, width), f"{name}.bias": torch.zeros(CLASSES)}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
