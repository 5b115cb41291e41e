"""The trainings of a scaling curve: opened once, trained one by one or side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pivot.data.batches import PairTable
from pivot.data.exclude import pairs_without
from pivot.data.pairs import pairs_with_sound, read_pairs
from pivot.data.prompts import refuse_long_texts
from pivot.data.stream import SoundItems, open_with_sound
from pivot.errors import ModelError, RunError, SettingsError
from pivot.evaluation.scaling.exam import Exam
from pivot.evaluation.scaling.plan import (
    Key,
    check_seeds,
    choose_sizes,
    first_pairs,
    hash_pairs,
    nested_order,
    row_path,
)
from pivot.model import Pivot, load
from pivot.settings import ScalingCurve
from pivot.training.batch_norms import refuse_chunks
from pivot.training.commands import data_facts, device_of
from pivot.training.fit import fit
from pivot.training.module import Contrast
from pivot.training.partners import TablePartners, text_partners
from video_prep.files import whole_file, write_json

CAPTIONS = "captions.npy"  # embeddings of all captions, shared by processes while they train
_THREADS = "OPENBLAS_NUM_THREADS"  # of numpy; torch is told when a process begins


class Trainings:
    """What all trainings of a curve share. Opening checks everything and writes nothing."""

    def __init__(self, settings: ScalingCurve) -> None:
        self.settings = settings
        self.shards = open_with_sound(settings.shards)
        pairs = pairs_with_sound(read_pairs(settings.pairs), self.shards)
        self.pairs = pairs_without(pairs, self.shards, settings.exclude)
        self.sizes = choose_sizes(settings.sizes, len(self.pairs), settings.fractions)
        self.seeds = check_seeds(settings.seeds)
        self.keys: list[Key] = [(size, seed) for size in self.sizes for seed in self.seeds]
        self.model = load(settings.model, device_of(settings))
        if self.model.text is not None:
            raise SettingsError(
                f"{settings.model} has a text encoder of its own, and scaling-curve trains sounds "
                "against the captions of a frozen CLIP; take the model of pretrain-va"
            )
        self.clip = self.model.require_clip()
        refuse_chunks(self.model.audio, settings)
        self.started_from = self.model.audio_hash
        self.sounds = SoundItems(
            self.shards, self.model.front_end, settings.cache_mb / settings.jobs
        )
        self._texts: dict[str, int] = {}
        self.texts = PairTable.of(self.sounds, self.pairs, self._texts).texts
        self._smallest_subsets_hold()
        refuse_long_texts(self.clip.tokenize, self.texts, "")
        self.exam = Exam(self.model, settings)
        self.partners: TablePartners | None = None
        weights = self.model.audio.state_dict()
        self._start = {name: value.clone() for name, value in weights.items()}

    def plan(self) -> dict[str, Any]:
        """What decides the numbers and no setting names: the contents of the files."""
        return {
            "sizes": self.sizes,
            "pairs": hash_pairs(self.pairs),
            "shards": self.shards.fingerprint,
            "test clips": [clips.items.shards.fingerprint for clips in self.exam.sets],
            "labels": [clips.labels for clips in self.exam.sets],
            "model": self.started_from,
            "clip": self.clip.weights_hash,
        }

    def facts(self) -> dict[str, Any]:
        """What the curve was made on, for results.json."""
        first = self.exam.sets[0].facts()
        return data_facts(self.shards, len(set(self.pairs.audio_ids))) | {
            "pairs": len(self.pairs),
            "pairs_sha256": hash_pairs(self.pairs),
            "test": first["shards"],
            "test_fingerprint": first["fingerprint"],
            "test_clips": first["clips"],
            "labels": first["labels"],
            "tests": [clips.facts() for clips in self.exam.sets],
            "prompt": self.settings.prompt,
            "caption_prompt": self.settings.caption_prompt,
            "started_from": self.started_from,
        }

    def take_captions(self, folder: Path) -> None:
        """Read the captions' embeddings from the run folder, or embed them and leave them there."""
        path = folder / CAPTIONS
        if not path.exists():
            table = text_partners(self.clip, self.texts, "").table
            with whole_file(path) as file:
                np.save(file, table)
        self.partners = TablePartners(np.load(path, mmap_mode="r"))

    def before(self) -> dict[str, dict[str, float]]:
        """Scores of the model that all trainings start from."""
        self.model.audio.load_state_dict(self._start)
        return self.exam.score(self.model)

    def train(self, key: Key) -> dict[str, Any]:
        """Train on one subset and score it: a row. A batch is at most the subset's clips."""
        size, seed = key
        if self.partners is None:
            raise RuntimeError("take_captions comes first")
        self.model.audio.load_state_dict(self._start)
        table = self._subset(key)
        batch_size = min(self.settings.batch_size, len(table.clips))
        own = self.settings.model_copy(update={"seed": seed, "batch_size": batch_size})
        batches = table.batches(self.sounds, batch_size, own.mask, seed)
        task = Contrast(self.model.audio, {"text": self.partners}, own.loss)
        label = f"{size} pairs, seed {seed}"
        fitted = fit(task, batches, own, label=label)
        model = Pivot(self.clip, self.model.audio, self.model.front_end, task.scale)
        try:
            scores = self.exam.score(model)
        except ModelError as error:
            raise ModelError(f"{label}: {error}") from error
        if not math.isfinite(fitted.loss):
            raise ModelError(f"{label}: the loss is {fitted.loss}: training diverged")
        return {
            "pairs": size,
            "seed": seed,
            "zero_shot": self.exam.main(scores),
            "scores": scores,
            "clips": len(table.clips),
            "batch_size": batch_size,
            "steps": fitted.steps,
            "loss": fitted.loss,
            "seconds": fitted.seconds,
        }

    def _subset(self, key: Key) -> PairTable:
        size, seed = key
        order = nested_order(len(self.pairs), seed, self.settings.order)
        return PairTable.of(self.sounds, first_pairs(self.pairs, order, size), self._texts)

    def _smallest_subsets_hold(self) -> None:
        """Refuse a subset of a single clip; the larger ones of its seed hold it."""
        for seed in self.seeds:
            if len(self._subset((self.sizes[0], seed)).clips) < 2:
                raise SettingsError(
                    f"--sizes {self.sizes[0]}: the first {self.sizes[0]} pairs of seed {seed} are "
                    "all of one clip, which has nothing to be told apart from; start with more"
                )


