"""A file of torch.save as plain data and tensors, read without running what it contains.

Such a file is a zip with one pickle (`data.pkl`) and the raw bytes of the tensors, or, before torch
1.6, some pickles and the bytes one after the other. A pickle is a program: it may name any function
and call it. Here every name comes to a record of what would have been called, with which arguments
(`Inert`), and no module is imported; only names that settings and weights are made of are let
through at all, so a file that names anything else is refused. The records are then turned into
dictionaries, lists and tensors by code of this module alone.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from torch import Tensor

from pivot.errors import ModelError
from pivot.released.downloads import refuse_broken_download

# `type` is what omegaconf notes of a setting that is None.
PLAIN = set("dict list tuple set int long float str unicode bool bytes type".split())
REBUILD, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
REBUILDS = (REBUILD, "torch._utils._rebuild_tensor")  # the second: before torch 0.4
KNOWN = {"collections.OrderedDict", "collections.defaultdict", PARAMETER, *REBUILDS}
KNOWN |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in PLAIN}
# settings that Lightning and argparse keep beside weights
KNOWN |= {"argparse.Namespace", "torch.Size", "torch.device"}
PATHS = {f"pathlib.{kind}Path" for kind in ("", "Posix", "Windows", "PurePosix", "PureWindows")}
# numbers of numpy: the state of PANNs' sampler, scores beside weights
NUMPY = {"_codecs.encode", "numpy.ndarray", "numpy.dtype"}
NUMPY |= {
    f"numpy.{core}.{name}"
    for core in ("core", "_core")
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}
NUMPY |= {f"numpy.random._pickle.__{kind}_ctor" for kind in ("randomstate", "bit_generator")}
NUMPY |= {"numpy.random.mtrand.RandomState", "numpy.random._mt19937.MT19937"}
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
HARMLESS = KNOWN | PATHS | NUMPY | set(DTYPES)
# classes of settings, what describes their types, and Lightning's own marks in its files
INERT_MODULES = ("omegaconf", "typing", "pytorch_lightning", "lightning", "lightning_fabric")
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # how files before torch 1.6 begin


def read_torch_file(path: str | Path, without: Collection[str] = ()) -> Any:
    """Content of a file of torch.save, as plain data and tensors on the CPU.

    Settings of omegaconf and argparse come as dictionaries and lists, with `${...}` as it stands;
    paths as text; numpy's numbers as None. If the content is a dictionary, its items named in
    `without` are not read. Raises ModelError, one line, for a file that is none, is damaged or cut
    short, or names anything that settings and weights are not made of; nothing of it has been run
    then either.
    """
    try:
        refuse_broken_download(path)
        with Path(path).open("rb") as file:
            if file.read(len(LEGACY)) == LEGACY:
                return _LegacyFile(file, str(path)).content(without)
        with zipfile.ZipFile(path) as archive:
            return _ZipFile(archive, str(path)).content(without)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} is no file of torch.save ({error}): cut short, damaged, or something else; "
            "get it again"
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
    """The raw bytes of a tensor: their entry in the file, their kind, their number."""

    def __init__(self, key: str, kind: str, count: int) -> None:
        self.key, self.kind, self.count = key, kind, count

    @property
    def size(self) -> int:
        return self.count * DTYPES[self.kind].itemsize


class _Reader(pickle.Unpickler):
    """Unpickler whose every name is inert; `storages` are those that were named."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        super().__init__(file)
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> type[Inert]:
        """A fresh class that only takes notes, for a name that settings or weights may hold."""
        whole = f"{module}.{name}"
        if module.split(".")[0] not in INERT_MODULES and whole not in HARMLESS:
            raise ModelError(
                f"{self.path} wants to use {whole}, which is no part of settings or weights; "
                "nothing was imported or run: is the file what it claims to be?"
            )
        return type("Noted", (Inert,), {"name": whole})

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", its class, the entry's name, where it was, how many numbers).

        Files before torch 1.6 add the part of a storage that is meant, which is None.
        """
        word, kind, key, _, count, *part = pid
        if word != "storage" or kind.name not in DTYPES or not isinstance(key, str) or any(part):
            raise pickle.UnpicklingError(f"an unknown kind of storage: {word}")
        return self.storages.setdefault(key, _Storage(key, kind.name, int(count)))


class _TorchFile:
    """An open file of torch.save: what it noted as plain data."""

    path: str

    def content(self, without: Collection[str]) -> Any:
        """Read the pickle, then turn what it noted into plain data."""
        try:
            noted = self._noted()
            if isinstance(noted, dict):
                noted = {key: value for key, value in noted.items() if key not in without}
            return self._plain(noted)
        except (ModelError, zipfile.BadZipFile, OSError):
            raise
        except Exception as error:  # a damaged pickle can raise almost anything
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise ModelError(f"{self.path} is damaged ({why}); get it again") from error

    def _noted(self) -> Any:
        """What the pickle says, with records in the place of what it would call."""
        raise NotImplementedError

    def _data(self, storage: _Storage) -> bytes:
        """Bytes of a storage."""
        raise NotImplementedError

    def _plain(self, value: Any) -> Any:
        """Records to dictionaries, lists, tensors."""
        if isinstance(value, dict):
            return {self._plain(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._plain(item) for item in value)
        if not isinstance(value, Inert):
            return value
        if value.name in REBUILDS:
            return self._tensor(*value.arguments[:4])
        if value.name == PARAMETER:
            return self._plain(value.arguments[0])
        if value.name.startswith("collections."):
            listed = value.name.endswith("OrderedDict") and value.arguments
            return self._plain({**dict(value.arguments[0] if listed else ()), **value.items})
        if value.name.startswith("omegaconf.") and isinstance(value.state, dict):
            return self._plain(value.state.get("_content", value.state.get("_val")))
        if value.name == "argparse.Namespace":
            return self._plain(value.state)
        if value.name in PATHS:
            return str(PurePosixPath(*map(str, value.arguments)))
        return None  # the type of a setting, say

    def _tensor(
        self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """A tensor of its own memory; torch checks that size and stride stay within the bytes."""
        dtype, data = DTYPES[storage.kind], self._data(storage)
        if len(data) != storage.size:
            raise ModelError(f"{self.path} is damaged: a tensor of {len(data)} bytes is cut short")
        empty = torch.empty(0, dtype=dtype)
        numbers = torch.frombuffer(bytearray(data), dtype=dtype) if data else empty
        return numbers.as_strided(size, stride, offset).clone()


class _ZipFile(_TorchFile):
    """A file of torch 1.6 or newer."""

    def __init__(self, archive: zipfile.ZipFile, path: str) -> None:
        self.archive, self.path = archive, path
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelError(f"{path} is a zip but no file of torch.save: it has no data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")

    def _noted(self) -> Any:
        if self._entry("byteorder", b"little") != b"little":
            raise ModelError(f"{self.path} was written on a big-endian machine; convert it")
        with self.archive.open(f"{self.root}data.pkl") as file:
            return _Reader(file, self.path).load()

    def _data(self, storage: _Storage) -> bytes:
        return self._entry(f"data/{storage.key}")

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


class _LegacyFile(_TorchFile):
    """A file of torch before 1.6, past its first pickle.

    Pickles follow: a version, facts of the machine, the content, the storages' names; then of each
    storage its number of values (8 bytes) and the values.
    """

    def __init__(self, file: IO[bytes], path: str) -> None:
        self.file, self.path = file, path
        self.bytes: dict[str, bytes] = {}

    def _noted(self) -> Any:
        _Reader(self.file, self.path).load()
        machine = _Reader(self.file, self.path).load()
        if machine.get("little_endian") is not True:
            raise ModelError(f"{self.path} was written on a big-endian machine; convert it")
        reader = _Reader(self.file, self.path)
        noted = reader.load()
        for key in _Reader(self.file, self.path).load():
            storage = reader.storages[key]
            self.file.read(8)
            self.bytes[key] = self.file.read(storage.size)
            if len(self.bytes[key]) < storage.size:
                raise ModelError(
                    f"{self.path} is cut short: its last weights are missing; get it again"
                )
        return noted

    def _data(self, storage: _Storage) -> bytes:
        return self.bytes[storage.key]
