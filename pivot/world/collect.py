"""What the demo's run folders say: results.json, the printed table, the report's exhibits."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from pivot.data.pairs import read_pairs
from pivot.embeddings.embed import embed_audio, embed_texts
from pivot.embeddings.store import EmbeddingStore
from pivot.evaluation.report.exhibits import ClipExhibit, Exhibits, Floats
from pivot.evaluation.report.wording import NAMES
from pivot.model import Pivot, load
from pivot.settings import Demo
from pivot.world.sizes import FREE, HEARD, LAYERS, MODELS, SPLITS
from video_prep.shards import ShardFolder

SHOWN = 6  # test clips in the report
NEAREST = 4  # captions shown for each
TRAINED = MODELS[1:]  # all but the untrained encoder
PIVOT_IMAGES = "5"  # pivotability is told through this many images


def collect_results(out: Path, settings: Demo) -> tuple[dict[str, Any], dict[str, Any]]:
    """The demo's numbers, each between 0 and 1, and what they were measured on."""
    single = {m: _read(out / "numbers" / f"{m}-test_single" / "results.json") for m in MODELS}
    mixed = {m: _read(out / "numbers" / f"{m}-test_mixed" / "results.json") for m in MODELS}
    scaling = _read(out / "runs" / "scaling" / "results.json")
    va = single["va"]
    results = {
        "clips": _clips(out),
        "chance": va["zero_shot"]["chance"],
        "zero_shot": {m: single[m]["zero_shot"]["accuracy"] for m in MODELS},
        "clip_image_zero_shot": va["clip_image_zero_shot"]["accuracy"],
        "retrieval": {
            "clip_image": mixed["va"]["retrieval_clip_image"],
            **{m: mixed[m]["retrieval"] for m in MODELS},
        },
        "image_audio": mixed["va"]["image_audio"],
        "pivotability": mixed["va"]["pivotability"][PIVOT_IMAGES],
        "pivotability_by_images": {m: mixed[m]["pivotability"] for m in TRAINED},
        "scaling": scaling["scaling"],
        "fit": scaling["fit"],
        "per_class": {m: single[m]["zero_shot"]["per_class"] for m in MODELS},
        "counts": {
            "zero_shot": va["zero_shot"]["n"],
            "retrieval_clips": mixed["va"]["retrieval"]["clips"],
            "retrieval_captions": mixed["va"]["retrieval"]["captions"],
        },
        "mined": _mined(out),
        "written": _written(out),
        "last_layers": _last_layers(out),
    }
    data = {"single": va["data"], "mixed": mixed["va"]["data"], "prompt": HEARD}
    return results, data


def table(results: dict[str, Any]) -> str:
    """The numbers in percent, one encoder a line."""
    head = f"{'':<24}{'zero-shot':>10}{'A->T R@1':>10}{'R@10':>7}{'T->A R@1':>10}{'R@10':>7}"
    lines = [head, f"{'chance':<24}{100 * results['chance']:10.1f}"]
    rows = {"clip_image": (results["clip_image_zero_shot"], results["retrieval"]["clip_image"])}
    rows |= {m: (results["zero_shot"][m], results["retrieval"][m]) for m in MODELS}
    for name, (accuracy, found) in rows.items():
        to_text, to_audio = found["audio_to_text"], found["text_to_audio"]
        recalls = (
            f"{100 * to_text['r1']:10.1f}{100 * to_text['r10']:7.1f}"
            f"{100 * to_audio['r1']:10.1f}{100 * to_audio['r10']:7.1f}"
        )
        lines.append(f"{NAMES.get(name, name):<24}{100 * accuracy:10.1f}{recalls}")
    return "\n".join(lines)


