"""Small stand-ins that tests share: a random CLIP in a folder that open_clip can load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

TEXT = "a the sound of photo dog cat bell rain car drum bird red blue barks rings , ."
WORDS = tuple(TEXT.split(" "))
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")


def tiny_config(words: int, *, quick_gelu: bool = True, **vision: Any) -> dict[str, Any]:
    """Config of a CLIP of two layers: pictures of 32 x 32, patches of 8, texts of 16 tokens."""
    side = {"width": 64, "layers": 2}
    text = {
        **side,
        "heads": 2,
        "context_length": 16,
        "vocab_size": words + len(SPECIAL),
        "hf_tokenizer_name": "tokenizer.json beside this file",
        "pool_type": "eos",
        "eos_id": 2,
        "pad_id": 0,
    }
    image = {**side, "head_width": 32, "image_size": 32, "patch_size": 8, **vision}
    return {"embed_dim": 16, "quick_gelu": quick_gelu, "vision_cfg": image, "text_cfg": text}


def write_tokenizer(folder: Path, words: Sequence[str], context: int = 16) -> None:
    """Write a word-level tokenizer as transformers reads it: lower case, <start> ... <end>."""
    tokens = [*SPECIAL, *words]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unknown>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    tokenizer.post_processor = TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<start>",
        "eos_token": "<end>",
        "unk_token": "<unknown>",
        "model_max_length": context,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(facts, indent=1))


def write_clip(
    path: str | Path, config: dict[str, Any], words: Sequence[str], weights: dict[str, torch.Tensor]
) -> Path:
    """Write config, tokenizer and weights as a folder that open_clip loads."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(about, indent=1))
    write_tokenizer(folder, words, config["text_cfg"]["context_length"])
    weights = {name: value.contiguous() for name, value in weights.items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def tiny_clip_folder(
    path: str | Path,
    words: Sequence[str] = WORDS,
    seed: int = 0,
    quick_gelu: bool = True,
    **vision: Any,
) -> Path:
    """Write a random CLIP of 64 x 2 layers, dimension 16, into `path`; return the folder.

    `vision` overrides keys of open_clip's vision_cfg. Words outside the list are <unknown>.
    """
    config = tiny_config(len(words), quick_gelu=quick_gelu, **vision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
    return write_clip(path, config, words, model.state_dict())
