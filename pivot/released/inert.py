"""A file of torch.save as plain data and tensors, read without running what it contains.

Such a file is a zip with one pickle (`data.pkl`) and the raw bytes of the tensors. A pickle is a
program: it may name any function and call it. Here every name comes to a record of what would have
been called, with which arguments (`Inert`), and no module is imported; only names that settings and
weights are made of are let through at all, so a file that names anything else is refused. The
records are then turned into dictionaries, lists and tensors by code of this module alone.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pivot.errors import ModelError

# `type` is what omegaconf notes of a setting that is None.
PLAIN = set("dict list tuple set int long float str unicode bool bytes type".split())
REBUILD, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
KNOWN = {"collections.OrderedDict", "collections.defaultdict", REBUILD, PARAMETER}
KNOWN |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in PLAIN}
DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
INERT_MODULES = ("omegaconf", "typing")  # classes of settings and what describes their types


def read_torch_file(path: str | Path) -> Any:
    """Content of a file of torch.save (torch 1.6 or newer), as plain data and tensors on the CPU.

    omegaconf's settings come as dictionaries and lists, with `${...}` as it stands. Raises
    ModelError, one line, for a file that is none, is damaged or cut short, or names anything that
    settings and weights are not made of; nothing of it has been run then either.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _TorchFile(archive, str(path)).content()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is no file of torch.save ({error}): cut short, damaged, or written by a torch "
            "before 1.6; get it again"
        ) from error


class Inert:
    """What a pickle would have made of a class or a function: its name, arguments, state, items."""

    name = ""

    def __new__(cls, *arguments: Any) -> Inert:
        """Keep the arguments of the call that is not made."""
        self = super().__new__(cls)
        self.arguments, self.state, self.items, self.rows = arguments, None, {}, []
        return self

    arguments: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]
    rows: list[Any]

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep an item."""
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Keep a row."""
        self.rows.append(value)


class _Storage:
    """The raw bytes of a tensor: their entry in the zip, their kind, their number."""

    def __init__(self, key: str, kind: str, count: int) -> None:
        self.key, self.kind, self.count = key, kind, count


class _Reader(pickle.Unpickler):
    """Unpickler whose every name is inert."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> type[Inert]:
        """A fresh class that only takes notes, for a name that settings or weights may hold."""
        whole = f"{module}.{name}"
        harmless = module.split(".")[0] in INERT_MODULES
        if not harmless and whole not in KNOWN and whole not in DTYPES:
            raise ModelError(
                f"{self.path} wants to use {whole}, which is no part of settings or weights; "
                "nothing was imported or run: is the file what it claims to be?"
            )
        return type("Noted", (Inert,), {"name": whole})

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", its class, the entry's name, where it was, how many numbers)."""
        word, kind, key, _, count = pid
        if word != "storage" or kind.name not in DTYPES or not isinstance(key, str):
            raise pickle.UnpicklingError(f"an unknown kind of storage: {word}")
        return _Storage(key, kind.name, int(count))


class _TorchFile:
    """An open file of torch.save."""

    def __init__(self, archive: zipfile.ZipFile, path: str) -> None:
        self.archive, self.path = archive, path
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelError(f"{path} is a zip but no file of torch.save: it has no data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")

    def content(self) -> Any:
        """Read the pickle, then turn what it noted into plain data."""
        try:
            if self._entry("byteorder", b"little") != b"little":
                raise ModelError(f"{self.path} was written on a big-endian machine; convert it")
            with self.archive.open(f"{self.root}data.pkl") as file:
                noted = _Reader(file, self.path).load()
            return self._plain(noted)
        except (ModelError, zipfile.BadZipFile, OSError):
            raise
        except Exception as error:  # a damaged pickle can raise almost anything
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise ModelError(f"{self.path} is damaged ({why}); get it again") from error

    def _plain(self, value: Any) -> Any:
        """Records to dictionaries, lists, tensors."""
        if isinstance(value, dict):
            return {self._plain(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._plain(item) for item in value)
        if not isinstance(value, Inert):
            return value
        if value.name == REBUILD:
            return self._tensor(*value.arguments[:4])
        if value.name == PARAMETER:
            return self._plain(value.arguments[0])
        if value.name.startswith("collections."):
            listed = value.name.endswith("OrderedDict") and value.arguments
            return self._plain({**dict(value.arguments[0] if listed else ()), **value.items})
        if value.name.startswith("omegaconf.") and isinstance(value.state, dict):
            return self._plain(value.state.get("_content", value.state.get("_val")))
        return None  # the type of a setting, say

    def _tensor(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """A tensor of its own memory; torch checks that size and stride stay within the bytes."""
        dtype = DTYPES[storage.kind]
        data = self._entry(f"data/{storage.key}")
        if len(data) != storage.count * dtype.itemsize:
            raise ModelError(f"{self.path} is damaged: a tensor of {len(data)} bytes is cut short")
        if not data:
            return torch.empty(size, dtype=dtype)
        numbers = torch.frombuffer(bytearray(data), dtype=dtype)
        return numbers.as_strided(size, stride, offset).clone()

    def _entry(self, name: str, default: bytes | None = None) -> bytes:
        """Bytes of an entry, its checksum tested; torch stores them uncompressed."""
        try:
            info = self.archive.getinfo(self.root + name)
        except KeyError:
            if default is None:
                raise ModelError(
                    f"{self.path} is damaged: it has no {name}; get it again"
                ) from None
            return default
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelError(f"{self.path} is no file of torch.save: {name} is compressed")
        return self.archive.read(info)
