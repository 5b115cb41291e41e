"""VIP-ANT's released checkpoints: their layout, names and settings, as a Pivot audio encoder's.

A checkpoint is {"cfg": settings, "model": state dicts}; `model` is (audio, loss), or (image, audio,
text, loss) where a frozen encoder's is empty. `cfg` has `running.audio` {max_len, num_mel_bins,
norms, ...} and `model.audio.pre_encoder` {stride, in_channels}; its `${a.b}` point into itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pivot.audio.frontend import Norm, resolve_norm
from pivot.audio.norms import NAMED
from pivot.encoders.clip import FrozenClip
from pivot.encoders.vit import AudioVit
from pivot.errors import ModelError
from pivot.released.inert import read_torch_file
from pivot.settings import AudioSettings, ImportCheckpoint, VitSettings

State = dict[str, Tensor]
OURS = {  # the authors' names -> open_clip's
    "pre_encoder.conv1.": "conv1.",
    "pre_encoder.ln.": "ln_pre.",
    "misc.": "",
    "encoder.": "transformer.",
    "post_encoder.ln.": "ln_post.",
    "post_encoder.proj": "proj",
}
# Of their FBANK, what Pivot always does; a checkpoint that says otherwise heard other sounds.
ALWAYS = {"window_type": "hanning", "use_energy": False, "htk_compat": True, "tile_audio": False}
ALWAYS |= {"zero_mean_wf": True}
SCALES = ("loss_head_al.logit_scale", "loss_head_va.logit_scale", "logit_scale")
SHOWN = 4  # names of weights in an error


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as data: settings, weights of the audio encoder and of the loss, their names."""

    path: str
    cfg: dict[str, Any]
    audio: State
    loss: State


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without running anything in it (`inert.read_torch_file`)."""
    return checkpoint_of(read_torch_file(path), path)


def is_vip_ant(found: Any) -> bool:
    """Whether the content of a file is laid out as VIP-ANT's code does: `cfg` and `model`."""
    return (
        isinstance(found, dict)
        and "model" in found
        and (
            "cfg" in found or not isinstance(found["model"], dict) or "audio_head" in found["model"]
        )
    )


