"""pivot train-classifier: train and test fold by fold, or on a test set; resumes.

Everything is opened and checked before the run folder is made, so a mistake leaves none.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import Any

from pivot.classification.classifier import classifier_facts
from pivot.classification.folds import (
    Split,
    fold_splits,
    has_test_part,
    own_split,
    test_split,
    validation_part,
)
from pivot.classification.labels import Labelled, metric_of, target_of, used_alone
from pivot.classification.mixup import FirstFrames
from pivot.classification.results import at_common_epoch, combined, per_fold, summary
from pivot.classification.split import Job, chosen_on, train_split
from pivot.data.benchmarks import read_labels
from pivot.data.exclude import numbers_without
from pivot.data.held_out import refuse_overlap
from pivot.data.stream import SoundItems, open_with_sound
from pivot.errors import SettingsError
from pivot.evaluation.zero_shot import labels_of
from pivot.runs import Run, finished
from pivot.settings import TrainClassifier
from pivot.training.batch_norms import refuse_chunks
from pivot.training.commands import data_facts
from pivot.training.processes import first, with_processes
from pivot.training.schedule import schedule
from pivot.training.start import started
from video_prep.files import whole_folder

COMMAND = "train-classifier"


def run(settings: TrainClassifier) -> int:
    """Train a classifier of sounds; writes OUT/results.json, OUT/model, and a folder a fold."""
    return with_processes(_run, settings)


def _run(settings: TrainClassifier) -> int:
    if first(lambda: finished(settings.out, COMMAND, settings, settings.resume)):
        return 0
    job, splits = prepare(settings)
    held_out = first(lambda: _refuse_overlap(job))
    for split in splits:
        schedule(settings, job.batches(split).per_epoch)  # refuses what makes no step
    refuse_chunks(job.task(splits[0]), settings)  # a task refuses more layers than there are
    whole = first(lambda: Run.create(settings.out, COMMAND, settings, settings.resume))
    found = [_train_fold(job, split, whole) for split in splits]
    return first(lambda: _finish(job, splits, found, whole, held_out))


def prepare(settings: TrainClassifier) -> tuple[Job, list[Split]]:
    """Open shards and model, and say which clips train, choose and test."""
    shards = open_with_sound(settings.shards)
    labels = read_labels(settings.labels) if settings.labels else labels_of(shards)
    folders = [shards, open_with_sound(settings.test)] if settings.test else [shards]
    parts, unused = used_alone(*(Labelled.of(folder, labels) for folder in folders))
    data, test = parts[0], parts[-1]
    target = target_of(settings.target, *parts)
    metric = metric_of(settings.metric, target, *parts)
    splits = _without(settings, data, _splits(settings, data, test))
    model = started(settings, shards, settings.num_frames)
    if settings.compat == "vip_ant" and target == "bce":
        model.front_end = FirstFrames.of(model.front_end)
    sounds = SoundItems(shards, model.front_end, settings.cache_mb)
    test_sounds = sounds
    if settings.test:
        test_sounds = SoundItems(test.shards, model.front_end, settings.cache_mb)
    return Job(settings, model, target, metric, data, test, sounds, test_sounds, unused), splits


def _splits(settings: TrainClassifier, data: Labelled, test: Labelled) -> list[Split]:
    """Which clips train, choose and test: with --test, by the list's own test part, or by folds."""
    share = 0.0 if settings.compat == "vip_ant" else settings.validation
    if share and share != "split" and (own := len(validation_part(data))):
        print(
            f"{own} clips of {data.shards.path} are its own validation split; to choose on them "
            f"instead of a share of {share:g} of all, set --validation split",
            file=sys.stderr,
        )
    if settings.test and settings.folds:
        raise SettingsError("--folds and --test exclude each other: --test has no folds")
    if settings.test:
        return [test_split(data, test, share, settings.seed)]
    if not settings.folds and has_test_part(data):
        return [own_split(data, share, settings.seed)]
    return fold_splits(data, settings.folds, share, settings.seed)