def collect_exhibits(out: Path, results: dict[str, Any]) -> Exhibits:
    """Curves, class means, single clips: what the report shows beyond the numbers."""
    shards = ShardFolder(out / "shards" / "test_single")
    labels = tuple((out / "world" / "labels.txt").read_text().split("\n")[:-1])
    classes = np.array([labels.index(shards.labels(i)[0]) for i in range(len(shards))])
    models = {name: load(out / "runs" / name) for name in ("untrained", "va", "at_ac")}
    sounds = {name: embed_audio(model, shards) for name, model in models.items()}
    store = EmbeddingStore.open(out / "frames" / "test_single")
    images = store.select(shards.ids).mean(axis=1)
    return Exhibits(
        curves={name: _rows(out / "runs" / name / "metrics.jsonl") for name in TRAINED},
        per_class={m: results["per_class"][m] for m in ("va", "at_ac", "at_gc")},
        labels=labels,
        image=_means(images, classes, len(labels)),
        audio=_means(sounds["at_ac"], classes, len(labels)),
        audio_before=_means(sounds["untrained"], classes, len(labels)),
        text=embed_texts(models["va"], labels, HEARD),
        points={"image": images, "audio": sounds["at_ac"]},
        point_labels=classes,
        clips=_shown(ShardFolder(out / "shards" / "test_mixed"), models["va"], models["at_ac"]),
    )


def _shown(shards: ShardFolder, before: Pivot, after: Pivot) -> tuple[ClipExhibit, ...]:
    """The first clips of the test set, so not chosen by their score."""
    texts = list(dict.fromkeys(text for i in range(len(shards)) for text in shards.captions(i)))
    vectors = embed_texts(before, texts)
    heard = [shards.sound(i) for i in range(min(SHOWN, len(shards)))]
    near = [_nearest(model.encode_audio(heard).cpu().numpy(), vectors, texts)
            for model in (before, after)]  # fmt: skip
    return tuple(
        ClipExhibit(
            id=shards.ids[i],
            label=", ".join(shards.labels(i)),
            captions=shards.captions(i),
            frames=tuple(shards.frame(i, k) for k in range(shards.num_frames)),
            sound=_wav(*sound),
            before=near[0][i],
            after=near[1][i],
        )
        for i, sound in enumerate(heard)
    )


def _nearest(
    sounds: Floats, vectors: Floats, texts: list[str]
) -> list[tuple[tuple[float, str], ...]]:
    scores = sounds @ vectors.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
    return [tuple((float(scores[i, j]), texts[j]) for j in row) for i, row in enumerate(best)]


def _means(x: Floats, classes: np.ndarray, count: int) -> Floats:
    """Class means (count, d) at unit length; a class without clips is zero."""
    means = np.zeros((count, x.shape[1]), dtype=np.float32)
    for c in np.unique(classes):
        mean = x[classes == c].mean(axis=0)
        means[c] = mean / np.linalg.norm(mean)
    return means


def _wav(wave: np.ndarray, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.T, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _clips(out: Path) -> dict[str, int]:
    """Videos made, prepared and failed, over all splits."""
    made = prepared = 0
    for split in SPLITS:
        made += len(_rows(out / "world" / split / "clips.jsonl"))
        prepared += len(ShardFolder(out / "shards" / split))
    return {"made": made, "prepared": prepared, "failed": made - prepared}


def _mined(out: Path) -> dict[str, Any]:
    return {path.stem: len(read_pairs(path)) for path in sorted((out / "pairs").glob("*.parquet"))}


def _written(out: Path) -> dict[str, Any]:
    """How many captions the language model wrote, what was dropped, and the first few."""
    file = out / FREE
    told = _read(file.parent / "results.json")
    texts = [row["caption"] for row in _rows(file)[:SHOWN]]
    return {key: told[key] for key in ("captions", "rows", "dropped")} | {"examples": texts}


def _last_layers(out: Path) -> list[dict[str, Any]]:
    """Accuracy of the classifiers, by the number of blocks that trained with the head."""
    found = {n: _read(out / "runs" / f"classifier-{n}" / "results.json") for n in LAYERS}
    return [{"layers": n, "accuracy": told["accuracy"]} for n, told in found.items()]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
