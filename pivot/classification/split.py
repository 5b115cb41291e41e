"""One training of a classifier: from the start model to the test of the chosen epoch."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from pivot.classification.batches import ClassBatches, ClassOrder
from pivot.classification.classifier import Classifier, classifier_facts, load_classifier
from pivot.classification.folds import Split
from pivot.classification.head import Head, Target, source_of
from pivot.classification.labels import Labelled, Metric, clip_weights
from pivot.classification.measure import logits_of, measured
from pivot.classification.mixup import MixRule
from pivot.classification.task import Classify
from pivot.data.stream import SoundItems
from pivot.model import Pivot
from pivot.model_folder import Audio
from pivot.runs import Run
from pivot.settings import TrainClassifier
from pivot.training.fit import VALIDATION, fit
from pivot.training.processes import first


@dataclass(frozen=True)
class Job:
    """What all folds share: the model to start from, the labelled clips, and their sounds."""

    settings: TrainClassifier
    model: Pivot
    target: Target
    metric: Metric  # what is reported and chooses
    data: Labelled
    test: Labelled
    sounds: SoundItems
    test_sounds: SoundItems
    unused: list[str]  # labels of the list that no clip has

    @property
    def on_test(self) -> bool:
        """Whether the test clips choose the checkpoint, as in the reference."""
        return self.settings.compat == "vip_ant"

    def batches(self, split: Split) -> ClassBatches:
        """Batches of the clips of `split` that train."""
        settings = self.settings
        classes = [self.data.classes[i] for i in split.train]
        weights = clip_weights(classes) if settings.balanced else None
        order = ClassOrder(len(split.train), settings.batch_size, settings.seed, weights)
        mix = MixRule(
            settings.mixup,
            settings.mixup_beta,
            len(split.train),
            settings.seed,
            settings.mixup_of,
        )
        clips = [self.data.clips[i] for i in split.train]
        number = len(self.data.labels)
        return ClassBatches(self.sounds, clips, classes, number, order, mix, settings.mask)

    def task(self, split: Split) -> Classify:
        """A copy of the start model's encoder, with a new head."""
        settings = self.settings
        encoder = copy.deepcopy(self.model.audio)
        head = Head(
            settings.head,
            source_of(encoder, settings.features).dim,
            len(self.data.labels),
            self.target,
            settings.loss,
            settings.seed,
            split.fold or 0,
        )
        head = head.to(self.model.device)
        return Classify(
            encoder,
            head,
            self.target,
            settings.last_layers,
            settings.grad_cache,
            settings.features,
            settings.encoder_rate,
        )

    def numbers(
        self, source: Audio, head: Head, sounds: SoundItems, part: Labelled, places: list[int]
    ) -> dict[str, Any]:
        """What the clips of `part` at these places say of a head on the features of `source`."""
        clips = [part.clips[i] for i in places]
        logits = logits_of(source, head, sounds, clips, self.settings.workers)
        classes = [part.classes[i] for i in places]
        return measured(logits, classes, part.labels, self.target, self.metric)


def train_split(job: Job, split: Split, run: Run) -> dict[str, Any]:
    """Train on one split in `run`, keep its best model in RUN/model, and test that.

    Returns {fold, epoch, n, accuracy or map, per_class, ..., epochs: [score of each], training}.
    With compat vip_ant `by_epoch` holds what the test clips said after each epoch.
    """
    task = job.task(split)
    chooser = Chooser(job, split, task, run)
    label = "classifier" if split.fold is None else f"fold {split.fold}"
    fitted = fit(task, job.batches(split), job.settings, run=run, label=label, after_epoch=chooser)
    return first(chooser.outcome) | {"training": fitted.facts()}


@dataclass
class Chooser:
    """After every epoch: measure, note it in validation.jsonl, keep the model if it is the best.

    Equal scores keep the earlier epoch. Without validation clips the last epoch is kept. `fit` cuts
    the rows after the checkpoint that a run resumes from, and calls again for their epochs.
    """

    job: Job
    split: Split
    task: Classify
    run: Run

    def __call__(self, epoch: int) -> None:
        """Measure the weights that are in place after `epoch`, counted from 1."""
        found, keep = self._measure(), self.job.settings.keep_epochs
        score = found.get(self.job.metric)
        if score is None:
            better = self.task.step == self.task.plan.steps
        else:
            better = all(score > row[self.job.metric] for row in self._rows())
        folders = [self.run.path / "model"] if better else []
        if keep and epoch % keep == 0:
            folders.append(self.run.path / "models" / f"epoch-{epoch:04d}")
        for folder in folders:
            self._classifier().save(folder, **self._facts(epoch, score))
        row = {"epoch": epoch, "step": self.task.step, **found}
        with (self.run.path / VALIDATION).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def outcome(self) -> dict[str, Any]:
        """What the model that was kept says of the test clips."""
        job, rows, folder = self.job, self._rows(), self.run.path / "model"
        chosen = classifier_facts(folder)["facts"]
        found: dict[str, Any] = {"fold": self.split.fold, "epoch": chosen["epoch"]}
        if job.on_test:
            found |= next(row for row in rows if row["epoch"] == chosen["epoch"])
            found["by_epoch"] = rows
        else:
            device = job.model.device
            clip = job.model.clip.settings if job.model.clip else None
            best = load_classifier(folder, device, clip)
            found |= self._test(best.source, best.head)
            found["validation"] = {"n": len(self.split.validation), job.metric: chosen["score"]}
        found["epochs"] = [row.get(job.metric) for row in rows]
        return found

    def _measure(self) -> dict[str, Any]:
        """Numbers of the clips that choose; none without such clips."""
        job, chosen = self.job, self.split.validation
        if job.on_test:
            return self._test(self.task.source, self.task.head)
        if not chosen:
            return {}
        return job.numbers(self.task.source, self.task.head, job.sounds, job.data, chosen)

    def _test(self, source: Audio, head: Head) -> dict[str, Any]:
        job = self.job
        return job.numbers(source, head, job.test_sounds, job.test, self.split.test)

    def _classifier(self) -> Classifier:
        model = self.job.model
        trained = model.replaced(self.task.encoder)
        return Classifier(
            trained, self.task.head, self.job.data.labels, self.job.target, self.task.features
        )

    def _facts(self, epoch: int, score: float | None) -> dict[str, Any]:
        return {
            "fold": self.split.fold,
            "epoch": epoch,
            "metric": self.job.metric,
            "score": score,
            "chosen_on": chosen_on(self.job.settings, self.split),
        }

    def _rows(self) -> list[dict[str, Any]]:
        path = self.run.path / VALIDATION
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chosen_on(settings: TrainClassifier, split: Split) -> str:
    """What the checkpoint is chosen on, in words for the results."""
    if settings.compat == "vip_ant":
        return f"test {'clips' if split.fold is None else 'fold'} (compat vip_ant)"
    return "validation" if settings.validation else "nothing: the last epoch is taken"