def _without(settings: TrainClassifier, data: Labelled, splits: list[Split]) -> list[Split]:
    """The splits without what --exclude leaves out of the training; what tests stays."""
    if not settings.exclude:
        return splits
    kept = set(numbers_without(data.shards, data.clips, settings.exclude))

    def left(positions: list[int]) -> list[int]:
        return [position for position in positions if data.clips[position] in kept]

    return [replace(s, train=left(s.train), validation=left(s.validation)) for s in splits]


def _train_fold(job: Job, split: Split, whole: Run) -> dict[str, Any]:
    """What the test clips of one split say; a fold that is finished is read, not trained again."""
    if split.fold is None:
        return train_split(job, split, whole)
    path = whole.path / f"fold-{split.fold}"
    results = path / "results.json"
    if results.is_file():
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))["fold"]
        return found
    run = first(lambda: Run.create(path, COMMAND, job.settings, job.settings.resume))
    found = train_split(job, split, run)
    first(lambda: _close_fold(run, found, job, split))
    return found


def _close_fold(run: Run, found: dict[str, Any], job: Job, split: Split) -> None:
    """Results last; the checkpoint, several times as large as the model, is no longer needed."""
    run.finish({"fold": found}, _counts(split) | data_facts(job.data.shards, len(job.data.clips)))
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
    run.note(
        f"fold {split.fold}: {job.metric} {100 * found[job.metric]:.2f} % of {found['n']} clips at "
        f"epoch {found['epoch']}"
    )


def _refuse_overlap(job: Job) -> list[dict[str, Any]]:
    """Stop where a clip that trains is a test clip too, or of another held-out set."""
    test = [job.test.shards.only(job.test.clips)] if job.settings.test else []
    return refuse_overlap(job.data.shards, job.data.clips, job.settings, test)


def _finish(
    job: Job,
    splits: list[Split],
    found: list[dict[str, Any]],
    whole: Run,
    held_out: list[dict[str, Any]],
) -> int:
    """OUT/model, then results.json, and one line."""
    settings, metric = job.settings, job.metric
    shown = found
    if job.on_test and splits[0].fold is not None:
        shown = at_common_epoch(found, metric)
    results = combined(shown, metric, job.data.labels)
    if shown is not found:
        results["best_of_each_fold"] = per_fold(found, metric)
    results |= {
        "chosen_on": chosen_on(settings, splits[0]),
        "target": job.target,
        "trained_parameters": job.task(splits[0]).trained(),
        "model": _keep_best(whole, splits),
    }
    whole.finish(results, _data(job, splits) | ({"held_out": held_out} if held_out else {}))
    print(summary(results, metric, job.test.shards.dataset, settings.out))
    return 0


def _keep_best(whole: Run, splits: list[Split]) -> dict[str, Any]:
    """Copy the model of the fold with the best score on what chose it (else the first) to OUT."""
    if splits[0].fold is None:
        return dict(classifier_facts(whole.path / "model")["facts"])
    folders = [whole.path / f"fold-{split.fold}" / "model" for split in splits]
    facts = [classifier_facts(folder)["facts"] for folder in folders]
    scores = [-1.0 if one["score"] is None else one["score"] for one in facts]
    best = scores.index(max(scores))
    with whole_folder(whole.path / "model") as aside:
        shutil.copytree(folders[best], aside, dirs_exist_ok=True)
    return dict(facts[best])


def _data(job: Job, splits: list[Split]) -> dict[str, Any]:
    """What the numbers were computed on, for results.json."""
    data = data_facts(job.data.shards, len(job.data.clips)) | {
        "dataset": job.data.shards.dataset,
        "unlabelled": job.data.unlabelled,
        "labels": job.data.labels,
        "labels_without_clips": job.unused,
        "splits": [_counts(split) for split in splits],
        "started_from": job.model.audio_hash,
        "clip": job.model.clip_hash,
    }
    if job.settings.test:
        data["test"] = data_facts(job.test.shards, len(job.test.clips)) | {
            "dataset": job.test.shards.dataset,
            "unlabelled": job.test.unlabelled,
        }
    return data


def _counts(split: Split) -> dict[str, Any]:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {"fold": split.fold} | {name: len(part) for name, part in parts.items()}
