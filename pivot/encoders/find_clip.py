"""From a name, tag, file, folder or hub id to an open_clip model; every mistake is one line.

open_clip falls back to random weights, to a default tokenizer and to another activation with a
warning at most. Here each of these is refused by name.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError, safe_open

from pivot.errors import ModelError, SettingsError
from pivot.settings import ClipSettings

TINY_WORLD = Path(__file__).resolve().parents[1] / "world" / "clip"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")  # what open_clip looks for in a folder
CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Found:
    """A loaded open_clip model and what belongs to it."""

    model: Any  # a CLIP, CustomTextCLIP or CoCa
    tokenizer: Any  # open_clip has three kinds, of no common class
    preprocess: Callable[..., torch.Tensor]
    preprocess_config: dict[str, Any]
    config: dict[str, Any]
    image_size: tuple[int, int]


def find_clip(settings: ClipSettings) -> Found:
    """Load model, tokenizer and image transform of the CLIP that `settings` names."""
    name, tag = resolve(settings)
    try:
        with torch.random.fork_rng(devices=[]):  # open_clip draws weights before it loads them
            model = open_clip.create_model(name, tag, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
        config = open_clip.get_model_config(name)
    except ImportError as error:
        raise ModelError(f"CLIP {settings.model} needs a package: {error}") from error
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(_why(settings, error)) from error
    preprocess = PreprocessCfg(**model.visual.preprocess_cfg)
    size = (preprocess.size,) * 2 if isinstance(preprocess.size, int) else tuple(preprocess.size)
    return Found(
        model=model,
        tokenizer=tokenizer,
        preprocess=image_transform_v2(preprocess, is_train=False),
        preprocess_config=dict(model.visual.preprocess_cfg),
        config=config,
        image_size=(size[0], size[1]),
    )


def resolve(settings: ClipSettings) -> tuple[str, str | None]:
    """Settings -> open_clip's name and weights (None where the name holds them)."""
    name = settings.model
    if not name:
        raise SettingsError(
            "no CLIP is named; give --clip.model: an open_clip name with --clip.pretrained, "
            "a folder, or tiny-world"
        )
    known = name.replace("/", "-") in open_clip.list_models()
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    if known and not folder.is_dir():
        return name.replace("/", "-"), _weights(name.replace("/", "-"), settings.pretrained)
    if settings.pretrained:
        raise SettingsError(
            f"--clip.pretrained {settings.pretrained} goes with an open_clip name; "
            f"{name} brings its own weights: leave it out"
        )
    if name == "tiny-world":
        return f"local-dir:{_folder(TINY_WORLD)}", None
    if name.startswith("hf-hub:"):
        return name, None
    if name.startswith("local-dir:") or folder.exists() or _like_a_path(name):
        return f"local-dir:{_folder(folder)}", None
    near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.3)
    raise ModelError(
        f"open_clip has no model {name!r}; nearest: {', '.join(near) or 'none'}; "
        "or give a folder, hf-hub:ORG/NAME or tiny-world"
    )


def _like_a_path(name: str) -> bool:
    """Whether a name that open_clip does not know was meant as a folder."""
    return "/" in name or "\\" in name or name.startswith((".", "~"))


def _folder(path: Path) -> Path:
    """Check that a folder holds an open_clip model: config and weights."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ModelError(f"CLIP folder {path} {what}; give a folder with {CONFIG} and its weights")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} has no {CONFIG}; give a folder of an open_clip model") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / CONFIG} cannot be read ({error}); restore the file") from error
    if not isinstance(config, dict) or "model_cfg" not in config:
        raise ModelError(f"{path / CONFIG} has no model_cfg; it is not open_clip's")
    if not any(file for kind in WEIGHTS for file in path.glob(kind)):
        raise ModelError(f"{path} has no weights (open_clip_model.safetensors); put them there")
    return path


def _weights(name: str, pretrained: str) -> str:
    """Check the weights of an open_clip name: a tag that fits, or a file that does."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    listed = ", ".join(tags) or "none: give a file"
    if not pretrained:
        raise SettingsError(
            f"{name} alone would have random weights; add --clip.pretrained, a file or one of: "
            f"{listed}"
        )
    other = name.removesuffix("-quickgelu") if "quickgelu" in name else f"{name}-quickgelu"
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if config:
        quick = bool(open_clip.get_model_config(name).get("quick_gelu", False))
        if bool(config.get("quick_gelu", False)) != quick:
            raise SettingsError(
                f"the weights {pretrained} of {name} were trained with the other GELU; "
                f"use --clip.model {other}"
            )
        return pretrained
    path = Path(pretrained).expanduser()
    if not path.is_file():
        there = (
            f" (it is one of {other})" if open_clip.get_pretrained_cfg(other, pretrained) else ""
        )
        raise ModelError(
            f"weights {pretrained!r} are neither a file nor a tag of {name}{there}; tags: {listed}"
        )
    _refuse_other_positions(name, path)
    return str(path)


def _refuse_other_positions(name: str, path: Path) -> None:
    """Refuse a file for another image size or context: open_clip would resize its positions."""
    vision, text = (open_clip.get_model_config(name)[k] for k in ("vision_cfg", "text_cfg"))
    patch = vision.get("patch_size")
    size = vision.get("image_size", 224)
    expected = {"positional_embedding": text.get("context_length", 77)}
    if isinstance(size, int) and patch and not vision.get("timm_model_name"):
        expected["visual.positional_embedding"] = (size // patch) ** 2 + 1
    for key, rows in _lengths(path, expected).items():
        if rows != expected[key]:
            raise ModelError(
                f"{path} is not for {name}: {key} has {rows} rows, {name} needs {expected[key]}"
            )


def _lengths(path: Path, names: dict[str, int]) -> dict[str, int]:
    """First sizes of the named tensors in a weights file, those that are there."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found = set(file.keys())
                return {n: file.get_slice(n).get_shape()[0] for n in names if n in found}
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, ValueError, EOFError, SafetensorError) as error:
        raise ModelError(f"{path} is not a readable weights file ({_line(error)})") from error
    except Exception as error:  # pickle's own errors: anything that is not plain weights
        raise ModelError(f"{path} holds more than plain weights ({_line(error)})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return {n: len(state[n]) for n in names if n in state}


def _why(settings: ClipSettings, error: Exception) -> str:
    """One line about a model that open_clip could not load."""
    text = " ".join(str(error).split())
    name = f"{settings.model} {settings.pretrained}".strip()
    if "loading state_dict" in text:
        first = text.split(": ", 1)[-1][:200]
        return f"the weights of CLIP {name} are of another architecture: {first}"
    if any(
        word in text.lower() for word in ("download", "hub", "connection", "urlopen", "offline")
    ):
        return (
            f"CLIP {name} could not be downloaded ({text[:160]}); connect to the network, or give "
            "a local folder or weights file"
        )
    return f"CLIP {name} could not be loaded: {text[:240]}"


def _line(error: Exception) -> str:
    """First line of an error, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
