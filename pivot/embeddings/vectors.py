"""Vectors to match, from an array, a memory map or a tensor: checked once, read block by block."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pivot.embeddings.store import UnitRows
from pivot.errors import DataError

CHECK_ROWS = 512  # rows looked at together while checking: few enough to stay in the cache
GPU_SHARE = 0.4  # of the free memory of a GPU that one side may fill


class Vectors:
    """One side of a match: (n, d) vectors in any float type, wherever they lie."""

    def __init__(self, source: NDArray | Tensor | UnitRows, name: str, device: str) -> None:
        """Check shape and values; raise DataError that names the side and the row at fault."""
        self.name, self.device = name, torch.device(device)
        self.source = source.detach() if isinstance(source, Tensor) else source
        if len(source.shape) != 2 or not source.shape[0] or not source.shape[1]:
            raise DataError(f"{name} are {tuple(source.shape)}; match needs (n, d) with n, d > 0")
        self.count, self.dim = int(source.shape[0]), int(source.shape[1])
        if self.device.type == "cuda":
            self._move_if_it_fits()
        self.norm = self._check()

    def _move_if_it_fits(self) -> None:
        whole = self.source
        size = whole.nbytes
        if size < GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            tensor = whole if isinstance(whole, Tensor) else torch.from_numpy(np.array(whole[:]))
            self.source = tensor.to(self.device)

    def _check(self) -> float:
        longest = 0.0
        for start in range(0, self.count, CHECK_ROWS):
            norms = self.block(slice(start, start + CHECK_ROWS)).norm(dim=1)
            finite = torch.isfinite(norms)
            if not finite.all():
                row = start + int((~finite).nonzero()[0, 0])
                raise DataError(f"{self.name} row {row} is not finite; embed it again")
            longest = max(longest, float(norms.max()))
        return longest

    def block(self, rows: slice) -> Tensor:
        """Rows as float32 on the device."""
        return self._read(rows, torch.float32)

    def exact(self, rows: slice | Tensor) -> Tensor:
        """Rows, by slice or by index, as float64 on the device."""
        return self._read(rows, torch.float64)

    def _read(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        if isinstance(self.source, Tensor):
            where = rows if isinstance(rows, slice) else rows.to(self.source.device)
            return self.source[where].to(device=self.device, dtype=dtype)
        kind = np.float32 if dtype is torch.float32 else np.float64
        part = self.source[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        return torch.from_numpy(np.array(part, dtype=kind)).to(self.device)

    def rounding(self, dtype: torch.dtype) -> float:
        """Greatest length that a vector loses when it is rounded to `dtype`."""
        lost = 0.0
        for start in range(0, self.count, CHECK_ROWS):
            block = self.block(slice(start, start + CHECK_ROWS))
            lost = max(lost, float((block - block.to(dtype)).norm(dim=1).max()))
        return lost
