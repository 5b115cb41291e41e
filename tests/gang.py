"""What tests let several processes do; a module of its own, as a new process imports little."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch.distributed as dist

from pivot.errors import DataError
from pivot.settings import FitSettings
from pivot.training.processes import first, is_first, number_of_processes, rank, with_processes


def report(settings: FitSettings) -> int:
    """Write what each process knows of itself, and what only the first one did."""
    folder = Path(settings.out)
    made = first(lambda: [(folder / "made").touch(exist_ok=False), os.getpid()][1])
    facts = f"{rank()} {number_of_processes()} {is_first()} {made == os.getpid()}"
    (folder / f"rank{rank()}").write_text(facts)
    print(f"said by {rank()}")
    return 0


def fail(settings: FitSettings) -> int:
    """A mistake that the first process alone makes."""
    first(lambda: _mistake(settings.out))
    raise AssertionError("the others went on")


def _mistake(what: str) -> None:
    raise DataError(f"{what} cannot be used")


def crash(settings: FitSettings) -> int:
    """An error of the second process that is nobody's mistake, while the first waits for it."""
    if rank():
        os._exit(7)
    dist.barrier()
    return 0


def wait(settings: FitSettings) -> int:
    """Write one's number as a process, and stay."""
    (Path(settings.out) / f"pid{rank()}").write_text(str(os.getpid()))
    time.sleep(600)
    return 0


if __name__ == "__main__":  # `report` as torchrun starts it, or `wait` in two of our processes
    name, out = sys.argv[1:]
    if name == "report":
        with_processes(report, FitSettings(out=out, device="cpu"))
    else:
        from tests import gang  # functions of __main__ cannot be found by a new process

        with_processes(gang.wait, FitSettings(out=out, device="cpu", processes=2))
