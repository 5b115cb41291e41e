"""What the folds say together: mean, population deviation, classes, the line for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def combined(found: Sequence[Row], metric: str, labels: Sequence[str]) -> dict[str, Any]:
    """Numbers of all folds from what `train_split` says of each; `metric` is its name.

    {metric, mean, deviation, n, folds: [{fold, epoch, n, metric}], per_class, ...}: metric and mean
    are the mean over folds, deviation is the population's (None for one test set). Of accuracies
    also `pooled`, over all clips at once, and `confusion`, the sum. Beside the metric, `accuracy`
    where every clip has one label, and `map` where that is measured.
    """
    rows = [
        {name: one.get(name) for name in ("fold", "epoch", "n", metric)}
        | ({"validation": one["validation"]} if "validation" in one else {})
        for one in found
    ]
    return {
        **{
            name: float(np.mean([one[name] for one in found]))
            for name in ("accuracy", "map")
            if all(name in one for one in found)
        },
        **_mean(rows, metric),
        "n": sum(one["n"] for one in found),
        "folds": rows,
        **_classes(found, labels),
        "classes": len(labels),
        "training_seconds": round(sum(one["training"]["training_seconds"] for one in found), 3),
    }


def at_common_epoch(found: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """Each fold at the one epoch whose sum over the folds is best, the earliest of equal ones.

    That is what the reference reports first; `by_epoch` of a fold has its test numbers by epoch.
    """
    scores = np.array([[row[metric] for row in one["by_epoch"]] for one in found])
    best = int(scores.sum(axis=0).argmax())
    return [{**one, **one["by_epoch"][best]} for one in found]


def per_fold(found: Sequence[Row], metric: str) -> dict[str, Any]:
    """{mean, deviation, folds: [{fold, epoch, n, metric}]}, each fold as it is given."""
    rows = [{name: one[name] for name in ("fold", "epoch", "n", metric)} for one in found]
    values = _mean(rows, metric)
    return {"mean": values["mean"], "deviation": values["deviation"], "folds": rows}


def summary(results: Mapping[str, Any], metric: str, dataset: Row | None, out: str) -> str:
    """The numbers in one line.

    It says where the checkpoint was chosen on the test, and where `dataset` is not complete.
    """
    name = {"accuracy": "accuracy", "map": "mAP", "mauc": "mAUC"}[metric]
    name = f"{dataset['name']}: {name}" if dataset else name
    many = len(results["folds"])
    if results["deviation"] is None:
        text = f"{name} {_percent(results['mean'])} % of {results['n']} clips"
    else:
        text = (
            f"{name} {_percent(results['mean'])} +- {_percent(results['deviation'])} % "
            f"({many} fold{'s' if many > 1 else ''}, {results['n']} clips)"
        )
    if "best_of_each_fold" in results:
        each = results["best_of_each_fold"]
        text += (
            f" at epoch {results['folds'][0]['epoch']}, the best of all folds together; "
            f"{_percent(each['mean'])} +- {_percent(each['deviation'])} % at each fold's own best"
        )
    text += f"; checkpoint chosen on {results['chosen_on']}"
    if results["chosen_on"].startswith("test"):
        text += ", so these numbers are too good"
    if dataset and (dataset["official"] or 0) > dataset["present"]:
        text += f"; only {dataset['present']:,} of {dataset['official']:,} clips are here"
    return f"{text} -> {out}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _mean(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    scores = [row[metric] for row in rows]
    mean = float(np.mean(scores))
    folds = rows[0]["fold"] is not None
    return {metric: mean, "mean": mean, "deviation": float(np.std(scores)) if folds else None}


def _classes(found: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    """Per class over all folds: of accuracies from the summed confusion, else the mean of folds."""
    if any("confusion" not in one for one in found):
        shares = {
            label: float(np.mean([one["per_class"][label] for one in having]))
            for label in labels
            if (having := [one for one in found if label in one["per_class"]])
        }
        return {"per_class": shares}
    table = np.sum([one["confusion"] for one in found], axis=0)
    counts = table.sum(axis=1)
    return {
        "pooled": float(np.trace(table) / counts.sum()),
        "per_class": {
            label: float(table[c, c] / counts[c]) for c, label in enumerate(labels) if counts[c]
        },
        "confusion": table.tolist(),
    }
