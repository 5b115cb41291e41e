"""The journal of a training: rows of metrics, the progress bar, checkpoints, the stop on NaN."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from pivot.errors import RunError, SettingsError
from pivot.runs import Run
from pivot.settings import FitSettings
from pivot.training.checkpoint import checkpoint_path, save_checkpoint
from pivot.training.module import Task
from pivot.training.processes import is_first, mean_of_processes, number_of_processes


class TaskBatches(Protocol):
    """Micro-batches of a training: named tuples whose first field is `fbank` (B, T, M)."""

    @property
    def per_epoch(self) -> int:
        """Micro-batches an epoch."""

    def fingerprint(self) -> str:
        """Hash of what they are made of; a checkpoint of others is refused."""

    def __getitem__(self, m: int) -> Any:
        """Micro-batch m, counted from 0 over all epochs."""


class Journal(Callback):
    """Follows a training of `plan.steps` optimiser steps of `accumulate` micro-batches each.

    A row holds the mean loss of the steps since the row before. Losses are brought to the CPU only
    for a row or a checkpoint, so a GPU is not held up by every step.
    """

    def __init__(
        self,
        module: Task,
        settings: FitSettings,
        batches: TaskBatches,
        run: Run | None,
        state: dict[str, Any] | None,
        label: str,
        after_epoch: Callable[[int], None] | None,
    ) -> None:
        self.module, self.plan = module, module.plan
        self.settings, self.run, self.after_epoch = settings, run, after_epoch
        self.per_epoch, self.data = batches.per_epoch, batches.fingerprint()
        self.state, self.label = state, label
        before = state or {"recent": [], "row": {"loss": math.nan}, "seconds": 0.0, "clips": 0}
        self.recent: list[dict[str, float]] = before["recent"]  # of the steps since the last row
        self.row: dict[str, Any] = before["row"]
        self.rows: list[dict[str, Any]] = []
        self.seconds: float = before["seconds"]
        self.clips: int = before["clips"]  # of all processes, up to the last `_collect`
        self.saved: int = state["step"] if state else 0
        self._own_clips = 0  # of this process since then
        self._since = (self.seconds, self.clips)
        self.bar: Any = None
        self._board: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Give optimiser and precision the state of the checkpoint; open the bar."""
        if self.state:
            self.module.optimizer.load_state_dict(self.state["optimizer"])
            trainer.precision_plugin.load_state_dict(self.state["precision"])
            self.state = None
        self._began = time.perf_counter() - self.seconds
        if self.settings.tensorboard and self.run and is_first():
            self._board = _open_board(self.run, self.module.step)
        self.bar = tqdm(
            total=self.plan.steps,
            initial=self.module.step,
            desc=self.label,
            unit="step",
            dynamic_ncols=True,
            disable=None if is_first() else True,
        )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Keep the loss; at the end of an optimiser step, do what is due, the checkpoint last."""
        self._own_clips += len(batch[0])
        if (index + 1) % self.settings.accumulate:
            return
        self.bar.update()
        step, last = self.module.step, self.module.step == self.plan.steps
        row_due = step % self.settings.log_every == 0 or last
        save_due = self.run is not None and (step % self.settings.checkpoint_every == 0 or last)
        if row_due or save_due:
            self._collect()
        if row_due:
            self._write_row()
        if epoch := self._epoch_that_ends(step):
            self._after_epoch(epoch)
        if save_due and is_first():
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close bar and board."""
        self._close()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar; after Ctrl-C say how to go on."""
        self._close()
        if self.run and is_first() and isinstance(exception, KeyboardInterrupt):
            self.run.note(
                f"stopped at step {self.module.step} of {self.plan.steps}; "
                f"--resume goes on from step {self.saved}"
            )

    def _epoch_that_ends(self, step: int) -> int:
        """Number of the epoch that ends with this step, else 0; the last step ends one, too."""
        batches = step * self.settings.accumulate
        whole = batches // self.per_epoch
        if step == self.plan.steps:
            return -(-batches // self.per_epoch)
        return whole if whole > (batches - self.settings.accumulate) // self.per_epoch else 0

    def _after_epoch(self, epoch: int) -> None:
        """Let the callback look at the weights; the training's random numbers stay as they are."""
        if self.after_epoch is None or not is_first():
            return
        began, device = time.perf_counter(), self.module.device
        self.module.eval()
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            self.after_epoch(epoch)
        self.module.train()
        self._began += time.perf_counter() - began  # no time of the training

    def _collect(self) -> None:
        """Bring the losses over, one an optimiser step; stop at the first that is not finite."""
        self.seconds = time.perf_counter() - self._began
        found = self.module.losses
        names = list(found[0]) if found else []
        values = [loss[name].float() for loss in found for name in names]
        own = torch.tensor([float(self._own_clips)], device=self.module.device)
        means = mean_of_processes(torch.cat([own, *(value.view(1) for value in values)])).cpu()
        self.clips += round(float(means[0]) * number_of_processes())
        self._own_clips = 0
        found.clear()
        steps = means[1:].view(-1, self.settings.accumulate, max(1, len(names))).mean(1).tolist()
        for i, row in enumerate(steps):
            if not math.isfinite(row[0]):
                self._refuse(row[0], self.module.step - len(steps) + i + 1)
        self.recent += [dict(zip(names, row, strict=True)) for row in steps]

    def _refuse(self, loss: float, step: int) -> None:
        rates = ", ".join(f"{name} {rate:.4g}" for name, rate in self.module.rates.items())
        facts = "; ".join(f"{name} {value:.4g}" for name, value in self.module.facts().items())
        raise RunError(
            f"the loss is {loss} at step {step} of {self.plan.steps} (rates: {rates}; {facts}); "
            "lower the rates or lengthen --warmup-epochs, and start again in another folder"
        )

    def _write_row(self) -> None:
        seconds, clips = self.seconds - self._since[0], self.clips - self._since[1]
        self._since = (self.seconds, self.clips)
        names, count = list(self.recent[0]), len(self.recent)
        self.row = {
            "step": self.module.step,
            "epoch": round(self.module.step * self.settings.accumulate / self.per_epoch, 4),
            **{name: sum(row[name] for row in self.recent) / count for name in names},
            **self.module.facts(),
            "lr": next(iter(self.module.rates.values())),
            "rates": dict(self.module.rates),
            "clips_per_second": round(clips / max(seconds, 1e-9), 2),
        }
        self.recent = []
        self.rows.append(self.row)
        self.bar.set_postfix(loss=f"{self.row['loss']:.3f}", refresh=False)
        if self.run and is_first():
            self.run.metric(**self.row)
        if self._board:
            for name, value in self.row.items():
                if isinstance(value, float):
                    self._board.add_scalar(name, value, self.module.step)

    def _save(self, trainer: Trainer) -> None:
        assert self.run is not None
        state = {
            "data": self.data,
            "step": self.module.step,
            "weights": self.module.state_dict(),
            "optimizer": self.module.optimizer.state_dict(),
            "precision": trainer.precision_plugin.state_dict(),
            "recent": self.recent,
            "row": self.row,
            "seconds": self.seconds,
            "clips": self.clips,
        }
        save_checkpoint(checkpoint_path(self.run.path), state)
        self.saved = self.module.step

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self._board:
            self._board.close()


def _open_board(run: Run, step: int) -> Any:
    """TensorBoard events in the run folder; those after `step` are forgotten."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # an extra, and slow to import
    except ImportError as error:
        raise SettingsError(
            "--tensorboard needs the package tensorboard; pip install tensorboard"
        ) from error
    return SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1)
