"""The journal of a training: rows of metrics, the progress bar, checkpoints, the stop on NaN."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from pivot.data.batches import Batches
from pivot.errors import RunError, SettingsError
from pivot.runs import Run
from pivot.settings import FitSettings
from pivot.training.checkpoint import checkpoint_path, save_checkpoint
from pivot.training.module import Contrast


class Journal(Callback):
    """Follows a training of `plan.steps` optimiser steps of `accumulate` micro-batches each.

    A row holds the mean loss of the steps since the row before. Losses are brought to the CPU only
    for a row or a checkpoint, so a GPU is not held up by every step.
    """

    def __init__(
        self,
        module: Contrast,
        settings: FitSettings,
        batches: Batches,
        run: Run | None,
        state: dict[str, Any] | None,
        label: str,
    ) -> None:
        self.module, self.plan = module, module.plan
        self.settings, self.run = settings, run
        self.per_epoch, self.data = batches.per_epoch, batches.fingerprint()
        self.state, self.label = state, label
        before = state or {"recent": [], "row": {"loss": math.nan}, "seconds": 0.0, "clips": 0}
        self.recent: list[float] = before["recent"]  # losses of the steps since the last row
        self.row: dict[str, Any] = before["row"]
        self.rows: list[dict[str, Any]] = []
        self.seconds: float = before["seconds"]
        self.clips: int = before["clips"]
        self.saved: int = state["step"] if state else 0
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
        if self.settings.tensorboard and self.run:
            self._board = _open_board(self.run, self.module.step)
        self.bar = tqdm(
            total=self.plan.steps,
            initial=self.module.step,
            desc=self.label,
            unit="step",
            dynamic_ncols=True,
            disable=None,
        )

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Keep the loss; at the end of an optimiser step, do what is due."""
        self.clips += len(batch.fbank)
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
        if save_due:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close bar and board."""
        self._close()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar; after Ctrl-C say how to go on."""
        self._close()
        if self.run and isinstance(exception, KeyboardInterrupt):
            self.run.note(
                f"stopped at step {self.module.step} of {self.plan.steps}; "
                f"--resume goes on from step {self.saved}"
            )

    def _collect(self) -> None:
        """Bring the losses over, one an optimiser step; stop at the first that is not finite."""
        self.seconds = time.perf_counter() - self._began
        losses = torch.stack(self.module.losses).float().view(-1, self.settings.accumulate).mean(1)
        self.module.losses.clear()
        for i, loss in enumerate(losses.tolist()):
            if not math.isfinite(loss):
                self._refuse(loss, self.module.step - len(losses) + i + 1)
        self.recent += losses.tolist()

    def _refuse(self, loss: float, step: int) -> None:
        rates = ", ".join(f"{name} {rate:.4g}" for name, rate in self.module.rates.items())
        raise RunError(
            f"the loss is {loss} at step {step} of {self.plan.steps} (rates: {rates}; scale "
            f"{self.module.scale().item():.4g}); lower the rates or lengthen --warmup-epochs, "
            "and start again in another folder"
        )

    def _write_row(self) -> None:
        seconds, clips = self.seconds - self._since[0], self.clips - self._since[1]
        self._since = (self.seconds, self.clips)
        self.row = {
            "step": self.module.step,
            "epoch": round(self.module.step * self.settings.accumulate / self.per_epoch, 4),
            "loss": sum(self.recent) / len(self.recent),
            "scale": self.module.scale().item(),
            "lr": next(iter(self.module.rates.values())),
            "rates": dict(self.module.rates),
            "clips_per_second": round(clips / max(seconds, 1e-9), 2),
        }
        self.recent = []
        self.rows.append(self.row)
        self.bar.set_postfix(loss=f"{self.row['loss']:.3f}", refresh=False)
        if self.run:
            self.run.metric(**self.row)
        if self._board:
            for name in ("loss", "scale", "lr", "clips_per_second"):
                self._board.add_scalar(name, self.row[name], self.module.step)

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
