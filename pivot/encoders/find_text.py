"""From a folder or hub id to a text model of transformers and its tokenizer; mistakes are one line.

transformers makes up missing weights, and offline a tokenizer of five tokens, with a warning at
most; here they are refused. A folder never touches the network, and nothing that a repository
contains is executed.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from pivot.errors import ModelError

FAULTS = (
    OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError, IndexError,
    SafetensorError, pickle.UnpicklingError,
)  # fmt: skip
TOKENIZERS = ("tokenizer.json", "vocab*", "*.model", "spiece*")  # files, one of which there is
OFFLINE = ("connect", "offline", "resolve", "not a valid model identifier", "internet", "timed out")
KNOWN = 0.9  # of a model's tokens that its tokenizer has; embeddings are filled up by a few at most


def find_text(name: str, seed: int) -> tuple[Any, Any]:
    """Model, float32, and tokenizer of a hub id (downloads what is not cached) or of a folder.

    A pooler that the weights lack (roberta-base) starts at random under `seed`; the model's
    attribute `at_random` names its weights. Raises ModelError, one line, for what is missing,
    damaged, without some of its weights, or with a tokenizer that does not fit.
    """
    folder = local_folder(name)
    where: dict[str, Any] = {"local_files_only": folder is not None, "trust_remote_code": False}
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, found = cast(Any, AutoModel).from_pretrained(
                str(folder or name), dtype=torch.float32, output_loading_info=True, **where
            )
    except FAULTS as error:
        raise ModelError(_why(name, folder, error)) from error
    model.at_random = sorted(key for key in found["missing_keys"] if key.startswith("pooler."))
    missing = sorted(set(found["missing_keys"]) - set(model.at_random))
    if missing:
        raise ModelError(
            f"{name} lacks {len(missing)} of the weights of {type(model).__name__}, the first "
            f"{missing[0]}; it is no whole text model"
        )
    return model, find_tokenizer(name, folder, model)


def empty_text(name: str | Path) -> tuple[Any, Any]:
    """Model with weights yet to be loaded, and tokenizer, of the config in a folder or hub id.

    A Path is a folder of a saved model, a string what `text.model` may be.
    """
    folder = name if isinstance(name, Path) else local_folder(name)
    name = str(name)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(
                str(folder or name), local_files_only=folder is not None, trust_remote_code=False
            )
            model = cast(Any, AutoModel).from_config(config, dtype=torch.float32)
    except FAULTS as error:
        raise ModelError(_why(name, folder, error)) from error
    return model, find_tokenizer(name, folder, model)


def find_tokenizer(name: str, folder: Path | None, model: Any) -> Any:
    """Tokenizer of a folder or hub id, checked against the model's vocabulary."""
    try:
        if folder and not any(file for kind in TOKENIZERS for file in folder.glob(kind)):
            raise OSError("none of its files is there")  # transformers would make up an empty one
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder or name), local_files_only=folder is not None, trust_remote_code=False
        )
    except FAULTS as error:
        raise ModelError(
            f"{name} has no tokenizer that can be read ({first_line(error)}); "
            "put tokenizer.json and tokenizer_config.json beside its weights"
        ) from error
    size = int(model.get_input_embeddings().num_embeddings)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= size or len(tokenizer) < KNOWN * size:
        raise ModelError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens (ids up to {largest}), its model "
            f"{size}: they do not belong together, or the vocabulary is not there"
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer of {name} has no token to fill up with (pad_token)")
    return tokenizer


def local_folder(name: str, flag: str = "text.model", file: str = "config.json") -> Path | None:
    """The folder with `file` that a name means, or None for a hub id; errors name the `flag`."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / file).is_file():
            raise ModelError(f"{name} has no {file}; give a folder of a transformers model")
        return path
    like_a_path = name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name
    if path.exists() or like_a_path:
        what = "is a file" if path.is_file() else "does not exist"
        raise ModelError(f"{flag} {name} {what}; give a folder or a hub id")
    return None


def _why(name: str, folder: Path | None, error: BaseException) -> str:
    """One line about a model that transformers could not load."""
    text = str(error)
    if "Unrecognized" in text or "model type" in text:
        return f"{name} is no text model that transformers knows ({first_line(error)})"
    return not_loaded("text", name, folder, error)


def not_loaded(what: str, name: str, folder: Path | None, error: BaseException) -> str:
    """One line about a `what` model, of a folder or the hub, whose files could not be had."""
    if folder is None and any(word in str(error).lower() for word in OFFLINE):
        return (
            f"{name} is no local folder and could not be fetched from the hub "
            f"({first_line(error)}); check its name and the network, or give a folder"
        )
    return f"the {what} model {name} could not be loaded: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """An error in one line, shortened."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and reports to itself: what matters of them is an error here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
