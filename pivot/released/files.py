"""Weights by name of any released file: torch.save, safetensors, a folder of Hugging Face."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pivot.errors import ModelError
from pivot.released.downloads import refuse_broken_download
from pivot.released.inert import read_torch_file

State = dict[str, Tensor]
IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")
STATES = ("state_dict", "model", "model_state_dict")  # where files keep their weights
# of the training that made a file: not read
TRAINING = ("optimizer", "optimizers", "optimizer_states", "lr_schedulers", "scheduler", "scaler")


@dataclass(frozen=True)
class Released:
    """A released file as data."""

    path: Path  # the file itself
    content: Any  # all of it, without optimisers
    weights: State  # its state dict, without `module.`; empty where it has none

    def beside(self, name: str) -> dict[str, Any]:
        """A JSON file that lies beside the weights, empty where there is none."""
        path = self.path.parent / name
        if not path.is_file():
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read ({error}); get it again") from error
        return found if isinstance(found, dict) else {}


def read_released(path: str | Path) -> Released:
    """Read a file, or the weights in a folder, without running what it contains.

    Raises ModelError, one line, for a file that is no such file, is damaged, cut short, a web page,
    a pointer of Git LFS, or a pickle that names anything but weights and settings.
    """
    path = _weights_file(Path(path).expanduser())
    try:
        refuse_broken_download(path)
        safe = path.suffix == ".safetensors"
        content = load_file(path) if safe else read_torch_file(path, without=TRAINING)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ModelError(
            f"{path} is no whole file of safetensors ({error}): cut short or damaged; get it again"
        ) from error
    return Released(path, content, _state(content))


def _weights_file(path: Path) -> Path:
    """The file with the weights: `path`, or the one in a folder of Hugging Face."""
    if not path.is_dir():
        return path
    for name in IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
        if (path / f"{name}.index.json").is_file():
            raise ModelError(f"{path} has its weights in several files; save the model in one")
    raise ModelError(f"{path} has neither {' nor '.join(IN_A_FOLDER)}; name the file itself")


def _state(content: Any) -> State:
    """The state dict of a file: all of it, or one of its items; empty where there is none."""
    if not isinstance(content, dict):
        return {}
    for found in (content, *(content.get(name) for name in STATES)):
        if (
            isinstance(found, dict)
            and found
            and all(
                isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
            )
        ):
            return {name.removeprefix("module."): value for name, value in found.items()}
    return {}
