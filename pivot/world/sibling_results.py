"""What the siblings' run folders say: `siblings` of results.json, and the printed tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pivot.data.pairs import read_pairs
from pivot.world.label_sets import SETS
from pivot.world.sibling_jobs import BOTH
from pivot.world.siblings import DISTILLED, FIRST, GAPPED, GAPS, OF_ALL, ROUNDS, VA
from pivot.world.sizes import MODELS

# Curation's students of one label set: its name stands behind.
OF_ONE = ("ds", "ads", "ads_soft")
COLUMNS = {"zero_shot": "zero-shot", "a2t_r1": "A->T R@1", "a2t_r10": "R@10",
           "t2a_r1": "T->A R@1", "t2a_r10": "R@10", "map10": "mAP@10"}  # fmt: skip
NAMES = {
    FIRST: "teacher",
    "longer": "teacher, trained on",
    "soft_raw": "soft labels, raw (paper)", "soft": "soft labels, softmax",
    "du": "DU",
    "ds": "DS",
    "ads": "ADS", "ads_soft": "ADS + soft labels",
    "none": "stage 1 trained on", "self": "distilled from itself", "ensemble": "from three",
    "va": "VA: random frames, hard", "va_soft_raw": "soft targets, raw",
    "va_soft": "soft targets, softmax",
    "va_mean": "mean of the frames", "va_all": "every frame a positive",
    "at_ac": "VA + mined (AC)", "round_2": "mined again with its ears", "round_3": "and again",
    "at_template": "template of labels",
    "at_labels": "bare labels",
    "open": "left open", "centre": "each modality centred", "whiten": "whitened",
}  # fmt: skip


def collect_siblings(demo: Path) -> dict[str, Any]:
    """All numbers of the siblings, each between 0 and 1, by idea and by model."""
    out = demo / "siblings"
    of_sets = {at: _numbers(out, FIRST, at) for at in SETS}
    return {
        "sets": {
            at: {key: told["zero_shot"][key] for key in ("n", "classes", "chance")}
            for at, told in of_sets.items()
        },
        "curation": _curation(out),
        "mined": {path.stem: _mined(path) for path in sorted((out / "pairs").glob("*.parquet"))},
        "distillation": {FIRST: _retrieval(out, FIRST)}
        | {name: _retrieval(out, f"distil_{name}") for name in DISTILLED},
        "frames": {name: _both(demo, name) for name in ("va", *VA)},
        "gap": {
            name: {"open": _both(demo, name)} | {gap: _both(demo, name, gap) for gap in GAPS}
            for name in GAPPED
        },
        "rounds": {name: _both(demo, name) for name in ROUNDS},
        "keywords": {name: _both(demo, name) for name in ("at_labels", "at_template")},
    }


def sibling_tables(told: dict[str, Any]) -> str:
    """The numbers in percent, a table for each idea."""
    parts = [_set_table(told)]
    titles = ("distillation", "frames", "rounds", "keywords")
    parts += [_table(title, told[title]) for title in titles]
    parts += [_table(f"gap of {NAMES[model]}", rows) for model, rows in told["gap"].items()]
    return "\n\n".join(parts)


# ---- reading --------------------------------------------------------------------------------


def _curation(out: Path) -> dict[str, dict[str, float]]:
    """Accuracy of each way on each label set."""
    ways = {way: dict.fromkeys(SETS, way) for way in (FIRST, *OF_ALL)}
    for way in OF_ONE:
        rule, _, soft = way.partition("_")
        ways[way] = {at: f"{rule}_{at}_soft" if soft else f"{rule}_{at}" for at in SETS}
    return {
        way: {at: _numbers(out, model, at)["zero_shot"]["accuracy"] for at, model in models.items()}
        for way, models in ways.items()
    }


def _mined(path: Path) -> dict[str, Any]:
    pairs = read_pairs(path)
    found = {"pairs": len(pairs), "clips": len(set(pairs.audio_ids))}
    return found | {"captions": len(set(pairs.captions)), "threshold": pairs.meta.get("threshold")}


def _retrieval(out: Path, model: str) -> dict[str, float]:
    return _found(_numbers(out, model, BOTH[1]))


def _both(demo: Path, model: str, gap: str = "") -> dict[str, float]:
    """Zero-shot on single things, retrieval on mixed clips."""
    own = model not in MODELS or bool(gap)
    folder = demo / "siblings" if own else demo
    name = f"{model}-{gap}" if gap else model
    accuracy = _numbers(folder, name, BOTH[0])["zero_shot"]["accuracy"]
    return {"zero_shot": accuracy} | _found(_numbers(folder, name, BOTH[1]))


def _found(told: dict[str, Any]) -> dict[str, float]:
    to_text, to_audio = (told["retrieval"][way] for way in ("audio_to_text", "text_to_audio"))
    return {
        "a2t_r1": to_text["r1"], "a2t_r10": to_text["r10"],
        "t2a_r1": to_audio["r1"], "t2a_r10": to_audio["r10"], "map10": to_audio["map10"],
    }  # fmt: skip


def _numbers(folder: Path, model: str, where: str) -> dict[str, Any]:
    path = folder / "numbers" / f"{model}-{where}" / "results.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# ---- printing -------------------------------------------------------------------------------


def _set_table(told: dict[str, Any]) -> str:
    head = "".join(f"{at:>10}" for at in SETS)
    chance = "".join(f"{100 * told['sets'][at]['chance']:10.1f}" for at in SETS)
    lines = [f"{'zero-shot on label sets':<28}{head}", f"{'chance':<28}{chance}"]
    for way, scores in told["curation"].items():
        row = "".join(f"{100 * scores[at]:10.1f}" for at in SETS)
        lines.append(f"{NAMES[way]:<28}{row}")
    return "\n".join(lines)


def _table(title: str, rows: dict[str, dict[str, float]]) -> str:
    shown = [key for key in COLUMNS if all(key in row for row in rows.values())]
    lines = [f"{title:<28}" + "".join(f"{COLUMNS[key]:>10}" for key in shown)]
    for name, row in rows.items():
        cells = "".join(f"{100 * row[key]:10.1f}" for key in shown)
        lines.append(f"{NAMES.get(name, name):<28}{cells}")
    return "\n".join(lines)
