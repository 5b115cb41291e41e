"""Several processes that share every batch: started here or by torchrun, one a GPU or CPU group.

The rank 0 process alone writes; what only one may do or look at goes through `first`. A mistake in
any of them ends all of them with its one line.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pivot.errors import RunError, SettingsError, UserError
from pivot.runs import resolve_device
from pivot.settings import FitSettings

T = TypeVar("T")
S = TypeVar("S", bound=FitSettings)
PATIENCE = timedelta(hours=12)  # others wait so long while rank 0 validates or writes
SECONDS_TO_END = 10  # that each process has after Ctrl-C or once it is told to end
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # as torchrun sets them


def number_of_processes() -> int:
    """Processes that have joined, this one included; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them."""
    return dist.get_rank() if number_of_processes() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def mean_of_processes(x: Tensor) -> Tensor:
    """Mean of `x` over all processes, the same in each."""
    if number_of_processes() > 1:
        x = x.clone()
        dist.all_reduce(x)
        x /= number_of_processes()
    return x


def first(action: Callable[[], T]) -> T:
    """Do `action` in rank 0 alone and give its result to all; its mistake is raised in all."""
    if number_of_processes() == 1:
        return action()
    found: list[Any] = [None]
    if is_first():
        try:
            found = [action()]
        except UserError as error:
            found = [error]
    dist.broadcast_object_list(found, src=0)
    if isinstance(found[0], UserError):
        raise found[0]
    result: T = found[0]
    return result


def device_of(settings: FitSettings) -> str:
    """Device of this process: that of the settings, and of several processes on GPUs its own."""
    device = resolve_device(settings.device)
    if number_of_processes() == 1:
        return device
    if device == "cpu":
        return device
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device != "cuda" or here > gpus:
        raise SettingsError(
            f"--processes: {here} cannot share --device {settings.device} ({gpus} GPUs here); take "
            "one process a GPU with --device cuda, or --device cpu"
        )
    return f"cuda:{os.environ['LOCAL_RANK']}"


def with_processes(function: Callable[[S], int], settings: S) -> int:
    """Run `function(settings)` in as many processes as the settings or torchrun want.

    `function` is one of a module, so that a new process finds it by name. It runs in each process,
    with a group joined; returns the exit status of rank 0's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "LOCAL_RANK" in os.environ:
        return _joined(function, settings, "env://")
    if settings.processes == 1:
        return function(settings)
    with tempfile.TemporaryDirectory() as folder:
        return _start_all(function, settings, f"file://{folder}/meet")


def _joined(function: Callable[[S], int], settings: S, meet: str) -> int:
    """Join the group, which is left again at the end, and run."""
    ranks, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if settings.batch_size < world:
        raise SettingsError(
            f"--batch-size {settings.batch_size} cannot be split over {world} processes; raise it, "
            "or take fewer processes"
        )
    cuda = resolve_device(settings.device).startswith("cuda")
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % max(1, torch.cuda.device_count()))
    dist.init_process_group(
        "nccl" if cuda else "gloo", meet, timeout=PATIENCE, rank=ranks, world_size=world
    )
    try:
        with _silent() if ranks else nullcontext():
            status = function(settings)
        dist.barrier()  # nobody leaves while another still needs the group
        return status
    finally:
        dist.destroy_process_group()


@contextmanager
def _silent() -> Iterator[None]:
    """What rank 0 says as well is not said twice; errors leave this and are told."""
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


# ---- processes of our own -----------------------------------------------------------------------


def _start_all(function: Callable[[S], int], settings: S, meet: str) -> int:
    """Start the processes, wait for them, and end the rest when one fails."""
    context = _context(function.__module__)
    world = settings.processes
    processes: list[BaseProcess] = []
    ears: list[Connection] = []
    try:
        for number in range(world):
            ear, mouth = context.Pipe(duplex=False)
            process = context.Process(
                target=_one, args=(function, settings, meet, number, world, mouth)
            )
            process.start()
            mouth.close()
            processes.append(process)
            ears.append(ear)
        _watch(processes, ears)
    except KeyboardInterrupt:  # they were told as well: let rank 0 say how to go on
        for process in processes:
            process.join(SECONDS_TO_END)
        raise
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join(SECONDS_TO_END)
            if process.is_alive():  # it waits for another in C++, where no handler runs
                process.kill()
                process.join()
    return 0


def _context(module: str) -> Any:
    """How processes start: on Linux from a server that has imported everything once (seconds)."""
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def _watch(processes: list[BaseProcess], ears: list[Connection]) -> None:
    """Return when all have ended well; raise the first mistake of any of them."""
    running: dict[Any, int] = {process.sentinel: i for i, process in enumerate(processes)}
    while running:
        for sentinel in wait(list(running)):
            number = running.pop(sentinel)
            processes[number].join()
            status = processes[number].exitcode
            if ears[number].poll():
                try:
                    raise ears[number].recv()
                except EOFError:
                    pass
            if status:
                raise RunError(
                    f"process {number} of {len(processes)} ended with status {status}, and so the "
                    "others were ended; --resume goes on from the last checkpoint"
                )


def _one(
    function: Callable[[S], int], settings: S, meet: str, number: int, world: int, mouth: Connection
) -> None:
    """One process: set it up as torchrun would, run, and tell a mistake to the parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(zip(VARIABLES, map(str, (number, world, number, world)), strict=True))
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    try:
        _joined(function, settings, meet)
    except UserError as error:
        mouth.send(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def _end_with_parent() -> None:
    """A parent that was killed takes its processes with it: they would go on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
