"""The one training loop: Lightning's Trainer around a task, for every command that trains.

Lightning brings devices, precision and accumulation. Checkpoints are our own: Lightning resumes by
epochs and skips nothing inside one, whereas here every step is a function of its number, so a
resumed run goes on in the middle of an epoch with the very same losses (bit for bit in float32 on
one machine). It costs about 1 ms a step over a bare loop (measured: 0.8 to 1.0, of 85 at 0.35 M
parameters and 64 clips).
"""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader, Dataset

from pivot.errors import SettingsError
from pivot.runs import Run
from pivot.settings import FitSettings
from pivot.training.batch_norms import join_batch_norms, refuse_chunks
from pivot.training.checkpoint import checkpoint_path, cut_metrics, load_checkpoint
from pivot.training.journal import Journal, TaskBatches
from pivot.training.module import Task
from pivot.training.optim import build_optimizer, describe, peak_rates
from pivot.training.processes import device_of, is_first, number_of_processes, rank
from pivot.training.schedule import schedule

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
VALIDATION = "validation.jsonl"  # of a run: what `after_epoch` measured, with `step` in each row


@dataclass(frozen=True)
class Fitted:
    """What came out of a training, beside the task that was trained in place."""

    steps: int
    loss: float  # mean over the last row's steps
    seconds: float  # of training, over all resumptions
    clips_per_second: float
    peak_rates: dict[str, float]
    precision: str
    processes: int
    of_task: dict[str, float]  # what the task says of itself, such as its scale
    rows: list[dict[str, Any]] = field(repr=False)  # of this process, as in metrics.jsonl

    def facts(self) -> dict[str, Any]:
        """For results.json."""
        names = ("steps", "loss", "clips_per_second", "peak_rates", "precision", "processes")
        found = {name: getattr(self, name) for name in names} | self.of_task
        return found | {"training_seconds": self.seconds}


def fit(
    task: Task,
    batches: TaskBatches,
    settings: FitSettings,
    *,
    run: Run | None = None,
    label: str = "training",
    after_epoch: Callable[[int], None] | None = None,
) -> Fitted:
    """Train `task` in place; with a `run`, write metrics and checkpoints and resume from them.

    What trains are the task's parameters that require a gradient. `accumulate` micro-batches make a
    step; each has a loss of its own, so accumulation adds clips to a step, never negatives.
    `after_epoch` is called with the number of an epoch, from 1 on, when it ends (the last one may
    be cut short by `max_steps`): in rank 0, in eval mode, without gradients, before the step's
    checkpoint is written, so a resumed run calls it again for each epoch that it trains again.
    """
    if settings.processes > 1 and number_of_processes() == 1:
        raise SettingsError(f"--processes {settings.processes} cannot be used here; leave it out")
    device = device_of(settings)
    precision = resolve_precision(settings.precision, device)
    plan = schedule(settings, batches.per_epoch)
    data = batches.fingerprint()
    state = load_checkpoint(checkpoint_path(run.path), data) if run else None
    task.plan, task.step = plan, int(state["step"]) if state else 0
    task.seed = settings.seed
    refuse_chunks(task, settings)
    norms = join_batch_norms(task, device, number_of_processes())
    effective = settings.batch_size * settings.accumulate
    task.optimizer = build_optimizer(
        task.named_parameters(), settings.optim, effective, precision == "bf16", task.rate_factor
    )
    journal = Journal(task, settings, batches, run, state, label, after_epoch)
    if run and is_first():
        for name in ("metrics.jsonl", VALIDATION):
            cut_metrics(run.path / name, task.step)
        _tell(run, task, precision, device, norms)
    if state:
        task.load_state_dict(state["weights"])
    if task.step < plan.steps:
        _train(task, batches, settings, journal, (device, precision))
    task.eval()
    return Fitted(
        plan.steps,
        journal.row["loss"],
        round(journal.seconds, 3),
        round(journal.clips / max(journal.seconds, 1e-9), 2),
        peak_rates(task.optimizer),
        precision,
        number_of_processes(),
        task.facts(),
        journal.rows,
    )


class _Part(Dataset[Any]):
    """The part of each micro-batch that this process has; of a batch without `part`, its rows."""

    def __init__(self, batches: TaskBatches) -> None:
        self.batches, self.rank, self.processes = batches, rank(), number_of_processes()

    def __getitem__(self, m: int) -> Any:
        if self.processes == 1:
            return self.batches[m]
        if hasattr(self.batches, "part"):
            return self.batches.part(m, self.rank, self.processes)
        batch = self.batches[m]
        rows = np.array_split(np.arange(len(batch[0])), self.processes)[self.rank]
        return type(batch)(*(values[rows] for values in batch))


def _train(
    task: Task,
    batches: TaskBatches,
    settings: FitSettings,
    journal: Journal,
    where: tuple[str, str],
) -> None:
    device, precision = where
    numbers = range(task.step * settings.accumulate, task.plan.steps * settings.accumulate)
    loader = DataLoader(
        _Part(batches),
        batch_size=None,
        sampler=numbers,
        num_workers=settings.workers,
        pin_memory=device.startswith("cuda"),
        generator=torch.Generator().manual_seed(0),  # else torch draws from the global one
    )
    task.train()
    # what the steps draw, each from its own seed, leaves the caller's numbers as they were
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with _quiet(), torch.random.fork_rng(devices=devices):
        trainer = Trainer(
            **_place(device),
            precision=PRECISIONS[precision],  # type: ignore[arg-type]
            max_epochs=1,
            accumulate_grad_batches=settings.accumulate,
            gradient_clip_val=settings.max_grad,
            callbacks=[journal],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(task, loader)


def _place(device: str) -> dict[str, Any]:
    """Where Lightning runs: one device, or data parallel over the processes that have joined."""
    kind, _, number = device.partition(":")
    found: dict[str, Any] = {"accelerator": "gpu" if kind == "cuda" else kind}
    if number_of_processes() == 1:
        return found | {"devices": [int(number)] if number and kind == "cuda" else 1}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment())
    nodes = number_of_processes() // here
    return found | {"devices": here, "num_nodes": nodes, "strategy": strategy}


def resolve_precision(name: str, device: str) -> str:
    """Turn `auto` into bf16 where the hardware multiplies in it, else fp32; refuse the impossible.

    fp16 on a CPU is slower than fp32, so it is refused rather than replaced.
    """
    cuda = device.startswith("cuda")
    if name == "fp16" and not cuda:
        raise SettingsError(f"--precision fp16 needs a GPU, not {device}; take auto, bf16 or fp32")
    if name != "auto":
        return name
    if cuda:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bf16" if fast else "fp32"


def _tell(run: Run, task: Task, precision: str, device: str, norms: str | None) -> None:
    """Say what is about to be trained, one row a parameter group, and about its batch norms."""
    for row in [*describe(task.optimizer), *([norms] if norms else [])]:
        run.note(row)
    plan, many = task.plan, number_of_processes()
    where = f"{precision} on {device}{f' in {many} processes' if many > 1 else ''}"
    start = f", from step {task.step}" if task.step else ""
    run.note(f"{plan.steps} steps, {plan.warmup} of them warm-up, {where}{start}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and hints to itself, and give Ctrl-C back as it was."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    handler = signal.getsignal(signal.SIGINT)
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    except SystemExit as error:  # Lightning's answer to Ctrl-C
        if isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
