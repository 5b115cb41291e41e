"""The table that `pivot evaluate` prints: what was measured, on what, and what is missing."""

from __future__ import annotations

from typing import Any

from pivot.evaluation.checkpoints import main_numbers, scores_of, spoken
from pivot.evaluation.clips import Clips

RETRIEVAL = (
    ("audio to text", "retrieval", "audio_to_text"),
    ("text to audio", "retrieval", "text_to_audio"),
    ("Oracle: image to text", "retrieval_clip_image", "audio_to_text"),
    ("Oracle: text to image", "retrieval_clip_image", "text_to_audio"),
    ("image to audio", "image_audio", "image_to_audio"),
    ("audio to image", "image_audio", "audio_to_image"),
)
COLUMNS = (("r1", "R@1"), ("r5", "R@5"), ("r10", "R@10"), ("r50", "R@50"))
FIRST = 24  # width of the column of names


def table(results: dict[str, Any], clips: Clips, prompt: str, pool: str) -> str:
    """The whole table, ready to print; shares in percent."""
    parts = (
        _coverage(results, clips),
        _gap(results.get("gap"), results),
        _zero_shot(results, prompt, pool),
        _retrieval(results),
        _by_labels(results.get("image_audio", {})),
        _pivotability(results),
        _geometry(results.get("geometry")),
        _checkpoints(results),
    )
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _coverage(results: dict[str, Any], clips: Clips) -> list[str]:
    """What the numbers are about, and all that is missing or was left out."""
    found, lines = results["dataset"], []
    name, measured = found["name"] or clips.shards.path, found["measured"]
    whole = found["official"] or found["listed"] or found["present"]
    lines.append(f"{name}: {measured:,} of {whole:,} clips" if measured != whole
                 else f"{name}: all {measured:,} clips")  # fmt: skip
    if clips.split is not None:
        lines[0] += f", those of its split {clips.split}"
    if clips.chosen and clips.chosen["unknown"]:
        some = ", ".join(clips.chosen["unknown_ids"][:3])
        lines.append(
            f"  {clips.chosen['unknown']:,} of {clips.chosen['listed']:,} ids are not here: {some}"
        )
    if clips.chosen and clips.chosen["repeated"]:
        lines.append(f"  {clips.chosen['repeated']:,} ids stand more than once; they count once")
    if clips.other_captions:
        lines.append(f"  {clips.other_captions:,} captions are of clips that are not measured")
    if clips.wordless:
        lines.append(f"  no zero-shot classification: {clips.wordless}")
    return lines + _captions(results.get("captions_per_clip")) + _labels(results, clips)


def _captions(histogram: dict[str, int] | None) -> list[str]:
    if not histogram or len(histogram) == 1:
        return []
    most = max(map(int, histogram))
    parts = ", ".join(f"{count:,} have {n}" for n, count in histogram.items() if int(n) != most)
    return [f"  captions: {histogram[str(most)]:,} clips have {most}, {parts}"]


def _labels(results: dict[str, Any], clips: Clips) -> list[str]:
    found, lines = results.get("zero_shot"), []
    if found is None:
        return []
    if found["unlabelled"]:
        lines.append(f"  {found['unlabelled']:,} clips have no label and are not classified")
    official = results["dataset"]["classes"]
    if official is not None and found["classes"] < official:
        lines.append(
            f"  only {found['classes']} of {results['dataset']['name']}'s {official} classes are "
            "told apart, which is easier; give the whole list as --labels"
        )
    if empty := found["classes_without_clips"] or clips.unused_labels:
        role = "they are left out" if clips.unused_labels else "they stay as wrong answers"
        count = found["classes"] + len(clips.unused_labels)
        some = ", ".join(empty[:3])
        lines.append(f"  {len(empty)} of {count} labels have no clip ({some}, ...); {role}")
    return lines


def _zero_shot(results: dict[str, Any], prompt: str, pool: str) -> list[str]:
    if "zero_shot" not in results:
        return []
    found = results["zero_shot"]
    key = "accuracy" if "accuracy" in found else "map"
    word = "accuracy" if key == "accuracy" else "mAP"
    score = "dot product" if results["compat"]["score"] == "dot" else "cosine"
    lines = [
        f"zero-shot {word} in %, by {score}: {found['n']:,} clips, {found['classes']} classes, "
        f"chance {100 * found['chance']:.1f}"
    ]
    rows = [(f'"{prompt}"' if prompt else "no prompt", "zero_shot")]
    rows += [("without the prompt", "zero_shot_without_prompt")] if prompt else []
    rows += [("Oracle: CLIP on frames", "clip_image_zero_shot")]
    lines += [
        f"  {name:<{FIRST}}{100 * results[where][key]:7.1f}"
        for name, where in rows
        if where in results
    ]
    return lines + _folds(results.get("folds"), pool, bool(prompt))


