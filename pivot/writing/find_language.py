"""From a hub id or folder to a language model and its tokenizer; every mistake is one line.

transformers makes up missing weights and tokenizers with a warning at most; here they are refused.
A folder never touches the network, and nothing that a repository contains is executed.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
)

from pivot.encoders.find_text import first_line, local_folder, not_loaded
from pivot.errors import ModelError, SettingsError
from pivot.writing.language import Language

FAULTS = (
    OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError,
    SafetensorError, pickle.UnpicklingError,
)  # fmt: skip
TOKENIZERS = ("tokenizer*", "vocab*", "*.model")  # files, one of which a tokenizer has


MAKERS = {
    "causal language model": AutoModelForCausalLM,
    "encoder-decoder language model": AutoModelForSeq2SeqLM,
}


@dataclass(frozen=True)
class Parts:
    """A model of transformers in evaluation mode, its tokenizer, and where they are from."""

    model: Any
    tokenizer: Any
    source: dict[str, Any]  # model, revision, commit, sha256
    generation: GenerationConfig  # the folder's own; the model has an empty one


def load_language(
    name: str, revision: str | None = None, device: str = "cpu", precision: str = "auto"
) -> Language:
    """Load model and tokenizer of a hub id (downloads what is not cached) or of a local folder.

    Raises ModelError, one line, for what is missing, damaged, no causal model, without some of
    its weights, or with a tokenizer that does not fit or knows no line end.
    """
    parts = load_parts("causal language model", name, revision, device, precision)
    _check_line_end(name, parts.tokenizer)
    return Language(parts.model, parts.tokenizer, device, parts.source)


def load_parts(kind: str, name: str, revision: str | None, device: str, precision: str) -> Parts:
    """A language model of one of the MAKERS and its tokenizer; errors as of `load_language`."""
    folder = local_folder(name, "--model")
    if folder and revision:
        raise SettingsError(f"--revision {revision} goes with a hub id; {name} is a folder")
    where: dict[str, Any] = {
        "revision": None if folder else revision or "main",
        "local_files_only": folder is not None,
        "trust_remote_code": False,
    }
    path, maker = str(folder or name), cast(Any, MAKERS[kind])
    try:
        model, found = maker.from_pretrained(
            path, dtype=_dtype(precision, device), output_loading_info=True, **where
        )
    except FAULTS as error:
        raise ModelError(_why(kind, name, folder, error)) from error
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(missing)} of the weights of {type(model).__name__}, the first "
            f"{missing[0]}; it is no whole language model"
        )
    tokenizer = _tokenizer(name, folder, where)
    _check_tokenizer(name, model, tokenizer)
    own = model.generation_config
    model.generation_config = GenerationConfig()  # the folder's own sampling would mix with ours
    source = {
        "model": name,
        "revision": revision,
        "commit": getattr(model.config, "_commit_hash", None) or None,
        "sha256": folder_hash(folder) if folder else None,
    }
    return Parts(model.eval().to(device), tokenizer, source, own)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a hub id (downloads what is not cached) or of a folder; else ModelError."""
    folder = local_folder(name, "--tokenizer", "tokenizer_config.json")
    return _tokenizer(name, folder, {"local_files_only": folder is not None})


def _tokenizer(name: str, folder: Path | None, where: dict[str, Any]) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder or name), **where)
        if folder and not any(file for kind in TOKENIZERS for file in folder.glob(kind)):
            raise OSError("none of its files is there")  # transformers would make up an empty one
    except FAULTS as error:
        if (
            "tiktoken" in str(error) and find_spec("sentencepiece") is None
        ):  # asks for the wrong one
            raise ModelError(
                f"the tokenizer of {name} is a SentencePiece file; pip install sentencepiece"
            ) from error
        raise ModelError(
            f"{name} has no tokenizer that can be read ({first_line(error)}); "
            "put tokenizer.json and tokenizer_config.json beside its weights"
        ) from error
    return tokenizer


def _dtype(precision: str, device: str) -> torch.dtype:
    """Type of the weights; `auto`: bf16 on a GPU that has it, else fp16 there, else fp32."""
    cuda = device.startswith("cuda")
    if precision == "fp16" and not cuda:
        raise SettingsError(f"--precision fp16 needs a GPU, not {device}; take auto, bf16 or fp32")
    if precision == "auto":
        half = "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else ""
        precision = half or ("fp16" if cuda else "fp32")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _check_tokenizer(name: str, model: Any, tokenizer: Any) -> None:
    size = model.get_input_embeddings().num_embeddings
    vocabulary = tokenizer.get_vocab()
    largest = max(vocabulary.values(), default=-1)
    # transformers makes up a tokenizer of a few tokens where it finds no vocabulary
    if largest >= size or 2 * len(vocabulary) < size:
        raise ModelError(
            f"the tokenizer of {name} has {len(vocabulary)} tokens with ids up to {largest}, its "
            f"model {size} tokens; they do not belong together"
        )


def _check_line_end(name: str, tokenizer: Any) -> None:
    ids = tokenizer("\n")["input_ids"]
    if not any("\n" in tokenizer.decode([i]) for i in ids):
        raise ModelError(
            f"the tokenizer of {name} has no token for a line's end, so its captions would not "
            "end; take another model"
        )


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files: what a local model is."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {inner}\n".encode())
    return digest.hexdigest()


def _why(kind: str, name: str, folder: Path | None, error: BaseException) -> str:
    """One line about a model that transformers could not load."""
    text = str(error)
    if "Unrecognized configuration class" in text or "model type" in text:
        return f"{name} is no {kind} that transformers knows ({first_line(error)})"
    return not_loaded("language", name, folder, error)
