"""What batch norm means for a training: none in chunks, and one statistic for all processes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pivot.errors import SettingsError
from pivot.settings import FitSettings


def batch_norms(task: nn.Module) -> list[str]:
    """Names of the batch norms that take the statistics of a batch while the task trains."""
    training = task.training
    task.train()
    found = [
        name
        for name, module in task.named_modules()
        if isinstance(module, _BatchNorm) and module.training
    ]
    task.train(training)
    return found


def refuse_chunks(task: nn.Module, settings: FitSettings) -> None:
    """SettingsError for --grad-cache with batch norm, whose statistics would be those of a chunk.

    Their sums over a chunk are not those of the batch, so the gradient would be another one, and
    the running statistics would be moved twice.
    """
    if settings.grad_cache and (names := batch_norms(task)):
        raise SettingsError(
            f"--grad-cache {settings.grad_cache} cannot be exact with batch norm, which this "
            f"encoder has ({names[0]} and {len(names) - 1} more); leave it out, and lower "
            "--batch-size if the memory is too small"
        )


def join_batch_norms(task: nn.Module, device: str, processes: int) -> str | None:
    """On several GPUs let batch norms see the whole batch; what a run should say, if anything.

    The names of weights stay. On a CPU torch has no such norm: each process takes the statistics
    of its own part. A short batch that leaves a process without a part has it see one sound of
    zeros, which counts there.
    """
    if processes == 1 or not (names := batch_norms(task)):
        return None
    if device.startswith("cuda"):
        nn.SyncBatchNorm.convert_sync_batchnorm(task)
        return f"{len(names)} batch norms take the statistics of all {processes} processes together"
    return (
        f"{len(names)} batch norms take the statistics of each process's own part of a batch, as "
        f"torch cannot join them on {device}; the model keeps those of the first process"
    )