def checkpoint_of(found: Any, path: str | Path) -> Checkpoint:
    """The checkpoint that the content of a file is.

    Also understood: `model` as {"audio_head": ..., "loss_head": ...}, or as one state dict with
    these as prefixes. Raises ModelError for anything else.
    """
    if not isinstance(found, dict) or "model" not in found:
        raise ModelError(f"{path} holds no `model`: it is not a checkpoint of VIP-ANT's code")
    model, cfg = found["model"], found.get("cfg")
    if isinstance(model, list | tuple) and len(model) in (2, 4):
        audio, loss = model[len(model) // 2 - 1], model[-1]
    elif isinstance(model, dict) and isinstance(model.get("audio_head"), dict):
        audio, loss = model["audio_head"], model.get("loss_head", {})
    elif isinstance(model, dict):
        audio, loss = (_below(model, f"{head}.") for head in ("audio_head", "loss_head"))
    else:
        raise ModelError(f"{path}: `model` is neither 2 nor 4 state dicts, nor one by name")
    return Checkpoint(
        str(path), cfg if isinstance(cfg, dict) else {}, _state(audio, path), _state(loss, path)
    )


def setting(cfg: Mapping[str, Any], name: str) -> Any:
    """Value of `name` ("running.audio.max_len") in a cfg, None where it is not set.

    `${a.b}` is followed; "???" (omegaconf's word for a missing value) is None.
    """
    for _ in range(8):  # a chain of pointers that goes in a circle ends here
        value: Any = cfg
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        pointer = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if not pointer:
            return None if value == "???" else value
        name = pointer[1]
    return None


def settings_of(
    checkpoint: Checkpoint, asked: ImportCheckpoint
) -> tuple[VitSettings, AudioSettings, Norm, dict[str, str]]:
    """Settings of encoder and front end, the norm, and where each came from.

    A flag counts first, then the checkpoint's cfg, then the paper. Native rate, crop, padding and
    the order of the front end are those of the reference always.
    """
    cfg, sources = checkpoint.cfg, {}

    def choose(name: str, flag: Any, theirs: str, default: Any) -> Any:
        value = setting(cfg, theirs)
        found = [(flag, f"--{name}"), (value, f"cfg {theirs}"), (default, "default")]
        chosen, sources[name] = next(pair for pair in found if pair[0] is not None)
        return chosen

    pre = "model.audio.pre_encoder"
    stride = choose("stride", asked.stride, f"{pre}.stride", (16, 24))
    stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
    frames = choose("num-frames", asked.num_frames, "running.audio.max_len", 1000)
    mels = choose("num-mel-bins", asked.num_mel_bins, "running.audio.num_mel_bins", 128)
    norms = choose("norms", asked.norms, "running.audio.norms", "vip_ant")
    for key, value in ALWAYS.items():
        theirs = setting(cfg, f"running.audio.{key}")
        if theirs is not None and theirs != value:
            raise ModelError(
                f"{checkpoint.path} was trained with running.audio.{key} {theirs}, which Pivot's "
                f"front end does not do (it has {value}); the model would hear other sounds"
            )
    try:
        audio = AudioSettings(
            sample_rate="native",
            num_frames=frames,
            num_mel_bins=mels,
            frame_shift_ms=setting(cfg, "running.audio.frame_shift") or 10.0,
            crop="vip_ant",
            pad="raw_zero",
            norms=norms if isinstance(norms, str) else _norm(norms).source,
        )
        encoder = VitSettings(stride=stride, kernel=_kernel(checkpoint), positions=asked.positions)
        norm = resolve_norm(audio) if isinstance(norms, str) else _norm(norms)
    except (ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:160]
        raise ModelError(f"{checkpoint.path}: its settings make no sense ({why})") from error
    return encoder, audio, norm, sources


def build(
    checkpoint: Checkpoint,
    clip: FrozenClip,
    encoder: VitSettings,
    audio: AudioSettings,
    ignore_unknown: bool = False,
) -> tuple[AudioVit, list[str]]:
    """The checkpoint's audio encoder, every weight compared with the one that `clip` would make.

    Returns it and the names of weights that it does not have (with `ignore_unknown`; else they
    are an error, as a weight that is not used would have done something). Raises ModelError that
    names what is missing, of another shape, unknown or not finite.
    """
    facts = clip.visual_facts()
    if facts.activation != "quick_gelu" or facts.pool != "tok":
        raise ModelError(
            f"{clip.settings.model} uses {facts.activation} and {facts.pool} pooling, VIP-ANT's "
            "encoders OpenAI's QuickGELU and class token; take ViT-B-32-quickgelu"
        )
    weights = {_renamed(name): value for name, value in checkpoint.audio.items()}
    wanted = AudioVit.from_clip(clip.visual_state_dict(), facts, encoder, audio, 0).state_dict()
    theirs = {_renamed(name): name for name in checkpoint.audio}
    missing = [name for name in wanted if name not in weights]
    other = [n for n in wanted if n in weights and weights[n].shape != wanted[n].shape]
    unknown = sorted(theirs[name] for name in weights.keys() - wanted.keys())
    if other:
        name = other[0]
        raise ModelError(
            f"{checkpoint.path} does not fit {clip.settings.model} and these settings: "
            f"{theirs[name]} is {tuple(weights[name].shape)}, not {tuple(wanted[name].shape)}"
            f"{_more(other[1:])}; {_remedy(name)}"
        )
    if missing:
        raise ModelError(f"{checkpoint.path} lacks weights of the audio encoder: {_few(missing)}")
    if unknown and not ignore_unknown:
        raise ModelError(
            f"{checkpoint.path} has weights that the audio encoder does not: {_few(unknown)}; "
            "--ignore-unknown leaves them out"
        )
    known = {name: weights[name].float() for name in wanted}
    broken = [theirs[n] for n, value in known.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ModelError(f"{checkpoint.path}: NaN or infinite values in {_few(broken)}")
    return AudioVit.from_weights(known, facts, encoder, audio), unknown


def scales(checkpoint: Checkpoint) -> dict[str, float]:
    """The trained scale of each term of the loss, by its name there (exp of the logit scale).

    Sounds and captions (`loss_head_al`) come first, so the first is the model's. Without any, the
    scale at which the reference starts.
    """
    found = {n: checkpoint.loss[n] for n in SCALES if n in checkpoint.loss}
    values = {n: float(value.double().exp()) for n, value in found.items() if value.numel() == 1}
    if not all(map(math.isfinite, values.values())):
        raise ModelError(f"{checkpoint.path} has a scale that is not finite: {values}")
    return values or {"default": 1 / 0.07}


def _state(found: Any, path: str | Path) -> State:
    """A state dict, without the prefix of data parallel training."""
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ModelError(f"{path}: a part of `model` is no state dict")
    return {name.removeprefix("module."): value for name, value in found.items()}


def _below(state: dict[Any, Any], prefix: str) -> dict[str, Any]:
    names = {name: str(name).removeprefix("module.") for name in state}
    return {
        own.removeprefix(prefix): state[name]
        for name, own in names.items()
        if own.startswith(prefix)
    }


def _kernel(checkpoint: Checkpoint) -> Any:
    """How the kernel became one of one channel, as the weights tell."""
    kernel = checkpoint.audio.get("pre_encoder.conv1.weight")
    channels = 3 if kernel is None or kernel.ndim != 4 else kernel.shape[1]
    return "load_mean" if channels == 1 else "runtime_mean"


def _norm(pair: Any) -> Norm:
    """The norm of a cfg; an empty one means that the reference did not normalise."""
    if len(pair) == 0:
        return Norm(0.0, 1.0, "none")
    mean, std = (float(value) for value in pair)
    if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
        raise ValueError(f"norms {mean}, {std}")
    known = NAMED["vip_ant"]
    same = (mean, std) == (known.mean, known.std)
    return known if same else Norm(mean, std, "checkpoint")


def _renamed(name: str) -> str:
    """A name of theirs as open_clip's; one that is neither stays."""
    for old, new in OURS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return f"unknown {name}"


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + _more(names[SHOWN:])


def _more(names: list[str]) -> str:
    return f" and {len(names)} more" if names else ""


def _remedy(name: str) -> str:
    if name == "positional_embedding":
        return "give --stride, --num-frames and --num-mel-bins as it was trained"
    return "name the CLIP that it was trained with: --clip.model"