def train_all(trainings: Trainings, keys: Sequence[Key], folder: Path) -> Iterator[dict[str, Any]]:
    """Train what `keys` names and yield each row once it is in the folder.

    With `jobs` processes, each opens the data by itself on one thread; a row does not depend on
    which process made it, so it is that of a run with jobs 1 on one thread.
    """
    jobs = min(trainings.settings.jobs, len(keys))
    if jobs:
        trainings.take_captions(folder)
    if jobs <= 1:
        for key in keys:
            yield _train_one(trainings, key, folder)
        return
    with _pool(jobs, trainings.settings, folder) as pool:
        for future in as_completed([pool.submit(_in_child, key, folder) for key in keys]):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise RunError(
                    "a process of the curve was killed (out of memory?); lower --jobs and go on "
                    "with --resume"
                ) from error


def _train_one(trainings: Trainings, key: Key, folder: Path) -> dict[str, Any]:
    row = trainings.train(key)
    write_json(row_path(folder, key), row)
    return row


_opened: list[Trainings] = []  # of a process of the pool


def _begin(settings: ScalingCurve, folder: Path) -> None:
    torch.set_num_threads(1)
    _opened[:] = [Trainings(settings)]
    _opened[0].take_captions(folder)


def _in_child(key: Key, folder: Path) -> dict[str, Any]:
    return _train_one(_opened[0], key, folder)


def _context() -> BaseContext:
    """Processes that share nothing but the imports, which take longer than a small training."""
    if "forkserver" not in get_all_start_methods():  # Windows
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@contextmanager
def _pool(jobs: int, settings: ScalingCurve, folder: Path) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes; those at work are ended at once when the block is left by an error."""
    pool = ProcessPoolExecutor(jobs, _context(), initializer=_begin, initargs=(settings, folder))
    before, others = os.environ.get(_THREADS), active_children()
    os.environ[_THREADS] = "1"  # numpy's library reads it when a process starts
    try:
        yield pool
    except BaseException:
        for process in active_children():
            if process not in others:
                process.terminate()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        os.environ.pop(_THREADS)
        if before is not None:
            os.environ[_THREADS] = before
    pool.shutdown()
