"""`pivot scaling-curve`: what true pairs are worth, from trainings on nested subsets of them.

Each seed has one order of the pairs and every size is a prefix of it, so a larger set holds the
smaller ones. All trainings start from the same model and share FBANK and caption embeddings; each
finished one is a row of metrics.jsonl, and --resume trains only what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pivot.data.batches import PairTable
from pivot.data.benchmarks import read_labels
from pivot.data.pairs import Pairs, pairs_with_sound, read_pairs
from pivot.data.stream import SoundItems, open_with_sound
from pivot.errors import DataError, SettingsError
from pivot.evaluation.figures import save, scaling_figure
from pivot.evaluation.line import LEAST_SIZES, fit_line
from pivot.evaluation.zero_shot import clip_labels, label_vectors, labels_of, zero_shot
from pivot.model import Pivot, load
from pivot.runs import Run
from pivot.settings import ScalingCurve
from pivot.training.checkpoint import cut_metrics
from pivot.training.commands import data_facts, device_of, finished, refuse_long_texts
from pivot.training.fit import Fitted, fit
from pivot.training.partners import TablePartners, text_partners
from video_prep.shards import ShardFolder

SUBSET = 6101  # what the generator of the nested orders is for
DOUBLINGS = 7  # the default sizes start at 1/128 of the pairs


def run(settings: ScalingCurve) -> int:
    """Train at every size and seed, score on the test shards, fit the line, draw it."""
    if finished(settings, "scaling-curve"):
        return 0
    shards, test = open_with_sound(settings.shards), open_with_sound(settings.test)
    pairs = pairs_with_sound(read_pairs(settings.pairs), shards)
    sizes = choose_sizes(settings.sizes, len(pairs))
    seeds = _check_seeds(settings.seeds)
    labels = read_labels(settings.labels) if settings.labels else labels_of(test)
    truth = clip_labels(test, labels)
    if not any(truth):
        raise DataError(f"no clip of {test.path} has a label; give test clips with labels")
    model = load(settings.model, device_of(settings))
    sounds = SoundItems(shards, model.front_end, settings.cache_mb)
    plan = _subsets(sounds, pairs, sizes, seeds)
    texts = PairTable.of(sounds, pairs).texts
    refuse_long_texts(model.clip, texts, "")
    folder = Run.create(settings.out, "scaling-curve", settings, settings.resume)
    exam = Exam(test, model, truth, labels, settings)
    partners = text_partners(model.clip, texts, "")
    rows = _train_all(folder, settings, Shared(model, sounds, partners, exam), plan)
    facts = data_facts(shards, len(set(pairs.audio_ids))) | {
        "pairs": len(pairs),
        "test": test.path,
        "test_fingerprint": test.fingerprint,
        "test_clips": len(test),
        "labels": labels,
        "prompt": settings.prompt,
        "started_from": exam.started_from,
    }
    return _finish(folder, settings, rows, facts, exam.before)


def choose_sizes(asked: tuple[int, ...], pairs: int) -> list[int]:
    """Sizes in rising order: those asked for, or doubling from 1/128 of all pairs to all."""
    wanted = asked or tuple(pairs >> i for i in range(DOUBLINGS, -1, -1))
    sizes = sorted({size for size in wanted if asked or size >= 2})
    if asked and (sizes[0] < 2 or sizes[-1] > pairs):
        wrong = sizes[0] if sizes[0] < 2 else sizes[-1]
        raise SettingsError(f"--sizes {wrong} is not between 2 and the {pairs} pairs of --pairs")
    if len(sizes) < LEAST_SIZES:
        raise SettingsError(
            f"{len(sizes)} sizes make no line with a confidence band; give {LEAST_SIZES} or more "
            f"different --sizes (there are {pairs} pairs)"
        )
    return sizes


def _check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    wrong = [seed for seed in seeds if seed < 0 or seeds.count(seed) > 1]
    if wrong or not seeds:
        raise SettingsError(f"--seeds {' '.join(map(str, seeds))} must be different numbers >= 0")
    return seeds


@dataclass(frozen=True)
class Subset:
    """One training to do: the first `size` pairs in the order of `seed`."""

    size: int
    seed: int
    table: PairTable


def _subsets(
    sounds: SoundItems, pairs: Pairs, sizes: list[int], seeds: tuple[int, ...]
) -> list[Subset]:
    """All trainings, the small ones first, so that a curve shows early."""
    texts: dict[str, int] = {}
    PairTable.of(sounds, pairs, texts)  # numbers all captions as the shared table does
    found = []
    for size in sizes:
        for seed in seeds:
            rows = nested_order(len(pairs), seed)[:size]
            part = Pairs(
                [pairs.audio_ids[i] for i in rows],
                [pairs.captions[i] for i in rows],
                [pairs.scores[i] for i in rows],
            )
            table = PairTable.of(sounds, part, texts)
            if len(table.clips) < 2:
                raise SettingsError(
                    f"--sizes {size}: the first {size} pairs of seed {seed} are all of one clip, "
                    "which has nothing to be told apart from; start with more pairs"
                )
            found.append(Subset(size, seed, table))
    return found


def nested_order(pairs: int, seed: int) -> NDArray[np.int64]:
    """The order of the pairs of one seed; every subset is a prefix of it."""
    return np.random.default_rng([seed, SUBSET]).permutation(pairs)


class Exam:
    """Zero-shot classification of the test clips, whose FBANK and labels are prepared once."""

    def __init__(
        self,
        test: ShardFolder,
        model: Pivot,
        truth: list[tuple[int, ...]],
        labels: list[str],
        settings: ScalingCurve,
    ) -> None:
        self.items = SoundItems(test, model.front_end, settings.cache_mb)
        self.truth, self.labels = truth, labels
        self.text = label_vectors(model.clip, labels, settings.prompt)
        self.started_from = model.audio_hash
        self.before = self.score(model)

    def score(self, model: Pivot) -> float:
        """Accuracy, or the mean average precision where clips have several labels."""
        found = zero_shot(
            np.concatenate(list(self._embed(model))), self.text, self.truth, self.labels
        )
        return float(found["accuracy"] if "accuracy" in found else found["map"])

    def _embed(self, model: Pivot) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self.items), 64):
            part = range(start, min(start + 64, len(self.items)))
            fbank = torch.stack(self.items.fbanks(part, [None] * len(part)))
            yield model.encode_fbank(fbank).cpu().numpy()


@dataclass(frozen=True)
class Shared:
    """What all trainings share."""

    model: Pivot
    sounds: SoundItems
    partners: TablePartners
    exam: Exam


def _train_all(
    folder: Run, settings: ScalingCurve, shared: Shared, plan: list[Subset]
) -> list[dict[str, Any]]:
    """One row a training; those that metrics.jsonl has already are kept."""
    path = folder.path / "metrics.jsonl"
    cut_metrics(path, 0)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {(row["pairs"], row["seed"]): row for row in map(json.loads, lines)}
    start = {name: value.clone() for name, value in shared.model.audio.state_dict().items()}
    rows = []
    for number, subset in enumerate(plan, 1):
        row = done.get((subset.size, subset.seed))
        if row is None:
            shared.model.audio.load_state_dict(start)
            row = _train(settings, shared, subset)
            folder.metric(**row)
            folder.note(
                f"{number}/{len(plan)}: {subset.size} pairs, seed {subset.seed}: "
                f"{100 * row['zero_shot']:.1f} %"
            )
        rows.append(row)
    return rows


def _train(settings: ScalingCurve, shared: Shared, subset: Subset) -> dict[str, Any]:
    """Train on one subset; a batch is never larger than the subset has clips."""
    batch_size = min(settings.batch_size, len(subset.table.clips))
    changed = {"seed": subset.seed, "batch_size": batch_size}
    own = settings.model_copy(update=changed)
    batches = subset.table.batches(shared.sounds, batch_size, settings.mask, subset.seed)
    label = f"{subset.size} pairs, seed {subset.seed}"
    fitted: Fitted = fit(shared.model.audio, batches, shared.partners, own, label=label)
    model = Pivot(shared.model.clip, shared.model.audio, shared.model.front_end, fitted.scale)
    return {
        "pairs": subset.size,
        "seed": subset.seed,
        "zero_shot": shared.exam.score(model),
        "clips": len(subset.table.clips),
        "batch_size": batch_size,
        "steps": fitted.steps,
        "loss": fitted.loss,
        "seconds": fitted.seconds,
    }


def _finish(
    folder: Run,
    settings: ScalingCurve,
    rows: list[dict[str, Any]],
    data: dict[str, Any],
    before: float,
) -> int:
    """Line, figure, results.json, and what they say in words."""
    line = fit_line([row["pairs"] for row in rows], [row["zero_shot"] for row in rows])
    facts = line.facts(rows[0]["pairs"], rows[-1]["pairs"]) | {"target": settings.target}
    reach = line.reach(settings.target) if settings.target is not None else None
    figure = scaling_figure(rows, facts, settings.target, start=before)
    save(figure, folder.path / "curve.png")
    folder.finish({"scaling": rows, "fit": facts, "reach": reach, "before": before}, data)
    for size in dict.fromkeys(row["pairs"] for row in rows):
        scores = [100 * row["zero_shot"] for row in rows if row["pairs"] == size]
        print(
            f"{size:>9,} pairs  {np.mean(scores):5.1f} %  ({', '.join(f'{s:.1f}' for s in scores)})"
        )
    if reach is not None:
        print(_say(reach))
    print(
        f"each doubling of the pairs: {100 * line.slope:+.1f} points "
        f"(95 %: {100 * facts['slope_low']:+.1f} to {100 * facts['slope_high']:+.1f}) "
        f"-> {folder.path / 'curve.png'}"
    )
    return 0


def _say(reach: dict[str, Any]) -> str:
    """The answer to --target in one line."""
    target = f"{100 * reach['score']:.0f} %"
    if reach["pairs"] is None:
        return f"{target}: the line does not get there"
    bounds = [f"{n:,}" if n is not None else "no bound" for n in (reach["low"], reach["high"])]
    return f"{target}: about {reach['pairs']:,} pairs (95 %: {bounds[0]} to {bounds[1]})"