def _gap(gap: dict[str, Any] | None, results: dict[str, Any]) -> list[str]:
    """What closing the gap changed, and where the means come from."""
    if gap is None:
        return []
    how = {"centre": "centring", "whiten": "whitening"}[gap["how"]]
    lines = [f"modality gap closed by {how}: all numbers below; before -> after in %"]
    before, after = scores_of([gap["open"]]), scores_of([main_numbers(results)])
    for name, value in before.items():
        change = f"{100 * value[0]:7.1f} -> {100 * after[name][0]:.1f}"
        lines.append(f"  {spoken(name):<{FIRST + 4}}{change}")
    for name, about in gap["from"].items():
        rows = f"{about['rows']:,} rows"
        lines.append(f"  mean of {name.replace('_', ' ')}: {about['source']}, {rows}")
    return lines


def _folds(found: dict[str, Any] | None, pool: str, prompted: bool) -> list[str]:
    if found is None:
        return []
    scores = " ".join(f"{100 * row['accuracy']:.1f}" for row in found["folds"])
    said = f"{100 * found['mean']:.1f} ± {100 * found['deviation']:.1f}"
    lines = [f"  {len(found['folds'])} folds: {said} (mean ± deviation; {scores})"]
    if prompted:
        bare = found["without_prompt"]
        lines[0] += f", without the prompt {100 * bare['mean']:.1f} ± {100 * bare['deviation']:.1f}"
    if pool == "per_fold":
        lines.append("  the folds' mean is the score; the rows above pool all clips")
    if found["without_fold"]:
        lines.append(f"  {found['without_fold']:,} clips have no fold: pooled only")
    return lines


def _retrieval(results: dict[str, Any]) -> list[str]:
    rows = [(name, results[key][way]) for name, key, way in RETRIEVAL if key in results]
    if not rows:
        return []
    head = "".join(f"{title:>7}" for _, title in COLUMNS)
    lines = [f"{'retrieval':<{FIRST + 2}}{head}{'medR':>7}{'meanR':>8}{'mAP@10':>8}{'queries':>9}"]
    for name, n in rows:
        shares = "".join(f"{100 * n[key]:7.1f}" for key, _ in COLUMNS)
        rest = f"{n['medr']:7.0f}{n['meanr']:8.1f}{100 * n['map10']:8.1f}{n['queries']:9,d}"
        lines.append(f"  {name:<{FIRST}}{shares}{rest}")
    if results["compat"]["name"] == "laion" and "retrieval" in results:
        lines.append("  mAP@10 as LAION-CLAP's code: captions not sorted by rank, too high")
    return lines


def _by_labels(found: dict[str, Any]) -> list[str]:
    if "image_by_labels" not in found:
        return []
    lines = [f"{'nearest by label set':<{FIRST + 2}}{'P@1':>7}{'R@1':>7}{'mAP':>7}{'mAR':>7}"]
    for name, key in (("image to audio", "image_by_labels"), ("audio to image", "audio_by_labels")):
        n = found[key]
        keys = ("precision", "recall", "group_precision", "group_recall")
        lines.append(f"  {name:<{FIRST}}" + "".join(f"{100 * n[k]:7.1f}" for k in keys))
    return lines


def _pivotability(results: dict[str, Any]) -> list[str]:
    if "pivotability" not in results:
        return []
    curve, pivotable = results["pivotability"], results["pivotable"]
    shown = [k for k in ("1", "2", "3", "5", "10", "20", "50") if k in curve]
    count = f"{pivotable['count']['5']:,} of {pivotable['clips']:,} clips"
    return [
        "pivotability in %" + " " * (FIRST - 15) + "".join(f"{'k=' + k:>7}" for k in shown),
        f"  {'captions reached':<{FIRST}}" + "".join(f"{100 * curve[k]:7.1f}" for k in shown),
        f"  {'pivotable clips':<{FIRST}}"
        + "".join(f"{100 * pivotable['share'][k]:7.1f}" for k in shown),
        f"  pivotable through 5 images: {count} (60 % of their captions or more)",
    ]


def _geometry(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    gaps = ", ".join(f"{k.replace('_', '-')} {v:.2f}" for k, v in found["gap"].items())
    spreads = ", ".join(f"{k} {v:.2f}" for k, v in found["spread"].items())
    lines = [f"  {'cosine within':<{FIRST}}{spreads}"]
    if gaps:
        lines.insert(0, f"  {'gap between means':<{FIRST}}{gaps}")
    if near := found["partner_cosine"]:
        said = ", ".join(f"{k.replace('_', '-')} {v:.2f}" for k, v in near.items())
        lines.append(f"  {'cosine of partners':<{FIRST}}{said}")
    return ["geometry", *lines]


def _checkpoints(results: dict[str, Any]) -> list[str]:
    rows = results.get("checkpoints")
    if not rows:
        return []
    best = {name: n for name, n in results["best"].items() if name != "chosen_on"}
    lines = [f"{len(rows)} kept models; best epoch by each score on these clips (optimistic):"]
    for name, n in best.items():
        lines.append(f"  {spoken(name):<28}{100 * n['score']:7.1f}  epoch {n['epoch']}")
    return lines
